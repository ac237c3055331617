"""Dialogs that ask for a text."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.widgets import Input, Static

from ..safe_text import safe_content, safe_text
from ..widgets.footer import first_key
from .dialog import Dialog
from .text_fields import AnswerEditor, AnswerField

#: Returns what is wrong with an answer, "" if nothing is.
Check = Callable[[str], str]


class AskDialog(Dialog[str]):
    """Ask for one line, accepted with Enter. The dialog stays open while `check` refuses the answer."""

    def __init__(self, title: str, text: str = "", *, note: str = "", check: Check | None = None) -> None:
        super().__init__(title)
        self._text, self._note, self._check = safe_text(text), note, check

    def compose_box(self) -> ComposeResult:
        yield AnswerField(self._text.replace("\n", " "))  # selected, so that typing replaces it
        yield Static(safe_content(self._note), id="note", classes="explains")
        yield Static("", id="wrong")

    def on_input_changed(self) -> None:
        self.clear_error()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.submit(event.value)

    def submit(self, text: str) -> None:
        """Close with this answer, or refuse it."""
        wrong = self._check(text) if self._check else ""
        if wrong:
            self.show_error(wrong)
        else:
            self.dismiss(text)


class WriteDialog(AskDialog):
    """Ask for a text of several lines. To discard a changed text, the user must close the dialog or quit
    twice."""

    def compose_box(self) -> ComposeResult:
        yield Static(safe_content(self._note), id="note", classes="explains")
        yield AnswerEditor(self._text, highlight_cursor_line=False)
        yield Static("", id="wrong")

    def on_mount(self) -> None:
        area = self.query_one(AnswerEditor)
        area.move_cursor(area.document.end)

    def on_descendant_focus(self) -> None:
        # The key is known only while the field has the focus. With few rows, there is no footer to show it.
        key = first_key(self, "write.done")
        keys = "Enter inserts a line break" + (f", {key} accepts the text." if key else ".")
        self.query_one("#note", Static).update(safe_content(f"{self._note} {keys}"))

    def on_text_area_changed(self) -> None:
        self.clear_error()

    def action_done(self) -> None:
        self.submit(self.query_one(AnswerEditor).text)

    def may_close(self) -> bool:
        if self.query_one(AnswerEditor).text == self._text or self.has_class("-wrong"):
            return True
        self.show_error("Your text is not saved. Close again to discard it, or quit again.")
        return False
