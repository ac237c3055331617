"""What the search asks of a model: encode a batch of sources, take one decoder step, drop sentences.

ONNX Runtime (`ort.py`), PyTorch (`edgechat.train.backend`) and several of them as one (`ensemble.py`) are
backends of the one search.
Legend: B batch, S source length, K rows a sentence, N = B*K rows of this step, M rows of the step
before, C candidates a row, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .text import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

State = TypeVar("State")


class StepOutput(NamedTuple):
    """What one decoder step gives. Candidates of a row are sorted: likelier first, then lower id."""

    cand_ids: Ints  # [N, C]
    cand_logp: Floats  # [N, C] natural-log probabilities
    align: Floats  # [N, S] attention weights, 0 on padding
    logp: Floats | None  # [N, V] natural-log probabilities, where the whole distribution was asked for


class Backend(Protocol[State]):
    """A model that a search can drive. The state is opaque, never changed in place, and holds the
    encoder's memory of B sentences with the decoder's recurrent state of M rows."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, src: Ints, src_len: Ints) -> State:
        """State after the encoder; src [B, S] padded with 0 behind, src_len [B]. M = B rows."""
        ...

    def step(
        self, state: State, tokens: Ints, parents: Ints, candidates: int, *, whole: bool = False
    ) -> tuple[StepOutput, State]:
        """One decoder step: tokens [N] are fed to the rows that continue rows `parents` [N] of `state`.
        `whole` asks for the whole distribution too."""
        ...

    def select(self, state: State, sentences: Ints) -> State:
        """The memory of these sentences only; the rows of the recurrent state keep their numbers."""
        ...


def pad(sources: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """src [B, S], padded behind, and src_len [B]."""
    lengths = np.array([len(source) for source in sources], dtype=np.int64)
    src = np.full((len(sources), int(lengths.max())), PAD, dtype=np.int64)
    for row, source in zip(src, sources, strict=True):
        row[: len(source)] = source
    return src, lengths
