"""The contents of a checkpoint, and the state of the checkpoints after a kill at each step of a write."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from edgechat.runtime.errors import CheckpointError
from edgechat.train import checkpoints, run
from edgechat.train.checkpoint import (
    Position,
    TrainingState,
    checkpoint_name,
    checkpoint_step,
    load_checkpoint,
)
from edgechat.train.checkpoints import Checkpoints, _ranked
from edgechat.train.config import TrainingConfig
from edgechat.train.dataset import PreparedCorpus
from edgechat.train.optimizer import Optimizer
from edgechat.train.report import CorpusReport
from edgechat.train.run_inputs import RunInputs


class Killed(BaseException):
    """Ends a process at an arbitrary point."""


def save_checkpoint(run: Path, step: int, training_state: TrainingState | None = None) -> None:
    """Write the checkpoint of a step. Each one is better than the one before; two are kept."""
    position, checkpoints = Position(step=step, best_step=step), Checkpoints(run)
    checkpoints.save(training_state or make_training_state(), position)
    checkpoints.save_validation(position, 100.0 - step, 1.0)
    checkpoints.remove_old(position, keep=2)


def make_training_state(config: TrainingConfig | None = None) -> TrainingState:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(model, Optimizer(model, config or TrainingConfig()), None, scaler)


def steps(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoints").iterdir())


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    def killed(folder: Path, **_: object) -> None:
        (folder / "state.json").unlink()
        raise Killed

    save_checkpoint(tmp_path, 10)
    save_checkpoint(tmp_path, 20)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, 30)
    assert [folder.name[-2:] for folder in Checkpoints(tmp_path).select("best:2")] == ["30", "20"]
    save_checkpoint(tmp_path, 40)
    assert steps(tmp_path) == ["step-00000030", "step-00000040"]


def test_the_folder_of_the_checkpoints_is_synced_too(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(checkpoints, "sync_folder", synced.append)
    save_checkpoint(tmp_path, 10)
    assert synced == [tmp_path]


def test_the_folders_that_contain_a_new_run_are_synced_too(run_folder, tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(run, "sync_folder", synced.append)
    begun = run.open_run(run_folder)
    pairs = begun.train_pairs, begun.valid_pairs, begun.valid_texts()
    prepared = PreparedCorpus(begun.tokenizer, begun.codec, *pairs, CorpusReport())
    out, corpus = tmp_path / "a" / "b" / "run", {"name": "none", "sha256": ""}
    run.create_run(out, RunInputs(begun.config, prepared), corpus, device="cpu", replace=False)
    assert sorted(synced) == [tmp_path, tmp_path / "a"]


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(optimizer="adam"),
        TrainingConfig(optimizer="adamw", weight_decay=0.1),
        TrainingConfig(optimizer="sgd", momentum=0.9),
        TrainingConfig(optimizer="sgd"),
    ],
    ids=lambda config: f"{config.optimizer} {config.momentum}",
)
def test_an_optimizer_continues_from_its_loaded_state_as_if_it_had_never_stopped(tmp_path, config):
    before, after = make_training_state(config), make_training_state(config)

    def learn(training_state: TrainingState, factor: float) -> None:
        training_state.model.zero_grad()
        (training_state.model(torch.ones(1, 2)) * factor).sum().backward()
        training_state.optimizer.step(0.1)

    learn(before, 1.0)
    save_checkpoint(tmp_path, 1, before)
    load_checkpoint(Checkpoints(tmp_path).last, after)
    for training_state in (before, after):
        learn(training_state, -3.0)
    for read in (lambda state: state.model.state_dict(), lambda state: state.optimizer.state_tensors()):
        torch.testing.assert_close(read(after), read(before), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"position": {}}, "'step'"),
        ({"position": 3}, "'int' object is not subscriptable"),
        ({"epoch": "x"}, "epoch must be a whole number, not 'x'"),
        ({"loss_sum": None}, "loss_sum must be a number, not None"),
        ({"score": "good"}, "score must be a number, not 'good'"),
        ({"scaler": []}, "'list' object has no attribute 'items'"),
        ({"scaler": {"scale": "big"}}, "scaler scale must be a number, not 'big'"),
        ({"files": {}}, "safetensors'"),
    ],
)
def test_a_value_of_the_wrong_type_in_the_state_is_a_damaged_checkpoint(tmp_path, values, wrong):
    save_checkpoint(tmp_path, 10)
    last = Checkpoints(tmp_path).last
    state = json.loads((last / "state.json").read_text())
    ((name, value),) = values.items()
    (state if name in state else state["position"])[name] = value
    (last / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=rf"state\.json is damaged \(.*{re.escape(wrong)}\): move "):
        load_checkpoint(last, make_training_state())


def test_the_state_is_loaded_to_where_the_weights_are():
    """As on a GPU, where fused Adam refuses a step count on the CPU."""
    model = nn.Linear(2, 2, device="meta")
    optimizer = Optimizer(model, TrainingConfig())
    kept = {
        f"{name}.{key}": torch.ones(() if key == "step" else parameter.shape)
        for name, parameter in model.named_parameters()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    optimizer.load_state_tensors(kept)
    loaded = optimizer.state_tensors()
    assert loaded.keys() == kept.keys()
    assert {tensor.device.type for tensor in loaded.values()} == {"meta"}


def test_of_equal_scores_the_lower_loss_is_better_and_of_equal_losses_the_earlier():
    scores = {9: (1.0, 4.0), 3: (1.0, 5.0), 4: (1.0, 4.0), 6: (0.5, 9.0), 12: (2.0, 0.0)}
    folders = {Path(checkpoint_name(step)): score for step, score in scores.items()}
    ranks = {kind: [checkpoint_step(path) for path in _ranked(folders, kind)] for kind in ("best", "last")}
    assert ranks == {"best": [6, 4, 9, 3, 12], "last": [12, 9, 6, 4, 3]}


def test_of_equally_scored_checkpoints_on_disk_that_of_the_lowest_loss_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        position = Position(step=step, best_step=2)
        checkpoints.save(make_training_state(), position)
        checkpoints.save_validation(position, 0.0, loss)
    assert [checkpoint_step(folder) for folder in checkpoints.select("best:2")] == [2, 3]
