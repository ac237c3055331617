"""Beam search over one source, as a state machine: `want` says what the next decoder step is to
compute, `advance` takes what came. `scheduler.py` drives one or many of them together.

The rule of one step, K being the beam:
1. Every live hypothesis is extended by each of its candidates; all extensions are ranked by summed
   log-probability, ties to the lower row, then to the lower id.
2. Extensions by end-of-sentence that rank among the first K are finished; they are scored
   (`penalties`) and compete for the n best.
3. The first K other extensions live on.
A row's first K + 1 allowed candidates always suffice: it can give K live ones and one end. One more
is asked for, so that how narrowly the next one missed is known.
Hypotheses cut at the maximum length are the n best only where none has finished.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from .backend import Floats, Ints
from .errors import EdgeChatError
from .options import DecodingOptions
from .penalties import bound, score
from .text import EOS, GO, NEVER_GENERATED, PAD
from .trace import Fate, TracedCandidate, TracedRow, TracedStep


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A reply as ids. `finished` is false where the maximum length or a cancellation cut it."""

    tokens: tuple[int, ...]  # without the end-of-sentence
    token_logps: tuple[float, ...]  # natural log; with the end-of-sentence where finished
    logp: float  # their sum
    score: float  # logp, normalized by length
    finished: bool


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What the next decoder step is to compute for this sentence's K rows."""

    tokens: list[int]  # [K] fed to each row
    parents: list[int]  # [K] rows of this sentence's previous step; all 0 at the first
    candidates: int  # C wanted for each row


class _Live:
    """A hypothesis that goes on: its tokens, their log-probabilities and the sum."""

    __slots__ = ("logp", "logps", "tokens")

    def __init__(self, tokens: list[int], logps: list[float], logp: float) -> None:
        self.tokens, self.logps, self.logp = tokens, logps, logp


class BeamSearch:
    """The search for the `options.n_best` best replies to one source.

    Raises:
        EdgeChatError: from `advance`, where the model gives something that is no number.
    """

    def __init__(
        self, options: DecodingOptions, *, max_length: int, vocab_size: int, source_length: int
    ) -> None:
        self.options, self.max_length = options, max_length
        self.rows = options.rows
        self.done = False
        self.min_gap = float("inf")
        """The smallest score difference that decided what lives on or how the n best are ordered: replies
        of two backends may only differ where this is within their numerical difference."""
        self.trace: list[TracedStep] = []
        """What each step did, where the options ask for it."""
        self._vocab_size, self._source_length = vocab_size, source_length
        self._steps = 0
        self._live = [_Live([], [], 0.0)]
        self._finished: list[Hypothesis] = []  # the n best so far, best first
        self._finished_count = 0
        self._request = StepRequest([GO] + [PAD] * (self.rows - 1), [0] * self.rows, self._candidates())
        self._settled = 0

    def want(self) -> StepRequest:
        """What to compute next; asked only while not `done`."""
        return self._request

    def advance(self, cand_ids: Ints, cand_logp: Floats, align: Floats) -> None:
        """Take the candidates [K, C] of the rows that `want` asked for, and their attention [K, S].

        C may exceed what was asked, and S the source: attention is 0 on padding."""
        live = self._live
        totals = cand_logp[: len(live)].astype(np.float64)
        totals += np.array([[hypothesis.logp] for hypothesis in live])
        ids = cand_ids[: len(live)]
        for banned in self._banned(self._steps):
            totals[ids == banned] = -np.inf
        if not (totals < np.inf).all():  # NaN is not less either
            raise EdgeChatError(
                "the model gave log-probabilities that are not numbers: its weights are damaged"
            )
        # Stable: equal sums keep the order of rows, and within a row that of ids.
        order = np.argsort(-totals, axis=None, kind="stable")
        self._steps += 1
        flat_ids, flat_totals = ids.ravel().tolist(), totals.ravel().tolist()
        fates = self._extend(order.tolist(), flat_ids, flat_totals, cand_logp.shape[1])
        if self.options.trace:
            self._note_step(live, ids, cand_logp, align, fates)
        self._finish()

    def settled(self) -> list[int]:
        """Ids that every hypothesis which can still be the best reply begins with; never taken back."""
        contenders = self._contenders()
        first, n = contenders[0], self._settled
        shortest = min(map(len, contenders))
        while n < shortest and all(other[n] == first[n] for other in contenders):
            n += 1
        self._settled = n
        return list(first[:n])

    def hypotheses(self) -> list[Hypothesis]:
        """The n best so far, best first: those that finished, or the live ones where none has."""
        return list(self._finished) or self._cut()[: self.options.n_best]

    def _extend(self, order: list[int], ids: list[int], totals: list[float], width: int) -> dict[int, Fate]:
        """Let the ranked extensions end, live on or fall away; gives the fate of those that did not."""
        fates: dict[int, Fate] = {}
        beam, n = self.options.beam, self._steps
        extended: list[_Live] = []
        parents: list[int] = []
        previous = 0.0
        for rank, at in enumerate(order):
            total = totals[at]
            if total == -np.inf:
                break
            if rank == beam or len(extended) == beam:
                self.min_gap = min(self.min_gap, previous - total)
            if rank >= beam and len(extended) == beam:
                break
            previous = total
            parent = self._live[at // width]
            logps = [*parent.logps, total - parent.logp]
            if ids[at] == EOS:
                if rank < beam:
                    fates[at] = "finished"
                    self._add_finished(
                        Hypothesis(
                            tuple(parent.tokens), tuple(logps), total, score(total, n, self.options), True
                        )
                    )
            elif len(extended) < beam:
                fates[at] = "live"
                extended.append(_Live([*parent.tokens, ids[at]], logps, total))
                parents.append(at // width)
        if not extended and not self._finished:  # nothing may follow: what there is was cut
            self.done = True
            return fates
        self._live = extended
        spare = self.rows - len(extended)
        tokens = [live.tokens[-1] for live in extended] + [PAD] * spare
        self._request = StepRequest(tokens, parents + [0] * spare, self._candidates())
        return fates

    def _note_step(
        self, live: list[_Live], ids: Ints, cand_logp: Floats, align: Floats, fates: dict[int, Fate]
    ) -> None:
        banned = self._banned(self._steps - 1)
        rows = []
        for row, hypothesis in enumerate(live):
            candidates = tuple(
                TracedCandidate(
                    id,
                    logp,
                    hypothesis.logp + logp,
                    "banned" if id in banned else fates.get(row * ids.shape[1] + c, "pruned"),
                )
                for c, (id, logp) in enumerate(zip(ids[row].tolist(), cand_logp[row].tolist(), strict=True))
            )
            looked_at = tuple(align[row, : self._source_length].tolist())
            rows.append(TracedRow(tuple(hypothesis.tokens), hypothesis.logp, looked_at, candidates))
        self.trace.append(TracedStep(tuple(rows)))

    def _add_finished(self, hypothesis: Hypothesis) -> None:
        self._finished_count += 1
        self._finished.append(hypothesis)
        self._finished.sort(key=lambda h: -h.score)  # stable: an earlier one wins a tie
        self._note_gaps(self._finished)
        del self._finished[self.options.n_best :]

    def _finish(self) -> None:
        """Decide whether the search is over."""
        options = self.options
        if self.done or not self._live or self._steps >= self.max_length:
            self.done = True
        elif options.beam == 1 or options.stop == "first":
            # With one beam there is nothing to rank an end against: greedy takes its first.
            self.done = self._finished_count >= options.n_best
        elif len(self._finished) == options.n_best:
            best_live = max(live.logp for live in self._live)
            self.done = self._finished[-1].score >= bound(best_live, self.max_length, options)
        if self.done and not self._finished:
            self._note_gaps(self._cut()[: options.n_best + 1])

    def _note_gaps(self, ranked: list[Hypothesis]) -> None:
        for better, worse in itertools.pairwise(ranked):
            self.min_gap = min(self.min_gap, better.score - worse.score)

    def _contenders(self) -> list[tuple[int, ...]]:
        """Ids of all that can still be the best reply; a finished one ends with its end-of-sentence."""
        if self.done:
            best = self.hypotheses()[0]
            return [best.tokens]
        if not self._finished:
            return [tuple(live.tokens) for live in self._live]
        best = self._finished[0]
        rivals = (live for live in self._live if bound(live.logp, self.max_length, self.options) > best.score)
        return [best.tokens, *(tuple(live.tokens) for live in rivals)]

    def _cut(self) -> list[Hypothesis]:
        """The live ones as they are, best first."""
        cut = [
            Hypothesis(
                tuple(live.tokens),
                tuple(live.logps),
                live.logp,
                score(live.logp, len(live.tokens), self.options),
                False,
            )
            for live in self._live
        ]
        return sorted(cut, key=lambda h: -h.score)

    def _banned(self, step: int) -> tuple[int, ...]:
        """Ids that the token after `step` tokens cannot be."""
        if step < self.options.min_length:
            return (*NEVER_GENERATED, EOS)
        return NEVER_GENERATED

    def _candidates(self) -> int:
        return min(self._vocab_size, self.options.beam + 2 + len(self._banned(self._steps)))
