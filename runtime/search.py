"""Beam search over one source, as a state machine: `request` returns the request for the next decoder step,
and `advance` takes its result. `scheduler.py` drives one search, or many in a batch.

One step, where K is the beam:
1. Every live hypothesis is extended by each of its candidates that no rule forbids (`constraints`). All
   extensions are ranked by summed log-probability; ties go to the lower row, then to the lower id.
2. Extensions by the end-of-sentence that rank among the first K are finished. They are scored (`scoring`)
   and compete for the n best.
3. The first K other extensions stay live.

The first K + 1 allowed candidates of a row always suffice, since a row contributes at most K live hypotheses
and one end. One more is requested, to know by how little the next one missed. The ids that a row bans or
penalizes are known before the step, and as many extra candidates are requested. If only some ids are allowed,
their log-probabilities are taken from the whole distribution.

Variants:
- With `groups` or `required` texts, `selection` selects the K live hypotheses differently. For required
  texts, each row contributes from the whole distribution its K best extensions of each progress towards the
  texts.
- With `sample`, K rows start, and each is extended by one id drawn at random (`sampling`).

Hypotheses cut off at the maximum length are returned only if none has finished.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .backend import Floats
from .constraints import NO_TEXT_RULES, Rules, RuleState, TextRules
from .errors import BundleError
from .hypotheses import FinishedHypotheses, Hypothesis, smallest_score_gap, sort_by_score
from .options import DecodingOptions
from .sampling import Sampler
from .scoring import apply_repetition_penalty, coverage_penalty, score, score_bound
from .selection import (
    Extension,
    Progress,
    Selection,
    likeliest_ids,
    select_best,
    select_by_bank,
    select_by_group,
)
from .text import EOS, GO, PAD
from .trace import Fate, TracedCandidate, TracedRow, TracedStep

_INF = float("inf")
_MIN_FINITE = -sys.float_info.max  # the smallest finite number
#: Largest log-probability accepted. It is above 0 only because of rounding: the exact stop assumes at most 0.
_MAX_LOGP = 1e-3
_INVALID_LOGPS = "the model gave log-probabilities that are above 0 or not numbers: its weights are damaged"
_INVALID_ATTENTION = "the model gave attention weights that are not numbers: its weights are damaged"
_NO_IDS: frozenset[int] = frozenset()
_NO_PENALTIES: Mapping[int, float] = MappingProxyType({})


class StepRequest(NamedTuple):
    """The next decoder step for the K rows of one sentence."""

    tokens: list[int]  # [K] the token fed to each row
    parents: list[int]  # [K] the row of this sentence's previous step that each continues; 0 at the first
    candidates: int  # C, the number of candidates needed per row
    needs_logp: bool  # whether the whole distribution [K, V] is needed too


#: An id and its natural-log probability.
TokenLogp = tuple[int, float]


def _by_likelihood(candidate: TokenLogp) -> tuple[float, int]:
    """Sort key of candidates: likelier first, ties to the lower id."""
    return -candidate[1], candidate[0]


class _LiveHypothesis:
    """A live hypothesis."""

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
        self.group = group  # its group in diverse beam search
        self.tokens, self.logps, self.logp, self.state = tokens, logps, logp, state
        self.total = total  # logp after the repetition penalty, by which it is ranked
        self.alignments = alignments  # one row per token, if they are kept


class BeamSearch:
    """The search for the `options.n_best` best replies to one source.

    `text_rules` are the rules for the text options, created by `constraints.make_text_rules` for the
    vocabulary.

    Raises:
        BundleError: from `advance`, if the model returns invalid log-probabilities, or attention that is not
            finite and is used.
    """

    def __init__(
        self,
        options: DecodingOptions,
        *,
        max_length: int,
        vocab_size: int,
        source: Sequence[int],
        text_rules: TextRules = NO_TEXT_RULES,
    ) -> None:
        self.options: DecodingOptions = options
        self.max_length: int = (
            max_length if text_rules.max_length is None else min(max_length, text_rules.max_length)
        )
        self.rows: int = options.rows
        self.done: bool = False
        self.min_gap: float = _INF
        """The smallest difference of scores that decided which hypotheses stay live or how the n best are
        ordered. The replies of two backends may differ only if it is within their numerical difference."""
        self.trace: list[TracedStep] = []
        """Every step, if the options ask for a trace."""
        self._vocab_size, self._source_length = vocab_size, len(source)
        self._rules = Rules(options, source, text_rules)
        self._needs_attention = options.alignments or options.coverage_penalty > 0
        self._steps = 0
        self._finished = FinishedHypotheses(options.n_best, options.groups)
        self._complete = [False] * options.groups
        self._sampler = Sampler(options) if options.sample else None
        self._always_needs_logp = options.sample or self._rules.required is not None
        # For each live row: the banned ids, the only allowed ids (None: all), and the penalized ids.
        self._banned: list[frozenset[int]] = [self._rules.banned(self._rules.start)] * self.rows
        self._allowed: list[Sequence[int] | None] = [None] * self.rows
        self._penalized: list[frozenset[int]] = [_NO_IDS] * self.rows
        self._extra_candidates = self._count_extra_candidates()
        start_rows = options.beam if options.sample else options.groups
        self._live = [
            _LiveHypothesis((), (), 0.0, 0.0, self._rules.start, (), row % options.groups)
            for row in range(start_rows)
        ]
        self._prepare_request([GO] * start_rows, [0] * start_rows)

    def request(self) -> StepRequest:
        """The request for the next step. A search that is `done` keeps its rows until it leaves the batch, so
        it still makes requests, but their results are not passed to `advance`."""
        return self._request

    def advance(
        self,
        cand_ids: list[list[int]],
        cand_logp: list[list[float]],
        align: Floats,
        logp: Floats | None = None,
    ) -> None:
        """Take the result of a step: the candidates [K, C] of each row, their attention [K, S], and the whole
        distribution [K, V] if it was requested.

        More candidates than requested change nothing. S may be longer than the source, since attention is 0
        on padding.
        """
        count = len(self._live)
        ids, logps = cand_ids[:count], cand_logp[:count]
        alignments = None
        if self._needs_attention or self.options.trace:
            attention = align[:count, : self._source_length]
            if not np.isfinite(attention).all():
                raise BundleError(_INVALID_ATTENTION)
            alignments = attention.tolist() if self._needs_attention else None
        self._steps += 1
        if self._sampler:
            assert logp is not None
            ended, extended, gap = self._draw(self._sampler, logp)
        else:
            ended, extended, gap = self._select(ids, logps, logp)
        self._record_gap(gap)
        finished = [(extension, self._finish_hypothesis(extension, alignments)) for extension in ended]
        if self.options.trace:
            C = self._request.candidates
            given = [
                list(zip(id_row[:C], logp_row[:C], strict=True))
                for id_row, logp_row in zip(ids, logps, strict=True)
            ]
            self._record_step(given, align, extended, finished)
        if finished:
            self._add_finished(finished)
        if extended or self._finished:
            self._live = self._extend(extended, alignments)
            self._prepare_request([id for _, _, id, _ in extended], [row for _, row, _, _ in extended])
        else:  # no token may follow: the live hypotheses are cut off
            self.done = True
        self._update_done()

    def contenders(self) -> list[tuple[int, ...]]:
        """The ids of every hypothesis that is the best reply or can still become it. Text with which all of
        them begin is settled."""
        if self.done:
            return [self.hypotheses()[0].tokens]
        if not self._finished:
            return [live.tokens for live in self._live]
        best = self.hypotheses()[0]
        going_on = [live for live in self._live if not self._complete[live.group]]
        rivals = (live for live in going_on if self._bound(live) > best.score)
        if self.options.groups > 1:  # without groups, a later reply of equal score does not win
            rivals = (live for live in going_on if self._bound(live) >= best.score)
        return [best.tokens, *(live.tokens for live in rivals)]

    def hypotheses(self) -> list[Hypothesis]:
        """The n best so far, best first: finished ones, or live ones if none has finished."""
        return self._finished.n_best() or self._cut_off_hypotheses()[: self.options.n_best]

    def _candidates_of_rows(
        self, ids: list[list[int]], logps: list[list[float]], all_logps: Floats | None
    ) -> list[Iterable[TokenLogp]]:
        """The candidates of each row, likeliest first. If only some ids are allowed, all of those."""
        candidates: list[Iterable[TokenLogp]] = list(map(zip, ids, logps))
        if all_logps is not None:
            for row, allowed in enumerate(self._allowed[: len(self._live)]):
                if allowed is not None:
                    values = all_logps[row, list(allowed)].tolist()
                    candidates[row] = sorted(zip(allowed, values, strict=True), key=_by_likelihood)
        return candidates

    def _best_extensions(
        self,
        count: int,
        candidates: Sequence[Iterable[TokenLogp]],
        penalties: Mapping[int, float] = _NO_PENALTIES,
    ) -> list[Extension]:
        """The `count` best allowed extensions, best first. `penalties` are subtracted, by id, from the total
        by which an extension is ranked."""
        penalty = self.options.repetition_penalty
        found: list[Extension] = []
        min_total = _MIN_FINITE  # extensions that rank below it can no longer be among the best
        for row, live in enumerate(self._live):
            so_far, banned, penalized = live.total, self._banned[row], self._penalized[row]
            max_total = so_far + _MAX_LOGP
            ranks_lower = bool(penalized or penalties)
            for id, logp in candidates[row]:
                if id in banned:
                    continue
                total = so_far + logp
                if not min_total <= total <= max_total:
                    if not total <= max_total:  # also true of NaN
                        raise BundleError(_INVALID_LOGPS)
                    break
                if ranks_lower:
                    if id in penalized:
                        total = so_far + apply_repetition_penalty(logp, penalty)
                    total -= penalties.get(id, 0.0)
                found.append((-total, row, id, logp))
            found.sort()
            if len(found) >= count:
                del found[count:]
                min_total = -found[-1][0]
        return found

    def _select(self, ids: list[list[int]], logps: list[list[float]], all_logps: Floats | None) -> Selection:
        options = self.options
        if self._rules.required:
            assert all_logps is not None
            return select_by_bank(
                self._extensions_with_progress(all_logps), options.beam, last=self._steps == self.max_length
            )
        candidates = self._candidates_of_rows(ids, logps, all_logps)
        beam = options.beam // options.groups
        # K stay live, and at most K are ends. One more shows by how little the next missed.
        max_ends = beam if all_logps is not None else min(beam, sum([EOS in row for row in ids]))
        count = beam + max_ends + 1
        if options.groups == 1:
            return select_best(self._best_extensions(count, candidates), beam)
        groups = [
            [c if live.group == group else () for c, live in zip(candidates, self._live, strict=True)]
            for group in range(options.groups)
        ]
        ended, extended, gap = select_by_group(
            [partial(self._best_extensions, count, group) for group in groups],
            beam,
            options.diversity_strength,
        )
        return Selection(
            self._without_diversity_penalty(ended), self._without_diversity_penalty(extended), gap
        )

    def _without_diversity_penalty(self, extensions: Iterable[Extension]) -> list[Extension]:
        """The extensions with their totals restored, without the diversity penalty."""
        return [(-self._total(row, id, logp), row, id, logp) for _, row, id, logp in extensions]

    def _total(self, row: int, id: int, logp: float) -> float:
        """What a row is ranked by when it is extended by `id`."""
        if id in self._penalized[row]:
            logp = apply_repetition_penalty(logp, self.options.repetition_penalty)
        return self._live[row].total + logp

    def _extensions_with_progress(self, all_logps: Floats) -> list[tuple[Extension, Progress]]:
        """Allowed extensions, best first, each with its progress towards the required texts: the first K
        of each progress, and the first K ends."""
        if not (all_logps[: len(self._live)] <= _MAX_LOGP).all():  # also true of NaN
            raise BundleError(_INVALID_LOGPS)
        alike: dict[tuple[Progress, bool], list[Iterable[TokenLogp]]] = {}
        for row, live in enumerate(self._live):
            allowed = self._allowed[row]
            extra = len(self._banned[row]) + len(self._penalized[row])
            for progress, among in self._rules.ids_by_progress(live.state):
                ids = among if allowed is None else among[np.isin(among, allowed)]
                if ids.size:
                    logps = all_logps[row, ids]
                    best = likeliest_ids(logps, min(len(ids), self.options.beam + extra))
                    rows = alike.setdefault((progress, ids[0] == EOS), [()] * len(self._live))
                    rows[row] = zip(ids[best].tolist(), logps[best].tolist(), strict=True)
        return sorted(
            (extension, progress)
            for (progress, _), rows in alike.items()
            for extension in self._best_extensions(self.options.beam, rows)
        )

    def _draw(self, sampler: Sampler, all_logps: Floats) -> Selection:
        """Draw one extension of each row."""
        ended: list[Extension] = []
        extended: list[Extension] = []
        nearest = _INF
        for row, live in enumerate(self._live):
            logp = all_logps[row].astype(np.float64)  # [V]
            if not (logp <= _MAX_LOGP).all():  # also true of NaN
                raise BundleError(_INVALID_LOGPS)
            logp[list(self._penalized[row])] *= self.options.repetition_penalty
            allowed = self._allowed[row]
            if allowed is not None:
                rest = np.full_like(logp, -_INF)
                rest[allowed] = logp[allowed]
                logp = rest
            logp[list(self._banned[row])] = -_INF
            if logp.max() == -_INF:
                continue  # no token may follow
            id, gap = sampler.draw(logp)
            nearest = min(nearest, gap)
            extension = (-(live.total + float(logp[id])), row, id, float(all_logps[row, id]))
            (ended if id == EOS else extended).append(extension)
        return Selection(ended, extended, nearest)

    def _extend(
        self, extended: list[Extension], alignments: list[list[float]] | None
    ) -> list[_LiveHypothesis]:
        live, rules = self._live, self._rules
        has_rules = rules.has_rules
        longer = []
        for minus, row, id, logp in extended:
            parent = live[row]
            longer.append(
                _LiveHypothesis(
                    (*parent.tokens, id),
                    (*parent.logps, logp),
                    parent.logp + logp,
                    -minus,
                    rules.after(parent.state, id) if has_rules else (),
                    (*parent.alignments, alignments[row]) if alignments else (),
                    parent.group,
                )
            )
        return longer

    def _finish_hypothesis(self, extension: Extension, alignments: list[list[float]] | None) -> Hypothesis:
        minus, row, _, logp = extension
        parent = self._live[row]
        kept_alignments = (*parent.alignments, alignments[row]) if alignments else ()
        return Hypothesis(
            parent.tokens,
            (*parent.logps, logp),
            parent.logp + logp,
            self._score(-minus, self._steps, kept_alignments),
            True,
            kept_alignments,
        )

    def _prepare_request(self, tokens: list[int], parents: list[int]) -> None:
        """Prepare the request for the next step: `tokens` are the last ids of the live hypotheses, `parents`
        their rows in the previous step."""
        rules, live = self._rules, self._live
        needs_logp = self._always_needs_logp
        if rules.has_rules:
            self._banned = [rules.banned(each.state) for each in live]
        if rules.allow_rule:
            left = self.max_length - self._steps
            self._allowed = [rules.allowed(each.state, left) for each in live]
            needs_logp = needs_logp or any(allowed is not None for allowed in self._allowed)
        repeats = self.options.repetition_penalty > 1
        if repeats:
            self._penalized = [frozenset(each.tokens) for each in live]
        if rules.has_rules or repeats:
            self._extra_candidates = self._count_extra_candidates()
        spare = self.rows - len(tokens)
        self._request = StepRequest(
            tokens + [PAD] * spare,
            parents + [0] * spare,
            min(self._vocab_size, self.options.beam + 2 + self._extra_candidates),
            needs_logp,
        )

    def _count_extra_candidates(self) -> int:
        """The maximum number of ids that a row bans or penalizes."""
        extra = max(map(len, self._banned), default=0) + max(map(len, self._penalized), default=0)
        # With groups, the ids that earlier groups chose are penalized too.
        return extra + (self.options.beam if self.options.groups > 1 else 0)

    def _record_step(
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
            for id, logp in sorted(shown, key=_by_likelihood):
                rule = self._rules.blocking_rule(live.state, id, self.max_length - self._steps + 1)
                fate, value = fates.get((row, id), ("banned" if rule else "pruned", None))
                total = self._total(row, id, logp)
                traced.append(TracedCandidate(id, logp, total, fate, rule, value))
            attention = tuple(align[row, : self._source_length].tolist())
            rows.append(TracedRow(live.tokens, live.logp, attention, tuple(traced)))
        self.trace.append(TracedStep(tuple(rows)))

    def _add_finished(self, finished: Iterable[tuple[Extension, Hypothesis]]) -> None:
        """Keep the finished hypotheses of groups that are not complete."""
        by_group = [(self._live[row].group, hypothesis) for (_, row, _, _), hypothesis in finished]
        counting = [(group, hypothesis) for group, hypothesis in by_group if not self._complete[group]]
        if counting:
            self._record_gap(self._finished.add(counting))

    def _update_done(self) -> None:
        """Decide whether the search is done."""
        if self._finished:  # else no group is complete
            self._complete = [
                complete or self._is_group_complete(group) for group, complete in enumerate(self._complete)
            ]
        if self.done or not self._live or self._steps >= self.max_length or all(self._complete):
            self.done = True
            if self._finished:
                self._record_gap(self._finished.gap())
            else:
                self._record_gap(smallest_score_gap(self._cut_off_hypotheses()[: self.options.n_best + 1]))

    def _is_group_complete(self, group: int) -> bool:
        """Whether a group has as many replies as are wanted of it and can find no better ones."""
        options = self.options
        score_to_beat = self._finished.score_to_beat(group)
        if score_to_beat is None:
            return False
        if options.beam == options.groups or options.stop == "first":
            # With one hypothesis per group there is nothing to rank an end against: greedy takes the first.
            return True
        bounds = [self._bound(live) for live in self._live if live.group == group]
        return score_to_beat >= max(bounds, default=-_INF)

    def _record_gap(self, gap: float) -> None:
        self.min_gap = min(self.min_gap, gap)

    def _cut_off_hypotheses(self) -> list[Hypothesis]:
        """The live hypotheses, cut off as they are, best first. Groups and draws may have equal ones, which
        are listed once."""
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
        return sort_by_score(cut)

    def _score(self, total: float, length: int, alignments: Iterable[Sequence[float]]) -> float:
        value = score(total, length, self.options)
        beta = self.options.coverage_penalty
        return value + coverage_penalty(alignments, beta) if beta else value

    def _bound(self, live: _LiveHypothesis) -> float:
        return score_bound(live.total, self.max_length, self.options)
