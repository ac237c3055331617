"""Copy attention: a reply can copy tokens of its prompt (See et al. 2017, arXiv:1704.04368).

    p(w) = g p_vocab(w) + (1 - g) * sum of the alignment over the source positions that hold w
    g = sigmoid(w_a a + w_x x + b) of the attention vector a and the embedding x of the previous token

The gate of the paper takes context, decoder state and input; a is computed from the first two. Source and
reply share one vocabulary of byte-level tokens, so a word that no reply of the training data contained can be
copied token by token.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .precision import at_least_float32


class CopyAttention(nn.Module):
    """Mixes the probabilities of the vocabulary with those of the source tokens."""

    def __init__(self, hidden: int, embedding: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden + embedding, 1)

    def forward(
        self, logits: Tensor, attn: Tensor, x: Tensor, align: Tensor, src: Tensor, first: Tensor
    ) -> Tensor:
        """Natural-log probabilities [n, V].

        logits [n, V]; attention vectors attn [n, H]; embeddings of the fed tokens x [n, E]; alignment [n, S]
        to src [n, S]; mask `first` [n, S], true at the first occurrence of each token of src.
        """
        # In float32, since small probabilities are summed and divided by.
        gate = at_least_float32(self.gate(torch.cat([attn, x], dim=-1)))  # (n, 1)
        logp = at_least_float32(logits).log_softmax(dim=-1) + logsigmoid(gate)  # (n, V)
        copy_probabilities = torch.zeros_like(logp).scatter_add(1, src, at_least_float32(align))  # (n, V)
        copied = copy_probabilities.gather(1, src)  # (n, S), of all occurrences of a token together
        generated = logp.gather(1, src)  # (n, S)
        # Avoids log(0), whose gradient would be NaN.
        is_copied = copied > 0
        mixed = torch.logaddexp(generated, torch.where(is_copied, copied, 1.0).log() + logsigmoid(-gate))
        mixed = torch.where(is_copied, mixed, generated)
        # Repeated tokens are written several times with the same value; only the first has a gradient.
        return logp.scatter(1, src, torch.where(first, mixed, mixed.detach()))


def first_occurrence_mask(src: Tensor) -> Tensor:
    """Mask [B, S], true at the first occurrence of each token in its row of src [B, S].

    Worked example: [7, 8, 7, 7] -> [true, true, false, false].
    """
    earlier = (src[:, :, None] == src[:, None, :]).tril(diagonal=-1)  # (B, S, S)
    return ~earlier.any(dim=-1)
