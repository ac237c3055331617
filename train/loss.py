"""Cross entropy over real target tokens."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

#: Number of logits that are processed at a time: one megabyte of them.
_LOGITS_PER_CHUNK = 1 << 18


class Losses(NamedTuple):
    """Sums over tokens, natural log."""

    objective: Tensor  # what is minimized
    nll: Tensor  # the negative log-likelihood, which is reported; it carries no gradient


def summed_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Losses:
    """Losses of `labels` [n] under `logits` [n, V].

    With smoothing e the objective of a token is (1 - e) * nll + e * mean over V of -log p, the cross
    entropy to a target that shares e evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    if logits.device.type == "cpu":
        return Losses(*_CrossEntropy.apply(logits, labels, smoothing))  # type: ignore[no-untyped-call]
    return fused_losses(logits, labels, smoothing)


def fused_losses(logits: Tensor, labels: Tensor, smoothing: float) -> Losses:
    """Losses by PyTorch's own functions, which on a GPU are a kernel or two."""
    logits = logits.float()
    nll = functional.cross_entropy(logits, labels, reduction="sum")
    if not smoothing:
        return Losses(nll, nll.detach())
    objective = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    return Losses(objective, nll.detach())


class _CrossEntropy(Function):
    """Cross entropy in float32, computed a few rows at a time so that they stay in the CPU's cache: the
    logits of a batch are tens of megabytes, and each operation on all of them would go through memory.

    The gradient of a row is p - (1 - e) * onehot - e / V, with p = softmax. It needs only the logits, which
    are saved as they came.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        nll = logits.new_empty(len(logits), dtype=torch.float32)
        norms, means = torch.empty_like(nll), torch.zeros_like(nll)  # log of the sum of exp; mean of logp
        for rows in _row_chunks(logits):
            z = logits[rows].to(torch.float32, copy=True)
            largest = z.amax(dim=-1, keepdim=True)
            z -= largest  # no exponent is above 0, and small losses keep their precision
            label = z.gather(1, labels[rows, None])[:, 0]
            if smoothing:
                means[rows] = z.mean(dim=-1)
            norm = z.exp_().sum(dim=-1).log_()
            nll[rows] = norm - label
            means[rows] -= norm
            norms[rows] = norm + largest[:, 0]
        ctx.save_for_backward(logits, labels, norms)
        ctx.smoothing = smoothing
        ctx.set_materialize_grads(False)
        total = nll.sum()
        ctx.mark_non_differentiable(total)
        objective = (1 - smoothing) * total - smoothing * means.sum() if smoothing else total.clone()
        return objective, total

    @staticmethod
    def backward(ctx: Any, scale: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        if scale is None:
            return None, None, None
        logits, labels, norms = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for rows in _row_chunks(logits):
            p = logits[rows].to(torch.float32, copy=True).sub_(norms[rows, None]).exp_()
            if ctx.smoothing:
                p -= ctx.smoothing / logits.shape[1]
            label = labels[rows, None]
            p.scatter_add_(1, label, p.new_full(label.shape, ctx.smoothing - 1))
            gradient[rows] = p.mul_(scale)
        return gradient, None, None


def _row_chunks(logits: Tensor) -> Iterator[slice]:
    """Slices of rows of `logits` [n, V] that are processed at a time."""
    n, V = logits.shape
    rows = max(1, _LOGITS_PER_CHUNK // V)
    return (slice(start, start + rows) for start in range(0, n, rows))


def real_token_mask(target: Tensor, target_len: Tensor) -> Tensor:
    """Mask [B, T], true on real tokens and false on the padding after them."""
    positions = torch.arange(target.shape[1], device=target.device)
    return positions < target_len[:, None]
