"""What is written in, in a box over the chat."""

from typing import ClassVar

from textual.binding import BindingType
from textual.events import Paste
from textual.widgets import Input

from ..keys import ASK, OVER, WRITE, bindings
from ..plain import plain
from ..widgets.editor import LONGEST, Editor, Writable


class Field(Writable, Input, inherit_bindings=False):
    """One line, without the keys that would scroll it: Up and Down are those of the list below, if any."""

    BINDINGS: ClassVar[list[BindingType]] = list(Input.BINDINGS)

    def on_paste(self, event: Paste) -> None:
        """One line of it, without control sequences."""
        event.prevent_default()
        event.stop()
        self.put((event.text[:LONGEST].splitlines() or [""])[0])

    def put(self, text: str) -> None:
        self.replace(plain(text), *self.selection)


class Answer(Field):
    """What is written is taken with a key of ours, which help names."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(ASK)
    BINDING_GROUP_TITLE = "Here"


class Draft(Editor, inherit_bindings=False):
    """Several lines."""

    BINDINGS: ClassVar[list[BindingType]] = Editor.keys(WRITE, OVER)
    BINDING_GROUP_TITLE = "Here"
    ACTIONS = (*WRITE, *OVER)
    WHAT = "a reply"
