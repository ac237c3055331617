"""The n best replies with their scores: what else the model might have said."""

from collections.abc import Sequence

from rich.text import Text
from textual import events
from textual.widgets import DataTable

from ..plain import content
from ..values import CandidateRow

_RANK, _FIGURE = 3, 7  # cells


class Candidates(DataTable[Text]):
    """A table of candidates, likeliest first. Their text wraps to the width there is."""

    HELP = """
    ### Candidates

    The replies that the beam search kept, best first.

    **logp**: natural logarithm of the reply's probability; 0 would be certain.

    **score**: logp normalized by length, by which they are ranked.

    `…` at the end: the reply was cut at its maximum length.
    """

    BINDING_GROUP_TITLE = "Candidates"

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True)
        self.border_title = "candidates"
        self.border_subtitle = "what else it might have said"
        self._candidates: tuple[CandidateRow, ...] = ()

    def show(self, candidates: Sequence[CandidateRow]) -> None:
        """Show these in place of what was there."""
        self._candidates = tuple(candidates)
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    def _fill(self) -> None:
        # A column's width is fixed when it is added, hence the columns anew for each size.
        cursor = self.cursor_row
        self.clear(columns=True)
        figures = 4 * 2 * self.cell_padding + _RANK + 2 * _FIGURE
        width = max(10, self.scrollable_content_region.width - figures)
        for label, cells in (("#", _RANK), ("score", _FIGURE), ("logp", _FIGURE), ("reply", width)):
            self.add_column(Text(label, justify="left" if label == "reply" else "right"), width=cells)
        for row in self._candidates:
            self.add_row(
                Text(str(row.rank), justify="right"),
                Text(f"{row.score:.2f}", justify="right"),
                Text(f"{row.logp:.2f}", justify="right"),
                Text(content(row.text).plain + ("" if row.finished else " …")),
                height=None,
            )
        self.move_cursor(row=cursor)
