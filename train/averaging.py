"""Averages of weights: a moving average during training, and the mean of several checkpoints."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class MovingAverage:
    """Exponential moving average of a model's weights (Polyak & Juditsky 1992).

    After update t, counted from 1, average = d * average + (1 - d) * weights with
    d = min(decay, (1 + t) / (10 + t)), so that the random initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.weights: Weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Include the weights after update number `step`."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    @torch.no_grad()
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Replace the weights of the model by the average inside the block."""
        original = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._copy_weights(self.weights, model)
        try:
            yield
        finally:
            self._copy_weights(original, model)

    @staticmethod
    def _copy_weights(weights: Weights, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def mean_weights(several: list[Weights]) -> Weights:
    """The mean of each weight, summed in float64."""
    first = several[0]
    return {
        name: (sum(weights[name].double() for weights in several) / len(several)).to(tensor.dtype)  # type: ignore[union-attr]
        for name, tensor in first.items()
    }
