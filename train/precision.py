"""The precision of a training: float32, or bfloat16 or float16 where PyTorch's autocast uses them.

Weights, their moments, cell states and the loss always stay float32, except the states inside cuDNN's LSTMs,
which autocast computes in float16 for either 16-bit type.
"""

import contextlib
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


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 if it is that already: for sums, divisors, and numbers that overflow in 16
    bits."""
    return x.to(torch.promote_types(torch.float32, x.dtype))


def autocast(precision: Precision, device: str) -> contextlib.AbstractContextManager[object]:
    """The autocast context of `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, _DTYPES[precision])
