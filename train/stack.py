"""What lies between the layers of a stack of LSTMs, and stacks that run a layer at a time.

Residual connections, as in Wu et al. 2016 (arXiv:1609.08144): what a layer gives is added to what the layer
above it gives. Layer norm (Ba et al. 2016, arXiv:1607.06450) of what a layer is fed by another, within the
residual branch (Xiong et al. 2020, arXiv:2002.04745), so that the sum itself goes through untouched:

    y_0 = lstm_0(x),   y_l = lstm_l(norm_l(y_(l-1))) + y_(l-1)
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class Between(nn.Module):
    """What is done between `layers` layers of `hidden` size. It has weights only with layer norm."""

    def __init__(self, layers: int, hidden: int, *, residual: bool, layer_norm: bool, dropout: float) -> None:
        super().__init__()
        self.residual = residual
        norms = (nn.LayerNorm(hidden) if layer_norm else nn.Identity() for _ in range(layers - 1))
        self.norms = nn.ModuleList(norms)
        self.dropout = nn.Dropout(dropout)

    def into(self, layer: int, below: Tensor) -> Tensor:
        """What `layer` (from 1) is fed where the one below it gave `below` [.., H]."""
        fed: Tensor = self.dropout(self.norms[layer - 1](below))
        return fed

    def out_of(self, output: Tensor, below: Tensor) -> Tensor:
        """What a layer gives, its LSTM giving `output` [.., H] and the layer below it `below`."""
        return output + below if self.residual else output


class Cell(NamedTuple):
    """The weights of a layer in one direction; gates are in the order i, f, g, o."""

    weight_ih: Tensor  # [4H, I]
    weight_hh: Tensor  # [4H, H]
    bias_ih: Tensor  # [4H]
    bias_hh: Tensor  # [4H]


def cell_of(module: nn.Module, suffix: str = "") -> Cell:
    """Those of an `nn.LSTMCell`, or of an `nn.LSTM` with the suffix that it has them under."""
    return Cell(*(getattr(module, name + suffix) for name in Cell._fields))


class LSTMStack(nn.Module):
    """An `nn.LSTM` a layer, with something between them; as an `nn.LSTM` whose batch is the second axis."""

    def __init__(
        self, input_size: int, hidden: int, layers: int, between: Between, *, bidirectional: bool = False
    ) -> None:
        super().__init__()
        size = hidden // 2 if bidirectional else hidden
        self.layers = nn.ModuleList(
            nn.LSTM(hidden if layer else input_size, size, bidirectional=bidirectional)
            for layer in range(layers)
        )
        self.between = between

    def forward(
        self, x: Tensor, sizes: PackedSequence | None = None, first: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs, and the last h and c a layer and direction, of x [T, B, I]; or of the data x [n, I] of the
        packed sequence `sizes`. `first` are h and c [L, B, H] to start from, in place of zeros."""
        hs, cs = [], []
        for layer, lstm in enumerate(self.lstms()):
            fed = self.between.into(layer, x) if layer else x
            start = None if first is None else (first[0][layer : layer + 1], first[1][layer : layer + 1])
            given, (h, c) = lstm(fed if sizes is None else sizes._replace(data=fed), start)
            output = given if sizes is None else given.data
            x = self.between.out_of(output, x) if layer else output
            hs.append(h)
            cs.append(c)
        return x, (torch.cat(hs), torch.cat(cs))

    def lstms(self) -> list[nn.LSTM]:
        return cast(list[nn.LSTM], list(self.layers))
