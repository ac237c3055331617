"""How a reply came about: what it looked at, how sure it was, and what the search tried and dropped."""

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import BindingType

from ..keys import BEAM, bindings
from ..values import BeamCandidate, CandidateRow, Insight
from .lines import Line, Lines, bar, cells, one_line, token

#: What stands where nothing was traced.
NOTHING = "Say something: how the reply came about is shown here."
NOT_KEPT = "The way of a reply is not kept with a conversation. {key} replays the reply, and shows it."
NOT_FOLLOWED = "The search that made this reply was too wide to trace: a beam of 64 at most can be shown."

_TOKEN, _SHARE, _COLUMN = 12, 5, 10  # cells
_SHADES = " ░▒▓█"
#: The least attention for each shade but the first.
_LEVELS = (0.05, 0.15, 0.3, 0.6)


class Attention(Lines):
    """A row for each token of the reply, a column for each of the source: how much it looked at it."""

    HELP = """
    ### Attention

    A row for each token of the reply, a column for each token that the model read. The figure says how much
    of its attention was there, in percent; a row adds up to 100. The shade says the same: `░` from 5, `▒`
    from 15, `▓` from 30, `█` from 60.

    Up and Down, or the mouse, light a row. Left and Right scroll.
    """
    BINDING_GROUP_TITLE = "Attention"

    def show(self, insight: Insight | None, reply: int, hint: str) -> None:
        """The reply of that index among the candidates; where there is none, the hint."""
        way = insight.replies[reply] if insight and reply < len(insight.replies) else ()
        if not insight or not way:
            self.say(hint if insight is None else NOT_FOLLOWED)
            return
        widths = [max(6, min(_COLUMN, cell_len(token(text)) + 2)) for text in insight.source]
        names = "".join(
            cells(token(text), w - 1, right=True) + " "
            for text, w in zip(insight.source, widths, strict=True)
        )
        head: Line = [(" " * (_TOKEN + 2), ""), (names, "head")]
        rows = [
            [
                (cells(token(step.text), _TOKEN, right=True) + "  ", "bold"),
                *_weights(step.weights, widths),
            ]
            for step in way
        ]
        self.draw(rows, [head], fixed=_TOKEN + 2)


def _weights(weights: Sequence[float], widths: Sequence[int]) -> Iterator[tuple[str, str]]:
    for weight, width in zip(weights, widths, strict=False):
        percent = round(100 * weight)
        level = bisect.bisect_right(_LEVELS, weight)
        text = f"{_SHADES[level]}{percent:>3}" if percent else "·"
        yield text.rjust(width - 1) + " ", f"heat{level}" if level else "dim"


class Tokens(Lines):
    """How sure the model was of each token, and what else might have come."""

    HELP = """
    ### Confidence

    **p**: the probability that the model gave the token, when it came to it. The bar says the same.

    **instead**: the other tokens that it held most likely there.
    """
    BINDING_GROUP_TITLE = "Confidence"

    def show(self, row: CandidateRow | None, insight: Insight | None, reply: int, hint: str) -> None:
        """The tokens of a candidate; what else might have come is known where it was traced."""
        if row is None or not row.token_logps:
            self.say(hint)
            return
        way = insight.replies[reply] if insight and reply < len(insight.replies) else ()
        texts = [*row.tokens, ""]
        rows: list[Line] = []
        for n, logp in enumerate(row.token_logps):
            p = math.exp(min(0.0, logp))
            rivals = "  ".join(
                f"{token(t)} {_percent(r)}" for t, r in (way[n].rivals if n < len(way) else ())
            )
            look = "good" if p >= 0.5 else "" if p >= 0.1 else "bad"
            rows.append(
                [
                    (cells(token(texts[n]), _TOKEN, right=True) + "  ", "bold"),
                    (_percent(logp).rjust(_SHARE) + " ", ""),
                    (bar(p, 8) + "  ", look),
                    (f"{logp:6.2f}   ", "dim"),
                    (rivals, "dim"),
                ]
            )
        head: Line = [(" " * (_TOKEN + 2) + "    p" + " " * 13 + "logp   instead", "head")]
        self.draw(rows, [head], fixed=_TOKEN + 2)


def _percent(logp: float) -> str:
    percent = 100 * math.exp(min(0.0, logp))
    return f"{percent:.0f}%" if percent >= 0.95 or percent == 0 else f"{percent:.1f}%"


_FATES = {"live": ("●", ""), "finished": ("■", "good"), "pruned": ("×", "dim"), "banned": ("⊘", "bad")}


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


_SAID = {"live": "went on", "finished": "ended", "pruned": "pruned", "banned": "banned"}


def _branch(candidate: BeamCandidate, width: int, *, last: bool) -> Line:
    sign, look = _FATES.get(candidate.fate, ("?", "dim"))
    name = token(candidate.text) + (f"  {candidate.rule}" if candidate.rule else "")
    return [
        (" └ " if last else " ├ ", "dim"),
        (f"{sign} {cells(name, width - 8)}", look),
        (f"{_percent(candidate.logp):>6} {candidate.total:8.2f}", "dim" if candidate.fate != "live" else ""),
    ]


def roles(turns: Sequence[str]) -> list[tuple[str, str]]:
    """Who said each of a conversation's turns, the last being the user's."""
    return [("you" if (len(turns) - n) % 2 else "bot", text) for n, text in enumerate(turns)]
