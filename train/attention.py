"""Attention: one class per kind, all with the same interface of keys, values and bias.

Legend: B batch, S source length, K rows per sentence, N = B*K rows, H hidden, A size of a key, D size of a
memory value.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from .option_types import AttentionKind

#: Added to the scores of padding. It is finite, so a fully masked row does not become NaN, and gives exactly
#: 0 after the softmax.
PADDING_BIAS = -1e9
#: Maps weights [B, K, S] to contexts [B, K, D].
WeightedSum = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """The base of all kinds. Keys are computed once per sentence; the memory of B sentences is broadcast over
    the K rows of each, never repeated."""

    def __init__(self, size: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size  # A
        self.query: nn.Linear | None = None  # None: the decoder's output is the query itself
        self.key: nn.Linear | None = None  # None: a memory value is its own key
        self.dropout = nn.Dropout(dropout)

    def keys(self, values: Tensor) -> Tensor:
        """Keys [B, S, A] for values [B, S, D]."""
        keys: Tensor = values if self.key is None else self.key(values)
        return keys

    def scores(self, q: Tensor, keys: Tensor) -> Tensor:
        """Scores [B, K, S] of queries [B, K, A] against keys [B, S, A]."""
        raise NotImplementedError

    def forward(
        self, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor, weighted_sum: WeightedSum | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context [N, D] and alignment [N, S] of queries [N, A] over keys [B, S, A], values [B, S, D] and
        bias [B, S] (0, or `PADDING_BIAS` on padding); row n belongs to sentence n // K. `weighted_sum`
        replaces the product with the values (see projection.py)."""
        grouped = q.view(keys.shape[0], -1, self.size)  # (B, K, A)
        scores = self.scores(grouped, keys) + bias[:, None]  # (B, K, S)
        align = scores.softmax(dim=-1)  # (B, K, S)
        weights = self.dropout(align) if self.dropout.p else align  # (B, K, S)
        context = weights @ values if weighted_sum is None else weighted_sum(weights)  # (B, K, D)
        return context.flatten(0, 1), align.flatten(0, 1)


class BahdanauAttention(Attention):
    """score(q, m) = v^T tanh(W_q q + W_k m), of Bahdanau et al. 2015 (arXiv:1409.0473)."""

    key_bias: ClassVar[bool] = False

    def __init__(self, hidden: int, size: int, *, dropout: float = 0.0) -> None:
        super().__init__(size, dropout=dropout)
        self.query = nn.Linear(hidden, size, bias=False)
        self.key = nn.Linear(hidden, size, bias=self.key_bias)
        self.v = nn.Parameter(torch.empty(size))
        nn.init.uniform_(self.v, -(size**-0.5), size**-0.5)

    def score_vector(self) -> Tensor:
        """The vector [A] that reduces tanh(...) to a score."""
        return self.v

    def scores(self, q: Tensor, keys: Tensor) -> Tensor:
        return torch.tanh(q[:, :, None] + keys[:, None]) @ self.score_vector()  # (B, K, S)


class NormedBahdanauAttention(BahdanauAttention):
    """score(q, m) = g v^T / ||v|| tanh(W_q q + W_k m + b): the length of v is learned separately from its
    direction (weight normalization, Salimans & Kingma 2016, arXiv:1602.07868). The bias is part of the
    keys."""

    key_bias = True

    def __init__(self, hidden: int, size: int, *, dropout: float = 0.0) -> None:
        super().__init__(hidden, size, dropout=dropout)
        assert self.key is not None
        nn.init.zeros_(self.key.bias)
        self.g = nn.Parameter(torch.tensor(size**-0.5))

    def score_vector(self) -> Tensor:
        vector: Tensor = self.g * self.v / self.v.norm()
        return vector


class DotAttention(Attention):
    """score(q, m) = q^T m, Luong et al. 2015 (arXiv:1508.04025): no weights; H = D = A."""

    def scores(self, q: Tensor, keys: Tensor) -> Tensor:
        return q @ keys.mT


class GeneralAttention(DotAttention):
    """score(q, m) = q^T W_k m, Luong et al. 2015: keys have the size of the decoder's output."""

    def __init__(self, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__(hidden, dropout=dropout)
        self.key = nn.Linear(hidden, hidden, bias=False)


class ScaledAttention(DotAttention):
    """score(q, m) = (W_q q)^T (W_k m) / sqrt(A), with one head of Vaswani et al. 2017 (arXiv:1706.03762)."""

    def __init__(self, hidden: int, size: int, *, dropout: float = 0.0) -> None:
        super().__init__(size, dropout=dropout)
        self.query = nn.Linear(hidden, size, bias=False)
        self.key = nn.Linear(hidden, size, bias=False)

    def scores(self, q: Tensor, keys: Tensor) -> Tensor:
        return super().scores(q, keys) * float(self.size**-0.5)


def make_attention(kind: AttentionKind, hidden: int, size: int, *, dropout: float) -> Attention:
    """The attention of `kind` over values of the `hidden` size. The keys of Luong's kinds have that size too,
    those of the others have `size`."""
    if kind == "luong-dot":
        return DotAttention(hidden, dropout=dropout)
    if kind == "luong-general":
        return GeneralAttention(hidden, dropout=dropout)
    projected = {
        "bahdanau": BahdanauAttention,
        "bahdanau-normed": NormedBahdanauAttention,
        "scaled": ScaledAttention,
    }
    return projected[kind](hidden, size, dropout=dropout)
