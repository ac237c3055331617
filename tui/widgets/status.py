"""The status line: what runs, on what, and how fast the last reply was."""

from textual.reactive import reactive
from textual.widgets import Static

from ..plain import content
from ..values import Status


class StatusLine(Static):
    """One line of figures, kept in view."""

    status: reactive[Status] = reactive(Status(""))

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.status = status

    def watch_status(self, status: Status) -> None:
        self.update(content(" · ".join(_parts(status))))


def _parts(status: Status) -> list[str]:
    parts = [status.bundle, "" if status.kept else "not kept", status.precision, status.device]
    if status.beam is not None:
        parts.append("greedy" if status.beam == 1 else f"beam {status.beam}")
    if status.changed:
        parts.append("● knobs")
    if status.ms is not None:
        parts.append(f"{status.ms:.0f} ms" if status.ms >= 10 else f"{status.ms:.1f} ms")
    if status.tokens_per_second is not None:
        parts.append(f"{status.tokens_per_second:,.0f} tokens/s")
    parts.append(status.state)
    return [part for part in parts if part]
