"""The range test: rates grow until the loss diverges, and the suggestion is a tenth of the best."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from edgechat.runtime.errors import EdgeChatError
from edgechat.train import lr_finder
from edgechat.train.batches import make_batch
from edgechat.train.dataset import EncodedPairs
from edgechat.train.distributed import SINGLE_PROCESS
from edgechat.train.lr_finder import MAX_RATE, MIN_RATE, STEPS, RateTrial, find_learning_rate, suggest_rate
from edgechat.train.run import open_run
from edgechat.train.updates import Outcome, Updater


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss():
    trials = [RateTrial(1e-4, 5.0), RateTrial(2.5e-3, 4.0), RateTrial(4e-2, 3.0), RateTrial(1.0, 9.0)]
    assert suggest_rate(trials) == 4e-3


def test_rates_grow_evenly_and_too_large_ones_end_the_test(run_folder):
    torch.set_num_threads(1)
    run = open_run(run_folder)
    found = find_learning_rate(run.config, run.make_initial_model(), run.train_pairs, "cpu")
    rates = [one.rate for one in found.trials]
    assert rates[0] == MIN_RATE
    assert rates[1] / rates[0] == pytest.approx((MAX_RATE / MIN_RATE) ** (1 / (STEPS - 1)))
    assert found.trials[0].loss == pytest.approx(math.log(run.codec.vocab_size), rel=0.1)
    best = min(found.trials, key=lambda one: one.loss)
    assert best.loss < found.trials[0].loss - 1
    assert 1e-4 < found.suggestion < 1
    again = find_learning_rate(run.config, run.make_initial_model(), run.train_pairs, "cpu")
    assert again == found


def test_a_step_that_only_lowers_the_scale_of_float16_tries_no_rate_and_ends_nothing(run_folder, monkeypatch):
    torch.set_num_threads(1)
    run, seen = open_run(run_folder), list[int]()
    update = Updater.update

    def lowers(self, *given, step, **others):
        if step in (1, 2, 5):
            return Outcome(9.0, applied=False, rescaled=True)
        return update(self, *given, step=step, **others)

    monkeypatch.setattr(Updater, "update", lowers)
    found = find_learning_rate(
        run.config, run.make_initial_model(), run.train_pairs, "cpu", progress=seen.append
    )
    growth = (MAX_RATE / MIN_RATE) ** (1 / (STEPS - 1))
    assert [one.rate / MIN_RATE for one in found.trials[:3]] == pytest.approx(
        [growth**2, growth**3, growth**5]
    )
    assert len(seen) > len(found.trials) > STEPS / 3


def test_the_test_ends_when_the_smoothed_loss_has_grown_far_beyond_its_lowest(run_folder, monkeypatch):
    torch.set_num_threads(1)
    run = open_run(run_folder)

    def grows(self, *given, step, **others):
        return Outcome(1.0 if step < 10 else 1000.0, applied=True)

    monkeypatch.setattr(Updater, "update", grows)
    found = find_learning_rate(run.config, run.make_initial_model(), run.train_pairs, "cpu")
    assert 9 <= len(found.trials) < 15


def test_the_loss_before_the_test_has_the_precision_and_the_random_numbers_of_the_updates(run_folder):
    torch.set_num_threads(1)
    run = open_run(run_folder)
    config = run.config.with_values({"dropout": 0.5, "amp": "fp16"})
    first_losses = []
    for seed in (1, 2):
        model, seen = dataclasses.replace(run, config=config).make_initial_model(), []
        model.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.is_autocast_enabled("cpu")))
        updater = Updater(model, config.training, "cpu", SINGLE_PROCESS)
        steps = [[make_batch(run.train_pairs, np.arange(4))], [make_batch(run.train_pairs, np.arange(4, 8))]]
        torch.manual_seed(seed)
        first_losses.append(lr_finder._mean_loss(updater, steps, 7, "cpu"))
        assert seen == [True, True]
    assert first_losses[0] == first_losses[1]


def test_if_not_even_the_lowest_rate_can_be_tried_the_error_says_so(run_folder):
    run = open_run(run_folder)
    model = run.make_initial_model()
    with torch.no_grad():
        model.output.bias.fill_(math.nan)
    with pytest.raises(EdgeChatError, match=r"at the lowest, 1e-06, the loss \(nan\) or its gradient is no"):
        find_learning_rate(run.config, model, run.train_pairs, "cpu")


def test_a_trained_model_with_dropout_is_compared_with_itself_under_dropout(run_folder):
    torch.set_num_threads(1)
    run = open_run(run_folder)
    run = dataclasses.replace(run, config=run.config.with_values({"dropout": 0.5}))
    found = find_learning_rate(run.config, run.load_model("last")[0], run.train_pairs, "cpu")
    assert len(found.trials) > STEPS / 3


def test_one_batch_that_a_trained_model_does_not_know_is_not_divergence(run_folder):
    torch.set_num_threads(1)
    run = open_run(run_folder)
    known = run.train_pairs
    targets = [known.target(i).tolist() for i in range(len(known))]
    targets[-4:] = reversed(targets[-4:])  # the others are known by heart, at a loss near 0
    pairs = EncodedPairs(
        known.src_ids,
        known.src_offsets,
        np.concatenate(targets).astype(known.tgt_ids.dtype),
        np.cumsum([0, *map(len, targets)]),
    )
    model = run.load_model("best")[0]
    found = find_learning_rate(run.config, model, pairs, "cpu")
    assert len(found.trials) > STEPS / 3
    assert found.suggestion > 1e-6
