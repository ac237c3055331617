"""Rows of figures that scroll both ways, of which one may be lit: what tables, maps and trees are drawn as.

A row costs nothing until it is in view. Columns line up whatever is in them: widths are in cells.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ..keys import VIEW, bindings
from ..plain import plain

#: Pieces of text, each with its look: "", dim, bold, good, bad, accent, head, or heat1 to heat4.
Line = Sequence[tuple[str, str]]

_BARS = " ▏▎▍▌▋▊▉█"
_SPARKS = "▁▂▃▄▅▆▇█"


class Lines(ScrollView, can_focus=True):
    """`head` rows stay on top, and the first `fixed` cells at the left, while the rest scrolls."""

    DEFAULT_CLASSES = "lines"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--dim",
        "lines--bold",
        "lines--good",
        "lines--bad",
        "lines--accent",
        "lines--head",
        "lines--heat1",
        "lines--heat2",
        "lines--heat3",
        "lines--heat4",
        "lines--lit",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(VIEW)

    def __init__(self, *, lights: bool = True) -> None:
        super().__init__()
        self._lines: tuple[Line, ...] = ()
        self._head: tuple[Line, ...] = ()
        self._fixed = 0
        self._lights = lights
        self._said = ""  # in place of rows
        self.lit = 0

    def draw(self, lines: Sequence[Line], head: Sequence[Line] = (), *, fixed: int = 0) -> None:
        """Show these. The lit row stays the one it was."""
        self._lines, self._head, self._fixed, self._said = tuple(lines), tuple(head), fixed, ""
        width = max((_width(line) for line in (*self._lines, *self._head)), default=0)
        self.virtual_size = Size(width, len(self._lines) + len(self._head))
        self.lit = max(0, min(self.lit, len(self._lines) - 1))
        self.refresh()

    def say(self, text: str) -> None:
        """Show a sentence in place of rows."""
        self.draw([[(line, "dim")] for line in textwrap.wrap(text, max(20, self.size.width))])
        self._said = text

    def on_resize(self, event: events.Resize) -> None:
        if self._said:
            self.say(self._said)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width = self.size.width
        if y < len(self._head):
            return self._strip(self._head[y], left, width)
        row = y - len(self._head) + top
        if row >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        return self._strip(
            self._lines[row], left, width, lit=self._lights and self.has_rows and row == self.lit
        )

    @property
    def has_rows(self) -> bool:
        """Whether there is a row that can be lit."""
        return not self._said and (len(self._lines) > 1 or bool(self._head))

    def _strip(self, line: Line, left: int, width: int, *, lit: bool = False) -> Strip:
        base = self.get_component_rich_style("lines--lit") if lit else self.rich_style
        # Colours that are mixed with what is below them must not be partial.
        styles = {
            look: self.get_component_rich_style(f"lines--{look}", partial="heat" not in look)
            for _, look in line
            if look
        }
        segments = [Segment(text, base + styles[look] if look else base) for text, look in line]
        strip = Strip(segments)
        if self._fixed:
            kept = strip.crop_extend(0, self._fixed, base)
            rest = strip.crop_extend(self._fixed + left, left + width, base)
            return Strip.join([kept, rest]).adjust_cell_length(width, base)
        return strip.crop_extend(left, left + width, base)

    # --- Moving

    def action_move(self, by: int) -> None:
        if self._lights and self.has_rows:
            self.light(self.lit + by)
        else:
            self.scroll_relative(y=by, animate=False)

    def action_sideways(self, by: int) -> None:
        self.scroll_relative(x=8 * by, animate=False)

    def light(self, row: int) -> None:
        """Light a row, and have it in view."""
        row = max(0, min(row, len(self._lines) - 1))
        if row != self.lit:
            self.lit = row
            self.refresh()
            self.lit_changed()
        height = len(self._head)
        self.scroll_to_region(Region(self.scroll_offset.x, row, 1, height + 1), animate=False, force=True)

    def lit_changed(self) -> None:
        """For what depends on the lit row."""

    def row_at(self, y: int) -> int | None:
        """The row that is drawn there, None where there is none."""
        row = y - len(self._head) + self.scroll_offset.y
        return row if y >= len(self._head) and row < len(self._lines) else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        row = self.row_at(event.y)
        if self._lights and self.has_rows and row is not None and row != self.lit:
            self.lit = row
            self.refresh()
            self.lit_changed()


def _width(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def cells(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly so many cells; what is longer ends with an ellipsis."""
    text = one_line(text)
    taken = cell_len(text)
    if taken > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)
    return " " * (width - taken) + text if right else text + " " * (width - taken)


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    return plain(text).replace("\n", "⏎").replace("\t", "⇥")


def token(text: str) -> str:
    """A token as it is shown alone."""
    if not text:
        return "·"
    return one_line(text).strip(" ") or "␣"


def bar(share: float, width: int) -> str:
    """A bar of `width` cells that is full at 1."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BARS[rest] if rest else "")).ljust(width)


def spark(values: Sequence[float], width: int) -> str:
    """Values as bars of one cell; where there are more than cells, a cell shows the largest of its share."""
    if not values or width < 1:
        return ""
    n = min(width, len(values))
    shares = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    most = max(values) or 1.0
    return "".join(_SPARKS[min(7, int(max(share) / most * 7.999))] for share in shares)


def percent(logp: float) -> str:
    """The probability of a natural logarithm, as it is written."""
    share = 100 * math.exp(min(0.0, logp))
    return f"{share:.0f}%" if share >= 0.95 or share == 0 else f"{share:.1f}%"
