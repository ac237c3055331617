"""Stacks of LSTM layers with residual connections, layer norm and dropout between them.

Residual connections as in Wu et al. 2016 (arXiv:1609.08144): the output of a layer is added to that of the
next one. Layer norm (Ba et al. 2016, arXiv:1607.06450) on the input of each layer but the first, inside the
residual branch (Xiong et al. 2020, arXiv:2002.04745), so that it does not affect the sum itself:

    y_0 = lstm_0(x),   y_l = lstm_l(norm_l(y_(l-1))) + y_(l-1)
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class LayerConnection(nn.Module):
    """Layer norm, dropout and residual connections between `layers` layers of `hidden` size. It has weights
    only with layer norm."""

    def __init__(self, layers: int, hidden: int, *, residual: bool, layer_norm: bool, dropout: float) -> None:
        super().__init__()
        self.residual = residual
        norms = (nn.LayerNorm(hidden) if layer_norm else nn.Identity() for _ in range(layers - 1))
        self.norms = nn.ModuleList(norms)
        self.dropout = nn.Dropout(dropout)

    def layer_input(self, layer: int, below: Tensor) -> Tensor:
        """The input of `layer` (from 1), from the output `below` [.., H] of the layer below."""
        fed: Tensor = self.dropout(self.norms[layer - 1](below))
        return fed

    def layer_output(self, output: Tensor, below: Tensor) -> Tensor:
        """The output of a layer, from the `output` [.., H] of its LSTM and that of the layer `below`."""
        return output + below if self.residual else output


class LSTMWeights(NamedTuple):
    """The weights of one layer in one direction. Gates are in the order i, f, g, o."""

    weight_ih: Tensor  # [4H, I]
    weight_hh: Tensor  # [4H, H]
    bias_ih: Tensor  # [4H]
    bias_hh: Tensor  # [4H]


def lstm_weights(module: nn.Module, suffix: str = "") -> LSTMWeights:
    """The weights of an `nn.LSTMCell`, or those of an `nn.LSTM` whose names end with `suffix`."""
    return LSTMWeights(*(getattr(module, name + suffix) for name in LSTMWeights._fields))


class LSTMStack(nn.Module):
    """A stack of one-layer `nn.LSTM` modules with `between` between them. The batch is the second axis."""

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int,
        between: LayerConnection,
        *,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        size = hidden // 2 if bidirectional else hidden
        self.layers = nn.ModuleList(
            nn.LSTM(hidden if layer else input_size, size, bidirectional=bidirectional)
            for layer in range(layers)
        )
        self.between = between

    def forward(
        self, x: Tensor, packed: PackedSequence | None = None, initial: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs for x [T, B, I], and the last h and c of each layer and direction. With a packed sequence
        `packed`, x [n, I] is its data. `initial` is the initial h and c [L, B, H] instead of zeros."""
        hs, cs = [], []
        for layer, lstm in enumerate(self.lstms()):
            fed = self.between.layer_input(layer, x) if layer else x
            start = (
                None if initial is None else (initial[0][layer : layer + 1], initial[1][layer : layer + 1])
            )
            given, (h, c) = lstm(fed if packed is None else packed._replace(data=fed), start)
            output = given if packed is None else given.data
            x = self.between.layer_output(output, x) if layer else output
            hs.append(h)
            cs.append(c)
        return x, (torch.cat(hs), torch.cat(cs))

    def lstms(self) -> list[nn.LSTM]:
        return cast(list[nn.LSTM], list(self.layers))
