"""The knobs view: the search settings, which can be changed while talking."""

import textwrap
from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import BindingType

from ..keys import KNOBS_ACTIONS, bindings
from ..knobs import KnobState
from ..messages import KnobReset, KnobStepped, KnobTyped, PresetStepped
from .lines import Line, Lines, fit_cells, one_line

_SIGN_CELLS, _NAME_CELLS, _ARROW_CELLS = 2, 21, 2


class Knobs(Lines):
    """A row for the preset and one for each knob. Posts the changes that the user asks for."""

    HELP = """
    ### Knobs

    The search settings for the next replies. Left and Right, or clicks on `‹` and `›`, change a value, Enter
    lets you type one, and Backspace restores the bundle's default.

    `●` marks a value that differs from the bundle's default. Every reply keeps the settings it was made with.
    """
    BINDING_GROUP_TITLE = "Knobs"
    BINDINGS: ClassVar[list[BindingType]] = bindings(KNOBS_ACTIONS)

    def __init__(self) -> None:
        super().__init__()
        self._states: tuple[KnobState, ...] = ()
        self._preset = self._wrong = ""

    def show(self, states: Sequence[KnobState], preset: str, wrong: str = "") -> None:
        """Show these values, and `wrong`, the reason why the last change was refused."""
        self._states, self._wrong, self._preset = tuple(states), wrong, preset or "custom"
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        if self._states:
            self._fill()

    def highlight_changed(self) -> None:
        self._wrong = ""
        self._fill()

    def _fill(self) -> None:
        rows: list[Line] = [_row("", "preset", self._preset)]
        for state in self._states:
            knob = state.knob
            name, value = knob.name.replace("_", " "), knob.kind.show(state.value) or "–"
            rows.append(_row("●" if state.changed else "", name, value, changed=state.changed))
        help_text = self._knob.knob.help if self._knob else "sets several knobs at once"
        # The text must wrap: Right changes a knob here and cannot scroll.
        wrapped = textwrap.wrap(one_line(self._wrong or help_text), max(20, self.size.width))
        head: list[Line] = [[(line, "bad" if self._wrong else "dim")] for line in wrapped]
        self.draw(rows, head + [[]] * max(0, 2 - len(head)))

    def action_sideways(self, by: int) -> None:
        if self._knob is None:
            self.post_message(PresetStepped(by))
        else:
            self.post_message(KnobStepped(self._knob.knob.name, by))

    def action_type(self) -> None:
        if self._knob is None:
            self.post_message(PresetStepped(1))
        else:
            self.post_message(KnobTyped(self._knob.knob.name))

    def action_reset(self) -> None:
        self.post_message(KnobReset(self._knob.knob.name if self._knob else None))

    def on_click(self, event: events.Click) -> None:
        """Highlight the clicked row, since not every terminal reports mouse movement. A click on an arrow
        changes the value."""
        row = self.row_at(event.y)
        if row is None:
            return
        value, _ = self._lines[row][-1]
        before = event.x + self.scroll_offset.x - _SIGN_CELLS - _NAME_CELLS
        behind = cell_len(value) - 1 - before
        self.highlight(row)
        if 0 <= before < _ARROW_CELLS:
            self.action_sideways(-1)
        elif 0 <= behind < _ARROW_CELLS:
            self.action_sideways(1)

    @property
    def _knob(self) -> KnobState | None:
        """The highlighted knob, None for the preset."""
        return self._states[self.highlighted - 1] if 0 < self.highlighted <= len(self._states) else None


def _row(sign: str, name: str, value: str, *, changed: bool = False) -> Line:
    return [
        (fit_cells(sign, _SIGN_CELLS), "accent"),
        (fit_cells(name, _NAME_CELLS), ""),
        (f"‹ {one_line(value)} ›", "bold" if changed else ""),
    ]
