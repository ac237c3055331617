"""Cross entropy over real target tokens, and perplexity."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean natural-log cross entropy of `labels` [n] under `logits` [n, V]; padding is not among the n."""
    return functional.cross_entropy(logits, labels)


def perplexity(loss: float) -> float:
    """exp(loss), infinite from a loss of 300 on, where exp would soon overflow."""
    return math.exp(loss) if loss < 300 else math.inf


def perplexity_of(logps: Sequence[npt.NDArray[np.float32]]) -> float:
    """Perplexity over all tokens of replies, of each of which the natural-log probabilities are given."""
    return perplexity(-float(np.concatenate(logps).mean(dtype=np.float64)))


def real_tokens(target: Tensor, target_len: Tensor) -> Tensor:
    """Mask [B, T], true on real tokens and false on the padding behind them."""
    positions = torch.arange(target.shape[1], device=target.device)
    return positions < target_len[:, None]
