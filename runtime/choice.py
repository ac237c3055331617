"""Which ids come first, which extensions of the live hypotheses end, and which live on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .backend import Floats, Ints
from .text import EOS

#: A live hypothesis and one more id: minus what they rank by, the row, the id, its log-probability.
#: In order, the best is first, and ties go to the lower row, then to the lower id.
Extension = tuple[float, int, int, float]

#: How near to holding all required texts: a bank, two a text that was said and one more where another is
#: begun; and how many bytes of the texts are said.
Progress = tuple[int, int]


class Choice(NamedTuple):
    ended: list[Extension]
    extended: list[Extension]
    gap: float  # the smallest difference that decided


def likeliest(logp: Floats, count: int) -> Ints:
    """The ids of the `count` largest of [V], the largest first, ties to the lower id."""
    least = np.partition(logp, len(logp) - count)[len(logp) - count]
    ids = np.flatnonzero(logp >= least)
    return ids[np.argsort(-logp[ids], kind="stable")[:count]]


def first_k(ranked: Sequence[Extension], beam: int) -> Choice:
    """The ends among the first K of all, and the first K others."""
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
    return Choice(ended, extended, gap)


def in_groups(
    groups: Sequence[Callable[[Mapping[int, float]], Sequence[Extension]]], beam: int, diversity: float
) -> Choice:
    """The first K of each group, one group after the other; an extension by an id that c hypotheses of
    earlier groups go on with ranks lower by c * diversity (Vijayakumar et al. 2016, arXiv:1610.02424).

    Each of `groups` gives its extensions, ranked with what is taken off an id; so they are given back.
    Worked example, K 1, diversity 0.5: the first group goes on with 5; of the second's 5 at -1.0 and 6 at
    -1.2, the 5 counts as -1.5, so it goes on with 6.
    """
    taken: Counter[int] = Counter()
    chosen = Choice([], [], float("inf"))
    for extensions in groups:
        ended, extended, gap = first_k(extensions({id: c * diversity for id, c in taken.items()}), beam)
        taken.update(id for _, _, id, _ in extended)
        chosen = Choice(chosen.ended + ended, chosen.extended + extended, min(chosen.gap, gap))
    return chosen


def in_banks(reached: Sequence[tuple[Extension, Progress]], beam: int, *, last: bool) -> Choice:
    """The beam shared among the banks of extensions that are equally near to holding all required texts
    (after Post & Vilar 2018, arXiv:1804.06609).

    `reached` has the extensions, best first, and how near each leads; of those that lead equally near, the
    first K that end and the first K that go on are enough. First comes the extension with the most bytes
    said, so that one always gets there; then the banks take turns, the nearest first, each with its best.
    Ends, which only the nearest can have, count among the first K of their bank; at the `last` step the
    first K do.
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
    return Choice(ended, sorted(extended), 0.0)
