"""Log-probabilities of given replies, token by token: what perplexity and comparisons are made of."""

from collections.abc import Callable, Sequence

import numpy as np

from .backend import Backend, Floats, State, pad
from .scheduler import BATCH_SIZE
from .text import GO


def score_targets(
    backend: Backend[State],
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
) -> list[Floats]:
    """For each pair, the natural-log probability of every target token given the ones before it.

    A target is fed as it is and should end with the end-of-sentence. Result i has [len(targets[i])].
    """
    by_length = sorted(range(len(sources)), key=lambda i: (len(targets[i]), len(sources[i])))
    scores: list[Floats] = [np.empty(0, dtype=np.float32)] * len(sources)
    for start in range(0, len(sources), batch_size):
        chosen = by_length[start : start + batch_size]
        state = backend.encode(*pad([sources[i] for i in chosen]))
        target, lengths = pad([targets[i] for i in chosen])  # [B, T]
        rows = np.arange(len(chosen))
        tokens = np.full(len(chosen), GO, dtype=np.int64)
        logps = np.empty(target.shape, dtype=np.float32)  # [B, T]
        for t in range(target.shape[1]):
            out, state = backend.step(state, tokens, rows, 1, whole=True)
            assert out.logp is not None
            tokens = target[:, t]
            logps[:, t] = out.logp[rows, tokens]
        for i, row, length in zip(chosen, logps, lengths, strict=True):
            scores[i] = row[:length]
        if progress:
            progress(len(chosen))
    return scores
