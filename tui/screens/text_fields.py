"""The text fields of dialogs."""

from typing import ClassVar

from textual.binding import BindingType
from textual.events import Paste
from textual.widgets import Input

from ..keys import ASK_ACTIONS, DIALOG_ACTIONS, WRITE_ACTIONS, bindings
from ..safe_text import safe_text
from ..widgets.editor import MAX_TEXT_CHARACTERS, Editor, TextFieldMixin


class Field(TextFieldMixin, Input, inherit_bindings=False):
    """A field of one line. It leaves Up, Down, Page Up and Page Down to a list below it."""

    BINDINGS: ClassVar[list[BindingType]] = list(Input.BINDINGS)

    def on_paste(self, event: Paste) -> None:
        """Insert the first line of the pasted text, without its control sequences."""
        event.prevent_default()
        event.stop()
        self.replace_selection((event.text[:MAX_TEXT_CHARACTERS].splitlines() or [""])[0])

    def replace_selection(self, text: str) -> None:
        self.replace(safe_text(text), *self.selection)


class AnswerField(Field):
    """A field whose Enter key is one of the chat's actions, so that help lists it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(ASK_ACTIONS)
    BINDING_GROUP_TITLE = "Here"


class AnswerEditor(Editor, inherit_bindings=False):
    """A field of several lines."""

    BINDINGS: ClassVar[list[BindingType]] = Editor.editor_bindings(WRITE_ACTIONS, DIALOG_ACTIONS)
    BINDING_GROUP_TITLE = "Here"
    ACTIONS = (*WRITE_ACTIONS, *DIALOG_ACTIONS)
    TEXT_NAME = "a reply"
