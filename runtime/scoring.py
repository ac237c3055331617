"""Teacher forcing: what a model says of given replies, token by token. Perplexity and proofs come of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple

import numpy as np

from .backend import Backend, Floats, Ints, State, pad
from .scheduler import BATCH_SIZE, batches_of
from .text import GO


class ForcedStep(NamedTuple, Generic[State]):
    """One decoder step over B sentences of two rows each, 2i and 2i + 1."""

    before: State
    tokens: Ints  # [2B] fed
    parents: Ints  # [2B] rows of `before`
    after: State
    logp: Floats  # [B, V] natural-log probabilities of the next token
    align: Floats  # [B, S]


def forced_steps(backend: Backend[State], state: State, target: Ints) -> Iterator[ForcedStep[State]]:
    """Feed `target` [B, T] to the sentences that `state` is of, fresh from the encoder: of the T steps, the
    one of number t says how likely `target[:, t]` was.

    Every sentence has two rows, as in every decoder call (see `DecodingOptions.rows`); both are the same.
    """
    B, T = target.shape
    fed, parents = np.full(B, GO, dtype=np.int64), np.arange(B).repeat(2)
    for t in range(T):
        tokens = fed.repeat(2)
        out, after = backend.step(state, tokens, parents, 1, whole=True)
        assert out.logp is not None
        yield ForcedStep(state, tokens, parents, after, out.logp[::2], out.align[::2])
        state, fed, parents = after, target[:, t], np.arange(2 * B)


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
        for t, step in enumerate(forced_steps(backend, state, target)):
            logps[:, t] = step.logp[np.arange(len(chosen)), target[:, t]]
        for i, row, length in zip(chosen, logps, target_len, strict=True):
            scores[i] = row[:length]
        if progress is not None:
            progress(len(chosen))
    return scores
