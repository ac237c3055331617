"""Teacher forcing: the probabilities that a model gives to the tokens of given replies, for perplexity and
proofs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple

import numpy as np

from .backend import Backend, Floats, Ints, State, pad
from .scheduler import DEFAULT_BATCH_SIZE, batches_by_length
from .text import GO


class ForcedStep(NamedTuple, Generic[State]):
    """One decoder step over B sentences of two rows each, 2i and 2i + 1."""

    before: State
    tokens: Ints  # [2B] the tokens fed
    parents: Ints  # [2B] rows of `before`
    after: State
    logp: Floats  # [B, V] natural-log probabilities of the next token
    align: Floats  # [B, S]


def forced_steps(backend: Backend[State], state: State, target: Ints) -> Iterator[ForcedStep[State]]:
    """Feed `target` [B, T] to the decoder, starting from the encoder's `state`, and yield T steps. Step t has
    the probabilities of `target[:, t]`.

    Every sentence has two equal rows, since no decoder call may have only one (see `DecodingOptions.rows`).
    """
    B, T = target.shape
    fed, parents = np.full(B, GO, dtype=np.int64), np.arange(B).repeat(2)
    for t in range(T):
        tokens = fed.repeat(2)
        out, after = backend.step(state, tokens, parents, 1, return_logp=True)
        assert out.logp is not None
        yield ForcedStep(state, tokens, parents, after, out.logp[::2], out.align[::2])
        state, fed, parents = after, target[:, t], np.arange(2 * B)


def score_targets(
    backend: Backend[State],
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
) -> list[Floats]:
    """For each pair, the natural-log probability of every target token given the previous ones.

    Targets should end with the end-of-sentence; none is added. Result i has the shape [len(targets[i])].
    """
    scores: list[Floats] = [np.empty(0, dtype=np.float32)] * len(sources)
    lengths = [(len(target), len(source)) for source, target in zip(sources, targets, strict=True)]
    for chosen in batches_by_length(lengths, batch_size):
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
