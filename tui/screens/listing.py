"""A list to choose from, narrowed by what is typed above it."""

from collections.abc import Iterable
from typing import TypeVar

from textual import events, getters
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..plain import content
from ..store import LISTED
from .field import Field
from .over import Over

T = TypeVar("T")


class Rows(OptionList):
    """A click may be on a row that is gone since it was drawn."""

    def on_click(self, event: events.Click) -> None:
        if event.style.meta.get("option", -1) >= self.option_count:
            event.prevent_default()


class Listing(Over[T]):
    """An input that keeps the focus, the rows below it, a note. What is in the rows is for others to say."""

    query_input = getters.query_one(Input)
    options = getters.query_one(OptionList)
    note = getters.query_one("#note", Static)

    def __init__(self, title: str, placeholder: str, note: str = "") -> None:
        super().__init__(title)
        self._placeholder, self._first_note = placeholder, note

    def compose_box(self) -> ComposeResult:
        yield Field(placeholder=self._placeholder, select_on_focus=False)
        yield Rows()
        yield Static(content(self._first_note), id="note")

    def on_mount(self) -> None:
        self.options.can_focus = False
        self.search()

    def on_input_changed(self) -> None:
        self.search()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """By a click."""
        event.stop()
        self.action_open()

    def action_move(self, where: str) -> None:
        """As the keys of the list would, had it the focus."""
        getattr(self.options, f"action_{where}")()

    def action_open(self) -> object:
        """Take the row that is lit, or what is typed."""
        raise NotImplementedError

    def search(self) -> None:
        """Show what goes with what was typed."""
        raise NotImplementedError

    def how_many(self, found: int) -> str:
        """What is to be said of so many that were found, "" where all are there to be seen."""
        if found > LISTED:
            return f"The newest {LISTED} of {found:,}: what you type narrows them."
        return "Nothing was found." if not found and self.query_input.value else ""

    def tell(self, text: str) -> None:
        """Have the note say this, and take no room for nothing."""
        self.note.update(content(text))
        self.note.set_class(not text, "-empty")

    def fill(self, rows: Iterable[Content], lit: int = 0) -> None:
        """Show these rows, and light one, or the last where there are fewer."""
        self.options.set_options(Option(row) for row in rows)
        if self.options.option_count:
            self.options.highlighted = min(lit, self.options.option_count - 1)
