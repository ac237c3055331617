"""Beam search over one source, as a state machine: `want` says what the next decoder step is to
compute, `advance` takes what came. `scheduler.py` drives one or many of them together.

The rule of one step, K being the beam:
1. Every live hypothesis is extended by each of its candidates that no rule forbids (`constraints`); all
   extensions are ranked by summed log-probability, ties to the lower row, then to the lower id.
2. Extensions by end-of-sentence that rank among the first K are finished; they are scored
   (`penalties`) and compete for the n best.
3. The first K other extensions live on.
A row's first K + 1 allowed candidates always suffice: it can give K live ones and one end. One more
is asked for, so that how narrowly the next one missed is known. Which ids of a row are banned, or lose
by a penalty, is known before the step, and as many more are asked for. Where only some ids are allowed,
their log-probabilities are read from the whole distribution.
With `groups` or `required` texts, the K that live on are chosen otherwise (`choice`); for required texts,
of each row the first K that lead equally near to them are read from the whole distribution.
With `sample`, K rows start, and each is extended by one id that is drawn (`sampling`).
Hypotheses cut at the maximum length are the n best only where none has finished.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .backend import Floats
from .choice import Choice, Extension, Progress, first_k, in_banks, in_groups, likeliest
from .constraints import NO_TEXTS, Rules, RuleState, TextRules
from .errors import BundleError
from .hypotheses import Finished, Hypothesis, best_first, smallest_gap
from .options import DecodingOptions
from .penalties import bound, coverage_penalty, repeated, score
from .sampling import Sampler
from .text import EOS, GO, PAD
from .trace import Fate, TracedCandidate, TracedRow, TracedStep

_INF = float("inf")
_LEAST = -sys.float_info.max  # the least that is no infinity
#: The most that a log-probability may be by rounding: the exact stop counts on none above 0.
_MOST = 1e-3
_NO_LOGPS = "the model gave log-probabilities that are above 0 or not numbers: its weights are damaged"
_NO_WEIGHTS = "the model gave attention weights that are not numbers: its weights are damaged"
_NONE: frozenset[int] = frozenset()
_NOTHING: Mapping[int, float] = MappingProxyType({})


class StepRequest(NamedTuple):
    """What the next decoder step is to compute for this sentence's K rows."""

    tokens: list[int]  # [K] fed to each row
    parents: list[int]  # [K] rows of this sentence's previous step; all 0 at the first
    candidates: int  # C wanted for each row
    whole: bool  # the whole distribution [K, V] is wanted too


#: An id and its natural-log probability.
TokenLogp = tuple[int, float]


def _order(candidate: TokenLogp) -> tuple[float, int]:
    """The order of candidates: the likelier first, then the lower id."""
    return -candidate[1], candidate[0]


class _Live:
    """A hypothesis that goes on."""

    __slots__ = ("alignments", "group", "logp", "logps", "state", "tokens", "total")

    def __init__(
        self,
        tokens: tuple[int, ...],
        logps: tuple[float, ...],
        logp: float,
        total: float,
        state: RuleState,
        alignments: tuple[Sequence[float], ...],
        group: int,
    ) -> None:
        self.group = group  # of diverse beam groups
        self.tokens, self.logps, self.logp, self.state = tokens, logps, logp, state
        self.total = total  # logp and what penalties take: what it ranks by
        self.alignments = alignments  # a row a token, where they are kept


class BeamSearch:
    """The search for the `options.n_best` best replies to one source.

    `texts` are the rules of the texts among the options, for the vocabulary (`constraints.text_rules`).

    Raises:
        BundleError: from `advance`, where the model gives what is no log-probability, or no number as
            attention where that is used.
    """

    def __init__(
        self,
        options: DecodingOptions,
        *,
        max_length: int,
        vocab_size: int,
        source: Sequence[int],
        texts: TextRules = NO_TEXTS,
    ) -> None:
        self.options: DecodingOptions = options
        self.max_length: int = max_length if texts.longest is None else min(max_length, texts.longest)
        self.rows: int = options.rows
        self.done: bool = False
        self.min_gap: float = _INF
        """The smallest score difference that decided what lives on or how the n best are ordered: replies
        of two backends may only differ where this is within their numerical difference."""
        self.trace: list[TracedStep] = []
        """What each step did, where the options ask for it."""
        self._vocab_size, self._source_length = vocab_size, len(source)
        self._rules = Rules(options, source, texts)
        self._penalized = options.repetition_penalty > 1
        self._aligned = options.alignments or options.coverage_penalty > 0
        self._steps = 0
        self._finished = Finished(options.n_best, options.groups)
        self._over = [False] * options.groups
        self._sampler = Sampler(options) if options.sample else None
        self._whole = options.sample or self._rules.required is not None
        # Of each live row: banned ids, the only ones allowed, and those that rank lower by a penalty.
        self._banned: list[frozenset[int]] = [self._rules.banned(self._rules.start)] * self.rows
        self._allowed: list[Sequence[int] | None] = [None] * self.rows
        self._lowered: list[frozenset[int]] = [_NONE] * self.rows
        self._losing = self._count_losing()
        begun = options.beam if options.sample else options.groups
        self._live = [
            _Live((), (), 0.0, 0.0, self._rules.start, (), row % options.groups) for row in range(begun)
        ]
        self._prepare([GO] * begun, [0] * begun)

    def want(self) -> StepRequest:
        """What to compute next. In a batch a search that is `done` is asked on, until it leaves: it still has
        its rows, and what comes for them is not taken."""
        return self._request

    def advance(
        self,
        cand_ids: list[list[int]],
        cand_logp: list[list[float]],
        align: Floats,
        logp: Floats | None = None,
    ) -> None:
        """Take the candidates [K, C] of the rows that `want` asked for, their attention [K, S], and the
        whole distribution [K, V] where it was wanted.

        More candidates than were asked for change nothing but the trace. S may exceed the source: attention
        is 0 on padding."""
        count = len(self._live)
        ids, logps = cand_ids[:count], cand_logp[:count]
        alignments = None
        if self._aligned or self.options.trace:
            looked = align[:count, : self._source_length]
            if not np.isfinite(looked).all():
                raise BundleError(_NO_WEIGHTS)
            alignments = looked.tolist() if self._aligned else None
        self._steps += 1
        if self._sampler:
            assert logp is not None
            ended, extended, gap = self._draw(self._sampler, logp)
        else:
            ended, extended, gap = self._choose(ids, logps, logp)
        self._note(gap)
        finished = [(extension, self._finished_by(extension, alignments)) for extension in ended]
        if self.options.trace:
            given = [list(zip(*row, strict=True)) for row in zip(ids, logps, strict=True)]
            self._note_step(given, align, extended, finished)
        self._take(finished)
        if extended or self._finished:
            self._live = self._grown(extended, alignments)
            self._prepare([id for _, _, id, _ in extended], [row for _, row, _, _ in extended])
        else:  # nothing may follow: what there is was cut
            self.done = True
        self._finish()

    def contenders(self) -> list[tuple[int, ...]]:
        """The ids of every hypothesis that can still become, or is, the best reply; what they all begin
        with is never taken back."""
        if self.done:
            return [self.hypotheses()[0].tokens]
        if not self._finished:
            return [live.tokens for live in self._live]
        best = self.hypotheses()[0]
        going_on = [live for live in self._live if not self._over[live.group]]
        rivals = (live for live in going_on if self._bound(live) > best.score)
        if self.options.groups > 1:  # else an equal score that comes later does not win over it
            rivals = (live for live in going_on if self._bound(live) >= best.score)
        return [best.tokens, *(live.tokens for live in rivals)]

    def hypotheses(self) -> list[Hypothesis]:
        """The n best so far, best first: those that finished, or the live ones where none has."""
        return self._finished.n_best() or self._cut()[: self.options.n_best]

    def _possible(
        self, ids: list[list[int]], logps: list[list[float]], whole: Floats | None
    ) -> list[Iterable[TokenLogp]]:
        """The candidates of each row, likeliest first: all that are allowed where only some are."""
        candidates: list[Iterable[TokenLogp]] = list(map(zip, ids, logps))
        if whole is not None:
            for row, allowed in enumerate(self._allowed[: len(self._live)]):
                if allowed is not None:
                    values = whole[row, list(allowed)].tolist()
                    candidates[row] = sorted(zip(allowed, values, strict=True), key=_order)
        return candidates

    def _extensions(
        self, enough: int, candidates: Sequence[Iterable[TokenLogp]], taken: Mapping[int, float] = _NOTHING
    ) -> list[Extension]:
        """The allowed extensions, the `enough` best of them, best first, after what is `taken` off an id."""
        penalty = self.options.repetition_penalty
        found: list[Extension] = []
        least = _LEAST  # what ranks below it cannot matter any more
        for row, live in enumerate(self._live):
            so_far, banned, lowered = live.total, self._banned[row], self._lowered[row]
            most = so_far + _MOST
            ranks_lower = bool(lowered or taken)
            for id, logp in candidates[row]:
                if id in banned:
                    continue
                total = so_far + logp
                if not least <= total <= most:
                    if not total <= most:  # NaN is not less either
                        raise BundleError(_NO_LOGPS)
                    break
                if ranks_lower:
                    if id in lowered:
                        total = so_far + repeated(logp, penalty)
                    total -= taken.get(id, 0.0)
                found.append((-total, row, id, logp))
            found.sort()
            if len(found) >= enough:
                del found[enough:]
                least = -found[-1][0]
        return found

    def _choose(self, ids: list[list[int]], logps: list[list[float]], whole: Floats | None) -> Choice:
        options = self.options
        # Of 2K + 1, at most K are ends, K live on, and one tells how near the next was.
        enough = 2 * options.beam // options.groups + 1
        if self._rules.required:
            assert whole is not None
            return in_banks(self._reached(whole), options.beam, last=self._steps == self.max_length)
        candidates = self._possible(ids, logps, whole)
        if options.groups == 1:
            return first_k(self._extensions(enough, candidates), options.beam)
        groups = [
            [c if live.group == group else () for c, live in zip(candidates, self._live, strict=True)]
            for group in range(options.groups)
        ]
        ended, extended, gap = in_groups(
            [partial(self._extensions, enough, group) for group in groups],
            options.beam // options.groups,
            options.diversity_strength,
        )
        return Choice(self._alone(ended), self._alone(extended), gap)

    def _alone(self, extensions: Iterable[Extension]) -> list[Extension]:
        """The extensions ranked by what they are, whatever other groups go on with."""
        return [(-self._total(row, id, logp), row, id, logp) for _, row, id, logp in extensions]

    def _total(self, row: int, id: int, logp: float) -> float:
        """What a row ranks by with one more id."""
        if id in self._lowered[row]:
            logp = repeated(logp, self.options.repetition_penalty)
        return self._live[row].total + logp

    def _reached(self, whole: Floats) -> list[tuple[Extension, Progress]]:
        """The allowed extensions, best first, and how near to the required texts each leads: the first K of
        all that lead equally near, and the first K ends."""
        if not (whole[: len(self._live)] <= _MOST).all():  # NaN is not less either
            raise BundleError(_NO_LOGPS)
        alike: dict[tuple[Progress, bool], list[Iterable[TokenLogp]]] = {}
        for row, live in enumerate(self._live):
            allowed = self._allowed[row]
            losing = len(self._banned[row]) + len(self._lowered[row])
            for progress, among in self._rules.leading(live.state):
                ids = among if allowed is None else among[np.isin(among, allowed)]
                if ids.size:
                    logps = whole[row, ids]
                    best = likeliest(logps, min(len(ids), self.options.beam + losing))
                    rows = alike.setdefault((progress, ids[0] == EOS), [()] * len(self._live))
                    rows[row] = zip(ids[best].tolist(), logps[best].tolist(), strict=True)
        return sorted(
            (extension, progress)
            for (progress, _), rows in alike.items()
            for extension in self._extensions(self.options.beam, rows)
        )

    def _draw(self, sampler: Sampler, whole: Floats) -> Choice:
        """One extension of each row, drawn."""
        ended: list[Extension] = []
        extended: list[Extension] = []
        nearest = _INF
        for row, live in enumerate(self._live):
            logp = whole[row].astype(np.float64)  # [V]
            if not (logp <= _MOST).all():  # NaN is not less either
                raise BundleError(_NO_LOGPS)
            logp[list(self._lowered[row])] *= self.options.repetition_penalty
            allowed = self._allowed[row]
            if allowed is not None:
                rest = np.full_like(logp, -_INF)
                rest[allowed] = logp[allowed]
                logp = rest
            logp[list(self._banned[row])] = -_INF
            if logp.max() == -_INF:
                continue  # nothing may follow
            id, gap = sampler.draw(logp)
            nearest = min(nearest, gap)
            extension = (-(live.total + float(logp[id])), row, id, float(whole[row, id]))
            (ended if id == EOS else extended).append(extension)
        return Choice(ended, extended, nearest)

    def _grown(self, extended: list[Extension], alignments: list[list[float]] | None) -> list[_Live]:
        live, rules = self._live, self._rules
        ruled = rules.any
        grown = []
        for minus, row, id, logp in extended:
            parent = live[row]
            grown.append(
                _Live(
                    (*parent.tokens, id),
                    (*parent.logps, logp),
                    parent.logp + logp,
                    -minus,
                    rules.after(parent.state, id) if ruled else (),
                    (*parent.alignments, alignments[row]) if alignments else (),
                    parent.group,
                )
            )
        return grown

    def _finished_by(self, extension: Extension, alignments: list[list[float]] | None) -> Hypothesis:
        minus, row, _, logp = extension
        parent = self._live[row]
        looked = (*parent.alignments, alignments[row]) if alignments else ()
        return Hypothesis(
            parent.tokens,
            (*parent.logps, logp),
            parent.logp + logp,
            self._score(-minus, self._steps, looked),
            True,
            looked,
        )

    def _prepare(self, tokens: list[int], parents: list[int]) -> None:
        """Ask for the next step of the live hypotheses, whose last ids and rows before these are."""
        rules, live = self._rules, self._live
        whole = self._whole
        if rules.any:
            self._banned = [rules.banned(each.state) for each in live]
        if rules.only:
            left = self.max_length - self._steps
            self._allowed = [rules.allowed(each.state, left) for each in live]
            whole = whole or any(allowed is not None for allowed in self._allowed)
        if self._penalized:
            self._lowered = [frozenset(each.tokens) for each in live]
        if rules.any or self._penalized:
            self._losing = self._count_losing()
        spare = self.rows - len(tokens)
        self._request = StepRequest(
            tokens + [PAD] * spare,
            parents + [0] * spare,
            min(self._vocab_size, self.options.beam + 2 + self._losing),
            whole,
        )

    def _count_losing(self) -> int:
        """How many of a row's ids may be banned or lose by a penalty."""
        losing = max(map(len, self._banned), default=0) + max(map(len, self._lowered), default=0)
        # With groups, those that earlier ones go on with lose too.
        return losing + (self.options.beam if self.options.groups > 1 else 0)

    def _note_step(
        self,
        candidates: list[list[TokenLogp]],
        align: Floats,
        extended: list[Extension],
        ended: list[tuple[Extension, Hypothesis]],
    ) -> None:
        fates: dict[tuple[int, int], tuple[Fate, float | None]] = {}
        for _, row, id, _ in extended:
            fates[row, id] = "live", None
        for (_, row, id, _), hypothesis in ended:
            fates[row, id] = "finished", hypothesis.score
        chosen = [*extended, *(extension for extension, _ in ended)]
        rows = []
        for row, live in enumerate(self._live):
            shown = {*candidates[row], *((id, logp) for _, at, id, logp in chosen if at == row)}
            traced = []
            for id, logp in sorted(shown, key=_order):
                rule = self._rules.blocks(live.state, id, self.max_length - self._steps + 1)
                fate, value = fates.get((row, id), ("banned" if rule else "pruned", None))
                total = self._total(row, id, logp)
                traced.append(TracedCandidate(id, logp, total, fate, rule, value))
            looked_at = tuple(align[row, : self._source_length].tolist())
            rows.append(TracedRow(live.tokens, live.logp, looked_at, tuple(traced)))
        self.trace.append(TracedStep(tuple(rows)))

    def _take(self, finished: Iterable[tuple[Extension, Hypothesis]]) -> None:
        """Keep what groups finished that are not over."""
        by_group = [(self._live[row].group, hypothesis) for (_, row, _, _), hypothesis in finished]
        counting = [(group, hypothesis) for group, hypothesis in by_group if not self._over[group]]
        if counting:
            self._note(self._finished.add(counting))

    def _finish(self) -> None:
        """Decide whether the search is over."""
        self._over = [over or self._group_is_over(group) for group, over in enumerate(self._over)]
        if self.done or not self._live or self._steps >= self.max_length or all(self._over):
            self.done = True
            if self._finished:
                self._note(self._finished.gap())
            else:
                self._note(smallest_gap(self._cut()[: self.options.n_best + 1]))

    def _group_is_over(self, group: int) -> bool:
        """Whether a group has what is wanted of it and can find no better."""
        options = self.options
        to_beat = self._finished.to_beat(group)
        if to_beat is None:
            return False
        if options.beam == options.groups or options.stop == "first":
            # With one beam there is nothing to rank an end against: greedy takes its first.
            return True
        bounds = [self._bound(live) for live in self._live if live.group == group]
        return to_beat >= max(bounds, default=-_INF)

    def _note(self, gap: float) -> None:
        self.min_gap = min(self.min_gap, gap)

    def _cut(self) -> list[Hypothesis]:
        """The live ones as they are, best first, each once: two groups, or two draws, may hold the same."""
        cut = [
            Hypothesis(
                live.tokens,
                live.logps,
                live.logp,
                self._score(live.total, len(live.tokens), live.alignments),
                False,
                live.alignments,
            )
            for live in {each.tokens: each for each in self._live}.values()
        ]
        return best_first(cut)

    def _score(self, total: float, length: int, alignments: Iterable[Sequence[float]]) -> float:
        value = score(total, length, self.options)
        beta = self.options.coverage_penalty
        return value + coverage_penalty(alignments, beta) if beta else value

    def _bound(self, live: _Live) -> float:
        return bound(live.total, self.max_length, self.options)
