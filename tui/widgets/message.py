"""What one side said, as a row of the conversation: who, the text, and a mark where there is one to make."""

from textual.app import ComposeResult
from textual.containers import HorizontalGroup, VerticalGroup
from textual.content import Content
from textual.widgets import Static

from ..plain import content

#: Stands after the text while more of it is to come.
CARET = "▌"


class ChatMessage(HorizontalGroup):
    """A text with who says it in front. The text keeps clear of the names' column when it wraps."""

    def __init__(self, who: str, text: str, *, classes: str) -> None:
        super().__init__(classes=classes)
        self._who = who
        self._body = Static(content(text), classes="text")

    def compose(self) -> ComposeResult:
        yield Static(self._who, markup=False, classes="who")
        yield self._body


class UserMessage(ChatMessage):
    """A prompt that was sent."""

    def __init__(self, text: str) -> None:
        super().__init__("you", text, classes="user")


class ErrorMessage(ChatMessage):
    """What went wrong, in one sentence."""

    def __init__(self, text: str) -> None:
        super().__init__("error", text, classes="error")


class ReplyMessage(ChatMessage):
    """A reply that arrives piece by piece: settled text plain, the tail that may still change dim."""

    def __init__(self) -> None:
        super().__init__("bot", "", classes="reply")
        self._mark = Static("", markup=False, classes="mark")
        self._mark.display = False
        self._settled = self._tail = ""
        self.advance("", "")

    def compose(self) -> ComposeResult:
        yield Static(self._who, markup=False, classes="who")
        with VerticalGroup():
            yield self._body
            yield self._mark

    @property
    def text(self) -> str:
        """What the reply says so far, the tail included."""
        return self._settled + self._tail

    def advance(self, settled: str, tail: str) -> None:
        """Show all that is settled, and the unsettled rest."""
        self._settled, self._tail = settled, tail
        self._body.update(self._drawn() + Content.styled(CARET, "dim"))

    def finish(self, text: str, marks: tuple[str, ...] = ()) -> None:
        """Show the final text; each of `marks` gets a line below."""
        self._settled, self._tail = text, ""
        self._end(marks)

    def break_off(self, mark: str) -> None:
        """Nothing more will come: what there is stays, an unsettled tail dim as it was."""
        self._end((mark,))

    def _end(self, marks: tuple[str, ...]) -> None:
        self._body.update(self._drawn())
        self._body.display = bool(self.text)
        self._mark.update("\n".join(marks))
        self._mark.display = bool(marks)

    def _drawn(self) -> Content:
        return content(self._settled) + content(self._tail, "dim")
