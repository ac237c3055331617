"""Additive attention of Bahdanau et al. 2015 (arXiv:1409.0473)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Added to the scores of padding: large, finite (a fully masked row stays a number), and exactly 0
#: after the softmax.
MASKED = -1e9


#: Takes weights [B, K, S] to contexts [B, K, D].
Read = Callable[[Tensor], Tensor]


class BahdanauAttention(nn.Module):
    """score(q, m) = v^T tanh(W_q q + W_k m).

    Query and keys come projected, the keys once a sentence. Memory of B sentences is broadcast over the
    K rows that each has, never repeated.
    """

    def __init__(
        self, query_size: int, memory_size: int, attention_size: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, attention_size, bias=False)
        self.key = nn.Linear(memory_size, attention_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.v = nn.Parameter(torch.empty(attention_size))
        nn.init.uniform_(self.v, -(attention_size**-0.5), attention_size**-0.5)

    def forward(
        self, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor, read: Read | None = None
    ) -> tuple[Tensor, Tensor]:
        """Context [N, D] and alignment [N, S] of W_q q [N, A] over keys W_k m [B, S, A], values [B, S, D]
        and bias [B, S] (0, or `MASKED` on padding); row n belongs to sentence n // K. `read` sums up the
        values in another way than as a product (see projection.py)."""
        B, _, A = keys.shape
        grouped = q.view(B, -1, 1, A)  # (B, K, 1, A)
        scores = torch.tanh(grouped + keys[:, None]) @ self.v + bias[:, None]  # (B, K, S)
        align = scores.softmax(dim=-1)  # (B, K, S)
        weights = self.dropout(align)  # (B, K, S)
        context = weights @ values if read is None else read(weights)  # (B, K, D)
        return context.flatten(0, 1), align.flatten(0, 1)
