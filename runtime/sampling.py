"""Drawing the next id at random."""

import numpy as np

from .backend import Doubles, Ints
from .options import DecodingOptions


class Sampler:
    """Draws the ids of one search. With a seed the draws are the same, alone or in any batch."""

    def __init__(self, options: DecodingOptions) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def draw(self, logp: Doubles) -> tuple[int, float]:
        """Draw an id. Also return by how much, as a probability, the random number missed the nearest other
        id.

        `logp` [V] are natural logs, -inf for ids that may not follow; they need not be normalized.
        """
        # Cumulated in the order of ids, which does not depend on rounding, as an order by probability would.
        cumulated = np.cumsum(sampling_distribution(logp, self._options))
        at = min(self._random.random() * cumulated[-1], np.nextafter(cumulated[-1], 0))
        id = int(np.searchsorted(cumulated, at, side="right"))
        return id, float(min(at - (cumulated[id - 1] if id else 0.0), cumulated[id] - at))


def sampling_distribution(logp: Doubles, options: DecodingOptions) -> Doubles:
    """The distribution [V] to draw from: temperature, then top_k, top_p and typical_p, each applied to the
    result of the one before."""
    p = _softmax(logp / (1.0 if options.temperature is None else options.temperature))
    if options.top_k is not None:
        p = _restricted(p, _ids_by_value(-p)[: options.top_k])
    if options.top_p is not None:
        p = _restricted(p, _smallest_set_with_mass(p, _ids_by_value(-p), options.top_p))
    if options.typical_p is not None:
        p = _restricted(
            p, _smallest_set_with_mass(p, _ids_by_value(_distance_from_entropy(p)), options.typical_p)
        )
    return p


def _softmax(logp: Doubles) -> Doubles:
    p = np.exp(logp - logp.max())
    normalized: Doubles = p / p.sum()
    return normalized


def _ids_by_value(values: Doubles) -> Ints:
    """Ids, the smallest value first; ties go to the lower id."""
    return np.argsort(values, kind="stable")


def _smallest_set_with_mass(p: Doubles, ranked: Ints, mass: float) -> Ints:
    """The shortest prefix of `ranked` whose probabilities sum to at least `mass`."""
    return ranked[: int(np.searchsorted(np.cumsum(p[ranked]), mass)) + 1]


def _distance_from_entropy(p: Doubles) -> Doubles:
    """The distance of each id's surprise from the entropy, |-log p - H| (Meister et al. 2022,
    arXiv:2202.00666); infinite if p is 0."""
    with np.errstate(divide="ignore"):
        surprise = -np.log(p)
    possible = p > 0
    entropy = float((p[possible] * surprise[possible]).sum())
    return np.abs(surprise - entropy)


def _restricted(p: Doubles, ids: Ints) -> Doubles:
    """`p` restricted to `ids` and normalized again."""
    kept = np.zeros_like(p)
    kept[ids] = p[ids]
    normalized: Doubles = kept / kept.sum()
    return normalized
