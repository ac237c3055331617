"""The candidates view: the n best replies with their scores."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.widgets import DataTable

from ..keys import CANDIDATES_ACTIONS, VERTICAL_VIEW_ACTIONS, bindings
from ..messages import CandidateChosen
from ..safe_text import safe_content
from ..values import CandidateRow

_RANK_CELLS, _NUMBER_CELLS = 3, 7


class Candidates(DataTable[Text]):
    """A table of the candidates, best first. Long replies wrap."""

    HELP = """
    ### Candidates

    The replies that the beam search kept, best first. Enter continues the conversation with the highlighted
    reply; `●` marks the current one.

    **logp**: the natural logarithm of the reply's probability; 0 is certain.

    **score**: logp normalized by length; candidates are ranked by it.

    `…` at the end: the reply was cut at the maximum length.
    """

    BINDING_GROUP_TITLE = "Candidates"
    BINDINGS: ClassVar[list[BindingType]] = bindings((*CANDIDATES_ACTIONS, *VERTICAL_VIEW_ACTIONS))

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False)
        self._candidates: tuple[CandidateRow, ...] = ()
        self._chosen = 0

    def show(self, candidates: Sequence[CandidateRow], chosen: int = 0) -> None:
        """Show these candidates. The one at index `chosen` is the reply in the conversation."""
        self._candidates, self._chosen = tuple(candidates), chosen
        self._fill(chosen)

    def on_resize(self, event: events.Resize) -> None:
        self._fill(self.cursor_row)

    def action_choose(self) -> None:
        if self._candidates:
            self.post_message(CandidateChosen(self.cursor_row))

    def action_move(self, by: int) -> None:
        if self.row_count:
            self.move_cursor(row=max(0, min(self.cursor_row + by, self.row_count - 1)))

    def _fill(self, cursor: int) -> None:
        # The width of a column is fixed when it is added, so a new size needs new columns.
        self.clear(columns=True)
        figures = 4 * 2 * self.cell_padding + _RANK_CELLS + 2 * _NUMBER_CELLS
        width = max(10, self.scrollable_content_region.width - figures)
        for label, cells in (
            ("#", _RANK_CELLS),
            ("score", _NUMBER_CELLS),
            ("logp", _NUMBER_CELLS),
            ("reply", width),
        ):
            self.add_column(Text(label, justify="left" if label == "reply" else "right"), width=cells)
        for n, row in enumerate(self._candidates):
            sign = "●" if n == self._chosen and len(self._candidates) > 1 else ""
            self.add_row(
                Text(f"{sign}{row.rank:>2}", justify="right"),
                Text(f"{row.score:.2f}", justify="right"),
                Text(f"{row.logp:.2f}", justify="right"),
                Text(safe_content(row.text).plain + ("" if row.finished else " …")),
                height=None,
            )
        self.move_cursor(row=cursor)
