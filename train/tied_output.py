"""The output layer that shares its weight with the embedding (Press & Wolf 2017, arXiv:1608.05859; Inan et
al. 2017, arXiv:1611.01462). The largest weight exists once, and is learned from inputs and outputs."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class TiedOutput(nn.Module):
    """logits = W_e P a + b of an attention vector a [.., H]. P [E, H] exists only if E and H differ. The
    embedding W_e [V, E] is passed at each call and is not a parameter of this module."""

    def __init__(self, hidden: int, embedding: int, vocab_size: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden, embedding, bias=False) if hidden != embedding else None
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, vectors: Tensor, embedding: Tensor) -> Tensor:
        projected = vectors if self.projection is None else self.projection(vectors)  # (.., E)
        return linear(projected, embedding, self.bias)
