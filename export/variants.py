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
from .levels import measure_levels
from .precision import Float16, Float32, Int8, Precision
from .proof import Progress, prove, prove_batching

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Built:
    """The graphs `encoder` and `decoder` in `precision`, run by `variant`; `exact` runs those in fp32."""

    precision: PrecisionName
    encoder: bytes
    decoder: bytes
    exact: OrtBackend
    exact_size: int  # bytes of both graphs
    variant: OrtBackend

    @property
    def size(self) -> int:
        return len(self.encoder) + len(self.decoder)


def build(
    model: Seq2Seq,
    precision: PrecisionName,
    pairs: tuple[Ids, Ids],
    *,
    progress: Progress = lambda what: None,
) -> Built:
    """Build the graphs. For int8, `pairs` (sources and targets) decide the levels."""
    progress("building the graphs")
    exact = _graphs(model, Float32())
    backend = _backend(model, exact)
    if precision == "fp32":
        return Built(precision, *exact, backend, sum(map(len, exact)), backend)
    chosen: Precision
    if precision == "int8":
        progress("choosing the levels of the 8-bit products")
        chosen = Int8(measure_levels(model, backend, *pairs))
    else:
        chosen = Float16()
    graphs = _graphs(model, chosen)
    return Built(precision, *graphs, backend, sum(map(len, exact)), _backend(model, graphs))


def rebuild(model: Seq2Seq, precision: PrecisionName, encoder: bytes, decoder: bytes) -> Built:
    """Like `build`, for the existing graphs of a bundle."""
    own = _backend(model, (encoder, decoder))
    if precision == "fp32":
        return Built(precision, encoder, decoder, own, len(encoder) + len(decoder), own)
    exact = _graphs(model, Float32())
    return Built(precision, encoder, decoder, _backend(model, exact), sum(map(len, exact)), own)


def prove_built(
    model: Seq2Seq,
    built: Built,
    sources: Ids,
    targets: Ids,
    *,
    max_length: int,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Prove the fp32 graphs against PyTorch, and that batching and padding change no reply of the variant.

    Raises:
        ProofError: one of the two does not hold.
    """
    with _one_torch_thread():
        exact = prove(
            TorchBackend(model), built.exact, sources, targets, max_length=max_length, progress=progress
        )
    if built.precision == "fp32":
        return exact.to_json()
    batching = prove_batching(
        built.variant, sources, precision=built.precision, max_length=max_length, progress=progress
    )
    return {**exact.to_json(), built.precision: batching.to_json()}


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Make the figures of the proof, which go into the bundle, independent of PyTorch's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _graphs(model: Seq2Seq, precision: Precision) -> tuple[bytes, bytes]:
    return build_encoder(model, precision), build_decoder(model, precision)


def _backend(model: Seq2Seq, graphs: tuple[bytes, bytes]) -> OrtBackend:
    return OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)
