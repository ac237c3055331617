"""Batches: every pair once per epoch, padded at the end, in an order that is a function of seed and epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgechat.runtime.text import EOS, PAD
from edgechat.train.batches import _split_points, make_batch, ordered_batches, plan_epoch
from edgechat.train.config import TrainingConfig
from edgechat.train.dataset import EncodedPairs
from edgechat.train.distributed import SINGLE_PROCESS
from edgechat.train.loss import summed_losses
from edgechat.train.model import ModelConfig, Seq2Seq
from edgechat.train.updates import Updater


def encoded(pairs: list[tuple[list[int], list[int]]]) -> EncodedPairs:
    def flat(side: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [pair[side] for pair in pairs]
        offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
        return np.array([i for one in ids for i in one], dtype=np.uint16), offsets

    return EncodedPairs(*flat(0), *flat(1))


lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=60)


def of_lengths(sizes: list[tuple[int, int]]) -> EncodedPairs:
    return encoded([([5] * s, [*([6] * t), EOS]) for s, t in sizes])


def batches(pairs: EncodedPairs, epoch: int, **training: int) -> list[np.ndarray]:
    """The batches of steps of one batch each."""
    return [batch for (batch,) in plan_epoch(pairs, TrainingConfig(**training), epoch)]


@given(sizes=lengths, batch_size=st.integers(1, 8), epoch=st.integers(0, 3))
def test_an_epoch_has_every_pair_once(sizes, batch_size, epoch):
    order = batches(of_lengths(sizes), epoch, seed=3, batch_size=batch_size)
    assert sorted(int(i) for batch in order for i in batch) == list(range(len(sizes)))
    assert all(len(batch) <= batch_size for batch in order)


def test_the_order_is_the_same_for_the_same_seed_and_epoch_and_another_otherwise():
    pairs = of_lengths([(i % 5 + 1, i % 7) for i in range(100)])

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in batches(pairs, epoch, seed=seed, batch_size=8)]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_batches_hold_pairs_of_similar_length():
    random = np.random.default_rng(0)
    pairs = of_lengths([(1, int(t)) for t in random.integers(0, 40, size=400)])
    spreads = [np.ptp(np.diff(pairs.tgt_offsets)[batch]) for batch in batches(pairs, 0, batch_size=10)]
    assert np.mean(spreads) < 4  # at random it would be above 30


def test_pairs_of_equal_targets_are_together_with_sources_of_similar_length():
    random = np.random.default_rng(0)
    pairs = of_lengths([(int(s), 3) for s in random.integers(1, 40, size=400)])
    spreads = [np.ptp(np.diff(pairs.src_offsets)[batch]) for batch in batches(pairs, 0, batch_size=10)]
    assert np.mean(spreads) < 4


def test_batches_of_tokens_are_cut_where_the_next_pair_no_longer_fits():
    assert _split_points(np.array([2, 2, 3, 4]), 6) == [2, 3]
    assert _split_points(np.array([3, 3]), 6) == []
    assert _split_points(np.array([9, 1, 1]), 6) == [1]  # a pair that is too long alone is a batch


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=200),
    most=st.integers(9, 40),
)
def test_an_epoch_of_batches_of_tokens_has_every_pair_once_and_none_is_larger(sizes, most):
    pairs = encoded([([5] * s, [*([6] * t), EOS]) for s, t in sizes])
    order = batches(pairs, 2, seed=1, batch_tokens=most)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(sizes)))
    for batch in order:
        longest = max(max(len(pairs.source(i)), len(pairs.target(i))) for i in batch)
        assert longest * len(batch) <= most


@given(
    sizes=lengths, parts=st.integers(2, 5), size=st.integers(10, 20), kind=st.sampled_from(["size", "tokens"])
)
def test_steps_do_not_depend_on_the_number_of_batches_they_are_divided_into(sizes, parts, size, kind):
    pairs = of_lengths(sizes)
    whole = batches(pairs, 1, **{f"batch_{kind}": size * parts})
    divided = plan_epoch(pairs, TrainingConfig(**{f"batch_{kind}": size, "accumulate": parts}), 1)
    assert [np.concatenate(step).tolist() for step in divided] == [step.tolist() for step in whole]
    for batch in (batch for step in divided for batch in step):
        longest = max(max(len(pairs.source(i)), len(pairs.target(i))) for i in batch)
        assert len(batch) * (1 if kind == "size" else longest) <= size
    assert kind == "tokens" or all(len(step) <= parts for step in divided)


def test_steps_do_not_depend_on_the_division_even_with_more_pairs_than_are_sorted_together():
    pairs = of_lengths([(i % 7 + 1, i % 9) for i in range(250)])  # a hundred are
    divided = plan_epoch(pairs, TrainingConfig(batch_size=1, accumulate=2), 1)
    assert [[int(i) for (i,) in step] for step in divided] == [
        step.tolist() for step in batches(pairs, 1, batch_size=2)
    ]


@pytest.mark.parametrize("kind", ["size", "tokens"])
def test_half_the_batch_and_twice_accumulate_make_the_same_updates(kind):
    random = np.random.default_rng(0)
    pairs = of_lengths([(int(s), int(t)) for s, t in random.integers(1, 9, size=(70, 2))])

    def gradients(size: int, accumulate: int) -> list[torch.Tensor]:
        config = TrainingConfig(**{f"batch_{kind}": size, "accumulate": accumulate, "optimizer": "sgd"})
        torch.manual_seed(0)
        model = Seq2Seq(ModelConfig(layers=1, hidden=8, embedding=4, attention=4, dropout=0.0), 20).double()
        updater, found = Updater(model, config, "cpu", SINGLE_PROCESS), []
        for number, step in enumerate(plan_epoch(pairs, config, 0), start=1):
            shares = [(make_batch(pairs, indices), 1.0) for indices in step]
            tokens = sum(int(batch.target_len.sum()) for batch, _ in shares)
            assert updater.update(shares, tokens, step=number, rate=0.1).applied
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        return found

    whole, halves = gradients(64, 1), gradients(32, 2)
    assert len(whole) == len(halves) >= 2
    for one, two in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)  # the loss is in single precision


def test_padding_is_at_the_end_and_every_target_ends():
    batch = make_batch(encoded([([5, 6, 7], [8, EOS]), ([9], [10, 11, 12, EOS])]), np.array([0, 1]))
    assert batch.src.tolist() == [[5, 6, 7], [9, PAD, PAD]]
    assert batch.src_len.tolist() == [3, 1]
    assert batch.target.tolist() == [[8, EOS, PAD, PAD], [10, 11, 12, EOS]]
    assert batch.target_len.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("training", "sizes"),
    [
        ({"batch_size": 4}, [4, 4, 2]),
        ({"batch_tokens": 16}, [4, 2, 2, 1, 1]),  # 5 to 7 would be 3 times 7 tokens
    ],
)
def test_ordered_batches_have_every_pair_once_and_none_is_larger_than_one_of_training(training, sizes):
    pairs = of_lengths([(3, t) for t in range(10)])  # targets of 1 to 10 tokens, the end among them
    found = list(ordered_batches(pairs, TrainingConfig(**training)))
    assert [len(batch.src) for batch in found] == sizes
    assert sorted(int(n) for batch in found for n in batch.target_len) == list(range(1, 11))


@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_loss_of_a_batch_is_that_of_its_pairs_alone_so_padding_counts_for_nothing(batch_size):
    torch.manual_seed(0)
    model = Seq2Seq(ModelConfig(layers=1, hidden=8, embedding=4, attention=4, dropout=0.0), 20).eval()
    pairs = encoded([([5, 6], [7, EOS]), ([8], [9, 10, 11, EOS]), ([12, 13, 14], [EOS]), ([15], [16, EOS])])
    chosen = np.arange(batch_size)
    logits, labels = model(*make_batch(pairs, chosen))
    alone = [model(*make_batch(pairs, np.array([i]))) for i in chosen]
    total = sum(summed_losses(a, b).nll.item() for a, b in alone)
    assert len(labels) == sum(len(b) for _, b in alone)
    assert summed_losses(logits, labels).nll.item() == pytest.approx(total, abs=1e-5)
