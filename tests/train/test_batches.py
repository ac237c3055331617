"""Batches: every pair once an epoch, in an order that seed and epoch alone decide, padded behind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime.text import EOS, PAD
from edgechat.train.batches import _cuts, epoch_order, make_batch, ordered_batches
from edgechat.train.dataset import EncodedPairs
from edgechat.train.loss import token_loss
from edgechat.train.model import ModelConfig, Seq2Seq


def encoded(pairs: list[tuple[list[int], list[int]]]) -> EncodedPairs:
    def flat(side: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [pair[side] for pair in pairs]
        offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
        return np.array([i for one in ids for i in one], dtype=np.uint16), offsets

    return EncodedPairs(*flat(0), *flat(1))


lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=60)


def of_lengths(sizes: list[tuple[int, int]]) -> EncodedPairs:
    return encoded([([5] * s, [*([6] * t), EOS]) for s, t in sizes])


@given(sizes=lengths, batch_size=st.integers(1, 8), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_an_epoch_has_every_pair_once(sizes, batch_size, epoch):
    order = epoch_order(of_lengths(sizes), batch_size, seed=3, epoch=epoch)
    assert sorted(int(i) for batch in order for i in batch) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for batch in order)


def test_the_order_is_the_same_for_the_same_seed_and_epoch_and_another_otherwise():
    pairs = of_lengths([(i % 5 + 1, i % 7) for i in range(100)])

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_order(pairs, 8, seed=seed, epoch=epoch)]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_batches_hold_pairs_of_similar_length():
    random = np.random.default_rng(0)
    pairs = of_lengths([(1, int(t)) for t in random.integers(0, 40, size=400)])
    spreads = [np.ptp(np.diff(pairs.tgt_offsets)[batch]) for batch in epoch_order(pairs, 10, seed=0, epoch=0)]
    assert np.mean(spreads) < 4  # at random it would be above 30


def test_batches_of_tokens_are_cut_where_the_next_pair_no_longer_fits():
    assert _cuts(np.array([2, 2, 3, 4]), 6) == [2, 3]
    assert _cuts(np.array([3, 3]), 6) == []
    assert _cuts(np.array([9, 1, 1]), 6) == [1]  # a pair that is too long alone is a batch


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=200),
    most=st.integers(9, 40),
)
@settings(deadline=None)
def test_an_epoch_of_batches_of_tokens_has_every_pair_once_and_none_is_larger(sizes, most):
    pairs = encoded([([5] * s, [*([6] * t), EOS]) for s, t in sizes])
    order = epoch_order(pairs, 1, seed=1, epoch=2, batch_tokens=most)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(sizes)))
    for batch in order:
        longest = max(max(len(pairs.source(i)), len(pairs.target(i))) for i in batch)
        assert longest * len(batch) <= most


def test_padding_lies_behind_and_every_target_ends():
    batch = make_batch(encoded([([5, 6, 7], [8, EOS]), ([9], [10, 11, 12, EOS])]), np.array([0, 1]))
    assert batch.src.tolist() == [[5, 6, 7], [9, PAD, PAD]]
    assert batch.src_len.tolist() == [3, 1]
    assert batch.target.tolist() == [[8, EOS, PAD, PAD], [10, 11, 12, EOS]]
    assert batch.target_len.tolist() == [2, 4]


def test_ordered_batches_have_every_pair_once():
    pairs = of_lengths([(3, t) for t in range(10)])
    assert sum(len(batch.src) for batch in ordered_batches(pairs, 4)) == 10


@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_loss_of_a_batch_is_that_of_its_pairs_alone_so_padding_counts_for_nothing(batch_size):
    torch.manual_seed(0)
    model = Seq2Seq(ModelConfig(layers=1, hidden=8, embedding=4, attention=4, dropout=0.0), 20).eval()
    pairs = encoded([([5, 6], [7, EOS]), ([8], [9, 10, 11, EOS]), ([12, 13, 14], [EOS]), ([15], [16, EOS])])
    chosen = np.arange(batch_size)
    logits, labels = model(*make_batch(pairs, chosen))
    alone = [model(*make_batch(pairs, np.array([i]))) for i in chosen]
    total = sum(token_loss(a, b).item() * len(b) for a, b in alone)
    assert len(labels) == sum(len(b) for _, b in alone)
    assert token_loss(logits, labels).item() == pytest.approx(total / len(labels), abs=1e-6)
