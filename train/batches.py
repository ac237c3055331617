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
        return Batch(*(tensor.to(device) for tensor in self))


def epoch_order(pairs: EncodedPairs, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The indices of each batch of one epoch, every pair once."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(pairs))
    src_len, target_len = np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * _POOL):
        pool = order[start : start + batch_size * _POOL]
        pool = pool[np.lexsort((src_len[pool], target_len[pool]))]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def make_batch(pairs: EncodedPairs, indices: np.ndarray) -> Batch:
    """Collate the pairs of `indices`."""
    src, src_len = pad([pairs.source(i).tolist() for i in indices])
    target, target_len = pad([pairs.target(i).tolist() for i in indices])
    return Batch(*map(torch.from_numpy, (src, src_len, target, target_len)))


def ordered_batches(pairs: EncodedPairs, batch_size: int) -> Iterator[Batch]:
    """All pairs once, by length: for validation, where order does not matter."""
    order = np.lexsort((np.diff(pairs.src_offsets), np.diff(pairs.tgt_offsets)))
    for start in range(0, len(order), batch_size):
        yield make_batch(pairs, order[start : start + batch_size])
