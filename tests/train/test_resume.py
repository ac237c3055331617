"""A run that is interrupted anywhere and resumed ends with the same bytes as an uninterrupted one, with any
options."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from short_runs import EVERYTHING, STEPS, Killed, copy_run, train_to

from edgechat.train import trainer
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.metrics import read_metrics
from edgechat.train.trainer import Trainer

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


@given(
    chosen=options, breaks=st.lists(st.tuples(st.integers(1, STEPS), st.booleans()), min_size=1, max_size=3)
)
@example(
    chosen={}, breaks=[(3, False), (3, False)]
)  # a stop in a validation, which is repeated at the resume
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    whole = copy_run(untrained, tmp_path / "whole", EVERYTHING)
    Trainer(whole).train()
    broken = copy_run(untrained, tmp_path / "broken", EVERYTHING)
    for step, kill in ((2, True), (5, False), (8, True)):
        train_to(broken, step, kill=kill)
    Trainer(broken).train()
    assert result(broken.folder) == result(whole.folder)
    assert len(list((whole.folder / "checkpoints").iterdir())) >= 3
