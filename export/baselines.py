"""The checkpoint of a bundle in other engines, which the bundle is timed against."""

from pathlib import Path
from typing import Any, Literal

from ..runtime.backend import Backend
from ..runtime.bundle import Bundle
from ..runtime.chat import ChatModel
from ..runtime.ort import OrtBackend
from ..train.backend import TorchBackend
from .exporter import load_exported_checkpoint
from .graphs import build_decoder, build_encoder, graph_spec


def load_baselines(
    bundle: Bundle, run_folder: Path, *, device: Literal["cpu", "cuda"], threads: int
) -> dict[str, ChatModel]:
    """The checkpoint of a bundle in fp32: as `fp32` in ONNX Runtime, unless the bundle is fp32 itself, and as
    `eager` in PyTorch, whose number of threads the caller sets.

    Raises:
        UsageError: the bundle was not exported from this run.
    """
    run, model = load_exported_checkpoint(bundle, run_folder)
    backends: dict[str, Backend[Any]] = {}
    if bundle.manifest.precision != "fp32":
        graphs = build_encoder(model), build_decoder(model)
        backends["fp32"] = OrtBackend(graph_spec(model), *graphs, device=device, threads=threads)
    backends["eager"] = TorchBackend(model.to(device))
    defaults = bundle.manifest.decoding
    return {
        name: ChatModel(backend, run.codec, defaults, device=device) for name, backend in backends.items()
    }
