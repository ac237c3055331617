"""The checkpoint behind a bundle, run in other ways than the bundle's own: what it is timed against."""

from pathlib import Path
from typing import Any, Literal

from ..runtime.backend import Backend
from ..runtime.bundle import Bundle
from ..runtime.chat import ChatModel
from ..runtime.ort import OrtBackend
from ..train.backend import TorchBackend
from .exporter import made_of
from .graphs import build_decoder, build_encoder, graph_spec


def engines(
    bundle: Bundle, run_folder: Path, *, device: Literal["cpu", "cuda"], threads: int
) -> dict[str, ChatModel]:
    """The same weights as `fp32`, through ONNX Runtime, and as `eager`, by PyTorch; a bundle that is fp32
    itself has only the latter beside it. How many threads PyTorch takes is for the caller to say.

    Raises:
        UsageError: the bundle was not made of this run.
    """
    run, model = made_of(bundle, run_folder)
    found: dict[str, Backend[Any]] = {}
    if bundle.manifest.precision != "fp32":
        graphs = build_encoder(model), build_decoder(model)
        found["fp32"] = OrtBackend(graph_spec(model), *graphs, device=device, threads=threads)
    found["eager"] = TorchBackend(model.to(device))
    defaults = bundle.manifest.decoding
    return {name: ChatModel(backend, run.codec, defaults, device=device) for name, backend in found.items()}
