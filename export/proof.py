"""The proof that the exported graphs compute what the PyTorch model computes.

Numbers: states, alignments and log-probabilities of every step along held-out pairs, which are fed in
ragged batches. Replies: held-out prompts decoded by both backends, alone and in ragged batches, must
be the same token by token. A reply may differ only where the search itself was a toss-up: its
deciding gap is below `TIE` (counted and reported).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.backend import pad
from ..runtime.errors import ProofError
from ..runtime.options import DecodingOptions
from ..runtime.ort import OrtBackend, OrtState
from ..runtime.scheduler import decode
from ..runtime.text import GO
from ..train.backend import TorchBackend, TorchState

TOLERANCE = 1e-4  # states, alignments, log-probabilities of tokens
TIE = 1e-4
_BATCH_SIZES = (1, 7, 64)
_BEAMS = (1, 5)


@dataclass(frozen=True)
class Proof:
    """What was compared, how much of it, and the worst difference. Log-probabilities are natural."""

    pairs: int
    steps: int
    worst_logp: float
    worst_state: float
    worst_align: float
    replies: int  # pairs x beams x batch sizes
    near_ties: int
    worst_reply_logp: float  # of a token of a reply
    beams: tuple[int, ...]
    batch_sizes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerance": TOLERANCE, "tie": TIE}


def prove(
    torch_backend: TorchBackend,
    ort_backend: OrtBackend,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    max_length: int,
    progress: Callable[[str], None] = lambda what: None,
) -> Proof:
    """Compare both backends on pairs of ids.

    Raises:
        ProofError: they differ; says in what, and by how much.
    """
    progress(f"comparing {len(sources)} pairs step by step")
    numbers = _Numbers()
    for start in range(0, len(sources), 7):
        batch = slice(start, start + 7)
        numbers.compare(torch_backend, ort_backend, sources[batch], targets[batch])
    worst = {"log-probabilities": numbers.logp, "states": numbers.state, "alignments": numbers.align}
    for what, difference in worst.items():
        if not difference <= TOLERANCE:
            raise ProofError(
                f"the exported graphs differ from the PyTorch model: {what} by {difference:.3g}, "
                f"more than {TOLERANCE}"
            )
    replies = _Replies()
    for beam in _BEAMS:
        progress(f"comparing replies to {len(sources)} prompts, beam {beam}")
        replies.compare(torch_backend, ort_backend, sources, beam, max_length)
    return Proof(
        pairs=len(sources),
        steps=numbers.steps,
        worst_logp=_rounded(numbers.logp),
        worst_state=_rounded(numbers.state),
        worst_align=_rounded(numbers.align),
        replies=replies.count,
        near_ties=replies.near_ties,
        worst_reply_logp=_rounded(replies.worst),
        beams=_BEAMS,
        batch_sizes=_BATCH_SIZES,
    )


class _Numbers:
    """Worst absolute differences along teacher-forced steps."""

    def __init__(self) -> None:
        self.logp = self.state = self.align = 0.0
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
        for name, ours_memory in zip(("keys", "values", "bias"), ours.memory, strict=True):
            self._see_state(ours_memory.numpy()[real], theirs.memory[name][real])
        rows = np.arange(len(sources))
        tokens = np.full(len(sources), GO, dtype=np.int64)
        for t in range(target.shape[1]):
            out, ours = torch_backend.step(ours, tokens, rows, 1, whole=True)
            other, theirs = ort_backend.step(theirs, tokens, rows, 1, whole=True)
            assert out.logp is not None and other.logp is not None  # noqa: PT018
            live = t < lengths
            self.steps += int(live.sum())
            self.logp = _worse(self.logp, _difference(out.logp[live], other.logp[live]))
            self.align = _worse(self.align, _difference(out.align[live], other.align[live]))
            self._see_states(ours, theirs, live)
            tokens = target[:, t]

    def _see_states(self, ours: TorchState, theirs: OrtState, live: Any) -> None:
        h, c, attn = (tensor.numpy() for tensor in ours.decoder)
        self._see_state(h[:, live], theirs.recurrent["h"][:, live])
        self._see_state(c[:, live], theirs.recurrent["c"][:, live])
        self._see_state(attn[live], theirs.recurrent["attn"][live])

    def _see_state(self, ours: Any, theirs: Any) -> None:
        self.state = _worse(self.state, _difference(ours, theirs))


class _Replies:
    """Replies that both backends give, alone and in ragged batches."""

    def __init__(self) -> None:
        self.count = self.near_ties = 0
        self.worst = 0.0

    def compare(
        self,
        torch_backend: TorchBackend,
        ort_backend: OrtBackend,
        sources: Sequence[Sequence[int]],
        beam: int,
        max_length: int,
    ) -> None:
        options = DecodingOptions(beam=beam, n_best=beam, normalize="none")
        expected = decode(torch_backend, sources, options, max_length=max_length, batch_size=_BATCH_SIZES[-1])
        for batch_size in _BATCH_SIZES:
            got = decode(ort_backend, sources, options, max_length=max_length, batch_size=batch_size)
            for i, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
                self.count += 1
                if [h.tokens for h in ours.hypotheses()] == [h.tokens for h in theirs.hypotheses()]:
                    for a, b in zip(ours.hypotheses(), theirs.hypotheses(), strict=True):
                        difference = _difference(np.array(a.token_logps), np.array(b.token_logps))
                        self.worst = _worse(self.worst, difference)
                elif min(ours.min_gap, theirs.min_gap) < TIE:
                    self.near_ties += 1
                else:
                    raise ProofError(
                        f"the reply to compared prompt {i} differs between PyTorch and ONNX Runtime "
                        f"(beam {beam}, batch {batch_size})"
                    )
        if not self.worst <= TOLERANCE:
            raise ProofError(
                f"log-probabilities of replies differ by {self.worst:.3g} a token, more than {TOLERANCE}"
            )


def _difference(a: Any, b: Any) -> float:
    """Largest absolute difference; NaN where there is one."""
    return float(np.abs(a - b).max()) if a.size else 0.0


def _worse(a: float, b: float) -> float:
    """The larger difference; NaN, which Python's `max` would let slip, is the largest."""
    return float(np.maximum(a, b))


def _rounded(difference: float) -> float:
    """Two significant digits."""
    return float(f"{difference:.1e}")
