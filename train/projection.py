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

#: y [N, out] = sum over i of x_i [N, in_i] @ weight_i^T + bias, called with each x_i.
Projection = Callable[..., Tensor]
ProjectionFactory = Callable[[Sequence[Tensor], Tensor | None], Projection]

#: The recorded pairs of tensors of each step.
_Records = list[tuple[Tensor, Tensor]]


def plain_projection(weights: Sequence[Tensor], bias: Tensor | None) -> Projection:
    """The map of `weights` [out, in_i], for a single step or without gradients."""
    cast = [weight.to(compute_dtype(weight)) for weight in weights]

    def project(*inputs: Tensor) -> Tensor:
        y = linear(inputs[0].to(cast[0].dtype), cast[0], bias)
        for x, weight in zip(inputs[1:], cast[1:], strict=True):
            y = y + linear(x.to(weight.dtype), weight)
        return y

    return project


def projection_through_time(weights: Sequence[Tensor], bias: Tensor | None) -> Projection:
    """The map of `weights` [out, in_i], for many steps of one forward pass."""
    if not torch.is_grad_enabled():
        return plain_projection(weights, bias)
    records: _Records = []
    weight = torch.cat(list(weights), dim=1) if len(weights) > 1 else weights[0]
    dtype = compute_dtype(weight)
    shared_weight, shared_bias = _WeightGradientFromRecords.apply(weight, bias, dtype, records)  # type: ignore[no-untyped-call]

    def project(*inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, dim=-1) if len(inputs) > 1 else inputs[0]
        y: Tensor = _RecordStep.apply(x, shared_weight, shared_bias, records)  # type: ignore[no-untyped-call]
        return y

    return project


def weighted_sum_through_time(values: Tensor) -> Callable[[Tensor], Tensor]:
    """The map of weights [B, K, S] to weighted sums [B, K, D] of values [B, S, D], for many steps. The
    gradient of the values is one product for all steps, too."""
    if not torch.is_grad_enabled():
        cast = values.to(compute_dtype(values))
        return lambda weights: weights.to(cast.dtype) @ cast
    records: _Records = []
    shared_values = _ValueGradientFromRecords.apply(values, compute_dtype(values), records)  # type: ignore[no-untyped-call]

    def weighted_sum(weights: Tensor) -> Tensor:
        context: Tensor = _RecordWeightedSum.apply(weights, shared_values, records)  # type: ignore[no-untyped-call]
        return context

    return weighted_sum


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The type that autocast computes in, or that of the weight without autocast. With it, weights are cast
    once rather than at each step."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class _WeightGradientFromRecords(Function):
    """Weight and bias in another type. All steps depend on it, so its backward runs after theirs."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, records: _Records
    ) -> tuple[Tensor, Tensor | None]:
        ctx.records, ctx.dtype = records, weight.dtype
        ctx.set_materialize_grads(False)
        return _cast_to_new_tensor(weight, dtype), None if bias is None else _cast_to_new_tensor(bias, dtype)

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> tuple[Tensor, Tensor | None, None, None]:
        outputs, inputs = (torch.cat(recorded) for recorded in zip(*ctx.records, strict=True))
        ctx.records.clear()
        bias_gradient = outputs.sum(dim=0, dtype=ctx.dtype) if ctx.needs_input_grad[1] else None
        return (outputs.T @ inputs).to(ctx.dtype), bias_gradient, None, None


def _cast_to_new_tensor(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` in this type, as a new tensor object: a Function must not return its input itself."""
    return tensor.view_as(tensor) if tensor.dtype == dtype else tensor.to(dtype)


class _RecordStep(Function):
    """One step. Its backward records a pair of tensors instead of computing gradients of weight and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, records: _Records) -> Tensor:
        ctx.records, ctx.dtype = records, x.dtype
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)
        ctx.records.append((gradient, x))
        return (gradient @ weight).to(ctx.dtype), None, None, None


class _ValueGradientFromRecords(Function):
    """As `_WeightGradientFromRecords`, for the values of attention, of which each sentence has its own."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dtype: torch.dtype, records: _Records) -> Tensor:
        ctx.records, ctx.dtype = records, values.dtype
        ctx.set_materialize_grads(False)
        return _cast_to_new_tensor(values, dtype)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor, None, None]:
        weights, gradients = (torch.cat(recorded, dim=1) for recorded in zip(*ctx.records, strict=True))
        ctx.records.clear()
        return (weights.transpose(1, 2) @ gradients).to(ctx.dtype), None, None


class _RecordWeightedSum(Function):
    """One weighted sum. Its backward records a pair of tensors instead of computing the gradient of the
    values."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, records: _Records) -> Tensor:
        ctx.records, ctx.dtype = records, weights.dtype
        weights = weights.to(values.dtype)
        ctx.save_for_backward(weights, values)
        return weights @ values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weights, values = ctx.saved_tensors
        gradient = gradient.to(values.dtype)
        ctx.records.append((weights, gradient))
        return (gradient @ values.transpose(1, 2)).to(ctx.dtype), None, None
