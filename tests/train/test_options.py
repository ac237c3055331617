"""Options of a training: early stopping, decays of the rate, kept and averaged checkpoints."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgechat.runtime.errors import UsageError
from edgechat.train import schedule
from edgechat.train import trainer as trainer_module
from edgechat.train.batches import ordered_batches, plan_epoch
from edgechat.train.checkpoint import load_weights
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.config import TrainingConfig
from edgechat.train.metrics import read_metrics
from edgechat.train.run import Run, open_run
from edgechat.train.trainer import Trainer, ValidationMetrics
from edgechat.train.updates import evaluate_loss


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Run:
    """A run without a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("checkpoints", "metrics.*"))
    torch.set_num_threads(1)
    return open_run(folder)


def with_options(run: Run, **values: Any) -> Run:
    return Run(run.folder, run.config.with_values(values), run.info, run.tokenizer, run.codec)


def test_the_steps_of_batches_of_tokens_are_planned_and_then_taken(run):
    planned = with_options(run, epochs=3, batch_tokens=64, accumulate=2)
    trainer = Trainer(planned)
    assert trainer.train().position.step == trainer.total_steps
    assert trainer.position.epoch == 2
    assert trainer.position.epoch_step == len(trainer._steps_of_epoch(2))


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """The epochs whose order is drawn."""
    epochs: list[int] = []

    def spy(pairs: Any, config: TrainingConfig, epoch: int) -> list[list[np.ndarray]]:
        epochs.append(epoch)
        return plan_epoch(pairs, config, epoch)

    monkeypatch.setattr(trainer_module, "plan_epoch", spy)
    return epochs


def test_steps_are_not_counted_if_nothing_depends_on_their_total(run, drawn):
    endless = Trainer(with_options(run, epochs=1_000_000, batch_tokens=64, schedule="constant"))
    assert (endless.total_steps_exact, set(drawn)) == (False, {0})
    assert endless.total_steps == 1_000_000 * len(endless._steps_of_epoch(0))
    result = endless.train(lambda: endless.position.epoch == 1)
    assert (result.ended, result.total_steps_exact) == ("interrupted", False)
    luong = {"epochs": 4, "schedule": "luong", "decay_start": 9, "decay_every": 3}
    few = Trainer(with_options(run, batch_tokens=64, **luong))
    assert not few.total_steps_exact
    result = few.train()
    steps = sum(len(few._steps_of_epoch(epoch)) for epoch in range(4))
    assert (result.ended, result.position.step) == ("finished", steps)
    assert (result.total_steps, result.total_steps_exact, few.finished) == (steps, True, True)


@pytest.mark.parametrize(
    "options", [{"schedule": "cosine"}, {"schedule": "luong", "decay_start": 1}, {"scheduled_sampling": 0.1}]
)
def test_steps_are_counted_if_the_schedule_depends_on_their_total(run, options):
    trainer = Trainer(with_options(run, epochs=4, batch_tokens=64, **{"schedule": "constant", **options}))
    assert trainer.total_steps_exact
    assert trainer.total_steps == sum(len(trainer._steps_of_epoch(epoch)) for epoch in range(4))


def test_of_a_great_many_epochs_the_first_ones_are_counted(run, drawn, monkeypatch):
    monkeypatch.setattr(schedule, "_MAX_COUNTED_STEPS", 30)
    endless = with_options(run, epochs=1_000_000, batch_tokens=64, schedule="cosine")
    trainer = Trainer(endless)
    epochs = len(drawn)
    assert drawn == list(range(epochs))
    steps = [len(trainer._steps_of_epoch(epoch)) for epoch in range(epochs)]
    assert sum(steps[:-1]) < 30 <= sum(steps)
    assert (trainer.total_steps, trainer.total_steps_exact) == (sum(steps) * 1_000_000 // epochs, False)
    assert not trainer.train(lambda: True).total_steps_exact
    resumed = Trainer(endless)
    assert (resumed.position.step, resumed.total_steps) == (1, trainer.total_steps)


@pytest.mark.parametrize(("limits", "exact"), [({"epochs": 1}, True), ({"max_steps": 2}, True), ({}, False)])
def test_an_end_within_the_first_epoch_is_exact_without_a_count(run, limits, exact):
    options = {"epochs": 9, "batch_tokens": 64, "schedule": "constant", **limits}
    trainer = Trainer(with_options(run, **options))
    assert trainer.total_steps_exact is exact
    assert not exact or trainer.train().position.step == trainer.total_steps


def test_accumulated_batches_make_fewer_steps_and_the_last_of_an_epoch_takes_what_is_left(run):
    pairs, size = len(run.train_pairs), run.config.training.batch_size
    batches = -(-pairs // size)
    steps: list[int] = []
    trainer = Trainer(with_options(run, epochs=2, accumulate=3), on_step=lambda p: steps.append(p.epoch))
    assert trainer.total_steps == 2 * -(-batches // 3)
    trainer.train()
    assert steps == sorted([1] * -(-batches // 3) + [2] * -(-batches // 3))


def script_valid_losses(monkeypatch, losses: list[float]) -> None:
    """Make the validations measure these losses."""
    left = iter(losses)
    monkeypatch.setattr(Trainer, "_validate", lambda self: {"loss": next(left)})


def test_a_run_ends_early_when_its_patience_is_over(run, monkeypatch):
    script_valid_losses(monkeypatch, [5.0, 4.0, 4.5, 4.0, 3.0])
    seen: list[ValidationMetrics] = []
    options = {"max_steps": 10, "epochs": 99, "save_every": 1, "early_stop": "loss", "patience": 2}
    result = Trainer(with_options(run, **options), on_validation=seen.append).train()
    assert (result.ended, result.position.step, result.position.best_step) == ("stopped early", 4, 2)
    assert [v.best for v in seen] == [True, True, False, False]
    again = Trainer(with_options(run, **options)).train()  # a resume does not continue it
    assert (again.ended, again.position.step) == ("stopped early", 4)


def test_the_plateau_schedule_decays_after_its_patience_and_waits_again(run, monkeypatch):
    script_valid_losses(monkeypatch, [5.0, 5.0, 5.0, 4.0, 4.0, 4.0, 4.0, 4.0])
    options = {"max_steps": 8, "epochs": 99, "save_every": 1, "plateau_patience": 2, "learning_rate": 0.08}
    Trainer(with_options(run, schedule="plateau", decay=0.5, **options)).train()
    rates = [row["learning_rate"] for row in read_metrics(run.folder)]
    # measured before the decay: 2 and 3 do not fall, 4 does, 5 and 6 do not, nor 7 and 8
    assert rates == pytest.approx([0.08, 0.08, 0.08, 0.04, 0.04, 0.04, 0.02, 0.02])
    assert Trainer(with_options(run, schedule="plateau", **options)).position.rate_scale == 0.125


def test_a_first_loss_of_nan_is_not_the_lowest_of_the_plateau_schedule(run):
    # It is NaN if nothing is held out and all steps were skipped; a held-out NaN ends the run.
    trainer = Trainer(with_options(run, schedule="plateau", plateau_patience=2))
    for loss in (math.nan, 5.0, 4.0, 3.0):
        trainer._decay_on_plateau(loss)
    assert (trainer.position.lowest_loss, trainer.position.rate_scale) == (3.0, 1.0)


@pytest.mark.parametrize("metric", ["exact-match", "bleu", "chrf"])
def test_replies_to_held_out_prompts_decide_which_checkpoint_is_best(run, metric):
    options = {"max_steps": 4, "epochs": 99, "save_every": 2, "early_stop": metric, "patience": 9}
    result = Trainer(with_options(run, **options)).train()
    column = f"valid_{metric.replace('-', '_')}"
    values = [row[column] for row in read_metrics(run.folder)]
    assert len(values) == 2
    assert result.position.best_score == -max(values)


def test_with_all_replies_right_a_lower_loss_is_better_but_does_not_keep_the_patience(run, monkeypatch):
    losses = iter([5.0, 4.0, 3.0])
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": next(losses), "exact_match": 1.0})
    options = {"save_every": 1, "early_stop": "exact-match", "patience": 2, "epochs": 99}
    result = Trainer(with_options(run, **options)).train()
    assert (result.ended, result.position.step, result.position.best_step) == ("stopped early", 3, 3)


def test_while_no_reply_is_right_a_lower_loss_is_better_and_keeps_the_patience(run, monkeypatch):
    losses = iter([5.0, 4.0, 4.5, 3.0, 3.5, 3.6])
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": next(losses), "exact_match": 0.0})
    options = {"save_every": 1, "early_stop": "exact-match", "patience": 2, "epochs": 99}
    result = Trainer(with_options(run, **options)).train()
    assert (result.ended, result.position.step, result.position.best_step) == ("stopped early", 6, 4)
    assert Checkpoints(run.folder).step("best") == 4


def test_the_last_and_the_best_checkpoints_are_kept_and_averaged(run, monkeypatch):
    script_valid_losses(monkeypatch, [3.0, 1.0, 2.0, 5.0, 9.0, 4.0])
    kept = with_options(run, max_steps=6, epochs=99, save_every=1, keep=2)
    Trainer(kept).train()
    names = sorted(int(folder.name[5:]) for folder in (run.folder / "checkpoints").iterdir())
    assert names == [2, 3, 5, 6]  # the best are 2 and 3, the last 5 and 6
    assert [f.name[-1] for f in Checkpoints(run.folder).select("best:2")] == ["2", "3"]
    assert [f.name[-1] for f in Checkpoints(run.folder).select("last:2")] == ["6", "5"]
    assert Checkpoints(run.folder).select("best:1") == [Checkpoints(run.folder).best]
    each = []
    for folder in Checkpoints(run.folder).select("best:2"):
        model = run.make_initial_model()
        load_weights(folder, model)
        each.append(model.output.weight.detach())
    mean, position = run.load_model("best:2")
    torch.testing.assert_close(mean.output.weight.detach(), (each[0] + each[1]) / 2)
    assert position.step == 3


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("best:9", "has 1 validated checkpoint: use a smaller number, or train longer, with --keep 9"),
        ("best:0", "must be best or last, or best:N"),
        ("worst", "must be best or last, or best:N"),
        ("last:", "must be best or last, or best:N"),
    ],
)
def test_missing_checkpoints_are_refused(run, which, sentence):
    Trainer(with_options(run, max_steps=1)).train()
    with pytest.raises(UsageError, match=sentence):
        Checkpoints(run.folder).select(which)


def test_a_run_with_a_moving_average_validates_and_exports_the_average(run):
    averaged = with_options(run, max_steps=4, epochs=99, save_every=4, ema=0.5)
    trainer = Trainer(averaged)
    trainer.train()
    model, _ = averaged.load_model("last")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, trainer._updater.average.weights[name])
    raw = trainer.model.output.weight
    assert not torch.equal(raw, model.output.weight)
    total, tokens = evaluate_loss(model, ordered_batches(run.valid_pairs, TrainingConfig()), "")
    assert read_metrics(run.folder)[-1]["valid_loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_bpe_dropout_applies_only_to_training_pairs(run):
    tokens: list[int] = []
    dropped = with_options(run, max_steps=2, epochs=99, save_every=2, bpe_dropout=1.0)
    trainer = Trainer(dropped)
    update = trainer._updater.update

    def spy(shards: Any, count: int, **others: Any) -> Any:
        tokens.append(count)
        assert count == sum(int(batch.target_len.sum()) for batch, _ in shards)
        return update(shards, count, **others)

    trainer._updater.update = spy  # type: ignore[method-assign]
    trainer.train()
    pairs, codec = run.train_pairs, run.codec
    for (indices,), count in zip(trainer._steps_of_epoch(0)[:2], tokens, strict=True):
        replies = [codec.decode(pairs.target(i).tolist()) for i in indices]
        assert count == sum(len(reply.encode()) + 1 for reply in replies)  # bytes, and the end
    model, _ = dropped.load_model("last")
    total, counted = evaluate_loss(model, ordered_batches(run.valid_pairs, TrainingConfig()), "")
    assert counted == len(run.valid_pairs.tgt_ids)
    assert read_metrics(run.folder)[-1]["valid_loss"] == pytest.approx(total / counted, rel=1e-5)


def test_a_checkpoint_without_the_average_that_the_configuration_requires_is_refused(run):
    Trainer(with_options(run, max_steps=1)).train()
    from edgechat.runtime.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"has no average.safetensors"):
        Trainer(with_options(run, max_steps=2, ema=0.9))
