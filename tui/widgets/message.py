"""What one side said, as a row of the conversation: who, the text, and a mark where there is one to make."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.containers import HorizontalGroup
from textual.content import Content
from textual.selection import Selection
from textual.widgets import Static

from ..messages import TurnPicked
from ..plain import content
from .hanging import Hanging
from .lines import one_line

#: Stands after the text while more of it is to come.
CARET = "▌"
#: Cells of the column that says who.
WHO = 6


class ChatMessage(Static):
    """A text with who says it in front. The text keeps clear of the names' column when it wraps. `number`
    is the exchange's that it belongs to, None for one that belongs to none, and `side` the reply's."""

    WHO: ClassVar[str]
    STYLE: ClassVar[str] = "bold"

    def __init__(self, text: str, number: int | None = None, side: int = 0) -> None:
        super().__init__()
        self.number, self.side = number, side
        self._show(content(text))

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self._hanging.text.plain), "\n"

    def on_click(self, event: events.Click) -> None:
        if self.number is not None:
            self.post_message(TurnPicked(self.number, self.side))

    def _show(self, text: Content, *, streaming: bool = False) -> None:
        self._hanging = Hanging(Content.styled(self.WHO, self.STYLE), text, WHO)
        # To lay out anew costs time with each message there is: a reply that streams does so only where its
        # height changes.
        width, height = self.size
        same = streaming and width and self._hanging.get_height(self.styles.get_rules(), width) == height
        self.update(self._hanging, layout=not same)


class UserMessage(ChatMessage):
    """A prompt that was sent."""

    WHO = "you"


class ErrorMessage(ChatMessage):
    """What went wrong, in one sentence."""

    WHO = "error"
    STYLE = "bold $text-error"


class ReplyMessage(ChatMessage):
    """A reply that arrives piece by piece: settled text plain, the tail that may still change dim. `caption`
    stands above it, where who speaks is not plain."""

    WHO = "bot"
    STYLE = "bold $text-primary"

    def __init__(self, number: int, side: int, caption: str) -> None:
        self._caption = caption
        super().__init__("", number, side)
        self.advance("", "")

    @property
    def text(self) -> str:
        """What the reply says so far, the tail included."""
        return self._settled + self._tail

    def advance(self, settled: str, tail: str) -> None:
        """Show all that is settled, and the unsettled rest."""
        self._settled, self._tail = settled, tail
        self._lines([self._said() + Content.styled(CARET, "dim")], streaming=True)

    def finish(self, text: str, marks: Sequence[str], caption: str | None = None) -> None:
        """Show the final text; each of `marks` gets a line below."""
        self._settled, self._tail = text, ""
        if caption is not None:
            self._caption = caption
        self._end(marks)

    def break_off(self, mark: str) -> None:
        """Nothing more will come: what there is stays, an unsettled tail dim as it was."""
        self._end([mark])

    def _end(self, marks: Sequence[str]) -> None:
        lines = [self._said()] if self.text else []
        self._lines([*lines, *(content(mark, "dim italic") for mark in marks)])

    def _lines(self, lines: Sequence[Content], *, streaming: bool = False) -> None:
        above = [content(one_line(self._caption), "dim")] if self._caption else []
        self._show(Content("\n").join([*above, *lines]), streaming=streaming)

    def _said(self) -> Content:
        return content(self._settled) + content(self._tail, "dim")


class ReplyPair(HorizontalGroup):
    """The replies of two bundles to one prompt, side by side where there is room."""
