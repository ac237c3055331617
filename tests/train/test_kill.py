"""SIGKILL at any moment costs time, never a byte of the result."""

from pathlib import Path

import pytest
from kills import train_through_kills

from edgechat.train.checkpoints import Checkpoints
from edgechat.train.metrics import read_metrics

_OPTIONS = [
    "--hidden", "64", "--embedding", "32", "--attention", "32", "--vocab-size", "300", "--batch-size", "4",
    "--epochs", "1000", "--save-every", "20", "--dropout", "0.3", "--threads", "1", "--device", "cpu",
]  # fmt: skip
_EVERYTHING = [
    "--optimizer", "adamw", "--weight-decay", "0.1", "--schedule", "plateau", "--plateau-patience", "1",
    "--ema", "0.9", "--accumulate", "2", "--amp", "auto", "--scheduled-sampling", "0.5",
    "--word-dropout", "0.2", "--attention-dropout", "0.2", "--label-smoothing", "0.1", "--keep", "2",
    "--bpe-dropout", "0.2",
]  # fmt: skip


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_resumes_to_the_weights_of_an_uninterrupted_one(
    corpus_file: Path, tmp_path: Path, edgechat, kills: int
):
    arguments = [str(corpus_file), *_OPTIONS, *_EVERYTHING, "--max-steps", str(60 + 20 * kills)]
    through, whole = tmp_path / "killed", tmp_path / "whole"
    hit = train_through_kills(arguments, through, kills=kills, seed=kills)
    assert hit == kills
    done = edgechat("train", *arguments, "--out", whole)
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"):
        files = [Checkpoints(run).last / name for run in (through, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert read_metrics(through) == read_metrics(whole)
    assert not list(through.rglob(".tmp-*"))
