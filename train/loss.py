"""Cross entropy over real target tokens, and perplexity."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean natural-log cross entropy of `labels` [n] under `logits` [n, V]; padding is not among the n."""
    return functional.cross_entropy(logits, labels)


def perplexity(loss: float) -> float:
    """exp(loss), infinite from a loss of 300 on, where exp would soon overflow."""
    return math.exp(loss) if loss < 300 else math.inf


def real_tokens(target: Tensor, target_len: Tensor) -> Tensor:
    """Mask [B, T], true on real tokens and false on the padding behind them."""
    positions = torch.arange(target.shape[1], device=target.device)
    return positions < target_len[:, None]
