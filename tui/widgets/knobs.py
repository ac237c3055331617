"""The knobs of the search, to be turned while talking."""

import textwrap
from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import BindingType

from ..keys import KNOBS, bindings
from ..knobs import KnobState
from ..messages import KnobReset, KnobTurned, KnobTyped, PresetTurned
from .lines import Line, Lines, cells, one_line

_SIGN, _NAME, _ARROW = 2, 21, 2  # cells


class Knobs(Lines):
    """A row for the preset, and one for each knob. It says what shall change; its owner shows what did."""

    HELP = """
    ### Knobs

    The settings of the search, for the replies to come. Left and Right turn a knob, as clicks on `‹` and `›`
    do, Enter lets you write a value, Backspace takes the bundle's own.

    `●` marks what is not the bundle's own. A reply remembers what it was made with.
    """
    BINDING_GROUP_TITLE = "Knobs"
    BINDINGS: ClassVar[list[BindingType]] = bindings(KNOBS)

    def __init__(self) -> None:
        super().__init__()
        self._states: tuple[KnobState, ...] = ()
        self._preset = self._wrong = ""

    def show(self, states: Sequence[KnobState], preset: str, wrong: str = "") -> None:
        """These, and what is wrong with what was last asked for."""
        self._states, self._wrong, self._preset = tuple(states), wrong, preset or "my own"
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        if self._states:
            self._fill()

    def lit_changed(self) -> None:
        self._wrong = ""
        self._fill()

    def _fill(self) -> None:
        rows: list[Line] = [_row("", "preset", self._preset)]
        for state in self._states:
            knob = state.knob
            name, value = knob.name.replace("_", " "), knob.kind.show(state.value) or "–"
            rows.append(_row("●" if state.changed else "", name, value, changed=state.changed))
        does = self._knob.knob.does if self._knob else "several knobs at once"
        # A line is cut at the edge, and Right turns a knob here.
        told = textwrap.wrap(one_line(self._wrong or does), max(20, self.size.width))
        head: list[Line] = [[(line, "bad" if self._wrong else "dim")] for line in told]
        self.draw(rows, head + [[]] * max(0, 2 - len(head)))

    def action_sideways(self, by: int) -> None:
        if self._knob is None:
            self.post_message(PresetTurned(by))
        else:
            self.post_message(KnobTurned(self._knob.knob.name, by))

    def action_type(self) -> None:
        if self._knob is None:
            self.post_message(PresetTurned(1))
        else:
            self.post_message(KnobTyped(self._knob.knob.name))

    def action_reset(self) -> None:
        self.post_message(KnobReset(self._knob.knob.name if self._knob else None))

    def on_click(self, event: events.Click) -> None:
        """A click lights its row, since not every terminal tells where the mouse was before; one on an arrow
        turns the knob."""
        row = self.row_at(event.y)
        if row is None:
            return
        value, _ = self._lines[row][-1]
        before = event.x + self.scroll_offset.x - _SIGN - _NAME
        behind = cell_len(value) - 1 - before
        self.light(row)
        if 0 <= before < _ARROW:
            self.action_sideways(-1)
        elif 0 <= behind < _ARROW:
            self.action_sideways(1)

    @property
    def _knob(self) -> KnobState | None:
        """The lit one, None where it is the preset."""
        return self._states[self.lit - 1] if 0 < self.lit <= len(self._states) else None


def _row(sign: str, name: str, value: str, *, changed: bool = False) -> Line:
    return [
        (cells(sign, _SIGN), "accent"),
        (cells(name, _NAME), ""),
        (f"‹ {one_line(value)} ›", "bold" if changed else ""),
    ]
