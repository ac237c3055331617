"""The proof that the exported graphs compute what the PyTorch model computes.

It uses pairs of the run: held-out ones, and training pairs if few are held out. Numbers: states, alignments
and log-probabilities are compared at every step along these pairs, alone and in ragged batches. Replies:
their prompts are decoded by both backends, alone and in ragged batches, and the replies must be the same
token by token. They may differ only at a near tie, a decision of the search by less than `NEAR_TIE_GAP`. Near
ties are counted and reported.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.backend import Backend, pad
from ..runtime.display import plural
from ..runtime.errors import ProofError
from ..runtime.options import DecodingOptions
from ..runtime.ort import OrtBackend, OrtState
from ..runtime.scheduler import decode
from ..runtime.search import BeamSearch
from ..runtime.teacher_forcing import forced_steps
from ..train.backend import TorchBackend, TorchState

TOLERANCE = 1e-4  # states, alignments, log-probabilities of tokens
NEAR_TIE_GAP = 1e-4
BATCHING_TOLERANCE = 1e-2  # log-probabilities of int8 or fp16: an input may round to the neighboring value
#: Below this, a log-probability in float32 is coarser than `TOLERANCE`: only diverged models have such ones.
_DIVERGED_LOGP = -1e3
_BATCH_SIZES = (1, 7, 64)
_RAGGED_BATCH_SIZES = (2, 7, 64)
#: Single-sentence steps are slow in PyTorch, so fewer pairs are compared alone than in batches.
_MAX_BATCHES = 12
_BEAMS = (1, 5)

#: Called with a line of text before each stage of the work.
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Proof:
    """How much was compared, and the largest differences. Log-probabilities are natural logs."""

    pairs: int
    steps: int
    worst_logp: float
    worst_state: float
    worst_align: float
    replies: int  # that were compared: pairs x beams x batch sizes
    near_ties: int  # the replies among them that differ
    worst_reply_logp: float  # largest difference in a token of a reply
    beams: tuple[int, ...]
    batch_sizes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerance": TOLERANCE, "tie": NEAR_TIE_GAP}


def prove(
    torch_backend: TorchBackend,
    ort_backend: OrtBackend,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    max_length: int,
    progress: ProgressCallback = lambda what: None,
) -> Proof:
    """Compare both backends on pairs of token ids.

    Raises:
        ProofError: they differ; its text names the quantity and the difference.
    """
    progress(f"comparing {plural(len(sources), 'pair')} step by step")
    differences = _StepDifferences()
    for size in _BATCH_SIZES:
        for start in range(0, min(len(sources), _MAX_BATCHES * size), size):
            batch = slice(start, start + size)
            differences.compare(torch_backend, ort_backend, sources[batch], targets[batch])
    worst = {
        "log-probabilities": differences.logp,
        "states": differences.state,
        "alignments": differences.align,
    }
    for what, difference in worst.items():
        if not difference <= TOLERANCE:
            diverged = differences.lowest_logp < _DIVERGED_LOGP
            raise ProofError(
                f"the exported graphs differ from the PyTorch model: {what} by {difference:.3g}, "
                f"but at most {TOLERANCE} is allowed"
                + (
                    f": log-probabilities are as low as {differences.lowest_logp:.3g}, beyond the precision "
                    "of float32, so the training has diverged and needs a lower --learning-rate"
                    if diverged
                    else ""
                )
            )
    comparison = _ReplyComparison(TOLERANCE)
    for beam in _BEAMS:
        progress(f"comparing replies to {plural(len(sources), 'prompt')}, beam {beam}")
        comparison.compare_backends(torch_backend, ort_backend, sources, beam, max_length)
    return Proof(
        pairs=len(sources),
        steps=differences.steps,
        worst_logp=_round_to_two_digits(differences.logp),
        worst_state=_round_to_two_digits(differences.state),
        worst_align=_round_to_two_digits(differences.align),
        replies=comparison.count,
        near_ties=comparison.near_ties,
        worst_reply_logp=_round_to_two_digits(comparison.worst_logp),
        beams=_BEAMS,
        batch_sizes=_BATCH_SIZES,
    )


@dataclass(frozen=True)
class BatchingProof:
    """How much was compared between replies decoded alone and in ragged batches."""

    replies: int  # that were compared: prompts x beams x batch sizes
    near_ties: int  # the replies among them that differ
    worst_reply_logp: float  # largest difference in a token of a reply
    beams: tuple[int, ...]
    batch_sizes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerance": BATCHING_TOLERANCE, "tie": NEAR_TIE_GAP}


def prove_batching(
    backend: OrtBackend,
    sources: Sequence[Sequence[int]],
    *,
    precision: str,
    max_length: int,
    progress: ProgressCallback = lambda what: None,
) -> BatchingProof:
    """Compare the replies of int8 or fp16 graphs decoded alone with those decoded in batches.

    Raises:
        ProofError: they differ; its text names the prompt.
    """
    comparison = _ReplyComparison(BATCHING_TOLERANCE)
    prompts = plural(len(sources), "prompt")
    for beam in _BEAMS:
        progress(f"comparing {precision} replies to {prompts} alone and in batches, beam {beam}")
        comparison.compare_batches(backend, sources, beam, max_length)
    return BatchingProof(
        replies=comparison.count,
        near_ties=comparison.near_ties,
        worst_reply_logp=_round_to_two_digits(comparison.worst_logp),
        beams=_BEAMS,
        batch_sizes=_RAGGED_BATCH_SIZES,
    )


class _StepDifferences:
    """Largest absolute differences along teacher-forced steps."""

    def __init__(self) -> None:
        self.logp = self.state = self.align = 0.0
        self.lowest_logp = 0.0  # of a target token, by PyTorch
        self.steps = 0

    def compare(
        self,
        torch_backend: TorchBackend,
        ort_backend: OrtBackend,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
    ) -> None:
        src, src_len = pad(sources)
        target, lengths = pad(targets)  # [B, T]
        ours, theirs = torch_backend.encode(src, src_len), ort_backend.encode(src, src_len)
        real = np.arange(src.shape[1]) < src_len[:, None]  # [B, S], true on real tokens
        for name in ("keys", "values", "bias"):
            ours_memory = getattr(ours.memory, name).numpy()
            self._update_state(ours_memory[real], theirs.memory[name][real])
        steps = zip(
            forced_steps(torch_backend, ours, target), forced_steps(ort_backend, theirs, target), strict=True
        )
        for t, (our, their) in enumerate(steps):
            live = t < lengths
            self.steps += int(live.sum())
            said = np.take_along_axis(our.logp[live], target[live, t, None], axis=1)
            self.lowest_logp = min(self.lowest_logp, float(said.min(initial=0.0)))
            self.logp = _max_or_nan(self.logp, _max_difference(our.logp[live], their.logp[live]))
            self.align = _max_or_nan(self.align, _max_difference(our.align[live], their.align[live]))
            self._update_recurrent_states(our.after, their.after, live.repeat(2))

    def _update_recurrent_states(self, ours: TorchState, theirs: OrtState, live: Any) -> None:
        for name, tensor in theirs.recurrent.items():
            rows = -2  # the axis of the rows
            ours_live = np.compress(live, getattr(ours.decoder, name).numpy(), axis=rows)
            self._update_state(ours_live, np.compress(live, tensor, axis=rows))

    def _update_state(self, ours: Any, theirs: Any) -> None:
        self.state = _max_or_nan(self.state, _max_difference(ours, theirs))


class _ReplyComparison:
    """Comparison of replies between two backends, or between batch sizes of one backend. They must have the
    same tokens, except at near ties."""

    def __init__(self, tolerance: float) -> None:
        self.count = self.near_ties = 0
        self.worst_logp = 0.0
        self._tolerance = tolerance

    def compare_backends(
        self,
        torch_backend: TorchBackend,
        ort_backend: OrtBackend,
        sources: Sequence[Sequence[int]],
        beam: int,
        max_length: int,
    ) -> None:
        """Compare PyTorch, at the largest batch size, with ONNX Runtime at every batch size."""
        expected = _decode(torch_backend, sources, beam, max_length, _BATCH_SIZES[-1])
        for batch_size in _BATCH_SIZES:
            got = _decode(ort_backend, sources, beam, max_length, batch_size)
            self._compare(expected, got, f"PyTorch and ONNX Runtime (beam {beam}, batch {batch_size})")

    def compare_batches(
        self, backend: OrtBackend, sources: Sequence[Sequence[int]], beam: int, max_length: int
    ) -> None:
        """Compare replies decoded alone with those in batches. The batches are ragged: sources are in the
        given order, not sorted by length."""
        alone = _decode(backend, sources, beam, max_length, 1)
        for batch_size in _RAGGED_BATCH_SIZES:
            got = []
            for start in range(0, len(sources), batch_size):
                part = sources[start : start + batch_size]
                got += _decode(backend, part, beam, max_length, batch_size)
            self._compare(alone, got, f"batch 1 and batch {batch_size} (beam {beam})")

    def _compare(self, expected: Sequence[BeamSearch], got: Sequence[BeamSearch], compared: str) -> None:
        for i, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
            self.count += 1
            if [h.tokens for h in ours.hypotheses()] == [h.tokens for h in theirs.hypotheses()]:
                for a, b in zip(ours.hypotheses(), theirs.hypotheses(), strict=True):
                    difference = _max_difference(np.array(a.token_logps), np.array(b.token_logps))
                    self.worst_logp = _max_or_nan(self.worst_logp, difference)
            elif min(ours.min_gap, theirs.min_gap) < NEAR_TIE_GAP:
                self.near_ties += 1
            else:
                raise ProofError(f"the reply to prompt {i} of the proof differs between {compared}")
        if not self.worst_logp <= self._tolerance:
            raise ProofError(
                f"log-probabilities of replies differ by {self.worst_logp:.3g} per token between {compared}, "
                f"but at most {self._tolerance} is allowed"
            )


def _decode(
    backend: Backend[Any],
    sources: Sequence[Sequence[int]],
    beam: int,
    max_length: int,
    batch_size: int,
) -> list[BeamSearch]:
    options = DecodingOptions(beam=beam, n_best=beam, normalize="none")
    return decode(backend, sources, options, max_length=max_length, batch_size=batch_size)


def _max_difference(a: Any, b: Any) -> float:
    """Largest absolute difference; NaN if any difference is NaN."""
    return float(np.abs(a - b).max()) if a.size else 0.0


def _max_or_nan(a: float, b: float) -> float:
    """The larger difference, or NaN if either is NaN, which Python's `max` could miss."""
    return float(np.maximum(a, b))


def _round_to_two_digits(difference: float) -> float:
    """`difference` rounded to two significant digits."""
    return float(f"{difference:.1e}")
