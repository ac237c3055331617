"""The messages of the conversation: who said it, the text, and notes below it."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.containers import HorizontalGroup
from textual.content import Content
from textual.selection import Selection
from textual.widgets import Static

from ..messages import ReplySelected
from ..safe_text import safe_content
from .hanging_indent import HangingIndent
from .lines import one_line

#: Follows the text of a reply that is not finished.
CARET = "▌"
#: Width of the speaker's column.
SPEAKER_CELLS = 6


class ChatMessage(Static):
    """A text with its speaker in a column on the left. `number` is the exchange of the message, None for an
    error. `side` is 0 for the first bundle's reply and 1 for the second's."""

    SPEAKER: ClassVar[str]
    SPEAKER_STYLE: ClassVar[str] = "bold"

    def __init__(self, text: str, number: int | None = None, side: int = 0) -> None:
        super().__init__()
        self.number, self.side = number, side
        self._show(safe_content(text))

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self._hanging.text.plain), "\n"

    def on_click(self, event: events.Click) -> None:
        if self.number is not None:
            self.post_message(ReplySelected(self.number, self.side))

    def _show(self, text: Content, *, streaming: bool = False) -> None:
        self._hanging = HangingIndent(Content.styled(self.SPEAKER, self.SPEAKER_STYLE), text, SPEAKER_CELLS)
        # A layout takes time for every message, so a streaming reply only asks for one if its height changes.
        width, height = self.size
        same = streaming and width and self._hanging.get_height(self.styles.get_rules(), width) == height
        self.update(self._hanging, layout=not same)


class UserMessage(ChatMessage):
    """A prompt."""

    SPEAKER = "you"


class ErrorMessage(ChatMessage):
    """An error, in one sentence."""

    SPEAKER = "error"
    SPEAKER_STYLE = "bold $text-error"


class ReplyMessage(ChatMessage):
    """A reply, which may be streaming: settled text is plain, the tail that may still change is dim.
    `caption`, if any, is shown above the text and names the bundle."""

    SPEAKER = "bot"
    SPEAKER_STYLE = "bold $text-primary"

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

    def finish(self, text: str, notes: Sequence[str], caption: str | None = None) -> None:
        """Show the final text, with a line below it for each of `notes`. `caption` replaces the caption."""
        self._settled, self._tail = text, ""
        if caption is not None:
            self._caption = caption
        self._end(notes)

    def break_off(self, note: str) -> None:
        """Keep the text so far as it is, with an unsettled tail still dim, and add a note."""
        self._end([note])

    def _end(self, notes: Sequence[str]) -> None:
        lines = [self._text()] if self.text else []
        self._lines([*lines, *(safe_content(note, "dim italic") for note in notes)])

    def _lines(self, lines: Sequence[Content], *, streaming: bool = False) -> None:
        above = [safe_content(one_line(self._caption), "dim")] if self._caption else []
        self._show(Content("\n").join([*above, *lines]), streaming=streaming)

    def _text(self) -> Content:
        return safe_content(self._settled) + safe_content(self._tail, "dim")


class ReplyPair(HorizontalGroup):
    """The replies of two bundles to one prompt, side by side in a wide terminal."""
