"""The optimizer of a configuration."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from .config import TrainingConfig


class _Weight(NamedTuple):
    parameter: nn.Parameter
    state: dict[str, Tensor]  # by PyTorch's names; empty before the first step


class Optimizer:
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or SGD over the weights of `model`.

    Weight decay applies to matrices, not to biases, norms and the attention vector.

    The arithmetic is PyTorch's. Its classes such as `torch.optim.Adam` are not used because they import
    torch._dynamo, which takes seconds at the start of every training.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self._config = config
        self._weights = {name: _Weight(parameter, {}) for name, parameter in model.named_parameters()}

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """All weights in one group: what torch.amp.GradScaler divides the gradients of."""
        return [{"params": [weight.parameter for weight in self._weights.values()]}]

    def state_tensors(self) -> dict[str, Tensor]:
        """The state: moments and step counts, named WEIGHT.KEY."""
        return {
            f"{name}.{key}": value
            for name, weight in self._weights.items()
            for key, value in weight.state.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `state_tensors` gave, onto the devices of the weights, before the first step."""
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition(".")
            parameter, state = self._weights[name]
            state[key] = value.to(parameter.device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the weights that have gradients, at learning rate `rate`."""
        learned = [weight for weight in self._weights.values() if weight.parameter.grad is not None]
        update = self._step_sgd if self._config.optimizer == "sgd" else self._step_adam
        update([weight for weight in learned if weight.parameter.ndim > 1], rate, self._config.weight_decay)
        update([weight for weight in learned if weight.parameter.ndim <= 1], rate, 0.0)

    def _step_adam(self, weights: list[_Weight], rate: float, weight_decay: float) -> None:
        for parameter, state in weights:
            if not state:
                # The fused kernel wants the count beside the weights.
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        update = adamw if self._config.optimizer == "adamw" else adam
        update(
            [weight.parameter for weight in weights],
            [weight.parameter.grad for weight in weights if weight.parameter.grad is not None],
            [weight.state["exp_avg"] for weight in weights],
            [weight.state["exp_avg_sq"] for weight in weights],
            [],
            [weight.state["step"] for weight in weights],
            fused=True,
            amsgrad=False,
            beta1=self._config.adam_beta1,
            beta2=self._config.adam_beta2,
            lr=rate,
            weight_decay=weight_decay,
            eps=self._config.adam_epsilon,
            maximize=False,
        )

    def _step_sgd(self, weights: list[_Weight], rate: float, weight_decay: float) -> None:
        velocities = [weight.state.get("momentum_buffer") for weight in weights]
        sgd(
            [weight.parameter for weight in weights],
            [weight.parameter.grad for weight in weights if weight.parameter.grad is not None],
            velocities,  # with momentum, those of the first step are put into this list
            weight_decay=weight_decay,
            momentum=self._config.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for weight, velocity in zip(weights, velocities, strict=True):
            if velocity is not None:
                weight.state["momentum_buffer"] = velocity
