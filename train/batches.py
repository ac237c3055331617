"""Steps of batches of similar length, reshuffled each epoch, in an order that is a function of (seed, epoch)
alone: a resumed run needs only its position to see exactly what it would have seen."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.backend import pad
from .config import TrainingConfig
from .dataset import EncodedPairs

#: Steps whose pairs are sorted by length together. More wastes less on padding, fewer mixes more.
_POOL = 50


class Batch(NamedTuple):
    """Pairs, padded behind with 0."""

    src: Tensor  # i64 [B, S]
    src_len: Tensor  # i64 [B]
    target: Tensor  # i64 [B, T], each ending with end-of-sentence
    target_len: Tensor  # i64 [B]

    def to(self, device: str | torch.device) -> "Batch":
        """On a GPU: from pinned memory, so that the copy does not wait for what is computed there."""
        if torch.device(device).type == "cpu":
            return self
        return Batch(*(tensor.pin_memory().to(device, non_blocking=True) for tensor in self))


def epoch_order(pairs: EncodedPairs, config: TrainingConfig, epoch: int) -> list[list[np.ndarray]]:
    """The steps of one epoch, each as its batches of indices, every pair once; longest target last in each.

    A batch has `batch_size` pairs, or with `batch_tokens` as many as have, padded to the longest of them,
    no more tokens in their sources, nor in their targets; a pair that is longer alone is a batch. A step has
    `accumulate` times that, and is drawn before it is divided: half the batch and twice `accumulate` are the
    same steps.
    """
    random = np.random.default_rng([config.seed, epoch])
    order = random.permutation(len(pairs))
    lengths = _lengths(pairs)
    size = config.batch_size * config.accumulate
    if config.batch_tokens is not None:
        tokens = config.batch_tokens * config.accumulate
        size = max(1, int(tokens / max(1.0, float(lengths.max(axis=0).mean()))))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.lexsort(lengths[:, pool])]
        steps += _divided(pool, lengths, config, config.accumulate)
    return [_divided(steps[i], lengths, config) for i in random.permutation(len(steps))]


def _lengths(pairs: EncodedPairs) -> np.ndarray:
    """[2, n]: tokens of each source, and of each target."""
    return np.stack([np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)])


def _divided(
    indices: np.ndarray, lengths: np.ndarray, config: TrainingConfig, times: int = 1
) -> list[np.ndarray]:
    """`indices` in parts that are each so many `times` a batch, or less."""
    if config.batch_tokens is not None:
        return np.split(indices, _cuts(lengths[:, indices].max(axis=0), times * config.batch_tokens))
    size = times * config.batch_size
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def _cuts(lengths: np.ndarray, most: int) -> list[int]:
    """Where to cut pairs of these lengths into batches of at most `most` tokens each, padded.

    Worked example: lengths [2, 2, 3, 4], most 6: two of length 2 are 4 tokens, with the third 9, so the
    first cut is at 2; 3 alone, since two padded to 4 are 8: cuts [2, 3].
    """
    cuts: list[int] = []
    start = 0
    while True:
        longest = np.maximum.accumulate(lengths[start : start + most])
        fits = int((longest * np.arange(1, len(longest) + 1) <= most).sum())
        start += max(1, fits)
        if start >= len(lengths):
            return cuts
        cuts.append(start)


def make_batch(pairs: EncodedPairs, indices: np.ndarray) -> Batch:
    """Collate the pairs of `indices`."""
    return collate([pairs.source(i).tolist() for i in indices], [pairs.target(i).tolist() for i in indices])


def collate(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """A batch of these ids; each target ends with end-of-sentence."""
    (src, src_len), (target, target_len) = pad(sources), pad(targets)
    return Batch(*map(torch.from_numpy, (src, src_len, target, target_len)))


def ordered_batches(pairs: EncodedPairs, config: TrainingConfig) -> Iterator[Batch]:
    """All pairs once, by length: for validation, where order does not matter."""
    lengths = _lengths(pairs)
    for indices in _divided(np.lexsort(lengths), lengths, config):
        yield make_batch(pairs, indices)
