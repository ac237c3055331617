"""How a run begins and goes on, from Python; tests/cli/test_train.py has more of it."""

from pathlib import Path

import pytest

from edgechat.runtime.errors import UsageError
from edgechat.train.begin import open_or_create
from edgechat.train.trainer import Trainer
from edgechat.train.wanted import Wanted

SMALL = {"hidden": 16, "embedding": 8, "attention": 8, "vocab_size": 280, "batch_size": 8, "max_steps": 2}


def test_a_run_begins_goes_on_and_is_replaced_only_when_that_is_asked_for(corpus_file, tmp_path):
    out, said = tmp_path / "run", list[str]()
    wanted = Wanted.of({**SMALL, "data": [str(corpus_file)]})
    run = open_or_create(out, wanted, "cpu", say=said.append)
    assert any("15 pairs of 15 dialogues" in line for line in said)
    assert Trainer(run).train().position.step == 2
    run = open_or_create(out, Wanted.of({"max_steps": 3}), "cpu", resume=True)
    assert Trainer(run).train().position.step == 3
    with pytest.raises(UsageError, match="--hidden gives hidden 24, but the run was begun with 16"):
        open_or_create(out, Wanted.of({"hidden": 24}), "cpu", resume=True)
    with pytest.raises(UsageError, match="exists: --resume continues it, or --force replaces it"):
        open_or_create(out, wanted, "cpu")
    assert not open_or_create(out, wanted, "cpu", force=True).checkpoints


def test_a_resume_may_divide_the_same_steps_into_other_batches_and_the_run_remembers_it(
    corpus_file, tmp_path
):
    out = tmp_path / "run"
    Trainer(open_or_create(out, Wanted.of({**SMALL, "data": [str(corpus_file)]}), "cpu")).train()

    def resumed(**given: object) -> tuple[int, int | None, int]:
        training = open_or_create(out, Wanted.of(given), "cpu", resume=True).config.training
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
        with pytest.raises(UsageError, match="but the run was begun with"):
            resumed(**wrong)
    assert resumed() == (8, None, 1)


@pytest.mark.parametrize(
    ("of_file", "given", "sentence"),
    [
        ("", {"preset": "small"}, "--preset does not go with --config: that is a whole configuration"),
        ("preset = 'small'", {}, None),
        ("checkpoint = 'last'", {}, "--checkpoint goes with --from-run, which is not given"),
        ("checkpoint = 'last'", {"from_run": Path("base")}, None),
        ("from_run = 'base'", {"vocab_size": 300}, "--vocab-size does not go with --from-run"),
        ("from_run = 'base'\ntokenizer = 't.json'", {}, "--tokenizer does not go with --from-run"),
        ("valid = 'v.tsv'", {"valid_fraction": 0.0}, "--valid-fraction does not go with --valid"),
        ("pretrained_embeddings = 'v.txt'", {"find_lr": True}, "--pretrained-embeddings does not go with"),
        ("pretrained_embeddings = 'v.txt'", {"find_lr": False}, None),
        ("", {"batch_size": 3, "batch_tokens": 99}, "--batch-size does not go with --batch-tokens"),
    ],
)
def test_options_and_a_file_must_go_together(tmp_path, of_file, given, sentence):
    file = tmp_path / "run.toml"
    file.write_text(f"[run]\n{of_file}\n")
    asked = {**given, "config": file}
    if sentence is None:
        Wanted.of(asked)
        return
    with pytest.raises(UsageError) as refused:
        Wanted.of(asked)
    assert str(refused.value).startswith(sentence)
