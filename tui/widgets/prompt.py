"""The input: several lines, Enter sends, up and down walk through what was sent before."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.widgets import TextArea

from ..history import PromptHistory
from ..keys import APP, CHAT, PROMPT, bindings
from ..messages import PromptRefused, PromptSubmitted
from ..plain import plain

#: Characters of a prompt. No model here reads as many, and a text area takes seconds for a megabyte.
LONGEST = 20_000

#: The terminal's own Ctrl-Y is a copy here.
_REDO = Binding("alt+z", "redo", "Redo", show=False)
_KEYS = (*bindings(PROMPT), _REDO)
#: Keys of the screen that the text area would take for itself.
_LEFT_TO_THE_SCREEN = {key for action in CHAT for key in action.keys.split(",")}
#: Actions that there are while the text area has the focus.
_WITH_THE_PROMPT = {action.id for action in (*APP, *PROMPT, *CHAT)}


def _editing_keys() -> Iterator[Binding]:
    """The text area's own keys, less those that mean something else here. Help does not list the ones
    that move the cursor: they are what everybody expects, and many."""
    taken = {binding.key for binding in Binding.make_bindings(_KEYS)} | _LEFT_TO_THE_SCREEN
    for binding in Binding.make_bindings(TextArea.BINDINGS):
        if binding.key not in taken:
            yield replace(
                binding, system=binding.action.startswith(("cursor_", "delete_left", "delete_right"))
            )


def writes(event: Key) -> bool:
    """Whether a key writes its character."""
    return event.is_printable or _formats(event)


def _formats(event: Key) -> bool:
    """Such as the joiners within words and emoji, which Python, and so a text area, take for unprintable."""
    return any(unicodedata.category(character) == "Cf" for character in event.character or "")


class Prompt(TextArea, inherit_bindings=False):
    """Where the user writes. It posts `PromptSubmitted` where it is `ready`, and is not until it is
    made so again; else `PromptRefused`, and keeps its text."""

    HELP = """
    ### Prompt

    Up on the first line and Down on the last walk through what you sent before.

    Shift+Enter makes a new line too where your terminal passes it on.
    """

    BINDING_GROUP_TITLE = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [*_KEYS, *_editing_keys()]

    def __init__(self, *, placeholder: str) -> None:
        super().__init__(placeholder=placeholder, highlight_cursor_line=False)
        self.ready = False
        self._history = PromptHistory()

    def on_mount(self) -> None:
        """A key that the user gave to an action of the chat is not the editor's any more. One of a view's is:
        it counts there."""
        for id, keys in self.app._keymap.items():
            for key in keys.split(",") if id in _WITH_THE_PROMPT else ():
                bindings = self._bindings.key_to_bindings.get(key, [])
                if not any(binding.id for binding in bindings):
                    self._bindings.key_to_bindings.pop(key, None)

    async def on_key(self, event: Key) -> None:
        """Run our own bindings here, in order with the characters. Textual looks for bindings only when
        a key has bubbled up: in what a slow line delivers at once, text would overtake Enter."""
        if _formats(event):
            event.stop()
            event.prevent_default()
            self._put(event.character or "")
            return
        with_alt = event.key.startswith("alt+")  # it comes with the letter, which was not meant
        active = self.screen.active_bindings.get(event.key) if with_alt or not event.is_printable else None
        ours = active is not None and (active.node is self or with_alt)
        if active and ours and await self.app.run_action(active.binding.action, active.node):
            event.stop()
            event.prevent_default()
        elif with_alt and event.is_printable:
            event.prevent_default()

    def give_back(self, text: str) -> None:
        """Put a text that was sent back into the input, unless the user writes the next one already."""
        if not self.text:
            self.write(text)

    def write(self, text: str) -> None:
        """Put a text into the input, in place of what was there."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    def remember(self, prompts: Sequence[str]) -> None:
        """Prompts of earlier conversations, oldest first, to walk through."""
        self._history.prepend(prompts)

    def action_send(self) -> None:
        text = self.text
        if not text.strip():
            return
        if not self.ready:
            self.post_message(PromptRefused())
            return
        self.ready = False
        self._history.add(text)
        self.load_text("")
        self.post_message(PromptSubmitted(text))

    def action_newline(self) -> None:
        self._put("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self.navigator.is_first_wrapped_line(self.cursor_location):
            super().action_cursor_up(select)
        elif (text := self._history.previous(self.text)) is not None:
            self.write(text)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self.navigator.is_last_wrapped_line(self.cursor_location):
            super().action_cursor_down(select)
        elif (text := self._history.next(self.text)) is not None:
            self.write(text)

    def on_paste(self, event: Paste) -> None:
        """Terminals pass on what was copied, control sequences and all."""
        event.prevent_default()
        event.stop()
        if len(event.text) > LONGEST - len(self.text):
            self.notify(f"That is too long: a prompt has at most {LONGEST:,} characters", severity="warning")
            return
        self._put(event.text)

    def _put(self, text: str) -> None:
        """Write a text where the cursor is, in place of what is selected."""
        self.replace(plain(text), *self.selection, maintain_selection_offset=False)
        self.scroll_cursor_visible()
