"""Batches of similar length, reshuffled each epoch, in an order that is a function of (seed, epoch)
alone: a resumed run needs only its position to see exactly what it would have seen."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.backend import pad
from .dataset import EncodedPairs

#: Batches whose pairs are sorted by length together. More wastes less on padding, fewer mixes more.
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


def epoch_order(
    pairs: EncodedPairs, batch_size: int, *, seed: int, epoch: int, batch_tokens: int | None = None
) -> list[np.ndarray]:
    """The indices of each batch of one epoch, every pair once; longest target last in each batch.

    A batch has `batch_size` pairs, or with `batch_tokens` as many as have, padded to the longest of them,
    no more tokens in their sources, nor in their targets; a pair that is longer alone is a batch.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(pairs))
    src_len, target_len = np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)
    size = batch_size
    if batch_tokens is not None:
        size = max(1, int(batch_tokens / max(1.0, float(np.maximum(src_len, target_len).mean()))))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.lexsort((src_len[pool], target_len[pool]))]
        if batch_tokens is None:
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        else:
            longest = np.maximum(src_len[pool], target_len[pool])
            batches += np.split(pool, _cuts(longest, batch_tokens))
    return [batches[i] for i in random.permutation(len(batches))]


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


def ordered_batches(pairs: EncodedPairs, batch_size: int) -> Iterator[Batch]:
    """All pairs once, by length: for validation, where order does not matter."""
    order = np.lexsort((np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)))
    for start in range(0, len(order), batch_size):
        yield make_batch(pairs, order[start : start + batch_size])
