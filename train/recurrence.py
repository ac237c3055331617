"""LSTM steps for training that are one operation to autograd.

Autograd records some thirty small operations per step, and computes the gradient of each weight at each step.
Here a cell is one operation, with a hand-written backward on a CPU and PyTorch's kernels on a GPU. So is, on
a CPU, a whole layer that depends only on its own past; the gradient of its weight is one product over all
steps.

Gates are in the order i, f, g, o, as in `nn.LSTM`:
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g),  h' = sigmoid(o) * tanh(c').
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

_sigmoid_backward = torch.ops.aten.sigmoid_backward  # (gradient, y) -> gradient * y * (1 - y)
_tanh_backward = torch.ops.aten.tanh_backward  # (gradient, y) -> gradient * (1 - y * y)
#: (gates, gates to add, c) -> (h', c', the gates after activation), for GPUs only
_fused_cell = torch.ops.aten._thnn_fused_lstm_cell.default


class _SavedForBackward(NamedTuple):
    """The tensors that the forward of a cell saves for its backward, all float32."""

    activated: Tensor  # [N, 4H] the gates after sigmoid and tanh
    c: Tensor  # [N, H] the state before
    tanh_c: Tensor  # [N, H] tanh of the state after


def _cell_forward(
    gates: Tensor, c: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor, _SavedForBackward]:
    """h' and c' [N, H] from gates [N, 4H], what is added to them, and c [N, H]."""
    H = c.shape[-1]
    activated = gates.to(c.dtype, copy=True)
    if offset is not None:
        activated += offset
    activated[:, : 2 * H].sigmoid_()
    activated[:, 2 * H : 3 * H].tanh_()
    activated[:, 3 * H :].sigmoid_()
    i, f, g, o = activated.chunk(4, dim=-1)
    next_c = torch.addcmul(f * c, i, g)
    tanh_c = next_c.tanh()
    return o * tanh_c, next_c, _SavedForBackward(activated, c, tanh_c)


def _cell_backward(cell: _SavedForBackward, dh: Tensor, dc: Tensor | None, dgates: Tensor) -> Tensor:
    """The gradient of c, from those of h' and c'. The gradient of the gates is written to `dgates`."""
    i, f, g, o = cell.activated.chunk(4, dim=-1)
    di, df, dg, do = dgates.chunk(4, dim=-1)
    do.copy_(_sigmoid_backward(dh * cell.tanh_c, o))
    dc_total: Tensor = _tanh_backward(dh * o, cell.tanh_c)
    if dc is not None:
        dc_total += dc
    di.copy_(_sigmoid_backward(dc_total * g, i))
    df.copy_(_sigmoid_backward(dc_total * cell.c, f))
    dg.copy_(_tanh_backward(dc_total * i, g))
    return dc_total.mul_(f)


def lstm_cell(gates: Tensor, c: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h' and c' [N, H] from gates [N, 4H] before their activation, `offset` [N, 4H] that is added to them,
    and the state c [N, H]."""
    if gates.device.type == "cuda":
        return _fused_lstm_cell(gates, c, offset)
    h, next_c = _LstmCell.apply(gates, c, offset)  # type: ignore[no-untyped-call]
    return h, next_c


class _LstmCell(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
        h, next_c, cell = _cell_forward(gates, c, offset)
        ctx.save_for_backward(*cell)
        ctx.dtype = gates.dtype
        ctx.set_materialize_grads(False)
        return h, next_c

    @staticmethod
    def backward(ctx: Any, dh: Tensor | None, dc: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        cell = _SavedForBackward(*ctx.saved_tensors)
        dgates = torch.empty(cell.activated.shape, dtype=ctx.dtype, device=cell.c.device)
        if dh is None:
            dh = torch.zeros_like(cell.c)
        dc = _cell_backward(cell, dh, dc, dgates)
        return dgates, dc, dgates if ctx.needs_input_grad[2] else None


def _fused_lstm_cell(gates: Tensor, c: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """`lstm_cell` as one kernel forward and one backward, those of `nn.LSTMCell`, which PyTorch has for GPUs
    only. There the time of a step is mostly that of starting its kernels."""
    if offset is None:
        offset = _zero(c.device, c.dtype).expand(gates.shape)
    # The kernel has one type for all tensors. Autocast would make that a 16-bit one, cell states included.
    with torch.autocast(c.device.type, enabled=False):
        h, next_c, _ = _fused_cell(gates.to(c.dtype), offset.to(c.dtype), c)
    return h, next_c


@cache
def _zero(device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 on a device, made once, since filling it takes a kernel too."""
    with torch.inference_mode(False):  # a tensor of a validation could not be saved for a backward
        return torch.zeros((), dtype=dtype, device=device)


def lstm_layer(gates: Tensor, weight: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """A layer over sentences in order of decreasing length, packed as by `pack_padded_sequence`.

    `gates` [n, 4H] is the part of the gates from the inputs and both biases, for the n = sum of `sizes` real
    tokens: those of the first step, then those of the second, and so on; sizes[t] sentences have a step t.
    `weight` [4H, H] is that of the state, which starts at zero. Returns the outputs [n, H], and the last h
    and c [B, H] of each sentence.
    """
    outputs, h, c = _LstmLayer.apply(gates, weight, tuple(sizes))  # type: ignore[no-untyped-call]
    return outputs, h, c


class _LstmLayer(Function):
    """Worked example of the packing: lengths 3, 1 give sizes 2, 1, 1 and the order of tokens a0 b0 a1 a2.
    Sentence b ends with its state of step 0, and step 1 continues with the first row only."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        H = weight.shape[1]
        B = sizes[0]
        transposed = weight.T
        h = gates.new_zeros((B, H), dtype=weight.dtype)
        c = gates.new_zeros((B, H), dtype=torch.promote_types(torch.float32, weight.dtype))
        before = gates.new_empty((len(gates), H), dtype=weight.dtype)  # the h that each token starts from
        outputs = torch.empty(before.shape, dtype=c.dtype)
        last_h, last_c = torch.empty_like(c), torch.empty_like(c)
        cells, start = [], 0
        for step, size in enumerate(sizes):
            end = start + size
            before[start:end] = h[:size]
            own = gates[start:end] if step == 0 else torch.addmm(gates[start:end], h[:size], transposed)
            following, c, cell = _cell_forward(own, c[:size])
            outputs[start:end] = following
            # A sentence that continues overwrites its row at the next step.
            last_h[:size], last_c[:size] = following, c
            h = following.to(weight.dtype)
            cells.append(cell)
            start = end
        ctx.save_for_backward(weight, before)
        ctx.cells, ctx.sizes, ctx.dtype = cells, sizes, gates.dtype
        return outputs, last_h, last_c

    @staticmethod
    def backward(ctx: Any, doutputs: Tensor, dlast_h: Tensor, dlast_c: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, before = ctx.saved_tensors
        dgates = before.new_empty((len(before), weight.shape[0]), dtype=ctx.dtype)
        dh, dc = dlast_h.clone(), dlast_c.clone()
        end = len(before)
        for size, cell in zip(reversed(ctx.sizes), reversed(ctx.cells), strict=True):
            start = end - size
            # The sentences of the rows beyond `size` ended before this step: these rows of `dh` and `dc`
            # still hold the gradients of their last states.
            own = dgates[start:end]
            dc[:size] = _cell_backward(cell, dh[:size] + doutputs[start:end], dc[:size], own)
            if start:
                dh[:size] = own @ weight
            end = start
        return dgates, dgates.T.to(weight.dtype) @ before, None
