"""What can be written in. No control sequence gets in."""

import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.widgets import TextArea

from ..keys import Action, bindings
from ..plain import plain

#: Characters of one text. No model here reads as many, and a text area takes seconds for a megabyte.
LONGEST = 20_000

#: In place of the text area's own Ctrl-Y, which copies in the chat.
_REDO = Binding("alt+z", "redo", "Redo", show=False)


def writes(event: Key) -> bool:
    """Whether a key writes its character. With Alt it comes with the letter, which was not meant."""
    return (event.is_printable and not event.key.startswith("alt+")) or _formats(event)


def _formats(event: Key) -> bool:
    """Such as the joiners within words and emoji, which Python, and so Textual, take for unprintable."""
    return any(unicodedata.category(character) == "Cf" for character in event.character or "")


if TYPE_CHECKING:
    from textual.widget import Widget
else:  # a mixin that is a widget itself would cut the other base's styles off
    Widget = object


class Writable(Widget):
    """Takes all that can be typed, and leaves keys that mean something else to their bindings."""

    def on_key(self, event: Key) -> None:
        if _formats(event):
            event.stop()
            event.prevent_default()
            self.put(event.character or "")
        elif not writes(event) and (event.is_printable or event.key in self.screen.active_bindings):
            event.prevent_default()

    def action_copy(self) -> None:
        """What was marked last: the mouse may have marked what stands beside."""
        if self.screen.selections:
            raise SkipAction
        super().action_copy()  # type: ignore[misc]

    def put(self, text: str) -> None:
        """Write a text where the cursor is, in place of what is selected."""
        raise NotImplementedError


class Editor(Writable, TextArea, inherit_bindings=False):
    """Several lines. `ACTIONS` are all that there are while it has the focus: their keys do not edit."""

    ACTIONS: ClassVar[tuple[Action, ...]] = ()
    WHAT = "text"

    @staticmethod
    def keys(own: Iterable[Action], others: Iterable[Action]) -> list[BindingType]:
        """For a `BINDINGS`: the keys of its own actions, and the text area's less those that mean something
        else here. Help does not list what moves the cursor: everybody expects it."""
        first = [*bindings(own), _REDO]
        taken = {binding.key for binding in Binding.make_bindings([*first, *bindings(others)])}
        edit = [b for b in Binding.make_bindings(TextArea.BINDINGS) if b.key not in taken]
        expected = ("cursor_", "delete_left", "delete_right")
        return [*first, *(replace(b, system=b.action.startswith(expected)) for b in edit)]

    def on_mount(self) -> None:
        """A key that the user gave to an action is not the editor's any more."""
        ids = {action.id for action in self.ACTIONS}
        for id, keys in self.app._keymap.items():
            for key in keys.split(",") if id in ids else ():
                bound = self._bindings.key_to_bindings.get(key, [])
                if not any(binding.id for binding in bound):
                    self._bindings.key_to_bindings.pop(key, None)

    def write(self, text: str) -> None:
        """Put a text in place of what was there. One that was kept may hold anything."""
        self.load_text(plain(text))
        self.move_cursor(self.document.end)

    def on_paste(self, event: Paste) -> None:
        """Terminals pass on what was copied, control sequences and all."""
        event.prevent_default()
        event.stop()
        if len(event.text) > LONGEST - len(self.text):
            said = f"That is too long: {self.WHAT} has at most {LONGEST:,} characters"
            self.notify(said, severity="warning")
            return
        self.put(event.text)

    def put(self, text: str) -> None:
        self.replace(plain(text), *self.selection, maintain_selection_offset=False)
        self.scroll_cursor_visible()
