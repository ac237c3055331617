"""Which numbers a training computes in: float32, or bfloat16 or float16 where PyTorch's autocast has it.

Weights, their moments, cell states and the loss stay float32 in each case, but for the states within cuDNN's
LSTMs, which autocast lets compute in float16 whichever of the two is asked for.
"""

import contextlib
from typing import Literal

import torch
from torch import Tensor

from .choices import Amp

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(amp: Amp, device: str) -> Precision:
    """What `amp` means on this device: "auto" is bf16 where the hardware multiplies it, else fp32."""
    match amp:
        case "off":
            return "fp32"
        case "auto":
            return "bf16" if _multiplies_bf16(device) else "fp32"
        case "bf16" | "fp16":
            return amp


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older PyTorch does not know: then fp32 it is
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


def wide(x: Tensor) -> Tensor:
    """In single precision, or double where it is that: for what adds up, is divided by, or has no room in
    16 bits."""
    return x.to(torch.promote_types(torch.float32, x.dtype))


def autocast(precision: Precision, device: str) -> contextlib.AbstractContextManager[object]:
    """Inside, what may be computed in `precision` is."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, _DTYPES[precision])
