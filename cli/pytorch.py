"""PyTorch's threads and device, as `--threads` and `--device` set them."""

from typing import Literal

from ..runtime.errors import DeviceError


def set_torch_threads(threads: int | None) -> None:
    """Set the number of CPU threads of PyTorch; None leaves it unchanged."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def torch_device(device: str) -> Literal["cpu", "cuda"]:
    """The PyTorch device that `auto`, `cpu` or `cuda` selects on this machine. On CUDA, TF32 is switched off
    for cuDNN, as PyTorch does for its own products: with it, float32 LSTMs would round their factors to 10
    bits.

    Raises:
        DeviceError: `device` is cuda, and PyTorch finds no CUDA device.
    """
    import torch

    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        return "cuda"
    if device == "cuda":
        raise DeviceError(
            "device cuda cannot be used, since this PyTorch finds no CUDA device: use cpu or auto"
        )
    return "cpu"
