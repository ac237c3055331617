"""A dialog with a list, filtered by a text field above it."""

from collections.abc import Iterable
from typing import TypeVar

from textual import events, getters
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..safe_text import safe_content
from ..store import MAX_LISTED
from .dialog import Dialog
from .text_fields import Field

T = TypeVar("T")


class Rows(OptionList):
    """The list. It ignores clicks on rows that were removed after they were drawn."""

    def on_click(self, event: events.Click) -> None:
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()


class ListDialog(Dialog[T]):
    """A field that keeps the focus, with a list and a note below it. Subclasses fill the list."""

    query_input = getters.query_one(Input)
    options = getters.query_one(OptionList)
    note = getters.query_one("#note", Static)

    def __init__(self, title: str, placeholder: str, note: str = "") -> None:
        super().__init__(title)
        self._placeholder, self._first_note = placeholder, note

    def compose_box(self) -> ComposeResult:
        yield Field(placeholder=self._placeholder, select_on_focus=False)
        yield Static("", id="wrong")
        yield Rows()
        yield Static(
            safe_content(self._first_note), id="note", classes="explains" if self._first_note else ""
        )

    def on_mount(self) -> None:
        self.options.can_focus = False
        self.search()

    def on_input_changed(self) -> None:
        self.clear_error()
        self.search()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open a clicked row."""
        event.stop()
        self.action_open()

    @property
    def is_open(self) -> bool:
        """Whether the dialog is still open. A search may end after it was closed."""
        return self in self.app.screen_stack and bool(self.query("#note"))

    def action_move(self, where: str) -> None:
        """Do an action of the list, which does not have the focus."""
        getattr(self.options, f"action_{where}")()

    def action_open(self) -> object:
        """Choose the highlighted row."""
        raise NotImplementedError

    def search(self) -> None:
        """Fill the list for the text in the field."""
        raise NotImplementedError

    def count_note(self, found: int) -> str:
        """A sentence about the number of matches, "" if all are listed."""
        if found > MAX_LISTED:
            return f"The newest {MAX_LISTED} of {found:,}. Type to narrow the list."
        return "Nothing found." if not found and self.query_input.value else ""

    def set_note(self, text: str) -> None:
        """Set the note. An empty note takes no space."""
        self.note.update(safe_content(text))
        self.note.set_class(not text, "-empty")

    def fill(self, rows: Iterable[Content], highlighted: int = 0) -> None:
        """Show these rows and highlight one of them, at most the last."""
        self.options.set_options(Option(row) for row in rows)
        if self.options.option_count:
            self.options.highlighted = min(highlighted, self.options.option_count - 1)
