"""What one side said, as a row of the conversation: who, the text, and a mark where there is one to make."""

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.selection import Selection
from textual.widgets import Static

from ..plain import content
from .hanging import Hanging

#: Stands after the text while more of it is to come.
CARET = "▌"
#: Cells of the column that says who.
WHO = 7


class ChatMessage(Static):
    """A text with who says it in front. The text keeps clear of the names' column when it wraps."""

    WHO: ClassVar[str]
    STYLE: ClassVar[str] = "bold"

    def __init__(self, text: str) -> None:
        super().__init__()
        self._show(content(text))

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self._hanging.text.plain), "\n"

    def _show(self, text: Content) -> None:
        self._hanging = Hanging(Content.styled(self.WHO, self.STYLE), text, WHO)
        # To lay out anew costs time with each message there is: only where the height changes.
        width, height = self.size
        same = width and self._hanging.get_height(self.styles.get_rules(), width) == height
        self.update(self._hanging, layout=not same)


class UserMessage(ChatMessage):
    """A prompt that was sent."""

    WHO = "you"


class ErrorMessage(ChatMessage):
    """What went wrong, in one sentence."""

    WHO = "error"
    STYLE = "bold $text-error"


class ReplyMessage(ChatMessage):
    """A reply that arrives piece by piece: settled text plain, the tail that may still change dim."""

    WHO = "bot"
    STYLE = "bold $text-primary"

    def __init__(self) -> None:
        super().__init__("")
        self.advance("", "")

    @property
    def text(self) -> str:
        """What the reply says so far, the tail included."""
        return self._settled + self._tail

    def advance(self, settled: str, tail: str) -> None:
        """Show all that is settled, and the unsettled rest."""
        self._settled, self._tail = settled, tail
        self._show(self._said() + Content.styled(CARET, "dim"))

    def finish(self, text: str, marks: Sequence[str] = ()) -> None:
        """Show the final text; each of `marks` gets a line below."""
        self._settled, self._tail = text, ""
        self._end(marks)

    def break_off(self, mark: str) -> None:
        """Nothing more will come: what there is stays, an unsettled tail dim as it was."""
        self._end([mark])

    def _end(self, marks: Sequence[str]) -> None:
        lines = [self._said()] if self.text else []
        self._show(Content("\n").join([*lines, *(Content.styled(mark, "italic") for mark in marks)]))

    def _said(self) -> Content:
        return content(self._settled) + content(self._tail, "dim")
