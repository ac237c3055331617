"""Copy attention: a reply may take words from its prompt (See et al. 2017, arXiv:1704.04368).

    p(w) = g p_vocab(w) + (1 - g) * sum of the alignment over the source positions that hold w
    g = sigmoid(w_a a + w_x x + b) of the attention vector a and the embedding x of the previous token

The paper's gate sees context, decoder state and input; a is made of the first two. Source and reply share one
vocabulary of byte-level tokens, so a word that no reply of the training data held is copied token by token.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .precision import wide


class CopyAttention(nn.Module):
    """Mixes what the vocabulary gives with what the source holds."""

    def __init__(self, hidden: int, embedding: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden + embedding, 1)

    def forward(
        self, logits: Tensor, attn: Tensor, x: Tensor, align: Tensor, src: Tensor, first: Tensor
    ) -> Tensor:
        """Natural-log probabilities [n, V].

        logits [n, V]; attention vectors [n, H]; embeddings of what was fed [n, E]; alignment [n, S] to src
        [n, S], of whose tokens `first` [n, S] is true where one stands for the first time.
        """
        # Small probabilities are added up and divided by.
        gate = wide(self.gate(torch.cat([attn, x], dim=-1)))  # (n, 1)
        logp = wide(logits).log_softmax(dim=-1) + logsigmoid(gate)  # (n, V)
        held = torch.zeros_like(logp).scatter_add(1, src, wide(align))  # (n, V)
        copied = held.gather(1, src)  # (n, S) of all equal tokens together
        generated = logp.gather(1, src)  # (n, S)
        # The logarithm of 0, and its gradient, are kept out of what is learned from.
        some = copied > 0
        mixed = torch.logaddexp(generated, torch.where(some, copied, 1.0).log() + logsigmoid(-gate))
        mixed = torch.where(some, mixed, generated)
        # Equal tokens are written more than once, with one value; the gradient is that of the first alone.
        return logp.scatter(1, src, torch.where(first, mixed, mixed.detach()))


def first_of_its_kind(src: Tensor) -> Tensor:
    """Mask [B, S], true where a token stands for the first time in its row of src [B, S].

    Worked example: [7, 8, 7, 7] -> [true, true, false, false].
    """
    earlier = (src[:, :, None] == src[:, None, :]).tril(diagonal=-1)  # (B, S, S)
    return ~earlier.any(dim=-1)
