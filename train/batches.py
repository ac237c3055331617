"""Steps of batches of pairs of similar length, reshuffled each epoch.

The order is a function of (seed, epoch), so a resumed run needs only its position to get the same batches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.backend import pad
from .config import TrainingConfig
from .dataset import EncodedPairs

#: Number of steps whose pairs are sorted by length together. A larger pool needs less padding, a smaller one
#: shuffles more.
_STEPS_PER_POOL = 50


class Batch(NamedTuple):
    """Pairs, padded at the end with 0."""

    src: Tensor  # i64 [B, S]
    src_len: Tensor  # i64 [B]
    target: Tensor  # i64 [B, T], each ending with end-of-sentence
    target_len: Tensor  # i64 [B]

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on `device`. The copy to a GPU is from pinned memory, so it does not wait for the GPU."""
        if torch.device(device).type == "cpu":
            return self
        return Batch(*(tensor.pin_memory().to(device, non_blocking=True) for tensor in self))


def plan_epoch(pairs: EncodedPairs, config: TrainingConfig, epoch: int) -> list[list[np.ndarray]]:
    """The steps of one epoch, each as a list of batches of indices, with the longest target last. Every pair
    comes once.

    A batch has `batch_size` pairs, or with `batch_tokens` as many as fit into this number of source tokens
    and of target tokens, padded to the longest; a pair that is longer on its own is a batch of one. A step is
    `accumulate` times as large and is drawn before it is divided: half the batch size and twice `accumulate`
    give the same steps.
    """
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(pairs))
    lengths = _lengths(pairs)
    size = config.batch_size * config.accumulate
    if config.batch_tokens is not None:
        tokens = config.batch_tokens * config.accumulate
        size = max(1, int(tokens / max(1.0, float(lengths.max(axis=0).mean()))))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), size * _STEPS_PER_POOL):
        pool = order[start : start + size * _STEPS_PER_POOL]
        pool = pool[np.lexsort(lengths[:, pool])]
        steps += _divide(pool, lengths, config, config.accumulate)
    return [_divide(steps[i], lengths, config) for i in rng.permutation(len(steps))]


def _lengths(pairs: EncodedPairs) -> np.ndarray:
    """The lengths in tokens of each source and each target, [2, n]."""
    return np.stack([np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)])


def _divide(
    indices: np.ndarray, lengths: np.ndarray, config: TrainingConfig, multiple: int = 1
) -> list[np.ndarray]:
    """`indices`, divided into parts of at most `multiple` times the size of a batch."""
    if config.batch_tokens is not None:
        return np.split(
            indices, _split_points(lengths[:, indices].max(axis=0), multiple * config.batch_tokens)
        )
    size = multiple * config.batch_size
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def _split_points(lengths: np.ndarray, max_tokens: int) -> list[int]:
    """The indices at which to split pairs of these lengths into batches of at most `max_tokens`, padded.

    Worked example: lengths [2, 2, 3, 4], max_tokens 6: two of length 2 are 4 tokens, with the third 9, so the
    first cut is at 2; 3 alone, since two padded to 4 are 8: cuts [2, 3].
    """
    cuts: list[int] = []
    start = 0
    while True:
        longest = np.maximum.accumulate(lengths[start : start + max_tokens])
        fits = int((longest * np.arange(1, len(longest) + 1) <= max_tokens).sum())
        start += max(1, fits)
        if start >= len(lengths):
            return cuts
        cuts.append(start)


def make_batch(pairs: EncodedPairs, indices: np.ndarray) -> Batch:
    """Collate the pairs of `indices`."""
    return collate([pairs.source(i).tolist() for i in indices], [pairs.target(i).tolist() for i in indices])


def collate(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """Make a batch of ids; each target ends with end-of-sentence."""
    (src, src_len), (target, target_len) = pad(sources), pad(targets)
    return Batch(*map(torch.from_numpy, (src, src_len, target, target_len)))


def ordered_batches(pairs: EncodedPairs, config: TrainingConfig) -> Iterator[Batch]:
    """All pairs once, in order of length, for validations."""
    lengths = _lengths(pairs)
    for indices in _divide(np.lexsort(lengths), lengths, config):
        yield make_batch(pairs, indices)
