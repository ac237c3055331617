"""Linear maps for a loop over time, with the gradient of a weight as one product for all steps.

Backpropagation through T steps would otherwise compute and add T gradients of the size of the weight. Here
each step only records its input x_t and the gradient g_t of its output. After the last one, the gradient of
the weight, the sum over t of g_t^T x_t, is computed as one product of the concatenated records.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear

#: y [N, out] = sum over i of x_i [N, in_i] @ weight_i^T + bias + offset, called with the offset [N, out], or
#: None, and each x_i.
Projection = Callable[..., Tensor]
ProjectionKind = Callable[[Sequence[Tensor], Tensor | None], Projection]

#: The recorded pairs of tensors of each step.
_Notes = list[tuple[Tensor, Tensor]]


def plain(weights: Sequence[Tensor], bias: Tensor | None) -> Projection:
    """The map of `weights` [out, in_i], for a single step or without gradients."""
    cast = [weight.to(computing_dtype(weight)) for weight in weights]

    def project(offset: Tensor | None, *inputs: Tensor) -> Tensor:
        y = linear(inputs[0].to(cast[0].dtype), cast[0], bias)
        for x, weight in zip(inputs[1:], cast[1:], strict=True):
            y = y + linear(x.to(weight.dtype), weight)
        return y if offset is None else y + offset

    return project


def through_time(weights: Sequence[Tensor], bias: Tensor | None) -> Projection:
    """The map of `weights` [out, in_i], for many steps of one forward pass."""
    if not torch.is_grad_enabled():
        return plain(weights, bias)
    notes: _Notes = []
    weight = torch.cat(list(weights), dim=1) if len(weights) > 1 else weights[0]
    dtype = computing_dtype(weight)
    collected, own = _Collect.apply(weight, bias, dtype, notes)  # type: ignore[no-untyped-call]

    def project(offset: Tensor | None, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, dim=-1) if len(inputs) > 1 else inputs[0]
        y: Tensor = _Note.apply(x, collected, own, offset, notes)  # type: ignore[no-untyped-call]
        return y

    return project


def read_through_time(values: Tensor) -> Callable[[Tensor], Tensor]:
    """The map of weights [B, K, S] to weighted sums [B, K, D] of values [B, S, D], for many steps. The
    gradient of the values is one product for all steps, too."""
    if not torch.is_grad_enabled():
        cast = values.to(computing_dtype(values))
        return lambda weights: weights.to(cast.dtype) @ cast
    notes: _Notes = []
    collected = _CollectValues.apply(values, computing_dtype(values), notes)  # type: ignore[no-untyped-call]

    def read(weights: Tensor) -> Tensor:
        context: Tensor = _Read.apply(weights, collected, notes)  # type: ignore[no-untyped-call]
        return context

    return read


def computing_dtype(weight: Tensor) -> torch.dtype:
    """The type that autocast computes in, or that of the weight without autocast. With it, weights are cast
    once rather than at each step."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class _Collect(Function):
    """Weight and bias in another type. All steps depend on it, so its backward runs after theirs."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, notes: _Notes
    ) -> tuple[Tensor, Tensor | None]:
        ctx.notes, ctx.dtype = notes, weight.dtype
        ctx.set_materialize_grads(False)
        return _as_another(weight, dtype), None if bias is None else _as_another(bias, dtype)

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> tuple[Tensor, Tensor | None, None, None]:
        outputs, inputs = (torch.cat(noted) for noted in zip(*ctx.notes, strict=True))
        ctx.notes.clear()
        of_bias = outputs.sum(dim=0, dtype=ctx.dtype) if ctx.needs_input_grad[1] else None
        return (outputs.T @ inputs).to(ctx.dtype), of_bias, None, None


def _as_another(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` in this type, as a new tensor object: a Function must not return its input itself."""
    return tensor.view_as(tensor) if tensor.dtype == dtype else tensor.to(dtype)


class _Note(Function):
    """One step. Its backward records a pair of tensors instead of computing gradients of weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor | None, notes: _Notes
    ) -> Tensor:
        ctx.notes, ctx.dtype = notes, x.dtype
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight)
        added = [term for term in (bias, offset) if term is not None]
        return torch.addmm(sum(added[1:], added[0]), x, weight.T) if added else x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)
        ctx.notes.append((gradient, x))
        of_offset = gradient if ctx.needs_input_grad[3] else None
        return (gradient @ weight).to(ctx.dtype), None, None, of_offset, None


class _CollectValues(Function):
    """As `_Collect`, for the values of attention, of which each sentence has its own."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dtype: torch.dtype, notes: _Notes) -> Tensor:
        ctx.notes, ctx.dtype = notes, values.dtype
        ctx.set_materialize_grads(False)
        return _as_another(values, dtype)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor, None, None]:
        weights, gradients = (torch.cat(noted, dim=1) for noted in zip(*ctx.notes, strict=True))
        ctx.notes.clear()
        return (weights.transpose(1, 2) @ gradients).to(ctx.dtype), None, None


class _Read(Function):
    """One weighted sum. Its backward records a pair of tensors instead of computing the gradient of the
    values."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, notes: _Notes) -> Tensor:
        ctx.notes, ctx.dtype = notes, weights.dtype
        weights = weights.to(values.dtype)
        ctx.save_for_backward(weights, values)
        return weights @ values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weights, values = ctx.saved_tensors
        gradient = gradient.to(values.dtype)
        ctx.notes.append((weights, gradient))
        return (gradient @ values.transpose(1, 2)).to(ctx.dtype), None, None
