"""What the search tried and dropped."""

from typing import ClassVar

from textual import events
from textual.binding import BindingType

from ..keys import BEAM, bindings
from ..values import BeamCandidate, Insight
from .hints import NOT_FOLLOWED
from .lines import Line, Lines, cells, one_line, percent, token

_FATES = {"live": ("●", ""), "finished": ("■", "good"), "pruned": ("×", "dim"), "banned": ("⊘", "bad")}
_SAID = {"live": "went on", "finished": "ended", "pruned": "pruned", "banned": "banned"}


class BeamTree(Lines):
    """The search, step by step: each hypothesis, how it could go on, and what became of that."""

    HELP = """
    ### Beam

    One step of the search: the replies so far, and below each the tokens that might come next.

    `●` went on, `■` ended a reply, `×` was pruned: it ranked below the beam, `⊘` may not come here.

    The percentage is the token's probability; the figure at the right is the log-probability of all so far,
    by which the search ranks. Left and Right go through the steps.
    """
    BINDING_GROUP_TITLE = "Beam"
    BINDINGS: ClassVar[list[BindingType]] = bindings(BEAM)

    def __init__(self) -> None:
        super().__init__(lights=False)
        self._insight: Insight | None = None
        self._step = 0

    def show(self, insight: Insight | None, hint: str) -> None:
        """From the first step of this reply."""
        if insight is not self._insight:
            self._insight, self._step = insight, 0
        if insight is None or not insight.steps:
            self.say(hint if insight is None else NOT_FOLLOWED)
        else:
            self._fill()

    def on_resize(self, event: events.Resize) -> None:
        if self._insight and self._insight.steps:
            self._fill()

    def action_sideways(self, by: int) -> None:
        if self._insight and self._insight.steps:
            self._step = max(0, min(self._step + by, len(self._insight.steps) - 1))
            self._fill()
            self.scroll_home(animate=False)

    def _fill(self) -> None:
        assert self._insight is not None
        steps = self._insight.steps
        width = max(24, self.size.width - 22)
        rows: list[Line] = []
        for row in steps[self._step]:
            rows.append(
                [(f"{one_line(row.text).strip() or '(nothing yet)'}  ", "bold"), (f"{row.logp:.2f}", "dim")]
            )
            rows += (_branch(c, width, last=c is row.candidates[-1]) for c in row.candidates)
        fates = [c.fate for row in steps[self._step] for c in row.candidates]
        counts = ", ".join(f"{fates.count(fate)} {said}" for fate, said in _SAID.items() if fate in fates)
        at = f"step {self._step + 1} of {len(steps)}"
        self.draw(rows, [[(f"{at}  ", "head"), (counts, "dim")]])


def _branch(candidate: BeamCandidate, width: int, *, last: bool) -> Line:
    sign, look = _FATES.get(candidate.fate, ("?", "dim"))
    name = token(candidate.text) + (f"  {candidate.rule}" if candidate.rule else "")
    return [
        (" └ " if last else " ├ ", "dim"),
        (f"{sign} {cells(name, width - 8)}", look),
        (f"{percent(candidate.logp):>6} {candidate.total:8.2f}", "dim" if candidate.fate != "live" else ""),
    ]
