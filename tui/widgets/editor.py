"""Text fields that keep control sequences out."""

import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.widgets import TextArea

from ..keys import Action, bindings
from ..safe_text import safe_text

#: Maximum characters of a text. No model here reads as many, and a text area takes seconds for a megabyte.
MAX_TEXT_CHARACTERS = 20_000

#: Replaces Ctrl-Y of the text area, which is Copy in the chat.
_REDO_BINDING = Binding("alt+z", "redo", "Redo", show=False)


def types_text(event: Key) -> bool:
    """Whether a key types its character. A key with Alt carries a character too, but does not type it."""
    return (event.is_printable and not event.key.startswith("alt+")) or _types_format_character(event)


def _types_format_character(event: Key) -> bool:
    """Whether a key types a format character (Unicode category Cf), such as the joiners in words and emoji.
    Python, and so Textual, considers these unprintable."""
    return any(unicodedata.category(character) == "Cf" for character in event.character or "")


if TYPE_CHECKING:
    from textual.widget import Widget
else:  # if the mixin were a widget, the styles of the other base class would be lost
    Widget = object


class TextFieldMixin(Widget):
    """A text field that accepts every character that can be typed and leaves other keys to their bindings."""

    def on_key(self, event: Key) -> None:
        if _types_format_character(event):
            event.stop()
            event.prevent_default()
            self.replace_selection(event.character or "")
        elif not types_text(event) and (event.is_printable or event.key in self.screen.active_bindings):
            event.prevent_default()

    def action_copy(self) -> None:
        """Copy the selection of the field, unless the mouse selected text elsewhere on the screen."""
        if self.screen.selections:
            raise SkipAction
        super().action_copy()  # type: ignore[misc]

    def replace_selection(self, text: str) -> None:
        """Insert a text at the cursor, replacing the selection."""
        raise NotImplementedError


class Editor(TextFieldMixin, TextArea, inherit_bindings=False):
    """A text area. `ACTIONS` are all actions available while it has the focus: their keys do not edit.
    `TEXT_NAME` names the text in messages."""

    ACTIONS: ClassVar[tuple[Action, ...]] = ()
    TEXT_NAME = "text"

    @staticmethod
    def editor_bindings(own: Iterable[Action], others: Iterable[Action]) -> list[BindingType]:
        """The `BINDINGS` of an editor: its `own` actions and those of the text area, except for keys that
        `others` use. Keys that move the cursor or delete a character are not listed in help."""
        first = [*bindings(own), _REDO_BINDING]
        taken = {binding.key for binding in Binding.make_bindings([*first, *bindings(others)])}
        edit = [b for b in Binding.make_bindings(TextArea.BINDINGS) if b.key not in taken]
        expected = ("cursor_", "delete_left", "delete_right")
        return [*first, *(replace(b, system=b.action.startswith(expected)) for b in edit)]

    def on_mount(self) -> None:
        """Remove the editor's bindings of keys that `keys.toml` gives to an action."""
        ids = {action.id for action in self.ACTIONS}
        for id, keys in self.app._keymap.items():
            for key in keys.split(",") if id in ids else ():
                bound = self._bindings.key_to_bindings.get(key, [])
                if not any(binding.id for binding in bound):
                    self._bindings.key_to_bindings.pop(key, None)

    def set_text(self, text: str) -> None:
        """Replace the text. Control sequences, which a stored text may contain, are made visible."""
        self.load_text(safe_text(text))
        self.move_cursor(self.document.end)

    def on_paste(self, event: Paste) -> None:
        """Insert the pasted text without its control sequences."""
        event.prevent_default()
        event.stop()
        if len(event.text) > MAX_TEXT_CHARACTERS - len(self.text):
            self.notify(
                f"The pasted text is too long: {self.TEXT_NAME} can have at most "
                f"{MAX_TEXT_CHARACTERS:,} characters",
                severity="warning",
            )
            return
        self.replace_selection(event.text)

    def replace_selection(self, text: str) -> None:
        self.replace(safe_text(text), *self.selection, maintain_selection_offset=False)
        self.scroll_cursor_visible()
