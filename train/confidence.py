"""The quality of confidences, measured on pairs whose correct replies are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Thresholds for `edgechat reply --abstain-below` that are reported, to help choose one.
THRESHOLDS = (0.5, 0.8, 0.9, 0.95)
_BINS = 10


@dataclass(frozen=True)
class AnswerCounts:
    """How many prompts are answered with a confidence of `at_least` or more, and how many of the answers
    are right."""

    at_least: float
    answered: int
    right: int


@dataclass(frozen=True)
class ConfidenceReport:
    """The expected calibration error of confidences, and what is answered at each threshold."""

    expected_error: float
    answered: tuple[AnswerCounts, ...]


def measure_confidence(confidences: Sequence[float | None], right: Sequence[bool]) -> ConfidenceReport | None:
    """Measure the confidences of the best replies to some prompts.

    A reply without a confidence, such as one that was cut off, counts as unanswered and is not part of the
    error. None if no reply has a confidence.
    """
    known = [(each, was) for each, was in zip(confidences, right, strict=True) if each is not None]
    if not known:
        return None
    answered = []
    for threshold in THRESHOLDS:
        passed = [was for each, was in known if each >= threshold]
        answered.append(AnswerCounts(threshold, len(passed), sum(passed)))
    return ConfidenceReport(expected_calibration_error(*zip(*known, strict=True)), tuple(answered))


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The mean over the pairs of |share of right ones - mean confidence| in their bin (Guo et al. 2017,
    equation 3), with 10 bins of equal width."""
    p, y = np.array(confidences), np.array(right, dtype=np.float64)
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for each in np.unique(bins):
        chosen = bins == each
        error += chosen.mean() * abs(y[chosen].mean() - p[chosen].mean())
    return float(error)
