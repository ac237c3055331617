"""The graphs of a model in a chosen precision, together with those in fp32, and the proof of both."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..runtime.manifest import PrecisionName
from ..runtime.ort import OrtBackend
from ..train.backend import TorchBackend
from ..train.model import Seq2Seq
from .graphs import build_decoder, build_encoder, graph_spec
from .int8_levels import measure_levels
from .precision import Float16, Float32, Int8, Precision
from .proof import ProgressCallback, prove, prove_batching

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class BundleGraphs:
    """The graphs `encoder` and `decoder` in `precision`, run by `backend`. `fp32_backend` runs those in
    fp32."""

    precision: PrecisionName
    encoder: bytes
    decoder: bytes
    fp32_backend: OrtBackend
    fp32_size: int  # bytes of both graphs
    backend: OrtBackend

    @property
    def size(self) -> int:
        return len(self.encoder) + len(self.decoder)


def build_graphs(
    model: Seq2Seq,
    precision: PrecisionName,
    pairs: tuple[Ids, Ids],
    *,
    progress: ProgressCallback = lambda what: None,
) -> BundleGraphs:
    """Build the graphs. For int8, `pairs` (sources and targets) decide the levels."""
    progress("building the graphs")
    fp32_graphs = _build_both(model, Float32())
    fp32_backend = _make_backend(model, fp32_graphs)
    if precision == "fp32":
        return BundleGraphs(precision, *fp32_graphs, fp32_backend, sum(map(len, fp32_graphs)), fp32_backend)
    chosen: Precision
    if precision == "int8":
        progress("choosing the levels of the 8-bit products")
        chosen = Int8(measure_levels(model, fp32_backend, *pairs))
    else:
        chosen = Float16()
    graphs = _build_both(model, chosen)
    return BundleGraphs(
        precision, *graphs, fp32_backend, sum(map(len, fp32_graphs)), _make_backend(model, graphs)
    )


def load_graphs(model: Seq2Seq, precision: PrecisionName, encoder: bytes, decoder: bytes) -> BundleGraphs:
    """Like `build_graphs`, for the existing graphs of a bundle."""
    backend = _make_backend(model, (encoder, decoder))
    if precision == "fp32":
        return BundleGraphs(precision, encoder, decoder, backend, len(encoder) + len(decoder), backend)
    fp32_graphs = _build_both(model, Float32())
    return BundleGraphs(
        precision, encoder, decoder, _make_backend(model, fp32_graphs), sum(map(len, fp32_graphs)), backend
    )


def prove_graphs(
    model: Seq2Seq,
    built: BundleGraphs,
    sources: Ids,
    targets: Ids,
    *,
    max_length: int,
    progress: ProgressCallback = lambda what: None,
) -> dict[str, Any]:
    """Prove the fp32 graphs against PyTorch, and that batching and padding change no reply of those
    in `built.precision`.

    Raises:
        ProofError: one of the two does not hold.
    """
    with _one_torch_thread():
        proof = prove(
            TorchBackend(model),
            built.fp32_backend,
            sources,
            targets,
            max_length=max_length,
            progress=progress,
        )
    if built.precision == "fp32":
        return proof.to_json()
    batching = prove_batching(
        built.backend, sources, precision=built.precision, max_length=max_length, progress=progress
    )
    return {**proof.to_json(), built.precision: batching.to_json()}


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Make the figures of the proof, which go into the bundle, independent of PyTorch's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _build_both(model: Seq2Seq, precision: Precision) -> tuple[bytes, bytes]:
    return build_encoder(model, precision), build_decoder(model, precision)


def _make_backend(model: Seq2Seq, graphs: tuple[bytes, bytes]) -> OrtBackend:
    return OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)
