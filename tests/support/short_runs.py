"""Trainings of a few steps, to be interrupted."""

import shutil
from pathlib import Path
from typing import Any

from edgechat.runtime.device import Device
from edgechat.train.run import Run, open_run
from edgechat.train.trainer import Trainer

STEPS = 9

#: Every option that could be lost in an interruption, at once.
EVERYTHING: dict[str, Any] = {
    "schedule": "plateau", "plateau_patience": 1, "optimizer": "adamw", "weight_decay": 0.1,
    "dropout": 0.3, "embedding_dropout": 0.1, "attention_dropout": 0.2, "word_dropout": 0.2, "ema": 0.9,
    "accumulate": 2, "batch_tokens": 64, "amp": "auto", "scheduled_sampling": 0.5,
    "label_smoothing": 0.1, "bpe_dropout": 0.2, "early_stop": "exact-match", "patience": 9, "keep": 3,
}  # fmt: skip


class Killed(BaseException):
    """Ends a run between two steps, without a checkpoint."""


def copy_run(untrained: Path, folder: Path, values: dict[str, Any]) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(untrained, folder)
    run = open_run(folder)
    config = run.config.with_values({"epochs": 1000, "max_steps": STEPS, "save_every": 3, **values})
    return Run(folder, config, run.info, run.tokenizer, run.codec)


def train_to(run: Run, step: int, *, kill: bool, device: Device = "cpu") -> None:
    """Train up to this step, then end with a kill or with a stop request."""
    done = []

    def at_step(progress: Any) -> None:
        done.append(progress.step)
        if kill and progress.step == step:
            raise Killed

    try:
        Trainer(run, device=device, on_step=at_step).train(lambda: not kill and done[-1:] == [step])
    except Killed:
        assert done[-1] == step
