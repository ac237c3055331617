"""The status line: the bundle, its device and settings, and the speed of the selected reply."""

from rich.cells import cell_len
from textual.reactive import reactive
from textual.widgets import Static

from ..safe_text import safe_content
from ..values import Status
from .lines import fit_cells, format_ms, one_line

_SEPARATOR = " · "
_MIN_NAME_CELLS = 8  # that are left of a bundle's name that is cut


class StatusLine(Static):
    """One line that is always visible."""

    status: reactive[Status] = reactive(Status(""))

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status

    def watch_status(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        """Put warnings first, and shorten the bundle's name to make room for them. The reason why nothing is
        saved can be long, so it comes after what the chat is doing."""
        status = self.status
        not_saved = "" if status.saved else "not saved"
        doing = [part for part in ("● knobs" if status.knobs_changed else "", status.activity) if part]
        first = [part for part in (not_saved, *doing) if part]
        taken = sum(len(part + _SEPARATOR) for part in first) + len(_SEPARATOR)
        room = max(_MIN_NAME_CELLS, self.content_size.width - taken)
        name = fit_cells(status.bundle, min(room, cell_len(one_line(status.bundle))))
        if not_saved and status.why_not_saved:
            first = (
                [not_saved, *doing, status.why_not_saved]
                if doing
                else [f"{not_saved}: {status.why_not_saved}"]
            )
        self.update(safe_content(_SEPARATOR.join([name, *first, *_figures(status)])))


def _figures(status: Status) -> list[str]:
    parts = [status.precision, status.device, "closed set" if status.has_closed_set else ""]
    if status.beam is not None:
        parts.append("greedy" if status.beam == 1 else f"beam {status.beam}")
    if status.ms is not None:
        parts.append(format_ms(status.ms))
    if status.tokens_per_second is not None:
        parts.append(f"{status.tokens_per_second:,.0f} tokens/s")
    return [part for part in parts if part]
