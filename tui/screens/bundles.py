"""The bundles that are open or near, to talk to one or compare with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual import getters
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ..keys import LIBRARY, bindings
from ..plain import content
from ..widgets.lines import one_line
from .over import Over


@dataclass(frozen=True)
class BundleChoice:
    """A bundle to choose; `about` says what is known of it, "" where it is not open."""

    path: str
    name: str
    about: str


class Bundles(Over[str]):
    """Gives the path of the bundle that was chosen, or typed."""

    BINDINGS = bindings(
        action for action in LIBRARY if action.id in ("library.up", "library.down", "library.open")
    )
    HELP = """
    ### Bundles

    Those that are open, and those in folders near here. Type to narrow the list, or write the path of
    another: the folder that `edgechat export` wrote.
    """

    query_input = getters.query_one(Input)
    options = getters.query_one(OptionList)

    def __init__(self, title: str, choices: Sequence[BundleChoice], note: str) -> None:
        super().__init__(title)
        self._choices, self._note = tuple(choices), note
        self._shown: list[BundleChoice] = []

    def compose_box(self) -> ComposeResult:
        yield Input(placeholder="Search, or the path of a bundle", select_on_focus=False)
        yield OptionList()
        yield Static(content(self._note), id="note")

    def on_mount(self) -> None:
        self.options.can_focus = False
        self._fill()

    def on_input_changed(self) -> None:
        self._fill()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """By a click."""
        event.stop()
        self.action_open()

    def action_move(self, by: int) -> None:
        if by < 0:
            self.options.action_cursor_up()
        else:
            self.options.action_cursor_down()

    def action_open(self) -> None:
        at = self.options.highlighted
        typed = self.query_input.value.strip()
        if at is not None and at < len(self._shown):
            self.dismiss(self._shown[at].path)
        elif typed:
            self.dismiss(typed)

    def _fill(self) -> None:
        typed = self.query_input.value.strip().casefold()
        self._shown = [c for c in self._choices if typed in c.path.casefold() or typed in c.name.casefold()]
        self.options.set_options(Option(_row(choice)) for choice in self._shown)
        if self._shown:
            self.options.highlighted = 0


def _row(choice: BundleChoice) -> Content:
    return content(one_line(choice.name), "bold") + content(
        f"\n  {one_line(choice.about or choice.path)}", "dim"
    )
