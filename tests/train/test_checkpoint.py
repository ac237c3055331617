"""What a checkpoint keeps, and what a kill leaves of the checkpoints, a step at a time."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from edgechat.train import checkpoint, run
from edgechat.train.checkpoint import Learned, Position, checkpoint_folders, save_checkpoint
from edgechat.train.dataset import Prepared
from edgechat.train.report import CorpusReport


class Killed(BaseException):
    """What ends a process in the middle of something."""


def save(run: Path, step: int, learned: Learned | None = None) -> None:
    """The checkpoint of a step, of which each is better than the one before; two are kept."""
    position = Position(step=step, best_step=step)
    save_checkpoint(run, learned or small(), position, score=100.0 - step, keep=2)


def small() -> Learned:
    model = nn.Linear(2, 2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Learned(model, torch.optim.SGD(model.parameters(), lr=0.1), None, scaler)


def steps(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoints").iterdir())


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    def killed(folder: Path, **_: object) -> None:
        (folder / "state.json").unlink()
        raise Killed

    save(tmp_path, 10)
    save(tmp_path, 20)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            save(tmp_path, 30)
    assert [folder.name[-2:] for folder in checkpoint_folders(tmp_path, "best:2")] == ["30", "20"]
    save(tmp_path, 40)
    assert steps(tmp_path) == ["step-00000030", "step-00000040"]


def test_the_folder_of_the_checkpoints_is_durable_as_they_are(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(checkpoint, "sync_folder", synced.append)
    save(tmp_path, 10)
    assert synced == [tmp_path]


def test_the_folders_that_a_new_run_lies_in_are_durable_as_it_is(run_folder, tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(run, "sync_folder", synced.append)
    begun = run.open_run(run_folder)
    pairs = begun.pairs("train"), begun.pairs("valid"), begun.held_out()
    prepared = Prepared(begun.tokenizer, begun.codec, *pairs, CorpusReport())
    out, corpus = tmp_path / "a" / "b" / "run", {"name": "none", "sha256": ""}
    run.create_run(out, begun.config, prepared, corpus, device="cpu", replace=False)
    assert sorted(synced) == [tmp_path, tmp_path / "a"]
