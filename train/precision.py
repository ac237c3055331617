"""The precision of a training: float32, or bfloat16 or float16 where PyTorch's autocast uses them.

Weights, their moments, cell states and the loss always stay float32, except the states inside cuDNN's LSTMs,
which autocast computes in float16 for either 16-bit type.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from .option_types import AmpMode

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(amp: AmpMode, device: str) -> Precision:
    """The precision of `amp` on this device: "auto" is bf16 if the hardware multiplies it, else fp32."""
    match amp:
        case "off":
            return "fp32"
        case "auto":
            return "bf16" if _supports_bf16(device) else "fp32"
        case "bf16" | "fp16":
            return amp


def _supports_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older PyTorch has no such function; "auto" is fp32 then.
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


def uses_float16(precision: Precision, device: str) -> bool:
    """Whether a gradient may pass through float16, in which small ones become 0 unless the loss is scaled."""
    return precision == "fp16" or (precision == "bf16" and device == "cuda")  # cuDNN's LSTMs


def is_emulated(precision: Precision, device: str) -> bool:
    """Whether the hardware has no arithmetic in `precision`, so that it is slower than float32."""
    match precision:
        case "bf16":
            return device == "cpu" and not _supports_bf16(device)
        case "fp16":
            return device == "cpu" and not _has_onednn_kernels(precision)
        case "fp32":
            return False


def _has_onednn_kernels(precision: Precision) -> bool:
    """Whether oneDNN, which computes PyTorch's LSTM on a CPU, can do so in `precision` on this one."""
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported", None)
    return supported is not None and bool(supported())


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 if it is that already: for sums, divisors, and numbers that overflow in 16
    bits."""
    return x.to(torch.promote_types(torch.float32, x.dtype))


@contextlib.contextmanager
def autocast(precision: Precision, device: str) -> Iterator[None]:
    """The autocast context of `precision`.

    Without AVX-512, oneDNN has no LSTM in 16 bits, and PyTorch raises an error instead of using its own. So
    oneDNN is off in this context then.
    """
    with contextlib.ExitStack() as stack:
        if precision != "fp32":
            stack.enter_context(torch.autocast(device, _DTYPES[precision]))
            if device == "cpu" and not _has_onednn_kernels(precision):
                onednn_off = torch.backends.mkldnn.flags(enabled=False, deterministic=None, allow_tf32=None)
                stack.enter_context(onednn_off)
        yield
