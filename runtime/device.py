"""Device selection. ONNX Runtime lists CUDA even if it cannot be used, and a session that does not get it
falls back to the CPU with only a log message. So a tiny session is created and asked what it runs on."""

import ctypes
import functools
import io
import sys
import types
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import onnxruntime as ort

from .arguments import check_one_of
from .errors import DeviceError
from .manifest import PrecisionName

Device = Literal["cpu", "cuda"]
DEVICES = ("auto", "cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# y = Identity(x), float[1], opset 17, IR 8.
_IDENTITY_GRAPH = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


@dataclass(frozen=True)
class CudaSupport:
    """Whether ONNX Runtime can use CUDA on this machine, and if not, why, and how to fix it."""

    usable: bool
    reason: str


@functools.cache
def check_cuda() -> CudaSupport:
    """Whether CUDA can be used. Checked once per process, the cheapest checks first."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return CudaSupport(False, "no NVIDIA driver was found")
    if CUDA not in ort.get_available_providers():
        return CudaSupport(
            False, "the installed onnxruntime has no CUDA provider: install onnxruntime-gpu in its place"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        missing = _preload_libraries()
        session = ort.InferenceSession(_IDENTITY_GRAPH, options, providers=[CUDA, CPU])
    except Exception as error:
        return CudaSupport(False, f"the CUDA provider does not start: {error}")
    if session.get_providers()[0] != CUDA:
        return CudaSupport(
            False, f"the CUDA provider does not start: {missing or 'ONNX Runtime does not say why'}"
        )
    return CudaSupport(True, "usable")


def _preload_libraries() -> str:
    """Load CUDA's libraries. Return the beginning of what ONNX Runtime prints about missing ones.

    Its function runs with a `print` of its own: redirecting stdout would swallow what other threads print.
    """
    said = io.StringIO()
    preload = ort.preload_dlls
    names = {**preload.__globals__, "print": functools.partial(print, file=said)}
    types.FunctionType(preload.__code__, names, argdefs=preload.__defaults__)()
    return " ".join(said.getvalue().split()[:12])


def resolve_device(device: str, precisions: Collection[PrecisionName]) -> Device:
    """The device that "auto", "cpu" or "cuda" selects on this machine for graphs of these precisions.

    ONNX Runtime multiplies 8-bit numbers on the CPU only. On CUDA, each product of an int8 graph would be
    copied to the CPU and back, so int8 always runs on the CPU.

    Raises:
        UsageError: `device` is none of these.
        DeviceError: "cuda" cannot be used; the text says why.
    """
    check_one_of("device", device, DEVICES)
    if device == "cpu":
        return "cpu"
    if "int8" in precisions:
        if device == "cuda":
            raise DeviceError(
                "device cuda cannot be used with an int8 bundle, which ONNX Runtime can compute on the CPU "
                "only: use device cpu, or export with --precision fp16 or fp32"
            )
        return "cpu"
    state = check_cuda()
    if state.usable:
        return "cuda"
    if device == "cuda":
        raise DeviceError(f"device cuda cannot be used: {state.reason}")
    return "cpu"


def providers(device: Device) -> list[tuple[str, dict[str, str]]]:
    """The execution providers of a session with their options, in order of preference. TF32 is switched off:
    with it, CUDA rounds the factors of matrix products to 10 bits, so fp32 would not be fp32."""
    cpu: tuple[str, dict[str, str]] = (CPU, {})
    return [(CUDA, {"use_tf32": "0"}), cpu] if device == "cuda" else [cpu]
