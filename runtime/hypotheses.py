"""Hypotheses, and which of the finished ones are the n best."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A reply as ids. If it is not `finished`, the maximum length or a cancellation cut it off."""

    tokens: tuple[int, ...]  # without the end-of-sentence
    token_logps: tuple[float, ...]  # natural log; includes the end-of-sentence if finished
    logp: float  # their sum
    score: float  # logp after penalties and length normalization
    finished: bool
    alignments: tuple[Sequence[float], ...] = ()  # [len(token_logps)][S], if they are kept


def sort_by_score(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda each: -each.score)  # stable: the earlier one wins a tie


def smallest_score_gap(ranked: Iterable[Hypothesis]) -> float:
    """The smallest difference between two neighbors of a ranking."""
    gaps = (better.score - worse.score for better, worse in itertools.pairwise(ranked))
    return min(gaps, default=float("inf"))


class FinishedHypotheses:
    """The finished hypotheses of all groups, and which of them count for each group.

    Of n replies, each of G groups contributes n / G, rounded up. A reply that several groups finished counts
    once: for the first group that does not yet have enough better ones.

    Worked example, with two groups and one reply wanted of each: the first group finished P at -1 and Q at
    -2, the second Q at -2 and R at -3. P counts for the first group, so Q counts for the second. Without P, Q
    would count for the first and R for the second.
    """

    def __init__(self, n_best: int, groups: int) -> None:
        self._n_best, self._groups = n_best, groups
        self._replies_per_group = -(-n_best // groups)  # replies per group
        self._ranked: list[tuple[int, Hypothesis]] = []  # (group, hypothesis), best first
        self._best_by_group: list[list[Hypothesis]] = [[] for _ in range(groups)]  # by group, best first

    def __bool__(self) -> bool:
        return bool(self._ranked)

    def add(self, finished: Iterable[tuple[int, Hypothesis]]) -> float:
        """Add the hypotheses that one step finished, each with its group. Return the smallest difference of
        scores that decided which of them count."""
        # The same reply may come from two groups, or be drawn twice, with scores that differ by rounding.
        alike: dict[tuple[int, ...], Hypothesis] = {}
        new = {(group, each.tokens): alike.setdefault(each.tokens, each) for group, each in finished}
        ranked = self._ranked + [(group, each) for (group, _), each in new.items()]
        ranked.sort(key=lambda each: -each[1].score)  # stable: the earlier one wins a tie
        own: list[list[Hypothesis]] = [[] for _ in range(self._groups)]
        counted: set[tuple[int, ...]] = set()
        # A hypothesis with that many better ones in its group never counts.
        limit = self._replies_per_group * self._groups
        self._ranked, self._best_by_group = [], [[] for _ in range(self._groups)]
        for group, each in ranked:
            own[group].append(each)
            if len(own[group]) <= limit:
                self._ranked.append((group, each))
            if len(self._best_by_group[group]) < self._replies_per_group and each.tokens not in counted:
                self._best_by_group[group].append(each)
                counted.add(each.tokens)
        return min(smallest_score_gap(each[: limit + 1]) for each in own)

    def score_to_beat(self, group: int) -> float | None:
        """The score that a further reply of a group must exceed to count. None if the group does not yet have
        as many replies as wanted."""
        counting = self._best_by_group[group]
        return counting[-1].score if len(counting) == self._replies_per_group else None

    def n_best(self) -> list[Hypothesis]:
        """The n best, best first. All groups' best replies are taken before any group's second best."""
        return sort_by_score(itertools.islice(itertools.chain(*self._ranked_across_groups()), self._n_best))

    def gap(self) -> float:
        """The smallest difference of scores that decided which hypotheses are the n best, and their order."""
        return min(map(smallest_score_gap, [*self._ranked_across_groups(), self.n_best()]))

    def _ranked_across_groups(self) -> list[list[Hypothesis]]:
        """The best reply of each group, best first; then the second best of each, and so on."""
        return [sort_by_score(filter(None, place)) for place in itertools.zip_longest(*self._best_by_group)]
