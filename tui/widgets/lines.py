"""Rows of text that scroll in both directions, with an optional highlighted row: the base of most views.

A row is rendered only when it is in view. Widths are in terminal cells, so columns line up for any
characters.
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

from ..keys import VIEW_ACTIONS, bindings
from ..safe_text import safe_text

#: Pieces of text, each with its style: "", dim, bold, good, bad, accent, head, or heat1 to heat4.
Line = Sequence[tuple[str, str]]

_BARS = " ▏▎▍▌▋▊▉█"
_SPARKS = "▁▂▃▄▅▆▇█"


class Lines(ScrollView, can_focus=True):
    """Rows that scroll below a fixed head and to the right of the first `fixed` cells."""

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
        "lines--highlighted",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(VIEW_ACTIONS)

    def __init__(self, *, highlights: bool = True) -> None:
        super().__init__()
        self._lines: tuple[Line, ...] = ()
        self._head: tuple[Line, ...] = ()
        self._fixed = 0
        self._highlights = highlights
        self._shown_message = ""  # shown in place of rows
        self.highlighted = 0

    def draw(self, lines: Sequence[Line], head: Sequence[Line] = (), *, fixed: int = 0) -> None:
        """Show these rows. The same row number stays highlighted."""
        self._lines, self._head, self._fixed, self._shown_message = tuple(lines), tuple(head), fixed, ""
        width = max((_width(line) for line in (*self._lines, *self._head)), default=0)
        self.virtual_size = Size(width, len(self._lines) + len(self._head))
        self.highlighted = max(0, min(self.highlighted, len(self._lines) - 1))
        self.refresh()

    def show_message(self, text: str) -> None:
        """Show a sentence in place of rows."""
        self.draw([[(line, "dim")] for line in textwrap.wrap(text, max(20, self.size.width))])
        self._shown_message = text

    def on_resize(self, event: events.Resize) -> None:
        if self._shown_message:
            self.show_message(self._shown_message)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width = self.size.width
        if y < len(self._head):
            return self._strip(self._head[y], left, width)
        row = y - len(self._head) + top
        if row >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        highlighted = self._highlights and self.has_rows and row == self.highlighted
        return self._strip(self._lines[row], left, width, highlighted=highlighted)

    @property
    def has_rows(self) -> bool:
        """Whether there is a row that can be highlighted."""
        return not self._shown_message and (len(self._lines) > 1 or bool(self._head))

    def _strip(self, line: Line, left: int, width: int, *, highlighted: bool = False) -> Strip:
        base = self.get_component_rich_style("lines--highlighted") if highlighted else self.rich_style
        # A heat color is blended with the background, so it must not be a partial style.
        styles = {
            style: self.get_component_rich_style(f"lines--{style}", partial="heat" not in style)
            for _, style in line
            if style
        }
        segments = [Segment(text, base + styles[style] if style else base) for text, style in line]
        strip = Strip(segments)
        if self._fixed:
            kept = strip.crop_extend(0, self._fixed, base)
            rest = strip.crop_extend(self._fixed + left, left + width, base)
            return Strip.join([kept, rest]).adjust_cell_length(width, base)
        return strip.crop_extend(left, left + width, base)

    # --- Moving

    def action_move(self, by: int) -> None:
        if self._highlights and self.has_rows:
            self.highlight(self.highlighted + by)
        else:
            self.scroll_relative(y=by, animate=False)

    def action_sideways(self, by: int) -> None:
        self.scroll_relative(x=8 * by, animate=False)

    def highlight(self, row: int) -> None:
        """Highlight a row and scroll to it."""
        row = max(0, min(row, len(self._lines) - 1))
        self._move_highlight(row)
        height = len(self._head)
        self.scroll_to_region(Region(self.scroll_offset.x, row, 1, height + 1), animate=False, force=True)

    def highlight_changed(self) -> None:
        """Called when another row is highlighted."""

    def row_at(self, y: int) -> int | None:
        """The row drawn at line `y` of the widget, None if there is none."""
        row = y - len(self._head) + self.scroll_offset.y
        return row if y >= len(self._head) and row < len(self._lines) else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        row = self.row_at(event.y)
        if self._highlights and self.has_rows and row is not None:
            self._move_highlight(row)

    def _move_highlight(self, row: int) -> None:
        if row != self.highlighted:
            self.highlighted = row
            self.refresh()
            self.highlight_changed()


def _width(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def fit_cells(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells. A longer text is cut and ends with an ellipsis."""
    text = one_line(text)
    taken = cell_len(text)
    if taken > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)
    return " " * (width - taken) + text if right else text + " " * (width - taken)


def last_cells(text: str, width: int) -> str:
    """The end of `text` in at most `width` cells. A longer text begins with an ellipsis."""
    text = one_line(text)
    if cell_len(text) <= width:
        return text
    start, room = len(text), width - 1
    while (room := room - cell_len(text[start - 1])) >= 0:
        start -= 1
    return "…" + text[start:]


def one_line(text: str) -> str:
    """`text` on one line, with control characters made visible."""
    return safe_text(text).replace("\n", "⏎").replace("\t", "⇥")


def display_token(text: str) -> str:
    """A token as it is shown by itself."""
    if not text:
        return "·"
    return one_line(text).strip(" ") or "␣"


def bar(share: float, width: int) -> str:
    """A bar of `width` cells that is full at 1."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BARS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as bars of one cell each. With more values than cells, a cell shows its largest value."""
    if not values or width < 1:
        return ""
    n = min(width, len(values))
    shares = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    most = max(values) or 1.0
    return "".join(_SPARKS[min(7, int(max(share) / most * 7.999))] for share in shares)


def format_percent(logp: float) -> str:
    """Format the probability of a natural-log probability as a percentage."""
    share = 100 * math.exp(min(0.0, logp))
    return f"{share:.0f}%" if share >= 0.95 or share == 0 else f"{share:.1f}%"


def format_ms(ms: float) -> str:
    """Format milliseconds; a short time has a decimal, since whole milliseconds would be too coarse."""
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
