"""Cross entropy over real target tokens, and perplexity."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional


class Losses(NamedTuple):
    """Sums over tokens, natural log."""

    objective: Tensor  # what is minimized
    nll: Tensor  # the negative log-likelihood, which is reported; it carries no gradient


def summed_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Losses:
    """Losses of `labels` [n] under `logits` [n, V].

    With smoothing e the objective of a token is (1 - e) * nll + e * mean over V of -log p, the cross
    entropy to a target that shares e evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    logits = logits.float()
    if not smoothing:
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        return Losses(loss, loss.detach())
    logp = logits.log_softmax(dim=-1)  # (n, V)
    nll = -logp.gather(1, labels[:, None]).sum()
    return Losses((1 - smoothing) * nll - smoothing * logp.mean(dim=-1).sum(), nll.detach())


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean natural-log cross entropy of `labels` [n] under `logits` [n, V]; padding is not among the n."""
    return functional.cross_entropy(logits.float(), labels)


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
