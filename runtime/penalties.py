"""From the log-probability of a hypothesis to the score it is ranked by, and the best it can become.

Scores are natural-log probabilities, normalized by length; higher is better. A length counts the
end-of-sentence token.
"""

import math
from collections.abc import Iterable, Sequence

from .options import DecodingOptions

#: The least attention that the coverage penalty takes a source token to have got: a float32 may be 0.
_LEAST_ATTENTION = 1e-10


def gnmt_length_penalty(length: int, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha, equation 14 of Wu et al. 2016 (arXiv:1609.08144)."""
    return float(((5.0 + length) / 6.0) ** alpha)


def coverage_penalty(attention: Iterable[Sequence[float]], beta: float) -> float:
    """cp(X; Y) = beta * sum_i log(min(sum_j p_ij, 1)), the second half of equation 14 of Wu et al. 2016.

    `attention` has one row a target token j, the end-of-sentence among them, with the weights p_ij on
    the source tokens i. It is 0 where every source token got a whole attention in all, below elsewhere.
    """
    totals = map(math.fsum, zip(*attention, strict=True))
    return beta * math.fsum(math.log(min(max(total, _LEAST_ATTENTION), 1.0)) for total in totals)


def repeated(logp: float, penalty: float) -> float:
    """The log-probability of a token that the hypothesis already holds: `penalty` times it.

    The rule of Keskar et al. 2019 (CTRL, arXiv:1909.05858, section 4.1), on log-probabilities instead
    of logits, which are never above 0, so that a penalty of at least 1 can only lower them. They are
    not normalized again.
    """
    return logp * penalty


def score(total: float, length: int, options: DecodingOptions) -> float:
    """The score of a hypothesis of `length` tokens whose log-probabilities, with what penalties take, sum to
    `total`; without its coverage penalty."""
    if options.normalize == "gnmt":
        return total / gnmt_length_penalty(length, options.alpha)
    if options.normalize == "average":
        return total / max(1, length)
    return total


def bound(total: float, max_length: int, options: DecodingOptions) -> float:
    """The best score that any continuation of a live hypothesis can reach.

    Each further token adds at most 0 to a sum that is at most 0, and the largest divisor is that of
    the maximum length; so no continuation scores above the present sum over that divisor. The coverage
    penalty is at best 0: what is left out now may still be attended.
    """
    return score(total, max_length, options)
