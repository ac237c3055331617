"""What a checkpoint keeps, and what a kill leaves of the checkpoints, a step at a time."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from edgechat.train.checkpoint import Learned, Position, checkpoint_folders, save_checkpoint


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
