"""`edgechat train --from-run`: a run that starts from another one and is then independent of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgechat.runtime.bundle import read_bundle
from edgechat.train.batches import ordered_batches
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.run import open_run
from edgechat.train.updates import evaluate_loss

#: The tests' run was trained at ten times this rate.
TRAIN_OPTIONS = ["--learning-rate", 1e-3, "--threads", 1, "--device", "cpu", "--save-every", 2]
MORE = [("what do cats eat", "cats eat fish"), ("what do hens eat", "hens eat corn"), ("bye", "see you")]


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("more") / "more.jsonl"
    lines = [json.dumps({"prompt": prompt, "response": response}) + "\n" for prompt, response in MORE]
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory, edgechat, run_folder, more) -> Path:
    """A run of four steps on other data. Tests must not change it."""
    out = tmp_path_factory.mktemp("continued") / "run"
    done = edgechat("train", more, "--from-run", run_folder, "--out", out, "--max-steps", 4, *TRAIN_OPTIONS)
    assert done.returncode == 0, done.stderr
    (out.parent / "said").write_text(done.stderr)
    return out


def weights(run: Path, which: str = "last") -> bytes:
    return (Checkpoints(run).select(which)[0] / "model.safetensors").read_bytes()


def test_a_run_from_a_run_starts_with_its_best_weights_tokenizer_and_model(continued, run_folder):
    base, run = open_run(run_folder), open_run(continued)
    assert run.tokenizer == base.tokenizer
    assert run.config.model == base.config.model
    best = base.load_model("best")[0].state_dict()
    for name, weight in run.make_initial_model().state_dict().items():
        assert weight.equal(best[name]), name
    assert not run.load_model("last")[0].embedding.weight.equal(best["embedding.weight"])


def test_the_first_weights_are_validated_but_are_never_the_best_checkpoint(continued, run_folder):
    said = (continued.parent / "said").read_text()
    assert f"begins with the best weights of {run_folder}, step {open_run(run_folder).step()}" in said
    base, run = open_run(run_folder), open_run(continued)
    batches = ordered_batches(run.valid_pairs, run.config.training)
    loss, tokens = evaluate_loss(base.load_model("best")[0], batches, "")
    first = re.search(r"step +0  held-out loss ([0-9.]+)  perplexity [0-9.]+$", said, re.MULTILINE)
    assert first
    assert float(first[1]) == pytest.approx(loss / tokens, abs=1e-3)
    assert run.step("best") > 0


def test_a_run_from_a_run_resumes_to_the_same_bytes_without_the_first_run(
    tmp_path, edgechat, run_folder, more, continued
):
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(run_folder, base)
    begun = edgechat("train", more, "--from-run", base, "--out", out, "--max-steps", 4, *TRAIN_OPTIONS)
    assert begun.returncode == 0, begun.stderr
    shutil.rmtree(base)
    assert weights(out) == weights(continued)
    assert "to resume" not in begun.stderr
    shutil.rmtree(out / "checkpoints")  # as if it had been killed before its first checkpoint
    again = edgechat("train", "--resume", "--out", out)
    assert again.returncode == 0, again.stderr
    assert weights(out) == weights(continued)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4]


def test_a_resume_accepts_only_the_same_from_run(tmp_path, edgechat, run_folder, continued):
    out = tmp_path / "run"
    shutil.copytree(continued, out)
    refused = edgechat("train", "--resume", "--out", out, "--from-run", continued, "--max-steps", 5)
    assert refused.returncode == 2
    assert "--from-run is not the same" in refused.stderr
    assert weights(out) == weights(continued)
    gone = edgechat("train", "--resume", "--out", out, "--from-run", "gone", "--max-steps", 5)
    assert gone.returncode == 2
    assert "there is no run gone" in gone.stderr
    assert "a resume does not need --from-run: leave it out" in " ".join(gone.stderr.split())
    done = edgechat("train", "--resume", "--out", out, "--from-run", run_folder, "--max-steps", 5)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_from_a_run_starts_with_the_named_checkpoint(tmp_path, edgechat, run_folder, more):
    out, base = tmp_path / "run", open_run(run_folder)
    assert base.base_checkpoint("last").weights != base.base_checkpoint("best").weights
    file = tmp_path / "more.toml"
    file.write_text(f'[run]\nfrom_run = "{run_folder}"\ncheckpoint = "last"\nout = "run"\nmax_minutes = 5\n')
    begun = edgechat("train", more, "--config", file, "--max-steps", 2, *TRAIN_OPTIONS)
    assert begun.returncode == 0, begun.stderr
    assert f"begins with the last weights of {run_folder}, step {base.step('last')}" in begun.stderr
    assert (
        open_run(out).make_initial_model().state_dict().keys()
        == base.load_model("last")[0].state_dict().keys()
    )
    last = base.load_model("last")[0].state_dict()
    assert all(
        weight.equal(last[name]) for name, weight in open_run(out).make_initial_model().state_dict().items()
    )
    assert open_run(out).base_info["step"] == base.step("last")
    same = edgechat("train", "--resume", "--out", out, "--from-run", run_folder, "--checkpoint", "last")
    assert same.returncode == 0, same.stderr
    other = edgechat("train", "--resume", "--out", out, "--from-run", run_folder)
    assert other.returncode == 2
    assert "--from-run is not the same" in other.stderr


def test_the_bundle_names_the_data_of_both_runs_and_no_path(tmp_path, edgechat, continued, run_folder):
    exported = edgechat("export", continued, "--out", tmp_path / "b", "--precision", "fp32")
    assert exported.returncode == 0, exported.stderr
    bundle = read_bundle(tmp_path / "b")
    assert bundle.manifest.provenance["data"] == "pairs.jsonl, more.jsonl"
    before = open_run(run_folder).step()
    assert f"after {before} steps of another run" in bundle.files["MODEL_CARD.md"].decode()
    whole = b"".join(bundle.files.values()) + bundle.manifest.to_bytes()
    assert str(run_folder.parent).encode() not in whole


@pytest.mark.slow
def test_find_lr_starts_from_the_weights_of_the_run(edgechat, run_folder, corpus_file):
    seek = ["train", corpus_file, "--find-lr", "--json", "--device", "cpu", "--threads", 1]
    found = edgechat(*seek, "--from-run", run_folder)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["tried"][0]["loss"] < 0.5  # an untrained model has ln 320 = 5.8


@pytest.mark.slow
def test_settings_missing_from_the_file_come_from_the_other_run(tmp_path, edgechat, run_folder, more):
    (tmp_path / "more.jsonl").write_bytes(more.read_bytes())
    (tmp_path / "run.toml").write_text(
        f'[run]\ndata = "more.jsonl"\nfrom_run = "{run_folder}"\nout = "run"\nthreads = 1\n'
        "[training]\nmax_steps = 2\nlearning_rate = 1e-3\n"
    )
    done = edgechat("train", "--config", tmp_path / "run.toml", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    base, run = open_run(run_folder).config, open_run(tmp_path / "run").config
    assert (run.model, run.data) == (base.model, base.data)
    assert run.training == replace(base.training, max_steps=2, learning_rate=1e-3)
    again = edgechat("train", "--config", tmp_path / "run.toml", "--resume", "--max-steps", 3)
    assert again.returncode == 0, again.stderr
    with (tmp_path / "run.toml").open("a") as file:
        file.write("[model]\nhidden = 32\n")
    refused = edgechat("train", "--config", tmp_path / "run.toml", "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "sets hidden to 32" in refused.stderr
    assert "leave hidden, or its preset, out" in refused.stderr


def test_from_run_without_data_is_refused(invoke, run_folder, tmp_path):
    done = invoke("train", "--from-run", run_folder, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--from-run needs DATA to learn from" in done.sentence


def test_checkpoint_without_from_run_is_refused(invoke, more, tmp_path):
    done = invoke("train", more, "--checkpoint", "last", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.sentence == "--checkpoint needs --from-run, which is not given"


REFUSED = {
    "another model": (["--hidden", 32], "--hidden sets hidden to 32, but the model of {base} has 48"),
    "a preset's": (["--preset", "small"], "--preset small sets layers to 2, but the model of {base} has 1"),
    "a vocabulary": (["--vocab-size", 500], "--vocab-size cannot be used with --from-run"),
    "a tokenizer": (
        ["--tokenizer", "t.json"],
        "--tokenizer cannot be used with --from-run: --from-run takes the tokenizer and all weights",
    ),
    "vectors": (
        ["--pretrained-embeddings", "v.txt"],
        "--pretrained-embeddings cannot be used with --from-run",
    ),
    "itself": (["--out", "{base}", "--force"], "--from-run and --out are both {base}"),
    "itself, unforced": (["--out", "{base}"], "--from-run and --out are both {base}"),
    "a bundle": (["--from-run", "{bundle}"], "it looks like a bundle"),
    "nothing": (["--from-run", "nowhere"], "there is no run nowhere"),
    "no checkpoint": (["--checkpoint", "first"], "--checkpoint must be best or last"),
    "too many checkpoints": (["--checkpoint", "last:90"], "--checkpoint last:90: {base} has"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_options_that_do_not_go_with_from_run_are_refused(
    tmp_path, invoke, tree, run_folder, bundle_folder, more, what
):
    options, said = REFUSED[what]
    names = {"base": str(run_folder), "bundle": str(bundle_folder)}
    filled = [option.format(**names) if isinstance(option, str) else option for option in options]
    before = tree(run_folder)
    done = invoke("train", more, "--from-run", run_folder, "--out", tmp_path / "run", *filled)
    assert done.returncode in (1, 2)
    assert said.format(**names) in done.sentence
    assert tree(run_folder) == before
    assert not (tmp_path / "run").exists()


def test_damaged_first_weights_are_named(tmp_path, edgechat, continued):
    out = tmp_path / "run"
    shutil.copytree(continued, out)
    first = out / "first.safetensors"
    raw = bytearray(first.read_bytes())
    raw[-1] ^= 1
    first.write_bytes(raw)
    resumed = edgechat("train", "--resume", "--out", out, "--max-steps", 5)
    assert resumed.returncode == 0, resumed.stderr  # the checkpoint has all weights
    shutil.rmtree(out / "checkpoints")
    done = edgechat("train", "--resume", "--out", out)
    assert done.returncode == 1
    assert f"{first} is damaged" in done.stderr
    assert not (out / "checkpoints").exists()


def test_settings_of_the_schedule_come_with_the_schedule(invoke, run_folder, more, tmp_path):
    plateau = ["--schedule", "plateau", "--plateau-patience", 4, "--max-steps", 2, *TRAIN_OPTIONS]
    assert invoke("train", more, "--from-run", run_folder, "--out", tmp_path / "a", *plateau).returncode == 0
    constant = ["--schedule", "constant", "--max-steps", 2, *TRAIN_OPTIONS]
    done = invoke("train", more, "--from-run", tmp_path / "a", "--out", tmp_path / "b", *constant)
    assert done.returncode == 0, done.stderr
    assert open_run(tmp_path / "a").config.training.plateau_patience == 4
    assert open_run(tmp_path / "b").config.training.plateau_patience == 2
