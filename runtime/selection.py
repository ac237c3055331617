"""Ranking: the likeliest ids of a distribution, and which extensions of live hypotheses end or stay live."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .backend import Floats, Ints
from .text import EOS

#: A live hypothesis extended by an id: the negated total by which it is ranked, its row, the id, and the
#: log-probability of the id. In sorted order the best is first; ties go to the lower row, then the lower id.
Extension = tuple[float, int, int, float]

#: Progress towards the required texts: the bank, which is twice the number of texts that are complete, plus 1
#: if another is begun; and the number of their bytes that the reply contains.
Progress = tuple[int, int]


class Selection(NamedTuple):
    ended: list[Extension]
    extended: list[Extension]
    gap: float  # the smallest difference of totals that decided


def likeliest_ids(logp: Floats, count: int) -> Ints:
    """The ids of the `count` largest values of `logp` [V], the largest first; ties go to the lower id."""
    least = np.partition(logp, len(logp) - count)[len(logp) - count]
    ids = np.flatnonzero(logp >= least)
    return ids[np.argsort(-logp[ids], kind="stable")[:count]]


def select_best(ranked: Sequence[Extension], beam: int) -> Selection:
    """The ends among the first K extensions, and the first K extensions that are not ends."""
    ended: list[Extension] = []
    extended: list[Extension] = []
    previous, gap = 0.0, float("inf")
    for place, extension in enumerate(ranked):
        minus = extension[0]
        if place == beam or len(extended) == beam:
            gap = min(gap, minus - previous)
            if place >= beam and len(extended) == beam:
                break
        previous = minus
        if extension[2] != EOS:
            if len(extended) < beam:
                extended.append(extension)
        elif place < beam:
            ended.append(extension)
    return Selection(ended, extended, gap)


def select_by_group(
    groups: Sequence[Callable[[Mapping[int, float]], Sequence[Extension]]], beam: int, diversity: float
) -> Selection:
    """The first K of each group, one group after the other. An extension by an id that c hypotheses of
    earlier groups chose ranks lower by c * diversity (Vijayakumar et al. 2016, arXiv:1610.02424).

    Each of `groups` is a function from what is subtracted from each id to the ranked extensions of the group.
    In the result, it is still subtracted from the totals.

    Worked example, K = 1, diversity 0.5: the first group chose id 5. In the second group, id 5 at -1.0 ranks
    as -1.5, below id 6 at -1.2, so the second group chooses 6.
    """
    penalties: Counter[int] = Counter()
    chosen = Selection([], [], float("inf"))
    for extensions in groups:
        ended, extended, gap = select_best(
            extensions({id: c * diversity for id, c in penalties.items()}), beam
        )
        penalties.update(id for _, _, id, _ in extended)
        chosen = Selection(chosen.ended + ended, chosen.extended + extended, min(chosen.gap, gap))
    return chosen


def select_by_bank(reached: Sequence[tuple[Extension, Progress]], beam: int, *, last: bool) -> Selection:
    """Divide the beam among banks: groups of extensions with the same progress towards the required texts
    (after Post & Vilar 2018, arXiv:1804.06609).

    `reached` has the extensions, best first, with their progress. Of each progress, the first K ends and the
    first K others are enough. The extension with the most bytes of the texts is chosen first, so that one
    always completes them. Then the banks take turns, the furthest first, each with its best extension. Only
    extensions of the furthest bank can be ends. An end counts if it is among the first K of its bank, and at
    the `last` step if it is among the first K ends.
    """
    banks: dict[int, list[Extension]] = {}
    for extension, (bank, _) in reached:
        banks.setdefault(bank, []).append(extension)
    ended: list[Extension] = []
    for extensions in banks.values():
        among = [each for each in extensions if each[2] == EOS] if last else extensions
        ended += [each for each in among[:beam] if each[2] == EOS]
    going_on = [(said, extension) for extension, (_, said) in reached if extension[2] != EOS]
    furthest = max(going_on, key=lambda each: (each[0], -each[1][0]), default=None)
    extended = [] if furthest is None else [furthest[1]]
    queues = [
        [each for each in banks[bank] if each[2] != EOS and each not in extended]
        for bank in sorted(banks, reverse=True)
    ]
    while len(extended) < beam and any(queues):
        for queue in queues:
            if queue and len(extended) < beam:
                extended.append(queue.pop(0))
    return Selection(ended, sorted(extended), 0.0)
