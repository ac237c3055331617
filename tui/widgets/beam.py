"""The beam view: the steps of the search."""

from typing import ClassVar

from textual import events
from textual.binding import BindingType

from ..keys import BEAM_ACTIONS, bindings
from ..values import BeamCandidate, Trace
from .hints import NOT_TRACED
from .lines import Line, Lines, display_token, fit_cells, format_percent, last_cells

_FATE_STYLES = {"live": ("●", ""), "finished": ("■", "good"), "pruned": ("×", "dim"), "banned": ("⊘", "bad")}
_FATE_LABELS = {"live": "kept", "finished": "finished", "pruned": "pruned", "banned": "banned"}


class BeamTree(Lines):
    """One step of the search at a time: each hypothesis with its candidate tokens and their fate."""

    HELP = """
    ### Beam

    One step of the search: the hypotheses so far, and below each one its candidates for the next token.

    `●` was kept in the beam, `■` finished a reply, `×` was pruned because it ranked below the beam, `⊘` is
    banned here by a setting.

    The percentage is the token's probability. The number on the right is the log-probability of the whole
    hypothesis with this token, by which the search ranks. Left and Right go through the steps.
    """
    BINDING_GROUP_TITLE = "Beam"
    BINDINGS: ClassVar[list[BindingType]] = bindings(BEAM_ACTIONS)

    def __init__(self) -> None:
        super().__init__(highlights=False)
        self._trace: Trace | None = None
        self._step = 0

    def show(self, trace: Trace | None, hint: str) -> None:
        """Show the trace of a reply, starting at its first step, or `hint` if there is none."""
        if trace is not self._trace:
            self._trace, self._step = trace, 0
        if trace is None or not trace.steps:
            self.show_message(hint if trace is None else NOT_TRACED)
        else:
            self._fill()

    def on_resize(self, event: events.Resize) -> None:
        if self._trace and self._trace.steps:
            self._fill()

    def action_sideways(self, by: int) -> None:
        if self._trace and self._trace.steps:
            self._step = max(0, min(self._step + by, len(self._trace.steps) - 1))
            self._fill()
            self.scroll_home(animate=False)

    def _fill(self) -> None:
        assert self._trace is not None
        steps = self._trace.steps
        width = max(24, self.size.width - 22)
        rows: list[Line] = []
        for row in steps[self._step]:
            logp = f"{row.logp:.2f}"
            # The candidates continue its end.
            text = last_cells(row.text.strip() or "(nothing yet)", max(24, self.size.width - 4) - len(logp))
            rows.append([(f"{text}  ", "bold"), (logp, "dim")])
            rows += (_candidate_line(c, width, last=c is row.candidates[-1]) for c in row.candidates)
        fates = [c.fate for row in steps[self._step] for c in row.candidates]
        counts = ", ".join(
            f"{fates.count(fate)} {label}" for fate, label in _FATE_LABELS.items() if fate in fates
        )
        at = f"step {self._step + 1} of {len(steps)}"
        self.draw(rows, [[(f"{at}  ", "head"), (counts, "dim")]])


def _candidate_line(candidate: BeamCandidate, width: int, *, last: bool) -> Line:
    sign, style = _FATE_STYLES.get(candidate.fate, ("?", "dim"))
    name = display_token(candidate.text) + (f"  {candidate.rule}" if candidate.rule else "")
    return [
        (" └ " if last else " ├ ", "dim"),
        (f"{sign} {fit_cells(name, width - 8)}", style),
        (
            f"{format_percent(candidate.logp):>6} {candidate.total:8.2f}",
            "dim" if candidate.fate != "live" else "",
        ),
    ]
