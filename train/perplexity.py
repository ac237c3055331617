"""Perplexity of a loss or of given replies. It does not import torch, which bundles do not need."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def perplexity(loss: float) -> float:
    """exp(loss); infinite from a loss of 300 on, before exp overflows."""
    return math.inf if loss >= 300 else math.exp(loss)


def perplexity_of(logps: Sequence[npt.NDArray[np.float32]]) -> float:
    """Perplexity over all tokens of some replies, from their natural-log probabilities."""
    return perplexity(-float(np.concatenate(logps).mean(dtype=np.float64)))
