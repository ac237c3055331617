"""Starting and resuming runs, from Python; tests/cli/test_train.py has more."""

from pathlib import Path

import pytest

from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.errors import CheckpointError, UsageError
from edgechat.train import start_run
from edgechat.train.config import TrainingConfig
from edgechat.train.request import TrainingRequest
from edgechat.train.run import Run, create_run, open_run
from edgechat.train.start_run import open_or_create, prepare_run_inputs
from edgechat.train.trainer import Trainer

SMALL = {"hidden": 16, "embedding": 8, "attention": 8, "vocab_size": 280, "batch_size": 8, "max_steps": 2}


def test_a_run_is_started_resumed_and_replaced_only_when_asked_to(corpus_file, tmp_path):
    out, said = tmp_path / "run", list[str]()
    request = TrainingRequest.from_options({**SMALL, "data": [str(corpus_file)]})
    run = open_or_create(out, request, "cpu", say=said.append)
    assert any("15 pairs of 15 dialogues" in line for line in said)
    assert Trainer(run).train().position.step == 2
    run = open_or_create(out, TrainingRequest.from_options({"max_steps": 3}), "cpu", resume=True)
    assert Trainer(run).train().position.step == 3
    with pytest.raises(UsageError, match="--hidden sets hidden to 24, but the run was started with 16"):
        open_or_create(out, TrainingRequest.from_options({"hidden": 24}), "cpu", resume=True)
    with pytest.raises(UsageError, match="exists: --resume continues it, or --force replaces it"):
        open_or_create(out, request, "cpu")
    assert not open_or_create(out, request, "cpu", force=True).checkpoints


def test_a_run_whose_training_begins_while_the_data_is_read_is_not_replaced(
    corpus_file, tmp_path, monkeypatch
):
    out, trainers = tmp_path / "run", list[Trainer]()
    request = TrainingRequest.from_options({**SMALL, "data": [str(corpus_file)]})
    open_or_create(out, request, "cpu")

    def prepare(*given, **options):
        trainers.append(Trainer(open_run(out)))
        return prepare_run_inputs(*given, **options)

    monkeypatch.setattr(start_run, "prepare_run_inputs", prepare)
    with pytest.raises(CheckpointError, match="is being trained by process"):
        open_or_create(out, request, "cpu", force=True)
    assert trainers[0].train().ended == "finished"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_another_process_makes_while_the_data_is_read_is_not_replaced(
    corpus_file, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    request = TrainingRequest.from_options({**SMALL, "data": [str(corpus_file)]})

    def prepare(*given, **options):
        monkeypatch.undo()
        open_or_create(out, request, "cpu")
        return prepare_run_inputs(*given, **options)

    monkeypatch.setattr(start_run, "prepare_run_inputs", prepare)
    with pytest.raises(UsageError, match="was made by another process meanwhile: choose another --out"):
        open_or_create(out, request, "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_resume_may_keep_more_checkpoints_but_not_replace_batches_of_tokens_by_batches_of_pairs(
    corpus_file, tmp_path
):
    out, small = tmp_path / "run", {name: value for name, value in SMALL.items() if name != "batch_size"}
    request = TrainingRequest.from_options({**small, "batch_tokens": 99, "data": [str(corpus_file)]})
    open_or_create(out, request, "cpu")
    for keep in (3, 2):
        run = open_or_create(out, TrainingRequest.from_options({"keep": keep}), "cpu", resume=True)
        assert (run.config.training.keep, run.config.training.max_steps) == (keep, 2)
    with pytest.raises(
        UsageError,
        match=r"--batch-size changes how large a step is, which is 99 tokens in this run: .* --batch-tokens",
    ):
        open_or_create(out, TrainingRequest.from_options({"batch_size": 64}), "cpu", resume=True)


def test_the_weights_that_a_new_run_starts_from_are_read_once(corpus_file, tmp_path):
    base = open_or_create(
        tmp_path / "base", TrainingRequest.from_options({**SMALL, "data": [str(corpus_file)]}), "cpu"
    )
    Trainer(base).train()
    more = TrainingRequest.from_options({"data": [str(corpus_file)], "from_run": base.folder})
    inputs = prepare_run_inputs(more)
    assert (base.config.training.max_steps, inputs.config.training.max_steps) == (2, None)
    Trainer(open_run(base.folder).with_values(max_steps=4)).train()
    assert inputs.base
    assert inputs.base.step == 2
    assert any("begins with the best weights" in line and "step 2" in line for line in inputs.remarks())
    run = create_run(tmp_path / "run", inputs, {"name": "more", "sha256": ""}, device="cpu", replace=False)
    assert run.base_info
    assert (run.base_info["step"], run.base_info["sha256"]) == (2, sha256(inputs.base.weights))


def fresh_training(base: Run, **given: object) -> TrainingConfig:
    return (
        TrainingRequest.from_options({"data": ["more.jsonl"], "from_run": base.folder, **given})
        .config_of_new_run(base)
        .training
    )


def test_the_schedule_of_a_run_that_starts_from_another_begins_anew(corpus_file, tmp_path):
    luong = {"schedule": "luong", "warmup_steps": 5, "decay_start": 50, "decay_every": 10, "decay": 0.7}
    request = TrainingRequest.from_options({**SMALL, **luong, "data": [str(corpus_file)]})
    base = open_or_create(tmp_path / "luong", request, "cpu")
    new = fresh_training(base)
    assert (new.schedule, new.decay, new.warmup_steps, new.decay_start, new.decay_every) == (
        "luong", 0.7, 0, None, None
    )  # fmt: skip
    new = fresh_training(base, warmup_steps=2, decay_start=3)
    assert (new.warmup_steps, new.decay_start, new.decay_every) == (2, 3, None)
    (tmp_path / "more.toml").write_text("[training]\ndecay_every = 4\n")
    new = fresh_training(base, config=tmp_path / "more.toml")
    assert (new.decay, new.warmup_steps, new.decay_every) == (0.7, 0, 4)


def test_a_warm_up_comes_along_only_where_the_schedule_needs_it(corpus_file, tmp_path):
    request = TrainingRequest.from_options(
        {**SMALL, "schedule": "inverse-sqrt", "warmup_steps": 5, "data": [str(corpus_file)]}
    )
    base = open_or_create(tmp_path / "base", request, "cpu")
    assert fresh_training(base).warmup_steps == 5
    assert fresh_training(base, warmup_steps=2).warmup_steps == 2
    assert fresh_training(base, schedule="cosine").warmup_steps == 0
    assert fresh_training(base, schedule="cosine", warmup_steps=3).warmup_steps == 3


def test_a_run_of_a_ready_tokenizer_records_the_size_of_that_vocabulary(corpus_file, tmp_path):
    data = {"data": [str(corpus_file)]}
    first = open_or_create(tmp_path / "first", TrainingRequest.from_options({**SMALL, **data}), "cpu")
    others = {name: value for name, value in SMALL.items() if name != "vocab_size"}
    ready = {**others, **data, "preset": "tiny", "tokenizer": first.folder / "tokenizer.json"}
    out = tmp_path / "run"
    run = open_or_create(out, TrainingRequest.from_options(ready), "cpu")
    assert run.config.data.vocab_size == run.codec.vocab_size == 280  # of tiny it would be 2,000
    assert "vocab_size = 280\n" in (out / "config.toml").read_text()
    (tmp_path / "mine.toml").write_text("[data]\nvocab_size = 300\n")
    of_file = {name: value for name, value in ready.items() if name != "preset"}
    for again in (
        ready,
        {"preset": "tiny", **others},
        {**of_file, "config": tmp_path / "mine.toml"},
        {"config": out / "config.toml"},
    ):
        assert (
            open_or_create(out, TrainingRequest.from_options(again), "cpu", resume=True).config == run.config
        )
    with pytest.raises(UsageError, match="sets vocab_size to 300, but the run was started with 280"):
        open_or_create(out, TrainingRequest.from_options({"vocab_size": 300}), "cpu", resume=True)
    of_run = {**data, "from_run": trained(run).folder, "config": tmp_path / "mine.toml"}
    more = open_or_create(tmp_path / "more", TrainingRequest.from_options(of_run), "cpu")
    assert more.config.data.vocab_size == 280
    assert (
        open_or_create(more.folder, TrainingRequest.from_options(of_run), "cpu", resume=True).config
        == more.config
    )
    with pytest.raises(UsageError, match="sets vocab_size to 300, but the run was started with 280"):
        open_or_create(more.folder, TrainingRequest.from_options({"vocab_size": 300}), "cpu", resume=True)


def trained(run: Run) -> Run:
    Trainer(run).train()
    return run


def test_a_resume_may_divide_the_same_steps_into_other_batches_and_the_run_remembers_it(
    corpus_file, tmp_path
):
    out = tmp_path / "run"
    Trainer(
        open_or_create(out, TrainingRequest.from_options({**SMALL, "data": [str(corpus_file)]}), "cpu")
    ).train()

    def resumed(**given: object) -> tuple[int, int | None, int]:
        training = open_or_create(
            out, TrainingRequest.from_options(given), "cpu", resume=True
        ).config.training
        return training.batch_size, training.batch_tokens, training.accumulate

    assert resumed(batch_size=4, accumulate=2) == (4, None, 2)
    assert resumed(max_steps=4) == (4, None, 2)
    (tmp_path / "run.toml").write_text(
        "[model]\nhidden = 16\nembedding = 8\nattention = 8\n"
        "[data]\nvocab_size = 280\n[training]\nmax_steps = 4\nbatch_size = 8\n"
    )
    assert resumed(config=tmp_path / "run.toml") == (8, None, 1)
    for wrong in (
        {"batch_size": 4},
        {"accumulate": 2},
        {"batch_size": 2, "accumulate": 5},
        {"batch_tokens": 400},
    ):
        with pytest.raises(
            UsageError,
            match=r"changes how large a step is, which is 8 pairs in this run: .* give --batch-size and",
        ):
            resumed(**wrong)
    assert resumed() == (8, None, 1)


@pytest.mark.parametrize(
    ("of_file", "given", "sentence"),
    [
        (
            "",
            {"preset": "small"},
            "--preset cannot be used with --config: name the preset in the section run of the",
        ),
        ("preset = 'small'", {}, None),
        ("checkpoint = 'last'", {}, "--checkpoint needs --from-run, which is not given"),
        ("checkpoint = 'last'", {"from_run": Path("base")}, None),
        ("from_run = 'base'", {"vocab_size": 300}, "--vocab-size cannot be used with --from-run"),
        ("from_run = 'base'", {"tokenizer": Path("t.json")}, "--tokenizer cannot be used with --from-run"),
        ("valid = 'v.tsv'", {"valid_fraction": 0.0}, "--valid-fraction cannot be used with --valid"),
        ("pretrained_embeddings = 'v.txt'", {"find_lr": True}, "--pretrained-embeddings cannot be used with"),
        ("pretrained_embeddings = 'v.txt'", {"find_lr": False}, None),
        ("", {"batch_size": 3, "batch_tokens": 99}, "--batch-size cannot be used with --batch-tokens"),
    ],
)
def test_options_and_a_file_that_conflict_are_refused(tmp_path, of_file, given, sentence):
    file = tmp_path / "run.toml"
    file.write_text(f"[run]\n{of_file}\n")
    asked = {**given, "config": file}
    if sentence is None:
        TrainingRequest.from_options(asked)
        return
    with pytest.raises(UsageError) as refused:
        TrainingRequest.from_options(asked)
    assert str(refused.value).startswith(sentence)
