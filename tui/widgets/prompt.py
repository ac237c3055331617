"""The prompt: a text area where Enter sends and Up and Down recall earlier prompts."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType

from ..keys import APP_ACTIONS, CHAT_ACTIONS, PROMPT_ACTIONS
from ..messages import PromptRefused, PromptSubmitted
from ..prompt_history import PromptHistory
from .editor import Editor


class Prompt(Editor, inherit_bindings=False):
    """Where the user writes prompts.

    If it is `ready`, sending posts `PromptSubmitted` and makes it not ready, until its owner makes it ready
    again. Otherwise sending posts `PromptRefused` and keeps the text.
    """

    HELP = """
    ### Prompt

    Up on the first line and Down on the last line recall earlier prompts.

    Shift+Enter inserts a line break too if your terminal sends it.
    """

    BINDING_GROUP_TITLE = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = Editor.editor_bindings(PROMPT_ACTIONS, CHAT_ACTIONS)
    ACTIONS = (*APP_ACTIONS, *PROMPT_ACTIONS, *CHAT_ACTIONS)
    TEXT_NAME = "a prompt"

    def __init__(self) -> None:
        super().__init__(placeholder="Say something", highlight_cursor_line=False)
        self.ready = False
        self._history = PromptHistory()

    def restore_sent(self, text: str) -> None:
        """Restore a sent text, unless the user has started to write the next prompt."""
        if not self.text:
            self.set_text(text)

    def add_to_history(self) -> None:
        """Add the current text, which was not sent, to the history."""
        if self.text.strip():
            self._history.add(self.text)

    def add_earlier_prompts(self, prompts: Sequence[str]) -> None:
        """Add prompts of earlier conversations, oldest first, to the history."""
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
        self.replace_selection("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self.navigator.is_first_wrapped_line(self.cursor_location):
            super().action_cursor_up(select)
        elif (text := self._history.previous(self.text)) is not None:
            self.set_text(text)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self.navigator.is_last_wrapped_line(self.cursor_location):
            super().action_cursor_down(select)
        elif (text := self._history.next(self.text)) is not None:
            self.set_text(text)
