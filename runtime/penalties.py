"""From the log-probability of a hypothesis to the score it is ranked by, and the best it can become.

Scores are natural-log probabilities, normalized by length; higher is better. A length counts the
end-of-sentence token.
"""

from .options import DecodingOptions


def gnmt_length_penalty(length: int, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha, equation 14 of Wu et al. 2016 (arXiv:1609.08144)."""
    return float(((5.0 + length) / 6.0) ** alpha)


def score(logp: float, length: int, options: DecodingOptions) -> float:
    """The score of a hypothesis of `length` tokens whose log-probabilities sum to `logp`."""
    if options.normalize == "gnmt":
        return logp / gnmt_length_penalty(length, options.alpha)
    if options.normalize == "average":
        return logp / max(1, length)
    return logp


def bound(logp: float, max_length: int, options: DecodingOptions) -> float:
    """The best score that any continuation of a live hypothesis can reach.

    Each further token adds at most 0 to a sum that is at most 0, and the largest divisor is that of
    the maximum length; so no continuation scores above the present sum over that divisor.
    """
    return score(logp, max_length, options)
