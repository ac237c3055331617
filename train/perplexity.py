"""Perplexity, of a loss or of what a model says of given replies; without torch, which no bundle needs."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def perplexity(loss: float) -> float:
    """exp(loss), infinite from a loss of 300 on, where exp would soon overflow."""
    return math.inf if loss >= 300 else math.exp(loss)


def perplexity_of(logps: Sequence[npt.NDArray[np.float32]]) -> float:
    """Perplexity over all tokens of replies, of each of which the natural-log probabilities are given."""
    return perplexity(-float(np.concatenate(logps).mean(dtype=np.float64)))
