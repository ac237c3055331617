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
    """The map of `weight` [out, in], for a single step."""
    return lambda x: linear(x, weight)


def through_time(weight: Tensor) -> Projection:
    """The map of `weight` [out, in] for many steps of one forward pass; x and y have two dimensions."""
    if not torch.is_grad_enabled():
        return plain(weight)
    notes: _Notes = []
    collected: Tensor = _Collect.apply(weight, notes)  # type: ignore[no-untyped-call]
    return lambda x: _Note.apply(x, collected, notes)  # type: ignore[no-untyped-call]


class _Collect(Function):
    """The weight itself. Its backward runs after that of every step, since each depends on it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, notes: _Notes) -> Tensor:
        ctx.notes = notes
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor, None]:
        outputs, inputs = zip(*ctx.notes, strict=True)
        ctx.notes.clear()
        return torch.cat(outputs).T @ torch.cat(inputs), None


class _Note(Function):
    """One step: x @ weight^T, and in backward a note in place of the weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, notes: _Notes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.notes = notes
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        ctx.notes.append((gradient, x))
        return gradient @ weight, None, None
