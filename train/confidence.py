"""What confidences are worth on pairs whose right replies are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Of `edgechat reply --abstain-below`, for those that are to choose one.
THRESHOLDS = (0.5, 0.8, 0.9, 0.95)
_BINS = 10


@dataclass(frozen=True)
class Answered:
    """What is answered where only a confidence of `at_least` will do, and how much of it is right."""

    at_least: float
    answered: int
    right: int


@dataclass(frozen=True)
class Trust:
    """How far confidences can be trusted: their expected calibration error, what thresholds let pass."""

    expected_error: float
    answered: tuple[Answered, ...]


def trust(confidences: Sequence[float | None], right: Sequence[bool]) -> Trust | None:
    """Of the best replies to some prompts. One without a confidence, as one that was cut, is not answered
    with, and is no part of the error; None where none has any."""
    known = [(each, was) for each, was in zip(confidences, right, strict=True) if each is not None]
    if not known:
        return None
    answered = []
    for threshold in THRESHOLDS:
        passed = [was for each, was in known if each >= threshold]
        answered.append(Answered(threshold, len(passed), sum(passed)))
    return Trust(expected_calibration_error(*zip(*known, strict=True)), tuple(answered))


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean over the pairs, bin by bin of confidence, of |share that was right - mean confidence| (Guo et
    al. 2017, equation 3), with 10 bins of one width."""
    p, y = np.array(confidences), np.array(right, dtype=np.float64)
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for each in np.unique(bins):
        chosen = bins == each
        error += chosen.mean() * abs(y[chosen].mean() - p[chosen].mean())
    return float(error)
