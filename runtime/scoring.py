"""Log-probabilities of given replies, token by token: what perplexity and comparisons are made of."""

from collections.abc import Callable, Sequence

import numpy as np

from .backend import Backend, Floats, State, pad
from .scheduler import BATCH_SIZE, batches_of
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
    scores: list[Floats] = [np.empty(0, dtype=np.float32)] * len(sources)
    lengths = [(len(target), len(source)) for source, target in zip(sources, targets, strict=True)]
    for chosen in batches_of(lengths, batch_size):
        state = backend.encode(*pad([sources[i] for i in chosen]))
        target, target_len = pad([targets[i] for i in chosen])  # [B, T]
        logps = np.empty(target.shape, dtype=np.float32)  # [B, T]
        B = len(chosen)
        fed = np.full(B, GO, dtype=np.int64)
        # Two rows a sentence, as in every decoder call (see `DecodingOptions.rows`); the second is spare.
        parents = np.arange(B).repeat(2)
        for t in range(target.shape[1]):
            out, state = backend.step(state, fed.repeat(2), parents, 1, whole=True)
            assert out.logp is not None
            fed, parents = target[:, t], np.arange(2 * B)
            logps[:, t] = out.logp[::2][np.arange(B), fed]
        for i, row, length in zip(chosen, logps, target_len, strict=True):
            scores[i] = row[:length]
        if progress:
            progress(len(chosen))
    return scores
