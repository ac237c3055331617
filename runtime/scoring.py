"""The score of a hypothesis, computed from its log-probability, and the best score that it can still reach.

Scores are natural-log probabilities normalized by length; higher is better. A length includes the
end-of-sentence.
"""

import math
from collections.abc import Iterable, Sequence

from .options import DecodingOptions

#: The coverage penalty replaces a smaller sum of attention by this: a sum of float32 may be 0.
_MIN_ATTENTION = 1e-10


def gnmt_length_penalty(length: int, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha, equation 14 of Wu et al. 2016 (arXiv:1609.08144)."""
    return float(((5.0 + length) / 6.0) ** alpha)


def coverage_penalty(attention: Iterable[Sequence[float]], beta: float) -> float:
    """cp(X; Y) = beta * sum_i log(min(sum_j p_ij, 1)), the second half of equation 14 of Wu et al. 2016.

    `attention` has one row per target token j, including the end-of-sentence, with the weights p_ij on the
    source tokens i. The penalty is 0 if the attention to each source token sums to at least 1, else negative.
    """
    totals = map(math.fsum, zip(*attention, strict=True))
    return beta * math.fsum(math.log(min(max(total, _MIN_ATTENTION), 1.0)) for total in totals)


def apply_repetition_penalty(logp: float, penalty: float) -> float:
    """The log-probability, times `penalty`, of a token that the hypothesis already contains.

    This is the rule of Keskar et al. 2019 (CTRL, arXiv:1909.05858, section 4.1), applied to log-probabilities
    in place of logits. They are never above 0, so a penalty of at least 1 can only lower them. They are not
    normalized again.
    """
    return logp * penalty


def score(total: float, length: int, options: DecodingOptions) -> float:
    """The score, without the coverage penalty, of a hypothesis of `length` tokens. `total` is the sum of
    their log-probabilities after the repetition penalty."""
    if options.normalize == "gnmt":
        return total / gnmt_length_penalty(length, options.alpha)
    if options.normalize == "average":
        return total / max(1, length)
    return total


def score_bound(total: float, max_length: int, options: DecodingOptions) -> float:
    """An upper bound on the score of every continuation of a live hypothesis.

    Each further token adds at most 0 to a total that is at most 0, and the largest divisor is that of the
    maximum length, so no continuation scores above the present total over that divisor. The coverage penalty
    is at best 0, since later tokens may still attend to any source token.
    """
    return score(total, max_length, options)
