"""Replies as ids, and of those that a search finished, which are the n best."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A reply as ids. Where it is not `finished`, the maximum length or a cancellation cut it."""

    tokens: tuple[int, ...]  # without the end-of-sentence
    token_logps: tuple[float, ...]  # natural log; with the end-of-sentence where finished
    logp: float  # their sum
    score: float  # logp with its penalties, normalized by length
    finished: bool
    alignments: tuple[Sequence[float], ...] = ()  # [len(token_logps)][S], where they are kept


def best_first(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda each: -each.score)  # stable: an earlier one wins a tie


def smallest_gap(ranked: Iterable[Hypothesis]) -> float:
    """How near the nearest neighbours of a ranking are."""
    gaps = (better.score - worse.score for better, worse in itertools.pairwise(ranked))
    return min(gaps, default=float("inf"))


class Finished:
    """The hypotheses that groups finished, and which of them count for each group.

    Of n replies, each of G groups gives its n / G best. What two of them finished is one reply: it counts
    for the first that finished it and has not as many better ones.
    Worked example, one reply wanted of each of two groups: the first finished P at -1 and Q at -2, the
    second Q and R at -3. P counts for the first, so Q for the second; without P, Q for the first.
    """

    def __init__(self, n_best: int, groups: int) -> None:
        self._n_best, self._groups = n_best, groups
        self._wanted = -(-n_best // groups)  # of each group
        self._kept: list[tuple[int, Hypothesis]] = []  # by which group, best first
        self._counting: list[list[Hypothesis]] = [[] for _ in range(groups)]  # for each, best first

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, finished: Iterable[tuple[int, Hypothesis]]) -> float:
        """Take what one step finished, and for which group; gives the smallest difference that decided."""
        # Rows differ in rounding, but what two groups finish is one reply; and one may be drawn twice.
        alike: dict[tuple[int, ...], Hypothesis] = {}
        new = {(group, each.tokens): alike.setdefault(each.tokens, each) for group, each in finished}
        ranked = self._kept + [(group, each) for (group, _), each in new.items()]
        ranked.sort(key=lambda each: -each[1].score)  # stable: an earlier one wins a tie
        own: list[list[Hypothesis]] = [[] for _ in range(self._groups)]
        counted: set[tuple[int, ...]] = set()
        most = self._wanted * self._groups  # who has as many better ones of its own group never counts
        self._kept, self._counting = [], [[] for _ in range(self._groups)]
        for group, each in ranked:
            own[group].append(each)
            if len(own[group]) <= most:
                self._kept.append((group, each))
            if len(self._counting[group]) < self._wanted and each.tokens not in counted:
                self._counting[group].append(each)
                counted.add(each.tokens)
        return min(smallest_gap(each[: most + 1]) for each in own)

    def to_beat(self, group: int) -> float | None:
        """The score above which another would count for a group, once it has all that is wanted of it."""
        counting = self._counting[group]
        return counting[-1].score if len(counting) == self._wanted else None

    def n_best(self) -> list[Hypothesis]:
        """Best first. The best of each group come before the second of any."""
        return best_first(itertools.islice(itertools.chain(*self._places()), self._n_best))

    def gap(self) -> float:
        """The smallest difference that decided who is among the n best, and their order."""
        return min(map(smallest_gap, [*self._places(), self.n_best()]))

    def _places(self) -> list[list[Hypothesis]]:
        """The best of each group, best first, then the second of each, and so on."""
        return [best_first(filter(None, place)) for place in itertools.zip_longest(*self._counting)]
