"""Training: it learns, clips, stops when it should, and reports what went wrong."""

import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.errors import CheckpointError, EdgeChatError, UsageError
from edgechat.train.batches import Batch, make_batch
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.dialogue import Pair
from edgechat.train.metrics import append_metrics, make_figure, plot_metrics, read_metrics, truncate_metrics
from edgechat.train.run import Run, open_run
from edgechat.train.tokenizer import train_tokenizer
from edgechat.train.trainer import Trainer
from edgechat.train.updates import Outcome, Updater


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Run:
    """A run without a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("checkpoints", "metrics.*"))
    torch.set_num_threads(1)
    return open_run(folder).with_values(epochs=None, max_steps=12)


def weights(folder: Path) -> bytes:
    return (Checkpoints(folder).last / "model.safetensors").read_bytes()


def test_training_lowers_the_loss_and_keeps_the_last_and_the_best_checkpoint(run_folder):
    rows = read_metrics(run_folder)
    assert rows[-1]["train_loss"] < 0.2 < 1 < rows[0]["train_loss"]
    best = min((row for row in rows), key=lambda row: row["valid_loss"])
    names = sorted(f.name for f in (run_folder / "checkpoints").iterdir())
    assert names == sorted({f"step-{best['step']:08d}", f"step-{rows[-1]['step']:08d}"})
    assert Checkpoints(run_folder).best.name == f"step-{best['step']:08d}"
    assert (run_folder / "metrics.png").read_bytes().startswith(b"\x89PNG")


def test_each_row_of_metrics_has_all_columns(run_folder):
    row = read_metrics(run_folder)[0]
    assert set(row) == {
        "step", "epoch", "learning_rate", "train_loss", "gradient_norm", "valid_loss", "valid_perplexity",
        "skipped",
    }  # fmt: skip
    assert row["valid_perplexity"] == pytest.approx(math.exp(row["valid_loss"]))


def test_the_learning_rate_in_metrics_is_that_of_the_last_update(run, monkeypatch):
    trainer, rates = Trainer(with_options(run, schedule="cosine", save_every=5)), list[float]()
    update = trainer._updater.update

    def spy(*given, rate, **others):
        rates.append(rate)
        return update(*given, rate=rate, **others)

    monkeypatch.setattr(trainer._updater, "update", spy)
    trainer.train()
    recorded = [(row["step"], row["learning_rate"]) for row in read_metrics(run.folder)]
    assert recorded == [(step, rates[step - 1]) for step in (5, 10, 12)]


def test_the_pairs_that_are_decoded_at_validations_are_read_once_and_spread_over_all(run, monkeypatch):
    from edgechat.train import trainer as module

    texts, decoded = [Pair([str(i)], "") for i in range(11)], list[list[str]]()
    reads = iter([texts])
    monkeypatch.setattr(Run, "valid_texts", lambda _: next(reads))
    monkeypatch.setattr(module, "_MAX_DECODED_PAIRS", 6)
    trainer = Trainer(with_options(run, early_stop="bleu", save_every=5))

    def score(_: object, pairs: list[Pair]) -> dict[str, float]:
        decoded.append([pair.turns[0] for pair in pairs])
        return {"exact_match": 0.0, "bleu": 0.0, "chrf": 0.0}

    monkeypatch.setattr(trainer, "_score_greedy_replies", score)
    trainer.train()
    assert decoded == [["0", "2", "4", "6", "8", "10"]] * 3


def test_the_time_of_validations_does_not_lower_the_speed(run, monkeypatch):
    clock, speeds = itertools.count(), list[float]()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))

    def validate(_: Trainer) -> dict[str, float]:
        for _ in range(100):
            next(clock)
        return {"loss": 1.0}

    monkeypatch.setattr(Trainer, "_validate", validate)
    trainer = Trainer(with_options(run, save_every=2), on_step=lambda p: speeds.append(p.tokens_per_second))
    third = trainer._target_tokens(trainer._steps_of_epoch(0)[2], [])
    trainer.train(lambda: len(speeds) == 3)
    assert speeds[2] == pytest.approx(0.9 * speeds[1] + 0.1 * third)  # which took one tick of the clock


def test_a_stop_request_leaves_a_checkpoint_that_resumes_to_the_same_weights(run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(run.folder, twin)
    Trainer(open_run(twin)).train()
    seen = []
    for ended in ("interrupted", "interrupted", "finished"):
        trainer = Trainer(run, on_step=lambda p: seen.append(p.step))
        assert trainer.train(lambda: seen[-1] in (5, 9)).ended == ended
    assert seen == list(range(1, 13))
    assert weights(run.folder) == weights(twin)


def test_a_stop_request_ends_a_validation_too_and_a_resume_makes_it_up(run):
    trainer, steps = Trainer(run), list[int]()
    result = trainer.train(lambda: trainer.position.step == 12)
    assert (result.ended, result.position.step) == ("interrupted", 12)
    assert not read_metrics(run.folder)
    assert Trainer(run, on_step=lambda p: steps.append(p.step)).train().ended == "finished"
    assert not steps
    assert [row["step"] for row in read_metrics(run.folder)] == [12]


def test_the_metrics_of_a_stopped_and_resumed_run_are_those_of_one_that_ran_through(run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(run.folder, twin)
    Trainer(open_run(twin)).train()
    steps = []
    Trainer(run, on_step=lambda p: steps.append(p.step)).train(lambda: len(steps) == 7)
    Trainer(run).train()
    assert read_metrics(run.folder) == read_metrics(twin)


def test_each_pair_is_learned_once_per_epoch_even_if_the_run_is_stopped_and_resumed(run, monkeypatch):
    from edgechat.train import bpe_dropout

    made, seen = dict[int, tuple[Batch, list[int]]](), list[int]()
    update = Updater.update

    def make(pairs, indices):
        batch = make_batch(pairs, indices)
        made[id(batch)] = batch, indices.tolist()  # the batch, so that no other gets its id
        return batch

    def learn(self, shards, *given, **options):
        for batch, _ in shards:
            seen.extend(made[id(batch)][1])
        return update(self, shards, *given, **options)

    monkeypatch.setattr(bpe_dropout, "make_batch", make)
    monkeypatch.setattr(Updater, "update", learn)
    pairs = len(run.train_pairs)
    per_epoch = -(-pairs // run.config.training.batch_size)
    two_epochs = run.with_values(epochs=2, max_steps=2 * per_epoch)
    steps: list[int] = []
    first = Trainer(two_epochs, on_step=lambda p: steps.append(p.step))
    first.train(lambda: len(steps) == per_epoch - 1)
    Trainer(two_epochs).train()
    assert sorted(seen[:pairs]) == list(range(pairs))
    assert sorted(seen[pairs:]) == list(range(pairs))
    assert seen[:pairs] != seen[pairs:]


def test_the_next_batch_is_made_before_the_loss_of_this_one_is_waited_for(run, monkeypatch):
    from edgechat.train import bpe_dropout

    events = list[str]()
    monkeypatch.setattr(bpe_dropout, "make_batch", lambda *given: events.append("make") or make_batch(*given))
    trainer = Trainer(run.with_values(epochs=1, max_steps=3))
    apply = trainer._updater._apply
    monkeypatch.setattr(trainer._updater, "_apply", lambda *given: events.append("apply") or apply(*given))
    trainer.train()
    assert events == ["make", "make", "apply", "make", "apply", "make", "apply"]


def test_time_that_runs_out_stops_with_a_checkpoint(run):
    result = Trainer(run, max_minutes=0).train()
    assert (result.ended, result.position.step) == ("out of time", 1)
    assert Checkpoints(run.folder).last.name == "step-00000001"


def test_a_limit_of_time_is_in_minutes(run, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    trainer, ticks = Trainer(run, max_minutes=2), iter([1001.0, 1119.0, 1121.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    result = trainer.train()
    assert (result.ended, result.position.step) == ("out of time", 3)


def test_gradients_are_clipped_to_the_global_norm(run, monkeypatch):
    norms = []
    real = torch.nn.utils.clip_grad_norm_

    def spy(parameters, max_norm):
        parameters = list(parameters)
        before = real(parameters, max_norm)
        norms.append((max_norm, float(torch.stack([p.grad.norm() for p in parameters]).norm())))
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    run.info["config"]["training"]["clip"] = 0.01
    (run.folder / "run.json").write_text(json.dumps(run.info))
    Trainer(open_run(run.folder)).train(lambda: True)
    assert norms[0][0] == 0.01
    assert norms[0][1] == pytest.approx(0.01, rel=1e-3)


def test_metrics_have_the_mean_norm_of_the_gradients_before_they_are_clipped(run, monkeypatch):
    trainer, norms = Trainer(with_options(run, clip=0.01)), list[float]()
    update = trainer._updater.update

    def spy(*given, **others):
        outcome = update(*given, **others)
        norms.append(outcome.norm)
        return outcome

    monkeypatch.setattr(trainer._updater, "update", spy)
    make_losses_nan(trainer, {3}, monkeypatch)
    trainer.train()
    (row,) = read_metrics(run.folder)
    assert math.isnan(norms.pop(2))
    assert row["gradient_norm"] == pytest.approx(sum(norms) / 11)
    assert row["gradient_norm"] > 0.01
    assert trainer.parameter_count == sum(tensor.numel() for tensor in trainer.model.state_dict().values())


@pytest.mark.parametrize("error", [ImportError("No module named 'matplotlib'"), OSError(28, "No space left")])
def test_curves_that_cannot_be_drawn_do_not_fail_a_training(run, monkeypatch, caplog, error):
    from edgechat.train import trainer

    def failing(*_):
        raise error

    monkeypatch.setattr(trainer, "plot_metrics", failing)
    assert Trainer(run).train().ended == "finished"
    assert f"no curves are drawn in {run.folder}: {error}" in caplog.text


def test_a_package_that_validations_need_is_missed_before_the_first_step(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "edgechat.train.reply_scores", raising=False)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(ImportError, match="sacrebleu"):
        Trainer(with_options(run, early_stop="bleu"))
    assert Trainer(with_options(run, early_stop="loss")).train().ended == "finished"


def make_losses_nan(trainer: Trainer, steps: set[int], monkeypatch) -> None:
    """Make the loss of these steps, counted from 1, NaN."""
    from edgechat.train import updates

    def losses(*given):
        value = real(*given)
        if torch.is_grad_enabled() and trainer.position.step + 1 in steps:
            return value._replace(objective=value.objective * math.nan, nll=value.nll * math.nan)
        return value

    real = updates.summed_losses
    monkeypatch.setattr(updates, "summed_losses", losses)


def test_a_step_whose_loss_is_nan_is_skipped_and_counted(run, monkeypatch):
    seen: list[int] = []
    before: dict[int, bytes] = {}
    trainer = Trainer(run, on_step=lambda p: seen.append(p.step))
    make_losses_nan(trainer, {3, 4, 7}, monkeypatch)
    weight = trainer.model.output.weight

    def remember() -> bool:
        before[trainer.position.step] = weight.detach().numpy().tobytes()
        return False

    trainer.train(remember)
    assert seen == [1, 2, 5, 6, 8, 9, 10, 11, 12]
    assert before[2] == before[3] == before[4] != before[5]
    assert before[6] == before[7] != before[8]
    row = read_metrics(run.folder)[-1]
    assert (row["skipped"], row["step"]) == (3, 12)
    assert math.isfinite(row["train_loss"])


def test_a_few_such_steps_in_a_row_stop_with_a_sentence_and_keep_the_last_good_checkpoint(run, monkeypatch):
    Trainer(run).train(lambda: True)
    good = weights(run.folder)
    trainer = Trainer(run)
    make_losses_nan(trainer, set(range(3, 100)), monkeypatch)
    with pytest.raises(EdgeChatError) as error:
        trainer.train()
    for part in (
        "loss nan) in 5 steps in a row, up to step 7",
        "start another run with --force and a lower --learning-rate (now 0.01) or --clip (now 5.0)",
    ):
        assert part in str(error.value)
    assert weights(run.folder) == good


def test_skipped_steps_that_are_not_in_a_row_do_not_end_a_run_and_each_validation_counts_its_own(
    run, monkeypatch
):
    trainer = Trainer(with_options(run, save_every=6))
    make_losses_nan(trainer, {1, 2, 3, 4, 6, 7, 8}, monkeypatch)
    assert trainer.train().ended == "finished"
    rows = read_metrics(run.folder)
    assert [row["skipped"] for row in rows] == [5, 2]


def test_the_means_of_a_validation_are_over_the_steps_since_the_one_before(run, monkeypatch):
    norms, losses = [], []
    trainer = Trainer(with_options(run, save_every=4))
    update = trainer._updater.update

    def spy(shards, tokens, **others):
        outcome = update(shards, tokens, **others)
        norms.append(outcome.norm)
        losses.append((outcome.loss * tokens, tokens))
        return outcome

    monkeypatch.setattr(trainer._updater, "update", spy)
    trainer.train()
    for row in read_metrics(run.folder):
        steps = slice(row["step"] - 4, row["step"])
        assert row["gradient_norm"] == pytest.approx(sum(norms[steps]) / 4)
        total, tokens = map(sum, zip(*losses[steps], strict=True))
        assert row["train_loss"] == pytest.approx(total / tokens)


def test_steps_that_only_lower_the_scale_of_float16_are_no_divergence(run, monkeypatch):
    trainer = Trainer(run)
    update = trainer._updater.update

    def lowers(*given, step, **others):
        if step <= 8:
            return Outcome(9.0, applied=False, rescaled=True)
        return update(*given, step=step, **others)

    monkeypatch.setattr(trainer._updater, "update", lowers)
    assert trainer.train().ended == "finished"
    assert read_metrics(run.folder)[-1]["skipped"] == 8


def test_validations_compute_in_the_precision_of_the_training(run, monkeypatch):
    from edgechat.train import trainer as module

    seen, real = [], module.evaluate_loss

    def spy(*given):
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(*given)

    monkeypatch.setattr(module, "evaluate_loss", spy)
    for amp, meant in (("fp16", True), ("off", False)):
        seen.clear()
        Trainer(with_options(run, amp=amp, max_steps=2)).train()
        assert seen == [meant]
        shutil.rmtree(run.folder / "checkpoints")


def test_an_interrupted_run_keeps_no_more_checkpoints_than_it_should(run, monkeypatch):
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": next(losses)})
    trainer = Trainer(with_options(run, save_every=2))
    trainer.train(lambda: trainer.position.step == 5)
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000005"]  # the best and the last


def test_the_share_of_sampled_tokens_grows_from_the_first_step_to_the_last(run, monkeypatch):
    shares = []
    trainer = Trainer(with_options(run, scheduled_sampling=0.5))
    update = trainer._updater.update

    def spy(*given, sampling, **others):
        shares.append(sampling)
        return update(*given, sampling=sampling, **others)

    monkeypatch.setattr(trainer._updater, "update", spy)
    trainer.train()
    assert shares == pytest.approx([0.5 * step / 11 for step in range(12)])


def test_what_a_killed_process_left_behind_is_removed(run):
    Trainer(run).train(lambda: True)
    leftovers = [folder / ".tmp-killed" for folder in (run.folder, run.folder / "checkpoints")]
    for leftover in leftovers:
        leftover.mkdir()
    Trainer(run).train()
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_model_that_is_broken_from_the_start_stops_and_leaves_no_checkpoint(run):
    trainer = Trainer(run)
    with torch.no_grad():
        trainer.model.output.bias.fill_(float("nan"))
    with pytest.raises(
        EdgeChatError, match=r"in 5 steps in a row, up to step 5: start another run with --force"
    ):
        trainer.train()
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        _ = Checkpoints(run.folder).last


def with_options(run: Run, **options: object) -> Run:
    run.info["config"] = run.config.with_values(options).to_json()
    (run.folder / "run.json").write_text(json.dumps(run.info))
    return open_run(run.folder)


@pytest.mark.parametrize("early_stop", [None, "bleu"])
def test_a_held_out_loss_of_nan_ends_the_run_at_its_last_good_checkpoint(run, monkeypatch, early_stop):
    from edgechat.train import trainer as module

    real = module.evaluate_loss
    trainer = Trainer(with_options(run, save_every=4, early_stop=early_stop, keep=3))

    def loss(model, batches, when):
        total, tokens = real(model, batches, when)
        return (math.nan if when.endswith("step 8") else total), tokens

    monkeypatch.setattr(module, "evaluate_loss", loss)
    with pytest.raises(EdgeChatError) as error:
        trainer.train()
    assert str(error.value) == (
        f"the held-out loss is not finite at step 8: start another run with --from-run {run.folder} "
        "(best checkpoint: step 4) and a lower --learning-rate (now 0.01) or --clip (now 5.0)"
    )
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-00000004"]
    rows = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row, parse_constant=pytest.fail)["valid_loss"] is None for row in rows] == [
        False, True
    ]  # fmt: skip


def test_a_diverged_run_names_its_best_checkpoint_to_start_from(run, monkeypatch):
    trainer = Trainer(with_options(run, save_every=2))
    make_losses_nan(trainer, set(range(3, 100)), monkeypatch)
    with pytest.raises(
        EdgeChatError, match=rf"with --from-run {run.folder} \(best checkpoint: step 2\) and a"
    ):
        trainer.train()


def test_a_learning_rate_that_float32_does_not_hold_is_refused(run):
    with pytest.raises(UsageError, match=r"learning_rate must be at most 1e\+30, not 1e\+39"):
        run.config.with_values({"learning_rate": 1e39})


def test_metrics_have_no_infinity_and_a_resume_removes_an_old_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "train_loss": 1.0, "valid_loss": NaN}\n')
    append_metrics(tmp_path, {"step": 20, "train_loss": math.inf, "valid_loss": 2.0})
    truncate_metrics(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 10, "train_loss": 1.0, "valid_loss": null}\n'
        '{"step": 20, "train_loss": null, "valid_loss": 2.0}\n'
    )
    plot_metrics(tmp_path, 0)
    assert (tmp_path / "metrics.png").exists()


def test_float16_on_a_cpu_finds_its_scale_and_resumes_to_the_same_weights(run, tmp_path):
    run = with_options(run, amp="fp16")
    twin = tmp_path / "twin"
    shutil.copytree(run.folder, twin)
    whole = Trainer(open_run(twin))
    assert whole.precision == "fp16"
    whole.train()
    Trainer(run).train(lambda: True)
    Trainer(run).train()
    assert weights(run.folder) == weights(twin)
    states = [json.loads((Checkpoints(f).last / "state.json").read_text()) for f in (run.folder, twin)]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert states[0]["scaler"]["scale"] > 0


def test_a_run_whose_time_is_over_at_its_last_step_is_finished(run):
    assert Trainer(run.with_values(epochs=None, max_steps=1), max_minutes=0).train().ended == "finished"


def test_the_metric_of_early_stopping_is_reported_at_each_validation(run):
    seen = []
    Trainer(with_options(run, early_stop="chrf"), on_validation=seen.append).train()
    assert seen[0].metric == ("chrf", read_metrics(run.folder)[0]["valid_chrf"])


def raise_out_of_memory(*_):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 TB")


def test_memory_that_runs_out_in_a_validation_or_in_the_optimizer_is_reported_too(run, monkeypatch):
    trainer = Trainer(run)
    monkeypatch.setattr(trainer._updater.optimizer, "step", raise_out_of_memory)
    with pytest.raises(EdgeChatError, match=r"out of memory at step 1 on a batch of \d+ pairs, sources to"):
        trainer.train()
    trainer = Trainer(run)
    encode = trainer.model.encode
    monkeypatch.setattr(
        trainer.model, "encode", lambda *a: encode(*a) if torch.is_grad_enabled() else raise_out_of_memory()
    )
    with pytest.raises(EdgeChatError, match=r"out of memory in the validation at step 12 on a batch of \d+"):
        trainer.train()


def test_memory_that_runs_out_names_the_batch_and_the_options(run, monkeypatch):
    trainer = Trainer(run)
    monkeypatch.setattr(trainer.model, "encode", raise_out_of_memory)
    pairs = len(trainer._steps_of_epoch(0)[0][0])
    with pytest.raises(
        EdgeChatError,
        match=rf"out of memory at step 1 on a batch of {pairs} pairs, sources to \d+ and targets to \d+ "
        "tokens: "
        "halve --batch-size or --batch-tokens and double --accumulate",
    ):
        trainer.train()


def test_a_second_trainer_is_refused_while_the_first_one_lives(run):
    first = Trainer(run)
    with pytest.raises(CheckpointError, match=rf"is being trained by process {os.getpid()}"):
        Trainer(run)
    first.train()
    assert not (run.folder / "lock").exists()
    Trainer(run).train()


def test_the_lock_of_a_killed_process_is_taken_over(run):
    code = (
        "import os, signal, sys; from pathlib import Path; from edgechat.train.lock import RunLock; "
        "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match=f"is being trained by process {holder.pid}:"):
            Trainer(run)
        holder.kill()
        holder.wait()
    assert (run.folder / "lock").read_text() == f" {holder.pid}\n"
    assert Trainer(run).train().ended == "finished"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_that_was_moved_during_training_ends_with_an_error_and_its_old_place_is_left_alone(
    run, replaced
):
    there, moved = run.folder, run.folder.with_name("moved")

    def move(_: object) -> None:
        if not moved.exists():
            there.rename(moved)
            if replaced:
                shutil.copytree(moved, there)  # with a lock file of its own

    with pytest.raises(CheckpointError, match="run was moved or replaced while it was trained"):
        Trainer(run, on_step=move).train()
    if replaced:
        assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in moved.iterdir())
        assert (there / "lock").exists()
        assert not (there / "metrics.png").exists()
        assert not list(there.rglob("step-*"))
    else:
        assert not there.exists()
    assert Trainer(open_run(moved)).train().ended == "finished"


def test_a_file_system_without_locks_is_not_taken_for_another_process(run, monkeypatch):
    from edgechat.train import lock

    def none(_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", none)
    with pytest.raises(CheckpointError) as error:
        Trainer(run)
    assert "cannot be locked against a second training (No locks available): choose an" in str(error.value)


def test_a_full_disk_stops_with_one_sentence_and_keeps_what_was_saved(run, monkeypatch):

    Trainer(run).train(lambda: True)
    before = weights(run.folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot be written at step 12 \(No space left on device\)"):
        Trainer(run).train()
    assert weights(run.folder) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_left_alone(run, name):
    Trainer(run).train()
    path = Checkpoints(run.folder).last / name
    damaged = path.read_bytes()[:-3]
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=name):
        Trainer(run)
    assert path.read_bytes() == damaged


def test_a_copy_of_a_checkpoint_under_another_name_is_not_taken_for_one(run):
    Trainer(run).train()
    last = Checkpoints(run.folder).last
    shutil.copytree(last, last.with_name(last.name + ".bak"))
    assert Checkpoints(run.folder).last == last


def test_a_checkpoint_is_safetensors_that_others_can_read(run_folder):
    tensors = safetensors.torch.load_file(Checkpoints(run_folder).last / "model.safetensors")
    assert tensors["embedding.weight"].shape[1] == 24
    assert tensors["output.weight"].shape[1] == 48


def test_rows_of_metrics_after_the_checkpoint_and_half_a_line_are_removed(tmp_path):
    rows = "".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30))
    (tmp_path / "metrics.jsonl").write_text(rows + '{"step": 4')
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    truncate_metrics(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 10}\n{"step": 20}\n'


def test_a_damaged_row_of_metrics_does_not_affect_the_others(tmp_path):
    damaged = [
        b"\xff\xfe",
        b"\0\0",
        b"{",
        b"[1]",
        b'{"step": "2"}',
        b'{"step": 2.5}',
        b'{"step": 2, "train_loss": []}',
    ]
    rows = [b'{"step": 1}', *damaged, b'{"step": 3}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    truncate_metrics(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'
    plot_metrics(tmp_path, 0)


def train_with_checkpoints(run: Run, steps: int, keep: int = 9) -> list[Path]:
    """The checkpoints of the run, trained for `steps` steps with a checkpoint at each."""
    config = run.config.with_values({"max_steps": steps, "save_every": 1, "keep": keep})
    Trainer(dataclasses.replace(run, config=config)).train()
    return sorted((run.folder / "checkpoints").iterdir())


def test_a_damaged_old_checkpoint_gives_a_warning_and_does_not_end_the_training(run, caplog):
    first, *_ = train_with_checkpoints(run, 3)
    (first / "state.json").write_text("{")
    assert [path.name for path in train_with_checkpoints(run, 5)][-2:] == ["step-00000004", "step-00000005"]
    assert f"{first / 'state.json'} is damaged or missing: this checkpoint is skipped" in caplog.text
    assert len(Checkpoints(run.folder).select("last:3")) == 3
    assert first in train_with_checkpoints(run, 6, keep=2)  # left alone


def test_the_best_checkpoint_is_found_if_the_last_is_damaged_and_no_other_is_taken_for_it(run, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": next(losses)})
    _, best, last = train_with_checkpoints(run, 3)
    (last / "state.json").write_text("")
    assert Checkpoints(run.folder).best == best
    sentence = rf"{last}/state\.json is damaged .*: move {last} away to continue from step 2$"
    with pytest.raises(CheckpointError, match=sentence):
        Trainer(run)
    shutil.rmtree(last)
    shutil.copytree(best, last)
    shutil.rmtree(best)
    with pytest.raises(
        CheckpointError, match="has lost its best checkpoint, step 2: use the last one, step 3"
    ):
        _ = Checkpoints(run.folder).best


def test_weights_for_another_vocabulary_give_a_one_sentence_error(run):
    Trainer(run).train()
    path = run.folder / "tokenizer.json"
    path.write_bytes(train_tokenizer(["hello"] * 9, 320))
    run.info["files"]["tokenizer.json"] = sha256(path.read_bytes())
    (run.folder / "run.json").write_text(json.dumps(run.info))
    with pytest.raises(CheckpointError, match=r"embedding\.weight is 320 × 24, not \d+ × 24$"):
        open_run(run.folder).load_model("last")
    with pytest.raises(CheckpointError, match=r"has ids that the run's tokenizer\.json lacks"):
        _ = open_run(run.folder).train_pairs


@pytest.mark.parametrize("metric", [None, "bleu"])
def test_curves_mark_the_best_validation_under_any_metric(metric):
    rows = [
        {"step": step, "train_loss": 1.0, "valid_loss": loss, "valid_bleu": bleu}
        for step, loss, bleu in ((10, 0.5, 7.0), (20, 0.75, 9.0), (30, None, None))
    ]
    panels = make_figure(rows, 20, metric).axes
    marks = [panel.lines[-1].get_xydata().tolist() for panel in panels]
    assert marks == [[[20, 0.75]], [[20, pytest.approx(math.exp(0.75))]], [[20, 9.0]]][: len(panels)]
    assert len(panels) == (2 if metric is None else 3)
    assert [len(panel.lines) for panel in make_figure(rows, 0, metric).axes] == [2, 2, 1][: len(panels)]


@pytest.mark.parametrize("valid_loss", [None, 2.0])
def test_curves_are_drawn_with_and_without_held_out_pairs(tmp_path, valid_loss):
    for step in (10, 20):
        append_metrics(tmp_path, {"step": step, "train_loss": 30.0 / step, "valid_loss": valid_loss})
    plot_metrics(tmp_path, 0)
    assert (tmp_path / "metrics.png").read_bytes().startswith(b"\x89PNG")
