"""The messages of the conversation: who said it, the text, and marks below it."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.containers import HorizontalGroup
from textual.content import Content
from textual.selection import Selection
from textual.widgets import Static

from ..messages import ReplyPicked
from ..plain import content
from .hanging import Hanging
from .lines import one_line

#: Follows the text of a reply that is not finished.
CARET = "▌"
#: Width of the speaker's column in cells.
WHO = 6


class ChatMessage(Static):
    """A text with its speaker in a column on the left. `number` is the exchange of the message, None for an
    error. `side` is 0 for the first bundle's reply and 1 for the second's."""

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
            self.post_message(ReplyPicked(self.number, self.side))

    def _show(self, text: Content, *, streaming: bool = False) -> None:
        self._hanging = Hanging(Content.styled(self.WHO, self.STYLE), text, WHO)
        # A layout takes time for every message, so a streaming reply only asks for one if its height changes.
        width, height = self.size
        same = streaming and width and self._hanging.get_height(self.styles.get_rules(), width) == height
        self.update(self._hanging, layout=not same)


class UserMessage(ChatMessage):
    """A prompt."""

    WHO = "you"


class ErrorMessage(ChatMessage):
    """An error, in one sentence."""

    WHO = "error"
    STYLE = "bold $text-error"


class ReplyMessage(ChatMessage):
    """A reply, which may be streaming: settled text is plain, the tail that may still change is dim.
    `caption`, if any, is shown above the text and names the bundle."""

    WHO = "bot"
    STYLE = "bold $text-primary"

    def __init__(self, number: int, side: int, caption: str) -> None:
        self._caption = caption
        super().__init__("", number, side)
        self.advance("", "")

    @property
    def text(self) -> str:
        """The text of the reply so far, including the tail."""
        return self._settled + self._tail

    def advance(self, settled: str, tail: str) -> None:
        """Show a streaming reply: all settled text and the unsettled tail."""
        self._settled, self._tail = settled, tail
        self._lines([self._text() + Content.styled(CARET, "dim")], streaming=True)

    def finish(self, text: str, marks: Sequence[str], caption: str | None = None) -> None:
        """Show the final text, with a line below it for each of `marks`. `caption` replaces the caption."""
        self._settled, self._tail = text, ""
        if caption is not None:
            self._caption = caption
        self._end(marks)

    def break_off(self, mark: str) -> None:
        """Keep the text so far as it is, with an unsettled tail still dim, and add a mark."""
        self._end([mark])

    def _end(self, marks: Sequence[str]) -> None:
        lines = [self._text()] if self.text else []
        self._lines([*lines, *(content(mark, "dim italic") for mark in marks)])

    def _lines(self, lines: Sequence[Content], *, streaming: bool = False) -> None:
        above = [content(one_line(self._caption), "dim")] if self._caption else []
        self._show(Content("\n").join([*above, *lines]), streaming=streaming)

    def _text(self) -> Content:
        return content(self._settled) + content(self._tail, "dim")


class ReplyPair(HorizontalGroup):
    """The replies of two bundles to one prompt, side by side in a wide terminal."""
