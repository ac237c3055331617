"""Linear maps inside a loop over time, whose weight's gradient is one product for all steps.

Backpropagation through T steps would otherwise multiply and add a gradient of the weight's own size T
times. Here each step only notes its input x_t and the gradient g_t of its output; once all have, the
weight's gradient is the sum over t of g_t^T x_t, as one product of what was noted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear

#: y [.., out] = x [.., in] @ weight^T
Projection = Callable[[Tensor], Tensor]

_Notes = list[tuple[Tensor, Tensor]]


def plain(weight: Tensor) -> Projection:
    """The map of `weight` [out, in], for steps that are not learned from."""
    cast = weight.to(_computing(weight))
    return lambda x: linear(x.to(cast.dtype), cast)


def _computing(weight: Tensor) -> torch.dtype:
    """What autocast computes in, where it is on. Weights are cast once, and not at each step."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def through_time(weight: Tensor) -> Projection:
    """The map of `weight` [out, in] for many steps of one forward pass; x and y have two dimensions."""
    if not torch.is_grad_enabled():
        return plain(weight)
    notes: _Notes = []
    collected: Tensor = _Collect.apply(weight, _computing(weight), notes)  # type: ignore[no-untyped-call]
    return lambda x: _Note.apply(x, collected, notes)  # type: ignore[no-untyped-call]


class _Collect(Function):
    """The weight in another type. Its backward runs after that of every step, since each depends on it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dtype: torch.dtype, notes: _Notes) -> Tensor:
        ctx.notes, ctx.dtype = notes, weight.dtype
        ctx.set_materialize_grads(False)
        return weight.to(dtype) if weight.dtype != dtype else weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor, None, None]:
        outputs, inputs = zip(*ctx.notes, strict=True)
        ctx.notes.clear()
        return (torch.cat(outputs).T @ torch.cat(inputs)).to(ctx.dtype), None, None


class _Note(Function):
    """One step: x @ weight^T, and in backward a note in place of the weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, notes: _Notes) -> Tensor:
        ctx.notes, ctx.dtype = notes, x.dtype
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        ctx.notes.append((gradient, x))
        return (gradient @ weight).to(ctx.dtype), None, None
