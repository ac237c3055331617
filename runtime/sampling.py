"""Drawing the next id at random instead of taking the likeliest."""

import numpy as np

from .backend import Doubles, Ints
from .options import DecodingOptions


class Sampler:
    """Draws the ids of one request. The same seed draws the same, alone and in any batch."""

    def __init__(self, options: DecodingOptions) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def draw(self, logp: Doubles) -> tuple[int, float]:
        """An id, and how near another was, as a probability.

        `logp` [V] are natural logs, -inf for what may not come; they need not sum to 1.
        """
        cumulated = np.cumsum(
            probabilities(logp, self._options)
        )  # in order of ids, so as not to hang on ties
        at = min(self._random.random() * cumulated[-1], np.nextafter(cumulated[-1], 0))
        id = int(np.searchsorted(cumulated, at, side="right"))
        return id, float(min(at - (cumulated[id - 1] if id else 0.0), cumulated[id] - at))


def probabilities(logp: Doubles, options: DecodingOptions) -> Doubles:
    """What is drawn from [V]: temperature, then top_k, top_p and typical_p, each on what the one before
    left."""
    p = _normalized(logp / (1.0 if options.temperature is None else options.temperature))
    if options.top_k is not None:
        p = _kept(p, _ranked(-p)[: options.top_k])
    if options.top_p is not None:
        p = _kept(p, _mass(p, _ranked(-p), options.top_p))
    if options.typical_p is not None:
        p = _kept(p, _mass(p, _ranked(_strangeness(p)), options.typical_p))
    return p


def _normalized(logp: Doubles) -> Doubles:
    p = np.exp(logp - logp.max())
    normalized: Doubles = p / p.sum()
    return normalized


def _ranked(values: Doubles) -> Ints:
    """Ids, the least value first, ties to the lower id."""
    return np.argsort(values, kind="stable")


def _mass(p: Doubles, ranked: Ints, mass: float) -> Ints:
    """The fewest first ids of `ranked` that have at least this probability together."""
    return ranked[: int(np.searchsorted(np.cumsum(p[ranked]), mass)) + 1]


def _strangeness(p: Doubles) -> Doubles:
    """How far the surprise of each id is from what is to be expected, |-log p - H| (Meister et al. 2022,
    arXiv:2202.00666); infinite for the impossible."""
    with np.errstate(divide="ignore"):
        surprise = -np.log(p)
    possible = p > 0
    entropy = float((p[possible] * surprise[possible]).sum())
    return np.abs(surprise - entropy)


def _kept(p: Doubles, ids: Ints) -> Doubles:
    """`p` on these ids alone, normalized again."""
    kept = np.zeros_like(p)
    kept[ids] = p[ids]
    normalized: Doubles = kept / kept.sum()
    return normalized
