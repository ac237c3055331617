"""Choice of int8 levels: for each weight, those with the smallest error on its actual inputs."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from ..runtime.backend import Floats, pad
from ..runtime.device import providers
from ..runtime.ort import OrtBackend, session_options
from ..runtime.teacher_forcing import forced_steps
from ..train.model import Seq2Seq
from .graphs import build_decoder
from .precision import InputRecorder
from .quantize import Levels, choose_levels

_SAMPLED_ROWS = 256
_SAMPLED_COLUMNS = 4096


def measure_levels(
    model: Seq2Seq, backend: OrtBackend, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> dict[str, Levels]:
    """The levels of every linear weight of the decoder, chosen by its inputs along the given pairs.

    `backend` runs the model in fp32. A few hundred rows and columns are enough to choose. With fewer rows,
    the range of other inputs is unknown, and no fixed range is chosen.
    """
    recorder = InputRecorder()
    graph = build_decoder(model, recorder)
    inputs = _collect_inputs(graph, list(recorder.weights), backend, sources, targets)
    return {
        name: choose_levels(
            inputs[name][:_SAMPLED_ROWS], weight[:, :_SAMPLED_COLUMNS], _fixed_range(inputs[name])
        )
        for name, weight in recorder.weights.items()
    }


def _fixed_range(x: Floats) -> float | None:
    """The range of all inputs `x`; None where there are too few rows to know it."""
    return float(np.abs(x).max()) if len(x) >= _SAMPLED_ROWS else None


def _collect_inputs(
    graph: bytes,
    names: list[str],
    backend: OrtBackend,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> dict[str, Floats]:
    """The inputs [rows, I] of each weight, collected while the targets are fed."""
    # One thread, as for everything that the bytes of a bundle depend on.
    session = ort.InferenceSession(graph, session_options(1), providers=providers("cpu"))
    outputs = [f"input:{name}" for name in names]
    collected: dict[str, list[Floats]] = {name: [] for name in names}
    target, lengths = pad(targets)
    for t, step in enumerate(forced_steps(backend, backend.encode(*pad(sources)), target)):
        feeds = backend.feeds(step.before, step.tokens, step.parents, 1)
        for name, x in zip(names, session.run(outputs, feeds), strict=True):
            collected[name].append(x[::2][t < lengths])
    shuffled = np.random.default_rng(0).permutation(int(lengths.sum()))
    return {name: np.concatenate(parts)[shuffled] for name, parts in collected.items()}
