"""Dialogs that ask for a text."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.widgets import Input, Static

from ..plain import content, plain
from .dialog import Dialog
from .field import Answer, Draft

#: Returns what is wrong with an answer, "" if nothing is.
Check = Callable[[str], str]


class Ask(Dialog[str]):
    """Ask for one line, accepted with Enter. The dialog stays open while `check` refuses the answer."""

    def __init__(self, title: str, text: str = "", *, note: str = "", check: Check | None = None) -> None:
        super().__init__(title)
        self._text, self._note, self._check = plain(text), note, check

    def compose_box(self) -> ComposeResult:
        yield Answer(self._text.replace("\n", " "))  # selected, so that typing replaces it
        yield Static(content(self._note), id="note", classes="explains")
        yield Static("", id="wrong")

    def on_input_changed(self) -> None:
        self.accept()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.take(event.value)

    def take(self, text: str) -> None:
        """Close with this answer, or refuse it."""
        wrong = self._check(text) if self._check else ""
        if wrong:
            self.refuse(wrong)
        else:
            self.dismiss(text)


class Write(Ask):
    """Ask for a text of several lines. To discard a changed text, the user must close the dialog twice."""

    def compose_box(self) -> ComposeResult:
        yield Static(content(f"{self._note} Enter inserts a line break."), id="note", classes="explains")
        yield Draft(self._text, highlight_cursor_line=False)
        yield Static("", id="wrong")

    def on_mount(self) -> None:
        area = self.query_one(Draft)
        area.move_cursor(area.document.end)

    def on_text_area_changed(self) -> None:
        self.accept()

    def action_done(self) -> None:
        self.take(self.query_one(Draft).text)

    def action_close(self) -> None:
        if self.query_one(Draft).text == self._text or self.has_class("-wrong"):
            self.dismiss(None)
        else:
            self.refuse("Your text is not saved. Close again to discard it.")
