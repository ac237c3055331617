"""The text fields of dialogs."""

from typing import ClassVar

from textual.binding import BindingType
from textual.events import Paste
from textual.widgets import Input

from ..keys import ASK, DIALOG, WRITE, bindings
from ..plain import plain
from ..widgets.editor import LONGEST, Editor, Writable


class Field(Writable, Input, inherit_bindings=False):
    """A field of one line. It leaves Up, Down, Page Up and Page Down to a list below it."""

    BINDINGS: ClassVar[list[BindingType]] = list(Input.BINDINGS)

    def on_paste(self, event: Paste) -> None:
        """Insert the first line of the pasted text, without its control sequences."""
        event.prevent_default()
        event.stop()
        self.put((event.text[:LONGEST].splitlines() or [""])[0])

    def put(self, text: str) -> None:
        self.replace(plain(text), *self.selection)


class Answer(Field):
    """A field whose Enter key is one of the chat's actions, so that help lists it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(ASK)
    BINDING_GROUP_TITLE = "Here"


class Draft(Editor, inherit_bindings=False):
    """A field of several lines."""

    BINDINGS: ClassVar[list[BindingType]] = Editor.keys(WRITE, DIALOG)
    BINDING_GROUP_TITLE = "Here"
    ACTIONS = (*WRITE, *DIALOG)
    WHAT = "a reply"
