"""A question that is answered in writing."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.widgets import Input, Static

from ..plain import content, plain
from .field import Answer, Draft
from .over import Over

#: Gives what is wrong with an answer, "" where nothing is.
Check = Callable[[str], str]


class Ask(Over[str]):
    """One line, taken with Enter. `check` refuses what will not do, and says why."""

    def __init__(self, title: str, text: str = "", *, note: str = "", check: Check | None = None) -> None:
        super().__init__(title)
        self._text, self._note, self._check = plain(text), note, check

    def compose_box(self) -> ComposeResult:
        yield Answer(self._text.replace("\n", " "))  # selected: what is typed takes its place
        yield Static(content(self._note), id="note", classes="explains")
        yield Static("", id="wrong")

    def on_input_changed(self) -> None:
        self.remove_class("-wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.take(event.value)

    def take(self, text: str) -> None:
        """The answer, where it will do."""
        wrong = self._check(text) if self._check else ""
        if wrong:
            self.refuse(wrong)
        else:
            self.dismiss(text)

    def refuse(self, why: str) -> None:
        self.query_one("#wrong", Static).update(content(why))
        self.add_class("-wrong")


class Write(Ask):
    """Several lines. What was written is dropped only by closing it twice."""

    def compose_box(self) -> ComposeResult:
        yield Static(content(f"{self._note} Enter breaks the line."), id="note", classes="explains")
        yield Draft(self._text, highlight_cursor_line=False)
        yield Static("", id="wrong")

    def on_mount(self) -> None:
        area = self.query_one(Draft)
        area.move_cursor(area.document.end)

    def on_text_area_changed(self) -> None:
        self.remove_class("-wrong")

    def action_done(self) -> None:
        self.take(self.query_one(Draft).text)

    def action_close(self) -> None:
        if self.query_one(Draft).text == self._text or self.has_class("-wrong"):
            self.dismiss(None)
        else:
            self.refuse("Not taken yet. Close again to drop what you wrote.")
