"""The interface that the search needs of a model: encode a batch of sources, take one decoder step, drop
sentences.

It is implemented with ONNX Runtime (`ort.py`), with PyTorch (`edgechat.train.backend`), and by ensembles of
backends (`ensemble.py`).

Legend: B batch, S source length, K rows per sentence, N = B*K rows of this step, M rows of the previous step,
C candidates per row, V vocabulary.
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
    """The result of one decoder step. The candidates of a row are sorted: likelier first, then lower id."""

    cand_ids: Ints  # [N, C]
    cand_logp: Floats  # [N, C] natural-log probabilities
    align: Floats  # [N, S] attention weights, 0 on padding
    logp: Floats | None  # [N, V] natural-log probabilities, if the whole distribution was requested


class Backend(Protocol[State]):
    """A model that a search can drive. Its state is opaque and never changed in place. It holds the encoder's
    memory of B sentences and the decoder's recurrent state of M rows."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, src: Ints, src_len: Ints) -> State:
        """The state after the encoder, with M = B rows. src [B, S] is padded with 0 at the end; src_len [B]
        are the lengths without padding."""
        ...

    def step(
        self, state: State, tokens: Ints, parents: Ints, candidates: int, *, return_logp: bool = False
    ) -> tuple[StepOutput, State]:
        """Take one decoder step. Row n is fed `tokens[n]` and continues row `parents[n]` of `state`. With
        `return_logp`, the whole distribution is returned too."""
        ...

    def select(self, state: State, sentences: Ints) -> State:
        """The state with the memory of these sentences only. The rows of the recurrent state keep their
        numbers."""
        ...


def pad(sources: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """src [B, S], padded at the end, and src_len [B]."""
    lengths = [len(source) for source in sources]
    S = max(lengths)
    src = [[*source, *[PAD] * (S - length)] for source, length in zip(sources, lengths, strict=True)]
    return np.array(src, dtype=np.int64), np.array(lengths, dtype=np.int64)
