"""A run that is interrupted anywhere and resumed ends with the same bytes as an uninterrupted one, with any
options."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgechat.train import trainer
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.metrics import read_metrics
from edgechat.train.run import Run, open_run
from edgechat.train.trainer import Trainer

STEPS = 9

options = st.fixed_dictionaries(
    {},
    optional={
        "schedule": st.sampled_from(
            [
                {"schedule": "cosine", "warmup_steps": 3},
                {"schedule": "inverse-sqrt", "warmup_steps": 4},
                {"schedule": "plateau", "plateau_patience": 1, "learning_rate": 0.3},
                {"schedule": "luong"},
            ]
        ),
        "optimizer": st.sampled_from(
            [
                {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
                {"optimizer": "sgd"},
                {"optimizer": "adamw", "weight_decay": 0.1},
            ]
        ),
        "dropout": st.just({"dropout": 0.3, "attention_dropout": 0.2, "word_dropout": 0.2}),
        "ema": st.just({"ema": 0.9}),
        "accumulate": st.just({"accumulate": 3}),
        "batch_tokens": st.just({"batch_tokens": 64}),
        "amp": st.just({"amp": "auto"}),  # bf16 is slow on a CPU that does not compute in it
        "scheduled_sampling": st.just({"scheduled_sampling": 0.5}),
        "bpe_dropout": st.just({"bpe_dropout": 0.2}),
        "label_smoothing": st.just({"label_smoothing": 0.1}),
        "early_stop": st.sampled_from(
            [{"early_stop": "bleu", "patience": 2}, {"early_stop": "loss", "patience": 1}]
        ),
        "keep": st.just({"keep": 2}),
    },
)


class Killed(BaseException):
    """Ends a run between two steps, without a checkpoint."""


def copy_run(untrained: Path, folder: Path, values: dict[str, Any]) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(untrained, folder)
    run = open_run(folder)
    config = run.config.with_values({"epochs": 1000, "max_steps": STEPS, "save_every": 3, **values})
    return Run(folder, config, run.info, run.tokenizer, run.codec)


def train_to(run: Run, step: int, *, kill: bool) -> None:
    """Train up to this step, then end with a kill or with a stop request."""
    done = []

    def at_step(progress: Any) -> None:
        done.append(progress.step)
        if kill and progress.step == step:
            raise Killed

    try:
        Trainer(run, on_step=at_step).train(lambda: not kill and done[-1:] == [step])
    except Killed:
        assert done[-1] == step


def result(folder: Path) -> dict[str, Any]:
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "checkpoints").rglob("*")
        if path.is_file()
    }
    return {"metrics": read_metrics(folder), **files}


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are not compared, and drawing them takes longer than these runs."""
    monkeypatch.setattr(trainer, "plot_metrics", lambda *_: None)


@pytest.fixture(scope="module")
def untrained(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrained") / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("checkpoints", "metrics.*"))
    return folder


@given(
    chosen=options, breaks=st.lists(st.tuples(st.integers(1, STEPS), st.booleans()), min_size=1, max_size=3)
)
@example(
    chosen={}, breaks=[(3, False), (3, False)]
)  # a stop in a validation, which is repeated at the resume
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_interrupted_at_random_ends_with_the_same_bytes_under_any_options(
    untrained: Path, tmp_path: Path, chosen: dict[str, dict[str, Any]], breaks: list[tuple[int, bool]]
):
    torch.set_num_threads(1)
    values = {name: value for group in chosen.values() for name, value in group.items()}
    whole = copy_run(untrained, tmp_path / "whole", values)
    Trainer(whole).train()
    broken = copy_run(untrained, tmp_path / "broken", values)
    for step, kill in sorted(breaks):
        train_to(broken, step, kill=kill)
    Trainer(broken).train()
    assert result(broken.folder) == result(whole.folder)


@pytest.mark.parametrize("step", [6, STEPS])
@pytest.mark.parametrize("values", [{}, {"keep": 2, "ema": 0.9}, {"early_stop": "bleu", "patience": 9}])
@pytest.mark.parametrize("killed_in", [(trainer, "evaluate_loss"), (Checkpoints, "save_validation")])
def test_a_run_that_is_killed_in_a_validation_loses_no_step(
    untrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_in: tuple[Any, str],
    values: dict[str, Any],
    step: int,
):
    def kill_at_step(*given: Any) -> Any:
        if train.position.step == step:
            raise Killed
        return real(*given)

    whole = copy_run(untrained, tmp_path / "whole", values)
    Trainer(whole).train()
    broken = copy_run(untrained, tmp_path / "broken", values)
    train, real = Trainer(broken), getattr(*killed_in)
    with monkeypatch.context() as patch:
        patch.setattr(*killed_in, kill_at_step)
        with pytest.raises(Killed):
            train.train()
    steps: list[int] = []
    Trainer(broken, on_step=lambda p: steps.append(p.step)).train()
    assert steps == list(range(step + 1, STEPS + 1))
    assert result(broken.folder) == result(whole.folder)


def test_a_run_with_every_option_at_once_is_exact_too(untrained: Path, tmp_path: Path):
    everything: dict[str, Any] = {
        "schedule": "plateau", "plateau_patience": 1, "optimizer": "adamw", "weight_decay": 0.1,
        "dropout": 0.3, "embedding_dropout": 0.1, "attention_dropout": 0.2, "word_dropout": 0.2, "ema": 0.9,
        "accumulate": 2, "batch_tokens": 64, "amp": "auto", "scheduled_sampling": 0.5,
        "label_smoothing": 0.1, "bpe_dropout": 0.2, "early_stop": "exact-match", "patience": 9, "keep": 3,
    }  # fmt: skip
    whole = copy_run(untrained, tmp_path / "whole", everything)
    Trainer(whole).train()
    broken = copy_run(untrained, tmp_path / "broken", everything)
    for step, kill in ((2, True), (5, False), (8, True)):
        train_to(broken, step, kill=kill)
    Trainer(broken).train()
    assert result(broken.folder) == result(whole.folder)
    assert len(list((whole.folder / "checkpoints").iterdir())) >= 3
