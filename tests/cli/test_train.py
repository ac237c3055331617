"""`edgechat train`: its output, what it never overwrites, and how it resumes."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import limits
import pytest

from edgechat.cli.progress import TrainingProgress, reading_progress
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.lock import RunLock
from edgechat.train.metrics import read_metrics
from edgechat.train.trainer import StepMetrics, ValidationMetrics

#: Two steps of the smallest model.
QUICK = [
    "--hidden", 16, "--embedding", 8, "--attention", 8, "--vocab-size", 280, "--batch-size", 8,
    "--max-steps", 2, "--valid-fraction", 0.1, "--threads", 1, "--device", "cpu",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Position:
    step: int


@dataclasses.dataclass(frozen=True)
class TrainerStub:
    """The attributes of a trainer that the display reads."""

    position: Position
    total_steps: int = 400
    total_steps_exact: bool = True
    parameter_count: int = 1234567
    finished: bool = False
    out_of_patience: bool = False
    precision: str = "fp32"
    processes: int = 1


def test_without_a_terminal_occasional_lines_report_the_training(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TrainingProgress() as display:
        now[0] += 600.0  # counting the steps of many epochs may take long
        display.show_start(TrainerStub(Position(100)), "cpu")
        for step in range(101, 141):  # one second each
            now[0] += 1.0
            display.on_step(StepMetrics(step, 400, 1, 2.5, 90.0))
            if step == 120:
                display.on_validation(ValidationMetrics(120, 2.4, 2.6, True, 0, ("bleu", 31.25)))
        now[0] += 20.0
        display.on_step(StepMetrics(141, 400, 1, 2.5, 90.0))
    weights, begun, validated, line = capsys.readouterr().err.splitlines()
    assert weights == "1,234,567 weights"
    assert begun == "training from step 100 to step 400 on cpu; Ctrl-C stops and keeps what was learned"
    assert validated.endswith("  bleu 31.25  best")
    # 41 steps in 60 s; 259 are left
    assert line == "step     141  loss of the last steps 2.5000  0.7 steps per second, about 6 minutes left"


def test_without_a_terminal_occasional_lines_report_the_reading(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with reading_progress() as progress:
        for what in ("reading", "tokenizer", "encoding"):
            for thousand in range(1, 9):  # five seconds each
                now[0] += 5.0
                progress(what, 1000 * thousand)
    said = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "reading 6,000 so far",
        "tokenizer 4,000 so far",
        "encoding 2,000 so far",
        "encoding 8,000 so far",
    ]


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory, invoke, corpus_file) -> Path:
    """A run of two steps. Tests must not change it."""
    out = tmp_path_factory.mktemp("quick") / "run"
    done = invoke("train", corpus_file, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    return out


def test_training_reports_the_corpus_and_its_progress_on_stderr_alone(edgechat, corpus_file, tmp_path):
    done = edgechat("train", corpus_file, "--out", tmp_path / "run", *QUICK)
    assert (done.returncode, done.stdout) == (0, "")
    for said in ("pairs.jsonl", "held out", "training to step 2 on cpu", "finished at step 2 of 2", "next: "):
        assert said in done.stderr
    assert "warning" not in done.stderr
    corpus = json.loads((tmp_path / "run" / "run.json").read_text())["corpus"]
    assert f"sha256 {corpus['sha256'][:12]}" in done.stderr
    assert done.stderr.count("sha256") == 1
    assert [source["name"] for source in corpus["sources"]] == ["pairs.jsonl"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "run.json", "config.toml", "tokenizer.json", "corpus", "valid.jsonl", "checkpoints",
        "metrics.jsonl", "metrics.png",
    }  # fmt: skip


def test_json_reports_how_training_ended(invoke, corpus_file, tmp_path):
    out = tmp_path / "deep" / "er" / "run"
    done = invoke("train", corpus_file, "--out", out, "--json", *QUICK)
    values = json.loads(done.stdout)
    assert (values["run"], values["ended"], values["step"], values["total_steps"]) == (
        str(out), "finished", 2, 2
    )  # fmt: skip
    assert list(values) == [
        "run", "ended", "step", "total_steps", "total_steps_exact", "epoch", "best_step", "best_loss"
    ]  # fmt: skip
    assert values["epoch"] == read_metrics(out)[-1]["epoch"]


def test_a_finished_run_reports_all_its_epochs(invoke, corpus_file, tmp_path):
    options = [*QUICK, "--batch-size", 8, "--max-steps", 999, "--epochs", 2, "--json"]
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *options)
    assert json.loads(done.stdout)["epoch"] == 2


@pytest.mark.parametrize(("warmup", "noted"), [(1, False), (2, True), (9, True)])
def test_a_note_says_if_the_warm_up_lasts_to_the_end(invoke, corpus_file, tmp_path, warmup, noted):
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *QUICK, "--warmup-steps", warmup)
    note = f"note: the warm-up of {warmup} steps lasts to the end of the training, step 2: the learning rate"
    assert (done.returncode, note in done.stderr) == (0, noted)


def test_json_says_whether_total_steps_is_exact(invoke, corpus_file, tmp_path):
    by_tokens = ["--batch-tokens", 60, "--epochs", 9, "--schedule", "constant", "--max-minutes", 1e-9]
    sizes = ["--hidden", 8, "--embedding", 8, "--attention", 8, "--vocab-size", 280, "--device", "cpu"]

    def exact(name: str, *options: object) -> object:
        out = tmp_path / name
        done = invoke("train", corpus_file, "--out", out, "--threads", 1, "--json", *sizes, *options)
        return json.loads(done.stdout)["total_steps_exact"]

    assert exact("stopped", *by_tokens) is False  # each epoch has its own number of batches
    assert exact("counted", *by_tokens[:4], "--schedule", "cosine", "--max-minutes", 1e-9) is True
    assert exact("finished", *by_tokens[:2], "--epochs", 1, "--schedule", "constant") is True


@pytest.mark.parametrize("emulated", [True, False])
def test_a_note_says_if_the_cpu_does_not_compute_in_the_precision(
    invoke, corpus_file, tmp_path, monkeypatch, emulated
):
    monkeypatch.setattr("edgechat.train.precision.is_emulated", lambda *_: emulated)
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *QUICK, "--amp", "bf16")
    note = "note: this CPU does not compute in bf16, so training is slower than with --amp off\n"
    assert (done.returncode, note in done.stderr) == (0, emulated)


def test_a_run_records_the_threads_it_began_with(quick_run):
    assert json.loads((quick_run / "run.json").read_text())["environment"]["threads"] == 1


def test_the_same_command_gives_the_same_weights(invoke, corpus_file, tmp_path, quick_run):
    invoke("train", corpus_file, "--out", tmp_path / "again", *QUICK)
    weights = [Checkpoints(r).last / "model.safetensors" for r in (quick_run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    other = invoke("train", corpus_file, "--out", tmp_path / "other", *QUICK, "--seed", 1)
    assert other.returncode == 0
    changed = Checkpoints(tmp_path / "other").last / "model.safetensors"
    assert weights[0].read_bytes() != changed.read_bytes()


SETTINGS = """
[model]
layers = 1
hidden = 16
embedding = 8
attention = 8
[data]
vocab_size = 280
valid_fraction = 0.1
[training]
batch_size = 8
max_steps = 2
"""


def test_the_same_file_gives_the_same_bytes_and_so_does_the_file_that_the_run_wrote(
    invoke, corpus_file, tmp_path
):
    (tmp_path / "run.toml").write_text(SETTINGS)
    runs = [tmp_path / name for name in ("one", "two", "three")]
    for run, file in zip(
        runs, (tmp_path / "run.toml", tmp_path / "run.toml", runs[0] / "config.toml"), strict=True
    ):
        seed = [] if run is runs[2] else ["--seed", 1]
        fixed = ["--threads", 1, "--device", "cpu"]
        done = invoke("train", corpus_file, "--config", file, *seed, *fixed, "--out", run)
        assert done.returncode == 0, done.stderr
    for name in ("run.json", "config.toml", "metrics.jsonl", "checkpoints/step-00000002/model.safetensors"):
        assert len({(run / name).read_bytes() for run in runs}) == 1, name
    training = json.loads((runs[2] / "run.json").read_text())["config"]["training"]
    assert (training["seed"], training["batch_size"]) == (1, 8)


def test_a_file_alone_configures_a_training_and_gives_the_same_bytes_twice(
    invoke, corpus_file, tmp_path, monkeypatch
):
    folder = tmp_path / "project"
    (folder / "texts").mkdir(parents=True)
    lines = corpus_file.read_text().splitlines(keepends=True)
    (folder / "texts" / "pairs.jsonl").write_text("".join(lines[:12]))
    (folder / "texts" / "held-out.jsonl").write_text("".join(lines[12:]))
    where = """
    [run]
    data = "texts/pairs.jsonl"
    valid = "texts/held-out.jsonl"
    out = "runs/mine"
    device = "cpu"
    threads = 1
    """
    (folder / "run.toml").write_text(where + SETTINGS.replace("valid_fraction = 0.1", ""))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ["train", "--config", "../project/run.toml", "--seed", 1]
    first = invoke(*command)
    assert first.returncode == 0, first.stderr
    run = folder / "runs" / "mine"
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "metrics.png"]
    before = {path: path.read_bytes() for path in files}
    assert any(path.name == "model.safetensors" for path in files)
    assert "exists: --resume continues it" in invoke(*command).sentence
    assert invoke(*command, "--force").returncode == 0
    assert before == {path: path.read_bytes() for path in files}
    for path, content in before.items():  # a run does not record where its data was
        assert str(tmp_path).encode() not in content, path
        assert path.name == "report.json" or b"texts/" not in content, path
    report = json.loads((run / "corpus" / "report.json").read_text())
    assert (report["train_pairs"], report["valid_pairs"]) == (12, 4)
    assert invoke("train", "--resume", "--config", folder / "run.toml", "--seed", 1).returncode == 0
    elsewhere = invoke(*command, "--out", "here", corpus_file)
    assert elsewhere.returncode == 0
    assert json.loads(Path("here/run.json").read_text())["corpus"]["name"] == corpus_file.name
    assert json.loads(Path("here/corpus/report.json").read_text())["train_pairs"] == 16


def test_an_option_overrides_the_file(invoke, corpus_file, tmp_path):
    (tmp_path / "run.toml").write_text(SETTINGS)
    out = tmp_path / "run"
    done = invoke("train", corpus_file, "--config", tmp_path / "run.toml", "--hidden", 24, "--out", out)
    assert done.returncode == 0
    assert "hidden = 24\n" in (out / "config.toml").read_text()
    again = invoke("train", "--resume", "--config", out / "config.toml", "--out", out)
    assert again.returncode == 0
    refused = invoke("train", "--resume", "--config", tmp_path / "run.toml", "--out", out)
    assert refused.returncode == 2
    assert f"--config {tmp_path / 'run.toml'} sets hidden to 16" in refused.sentence


def test_a_resume_takes_its_length_from_the_file_not_from_preset_or_default(
    invoke, corpus_file, tmp_path, tree
):
    file, out = tmp_path / "run.toml", tmp_path / "run"
    resume = ["train", "--resume", "--config", file, "--out", out]
    settings = "[run]\npreset = 'tiny'\n" + SETTINGS.replace("max_steps = 2", "")
    file.write_text(settings)
    begin = ["train", corpus_file, "--config", file, "--out", out, "--epochs", 1, "--threads", 1]
    assert invoke(*begin).returncode == 0
    before = tree(out)
    assert "finished at step 2 of 2" in invoke(*resume).stderr  # tiny has 30 epochs
    assert tree(out) == before
    file.write_text(f"{settings}epochs = 2\n")
    assert "finished at step 4 of 4" in invoke(*resume).stderr
    assert "epochs = 2\n" in (out / "config.toml").read_text()
    assert "finished at step 5 of 5" in invoke(*resume, "--epochs", 3, "--max-steps", 5).stderr
    before = tree(out)
    for name, value, reached in (("epochs", 2, "epoch 3"), ("max_steps", 4, "step 5")):
        file.write_text(f"{settings}{name} = {value}\n")
        refused = invoke(*resume)
        assert refused.returncode == 2
        said = f"--config {file} sets {name} to {value}, but the run has already reached {reached}: set at"
        assert said in refused.sentence
    assert tree(out) == before


def test_a_file_with_an_unknown_key_is_refused_and_no_run_is_begun(invoke, corpus_file, tmp_path):
    (tmp_path / "run.toml").write_text("[training]\nbatchsize = 3\n")
    done = invoke("train", corpus_file, "--config", tmp_path / "run.toml", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert (
        f"{tmp_path / 'run.toml'}, section training: unknown key 'batchsize'; did you mean 'batch_size'?"
        in (done.sentence)
    )
    assert not (tmp_path / "run").exists()
    both = invoke("train", corpus_file, "--config", tmp_path / "run.toml", "--preset", "tiny", "--dry-run")
    assert both.sentence.startswith("--preset cannot be used with --config: name the preset in")


def test_help_names_every_choice_without_waiting_for_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['edgechat', 'train', '--help']; "
        "from edgechat.cli import main; main()"
    )
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], env=wide, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("adam|adamw|sgd", "inverse-sqrt|plateau", "bahdanau-normed|luong-dot", "all|second"):
        assert words in "".join(done.stdout.split())


def test_every_value_of_the_configuration_has_an_option():
    from edgechat.cli.train import train
    from edgechat.train.config import RunOptions, config_value_names

    names = {*config_value_names(), *(field.name for field in dataclasses.fields(RunOptions))}
    assert names <= set(inspect.signature(train).parameters)


def test_a_dry_run_shows_report_vocabulary_and_three_samples_and_writes_nothing(
    edgechat, corpus_file, tmp_path, tree
):
    out = tmp_path / "run"
    before = tree(corpus_file.parent)
    done = edgechat("train", corpus_file, "--dry-run", "--out", out, "--vocab-size", 262)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\ufffd" not in done.stdout  # the bytes at the end of the vocabulary are no characters
    for shown in ("pairs.jsonl", "held out", "truncated", "vocabulary", "sample 1", "sample 2", "sample 3"):
        assert shown in done.stdout
    assert "sample 4" not in done.stdout
    assert not out.exists()
    assert tree(corpus_file.parent) == before


def test_a_dry_run_announces_the_weights_steps_and_settings_of_the_training(invoke, corpus_file, tmp_path):
    command = ["train", corpus_file, *QUICK, "--batch-size", 4, "--epochs", 3, "--max-steps", 8]
    shown = invoke(*command, "--dry-run").stdout
    done = invoke(*command, "--out", tmp_path / "run")
    [weights] = re.findall(r"^([0-9,]+) weights$", done.stderr, re.MULTILINE)
    [steps] = re.findall(r"^training to step ([0-9]+) on", done.stderr, re.MULTILINE)
    assert re.search(rf"^{weights} weights, {steps} steps$", shown, re.MULTILINE)
    assert shown.endswith((tmp_path / "run" / "config.toml").read_text())


def test_training_without_data_names_the_default_corpus(invoke):
    done = invoke("train", "--dry-run", "--vocab-size", 300)
    assert (done.returncode, done.stderr) == (0, "no DATA given: training on chatterbot:english\n")
    assert invoke("train", "chatterbot:english", "--dry-run", "--vocab-size", 300).stderr == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--valid", "{data}"], "--valid needs DATA to learn from, as in edgechat train DATA --valid FILE"),
        (["--config", "{config}"], "{config} names no data: add data = [...] to its section run, or DATA"),
    ],
)
def test_data_that_was_forgotten_is_not_replaced_by_the_default(
    invoke, corpus_file, tmp_path, options, sentence
):
    names = {"data": corpus_file, "config": tmp_path / "run.toml"}
    names["config"].write_text("[model]\nhidden = 8\n")
    done = invoke("train", "--dry-run", *(option.format(**names) for option in options))
    assert (done.returncode, done.sentence) == (2, sentence.format(**names))


def test_a_training_that_diverges_to_finite_losses_ends_with_a_warning(invoke, corpus_file, tmp_path):
    sizes = ["--hidden", 16, "--embedding", 8, "--attention", 8, "--vocab-size", 300, "--device", "cpu"]
    for rate, diverged in ((1000, True), (0.001, False)):
        out = tmp_path / str(rate)
        done = invoke("train", corpus_file, "--out", out, *sizes, "--learning-rate", rate, "--max-steps", 9)
        assert done.returncode == 0
        assert ("is far above 5.70, that of guessing any token: the training has" in done.stderr) is diverged
    assert max(map(len, done.stderr.splitlines())) < 120


def test_empty_prompts_are_counted(invoke, corpus_file, tmp_path):
    (tmp_path / "a.jsonl").write_text(corpus_file.read_text() + '{"prompt": "", "response": "hi"}\n')
    done = invoke("train", tmp_path / "a.jsonl", "--dry-run", "--vocab-size", 300)
    assert re.search("^empty prompts +1, taken as they are$", done.stdout, re.MULTILINE)
    assert "empty prompts" not in invoke("train", corpus_file, "--dry-run", "--vocab-size", 300).stdout


def test_a_dry_run_as_json_has_the_same_parts(invoke, corpus_file):
    values = json.loads(invoke("train", corpus_file, "--dry-run", "--json", "--vocab-size", 300).stdout)
    assert list(values) == [
        "report", "weights", "steps", "steps_exact", "config", "vocabulary", "samples"
    ]  # fmt: skip
    assert values["config"]["data"]["vocab_size"] == 300
    assert values["report"]["pairs"] == 16
    assert len(values["samples"]) == 3
    for sample in values["samples"]:
        assert sample["target_ids"][-1] == 2
        assert "".join(sample["source_pieces"]) == sample["source"][0]


@pytest.mark.slow
def test_find_lr_prints_rates_and_a_suggestion_and_writes_nothing(invoke, corpus_file, tmp_path, tree):
    before = tree(corpus_file.parent)
    command = ["train", corpus_file, "--find-lr", *QUICK]
    done = invoke(*command, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "learning rate     loss"
    assert lines[-1].startswith("suggestion: --learning-rate ")
    assert 10 < len(lines) < 40
    values = json.loads(invoke(*command, "--json").stdout)
    assert f"{values['suggestion']:g}" == lines[-1].split()[-1]
    assert not (tmp_path / "run").exists()
    assert tree(corpus_file.parent) == before


def test_a_tokenizer_that_does_more_than_merge_is_refused_and_no_run_is_begun(
    invoke, corpus_file, quick_run, tmp_path
):
    tokenizer = json.loads((quick_run / "tokenizer.json").read_text())
    tokenizer["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    options = ["--tokenizer", tmp_path / "tokenizer.json", "--bpe-dropout", 0.1]
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *options, "--hidden", 16, "--max-steps", 1)
    assert done.returncode == 1
    assert "tokenizer.json has the option ignore_merges, which a byte-level BPE does not use" in done.sentence
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_being_trained_is_neither_resumed_nor_replaced(
    invoke, corpus_file, quick_run, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(quick_run, out)
    holder = RunLock(out)
    for option in ("--resume", "--force"):
        done = invoke("train", corpus_file, "--out", out, option, *QUICK)
        assert done.returncode == 1
        assert f"{out} is being trained by process {os.getpid()}" in done.sentence
    holder.release()
    assert invoke("train", "--resume", "--out", out).returncode == 0


def test_an_existing_run_is_never_overwritten(invoke, corpus_file, quick_run, tree):
    before = tree(quick_run)
    done = invoke("train", corpus_file, "--out", quick_run, *QUICK)
    assert done.returncode == 2
    for way in (str(quick_run), "--resume", "--force"):
        assert way in done.sentence
    assert tree(quick_run) == before


def test_an_existing_file_or_folder_that_is_no_run_is_refused_even_with_force(
    invoke, corpus_file, tmp_path, tree
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("the only copy")
    (tmp_path / "file").write_text("the only copy")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for name in ("folder", "file", "link"):
        for options in ([], ["--force"]):
            done = invoke("train", corpus_file, "--out", tmp_path / name, *options, *QUICK)
            assert done.returncode == 2, name
            assert name in done.sentence
    assert tree(tmp_path) == before


def test_force_replaces_a_run_and_leaves_nothing_of_it(invoke, corpus_file, tmp_path):
    out = tmp_path / "run"
    invoke("train", corpus_file, "--out", out, *QUICK)
    (out / "checkpoints" / "old").write_text("old")
    done = invoke("train", corpus_file, "--out", out, "--force", *QUICK, "--hidden", 24)
    assert done.returncode == 0
    assert json.loads((out / "run.json").read_text())["config"]["model"]["hidden"] == 24
    assert not (out / "checkpoints" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_holds_other_files_too_is_not_replaced(invoke, quick_run, tmp_path, corpus_file):
    out = tmp_path / "run"
    shutil.copytree(quick_run, out)
    (out / "thesis.txt").write_text("the only copy")
    done = invoke("train", corpus_file, "--out", out, "--force", *QUICK)
    assert done.returncode == 2
    assert "holds other files too" in done.stderr
    done = invoke("train", corpus_file, "--out", out, *QUICK)
    assert done.sentence.endswith(
        "so --force does not replace it: --resume continues it, or choose another --out"
    )
    assert (out / "thesis.txt").read_text() == "the only copy"


def test_an_out_that_is_not_a_run_is_reported_at_once(invoke, corpus_file, tmp_path):
    (tmp_path / "data.csv").write_text("a,b")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "thesis.txt").write_text("the only copy")
    for name in ("data.csv", "none"):
        done = invoke("train", corpus_file, "--out", tmp_path / name, *QUICK)
        assert done.returncode == 2
        assert f"{name} is not a run" in done.sentence
        assert "--resume" not in done.sentence


def test_an_empty_folder_becomes_the_run_without_force(invoke, corpus_file, tmp_path):
    (tmp_path / "run").mkdir()
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("below", [".", "corpus"])
def test_a_run_in_the_current_folder_is_resumed_but_not_replaced(
    invoke, corpus_file, resumable, tree, monkeypatch, below
):
    monkeypatch.chdir(resumable / below)
    before = tree(resumable.parent)
    out = os.path.relpath(resumable)
    done = invoke("train", corpus_file, "--out", out, "--force", *QUICK)
    assert done.returncode == 2
    assert done.sentence.startswith(f"{out} is the current folder or a parent of it")
    assert tree(resumable.parent) == before
    assert invoke("train", "--resume", "--out", out).returncode == 0


def test_force_with_a_corpus_that_cannot_be_read_keeps_the_run(invoke, quick_run, tmp_path, tree):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    before = tree(quick_run)
    assert invoke("train", tmp_path / "bad.jsonl", "--out", quick_run, "--force", *QUICK).returncode == 1
    assert tree(quick_run) == before


def test_training_without_out_is_wrong_use(invoke, corpus_file):
    done = invoke("train", corpus_file)
    assert done.returncode == 2
    assert "--out is missing" in done.sentence


@pytest.fixture
def resumable(invoke, corpus_file, tmp_path) -> Path:
    out = tmp_path / "run"
    done = invoke("train", corpus_file, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    return out


def test_a_resume_with_an_option_that_has_no_effect_is_refused(invoke, resumable):
    again = invoke("train", "--resume", "--out", resumable, "--patience", 3)
    assert again.returncode == 2
    assert again.sentence == (
        "--patience 3 has no effect without --early-stop: set --early-stop too, or leave it out "
        "(a resume keeps the settings of its run: leave this setting out)"
    )


def test_a_resume_without_data_works_where_the_data_is_unreadable(invoke, resumable, tmp_path):
    (tmp_path / "both.csv").write_text("a,b ; x\n")
    done = invoke("train", tmp_path / "both.csv", "--resume", "--out", resumable)
    assert done.returncode == 1
    assert done.sentence.endswith("(a resume does not need DATA: leave it out)")


def test_resuming_a_finished_run_reports_it_and_changes_nothing(invoke, resumable, tree):
    before = tree(resumable)
    done = invoke("train", "--resume", "--out", resumable)
    assert done.returncode == 0
    assert "the run is already finished: give more --epochs or --max-steps to continue it" in done.stderr
    assert tree(resumable) == before


def test_resume_without_data_uses_the_data_of_the_run(invoke, resumable):
    done = invoke("train", "--resume", "--out", resumable, "--max-steps", 3, "--json")
    assert done.returncode == 0
    assert (json.loads(done.stdout)["step"], json.loads(done.stdout)["total_steps"]) == (3, 3)
    assert "from step 2 to step 3" in done.stderr
    assert [row["step"] for row in read_metrics(resumable)] == [2, 3]
    assert json.loads((resumable / "run.json").read_text())["config"]["training"]["max_steps"] == 3


def test_resume_with_the_same_data_and_options_works(invoke, corpus_file, resumable):
    done = invoke("train", corpus_file, "--resume", "--out", resumable, *QUICK)
    assert done.returncode == 0
    assert "finished at step 2 of 2" in done.stderr


def test_resume_of_a_missing_run_starts_it_if_data_is_given(invoke, corpus_file, tmp_path):
    done = invoke("train", "--resume", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 2
    assert "give DATA" in done.sentence
    done = invoke("train", corpus_file, "--resume", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0
    assert f"there is no run {tmp_path / 'run'} to resume: starting a new one" in " ".join(
        done.stderr.split()
    )
    assert Checkpoints(tmp_path / "run").last.name == "step-00000002"


def test_resume_with_other_data_is_refused_and_changes_nothing(
    invoke, corpus_file, resumable, tmp_path, tree
):
    other = tmp_path / "other.jsonl"
    other.write_text(corpus_file.read_text().replace("hi there", "hi you"))
    before = tree(resumable)
    done = invoke("train", other, "--resume", "--out", resumable, "--max-steps", 5)
    assert done.returncode == 2
    assert "DATA is not the same as at the start of" in done.sentence
    assert tree(resumable) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--hidden", 32),
        ("--seed", 7),
        ("--learning-rate", 0.5),
        ("--vocab-size", 290),
        ("--turns", 2),
        ("--no-reverse-source", None),
        ("--preset", "classic"),
    ],
)
def test_resume_with_an_option_that_differs_is_refused_by_its_name(invoke, quick_run, tree, option, value):
    before = tree(quick_run)
    given = [option] if value is None else [option, value]
    done = invoke("train", "--resume", "--out", quick_run, "--max-steps", 5, *given)
    assert done.returncode == 2
    assert "the run was started with" in done.sentence
    if option != "--preset":
        assert f"{option} sets" in done.sentence
    assert tree(quick_run) == before


def without_vocabulary(options: list[str]) -> list[str]:
    at = options.index("--vocab-size")
    return options[:at] + options[at + 2 :]


def test_resume_compares_validation_data_and_tokenizer_too(invoke, corpus_file, tmp_path, tree):
    for name, prompt in (("valid", "hi"), ("other", "ho")):
        (tmp_path / f"{name}.tsv").write_text(f"{prompt}\tthere\n{prompt} you\tthere\n")
    out, other = tmp_path / "run", tmp_path / "other"
    start = ["train", corpus_file, *without_vocabulary(QUICK[:-6]), "--valid", tmp_path / "valid.tsv"]
    start += QUICK[-4:]  # without --valid-fraction
    assert invoke(*start, "--out", out).returncode == 0
    assert invoke(*start, "--out", other, "--vocab-size", 270).returncode == 0
    tokenizers = [run / "tokenizer.json" for run in (out, other)]
    before = tree(out)
    for option, value in (("--valid", tmp_path / "other.tsv"), ("--tokenizer", tokenizers[1])):
        done = invoke("train", "--resume", "--out", out, option, value)
        assert done.returncode == 2
        assert f"{option} is not the same" in done.sentence
    assert tree(out) == before
    done = invoke(*start, "--resume", "--out", out, "--tokenizer", tokenizers[0], "--max-steps", 3)
    assert done.returncode == 0, done.stderr


def test_a_given_tokenizer_is_kept_byte_for_byte(invoke, corpus_file, quick_run, tmp_path):
    ready = quick_run / "tokenizer.json"
    command = ["train", corpus_file, "--out", tmp_path / "run", "--tokenizer", ready]
    refused = invoke(*command, *QUICK)
    assert refused.returncode == 2
    assert (
        refused.sentence
        == "--vocab-size cannot be used with --tokenizer: the tokenizer has a vocabulary already"
    )
    assert invoke(*command, *without_vocabulary(QUICK)).returncode == 0
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == ready.read_bytes()


def test_parallel_text_is_trained_on(invoke, tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"question {i}\n" for i in range(6)))
    (tmp_path / "b.txt").write_text("".join(f"answer {i}\n" for i in range(6)))
    texts = ["--source", tmp_path / "a.txt", "--target", tmp_path / "b.txt"]
    done = invoke("train", *texts, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0
    assert "5 pairs of 5 dialogues" in done.stderr


def test_parallel_text_is_held_out(invoke, tmp_path):
    for name in ("train", "valid", "other"):
        for side in ("src", "tgt"):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{name} {side} {i}\n" for i in range(4)))

    def texts(name, before=""):
        paths = zip(("source", "target"), ("src", "tgt"), strict=True)
        return [
            word for option, side in paths for word in (f"--{before}{option}", tmp_path / f"{name}.{side}")
        ]

    out, quick = tmp_path / "run", [*QUICK[:-6], *QUICK[-4:]]  # without --valid-fraction
    start = ["train", *texts("train"), "--out", out, *quick]
    half = invoke(*start, *texts("valid", "valid-")[:2])
    assert (half.returncode, "--valid-source is one half" in half.sentence) == (2, True)
    assert "give --valid-target too" in half.sentence
    done = invoke(*start, *texts("valid", "valid-"))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["response"] for line in (out / "valid.jsonl").read_text().splitlines()] == [
        f"valid tgt {i}" for i in range(4)
    ]
    resume = ["train", "--resume", "--out", out]
    assert invoke(*resume, *texts("valid", "valid-")).returncode == 0
    other = invoke(*resume, *texts("other", "valid-"))
    assert (other.returncode, "--valid-source is not the same" in other.sentence) == (2, True)
    both = invoke(*start, *texts("valid", "valid-"), "--valid-fraction", 0.1)
    assert "--valid-fraction cannot be used with --valid-source" in both.sentence


def test_a_dry_run_reports_the_errors_and_remarks_of_a_training(invoke, corpus_file, tmp_path):
    look = ["train", corpus_file, "--dry-run", "--vocab-size", 300]
    gone = invoke(*look, "--pretrained-embeddings", tmp_path / "gone.txt")
    assert (gone.returncode, f"{tmp_path / 'gone.txt'}" in gone.sentence) == (2, True)
    stop = invoke(*look, "--early-stop", "loss", "--valid-fraction", 0)
    assert (stop.returncode, "--early-stop loss needs held-out pairs" in stop.sentence) == (2, True)
    (tmp_path / "v.txt").write_text("hello 1 2\nyou 3 4\n")
    done = invoke(*look, "--copy-attention", "--embedding", 2, "--pretrained-embeddings", tmp_path / "v.txt")
    assert done.returncode == 0, done.stderr
    assert "hint: --copy-attention copies token by token" in done.stderr
    assert "of 300 tokens have a pretrained vector" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--residual", "--layers", 1], "--residual works between layers: set --layers to 2"),
        (["--schedule", "inverse-sqrt"], "--schedule inverse-sqrt needs a warm-up: set --warmup-steps, 400"),
        (["--decay", 0.5], "--decay 0.5 has no effect with --schedule cosine, only with plateau or luong"),
        (
            ["--attention", 9, "--attention-kind", "luong-dot"],
            "--attention 9 has no effect with --attention-kind luong-dot, only with bahdanau",
        ),
        (
            ["--bidirectional", "--reverse-source"],
            "--reverse-source has no effect with --bidirectional: leave it out",
        ),
        (["--batch-tokens", 3], "--batch-tokens must be at least 50"),
        (["--max-minutes", 0], "--max-minutes must be above 0"),
    ],
)
def test_an_invalid_value_is_named_by_its_option(invoke, corpus_file, tmp_path, options, sentence):
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *options)
    assert done.returncode == 2
    assert done.sentence.startswith(sentence)


@pytest.mark.parametrize("goal", ["loss", "bleu"])
def test_early_stopping_without_held_out_pairs_is_refused_and_no_run_is_begun(
    invoke, corpus_file, tmp_path, goal
):
    options = ["--early-stop", goal, "--valid-fraction", 0]
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *QUICK, *options)
    assert done.returncode == 2
    assert f"--early-stop {goal} needs held-out pairs: give --valid" in done.sentence
    assert not list(tmp_path.iterdir())


def test_resuming_a_run_that_stopped_early_reports_it(invoke, corpus_file, tmp_path):
    options = ["--early-stop", "bleu", "--patience", 1, "--save-every", 1, "--max-steps", 50]
    options += ["--learning-rate", 1e-30]  # so that neither replies nor loss improve
    out = tmp_path / "run"
    assert "stopped early at step" in invoke("train", corpus_file, "--out", out, *QUICK, *options).stderr
    done = invoke("train", "--resume", "--out", out, "--max-steps", 60)
    assert done.returncode == 0
    assert re.search("the run already stopped early, at step [0-9]+, .*with --from-run", done.stderr)


def test_valid_does_not_go_with_valid_fraction(invoke, corpus_file, tmp_path):
    done = invoke("train", corpus_file, "--valid", corpus_file, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 2
    assert done.sentence == "--valid-fraction cannot be used with --valid: --valid replaces the fraction"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always gives a process a stdout")
def test_a_closed_stdout_is_reported_before_the_training(corpus_file, tmp_path):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "edgechat",
        "train",
        corpus_file,
        "--json",
        "--out",
        out,
        *map(str, QUICK),
    ]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=limits.TIMEOUT_SECONDS,
    )
    assert (done.returncode, done.stderr.startswith("edgechat: stdout is closed")) == (1, True)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--find-lr", "--dry-run"])
def test_only_the_first_process_runs_find_lr_and_dry_run(invoke, corpus_file, monkeypatch, option):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        done = invoke("train", corpus_file, option, *QUICK)
        assert done.returncode == 0
        assert bool(done.stdout) == (rank == 0)


@pytest.mark.slow
def test_a_training_of_a_great_many_epochs_begins_and_stops_at_sigterm(corpus_file, tmp_path):
    options = ["--epochs", "1000000000", "--batch-tokens", "60", "--vocab-size", "280", "--device", "cpu"]
    with _training(corpus_file, "--out", str(tmp_path / "run"), *options) as process:
        for line in process.stderr:
            if line.startswith("training to about step"):
                break
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=limits.TIMEOUT_SECONDS) == 130
        finally:
            process.kill()


def test_a_time_limit_stops_with_a_checkpoint_that_resumes(invoke, corpus_file, tmp_path):
    out = tmp_path / "run"
    done = invoke("train", corpus_file, "--out", out, *QUICK, "--max-minutes", 1e-9, "--json")
    assert done.returncode == 0
    assert (json.loads(done.stdout)["ended"], json.loads(done.stdout)["step"]) == ("out of time", 1)
    assert "to continue: edgechat train --resume" in done.stderr
    assert json.loads(invoke("train", "--resume", "--out", out, "--json").stdout)["ended"] == "finished"


@pytest.mark.parametrize(
    "options",
    [
        ["--max-minutes", "0"],
        ["--max-minutes", "nan"],
        ["--epochs", "0"],
        ["--max-steps", "0"],
        ["--batch-size", "0"],
        ["--dropout", "1"],
        ["--dropout", "nan"],
        ["--learning-rate", "0"],
        ["--clip", "-1"],
        ["--valid-fraction", "1"],
        ["--vocab-size", "100"],
        ["--turns", "0"],
        ["--max-source", "0"],
        ["--max-target", "1"],
        ["--warmup-steps", "-1"],
        ["--save-every", "0"],
        ["--preset", "enormous"],
        ["--tokenizer", "nowhere.json"],
        ["--source", "pairs.jsonl"],
    ],
    ids=" ".join,
)
def test_invalid_values_are_refused_and_no_run_is_begun(invoke, corpus_file, tmp_path, options):
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *options)
    assert done.returncode == 2
    name = {"--preset": "preset", "--tokenizer": "tokenizer"}
    assert name.get(options[0], options[0]) in done.sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bidirectional", "--hidden", "15"], "--bidirectional halves hidden, which must be even, not 15"),
        (["--residual"], "--residual works between layers: set --layers to 2 or more, not 1"),
        (["--schedule", "inverse-sqrt"], "--schedule inverse-sqrt needs a warm-up: set --warmup-steps, 400"),
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_named(invoke, corpus_file, tmp_path, options, said):
    done = invoke("train", corpus_file, "--out", tmp_path / "run", "--layers", "1", *options)
    assert done.returncode == 2
    assert said in done.sentence
    (tmp_path / "run.toml").write_text("[model]\nlayers = 0\n")
    done = invoke("train", corpus_file, "--out", tmp_path / "run", "--config", tmp_path / "run.toml")
    assert "run.toml, section model: layers must be at least 1" in done.sentence


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "-1"],
        ["--seed", "9" * 30],
        ["--vocab-size", "9" * 30],
        ["--hidden", "9" * 30],
        ["--layers", "1000000"],
        ["--threads", "0"],
        ["--threads", "100000"],
        ["--max-source", "20000"],
        ["--layers", "64", "--hidden", "65536"],
        ["--device", "tpu"],
        ["--schedule", "linear"],
        ["--targets", "third"],
        ["--epochs", "many"],
    ],
    ids=" ".join,
)
def test_values_out_of_range_are_wrong_use(invoke, corpus_file, tmp_path, options):
    done = invoke("train", corpus_file, "--out", tmp_path / "run", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert options[0] in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_device_is_refused_before_the_work(invoke, corpus_file, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA can be used here")
    done = invoke("train", corpus_file, "--out", tmp_path / "run", "--device", "cuda")
    assert done.returncode == 1
    assert "device cuda cannot be used" in done.sentence
    assert not list(tmp_path.iterdir())


#: Long enough to be interrupted, with dropout, so that the state of the random numbers counts.
LONG = [
    "--hidden", "32", "--embedding", "16", "--attention", "16", "--vocab-size", "280", "--batch-size", "4",
    "--max-steps", "150", "--epochs", "1000", "--save-every", "1000", "--dropout", "0.3", "--threads", "1",
    "--valid-fraction", "0.1", "--device", "cpu",
]  # fmt: skip


#: Windows has no SIGHUP.
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", STOPS)
def test_ctrl_c_exits_with_130_and_a_checkpoint_that_resumes_to_the_weights_of_an_uninterrupted_run(
    invoke, corpus_file, tmp_path, number, uninterrupted
):
    out = tmp_path / "run"
    with _training(corpus_file, "--out", str(out), *LONG) as process:
        for line in process.stderr:
            if line.startswith("training to step"):
                break
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=limits.TIMEOUT_SECONDS)
    assert (process.returncode, stdout) == (130, "")
    assert "interrupted at step" in stderr
    assert "--resume" in stderr
    stopped = int(Checkpoints(out).last.name.removeprefix("step-"))
    assert 0 < stopped < 150
    done = invoke("train", "--resume", "--out", out)
    assert done.returncode == 0
    assert f"from step {stopped} to step 150" in done.stderr
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [Checkpoints(run).last / name for run in (out, uninterrupted)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert read_metrics(out) == read_metrics(uninterrupted)


def test_a_second_ctrl_c_ends_at_once(corpus_file, tmp_path):
    out = tmp_path / "run"
    steps = ["--max-steps", "100000", "--batch-size", "16", "--hidden", "1024", "--embedding", "512"]
    with _training(corpus_file, "--out", str(out), *LONG, *steps) as process:
        for line in process.stderr:
            if line.startswith("training to step"):
                break
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=limits.TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not list(out.rglob(".tmp-*"))


def test_training_continues_when_its_stderr_is_closed_by_the_reader(corpus_file, tmp_path):
    out = tmp_path / "run"
    with _training(corpus_file, "--out", str(out), *map(str, QUICK)) as process:
        process.stderr.readline()
        process.stderr.close()
        assert (process.stdout.read(), process.wait(limits.TIMEOUT_SECONDS)) == ("", 0)
    assert Checkpoints(out).last.name == "step-00000002"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this platform has no /dev/full")
def test_training_continues_when_the_disk_of_its_log_is_full(corpus_file, tmp_path):
    out = tmp_path / "run"
    with Path("/dev/full").open("w") as full:
        assert _training(corpus_file, "--out", out, *QUICK, stderr=full).wait(limits.TIMEOUT_SECONDS) == 0
    assert Checkpoints(out).last.name == "step-00000002"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows always gives a process a stderr")
def test_training_continues_without_a_stderr(corpus_file, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "edgechat", "train", corpus_file, "--out", out, *map(str, QUICK)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], check=False, timeout=limits.TIMEOUT_SECONDS
    )
    assert done.returncode == 0
    assert Checkpoints(out).last.name == "step-00000002"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no terminals of this kind")
def test_training_continues_under_nohup_when_its_terminal_is_gone(corpus_file, tmp_path):
    import pty

    out = tmp_path / "run"
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "edgechat", "train", corpus_file, "--out", out, *LONG]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *map(str, command)]
    with subprocess.Popen(
        ignoring, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=its
    ) as process:
        os.close(its)
        seen = b""
        while b"training to step" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait(limits.TIMEOUT_SECONDS) == 0
    assert Checkpoints(out).last.name == "step-00000150"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, invoke, corpus_file) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = invoke("train", corpus_file, "--out", out, *LONG)
    assert done.returncode == 0, done.stderr
    return out


def _training(*arguments: object, stderr: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "edgechat", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=_restore_sighup if hasattr(signal, "SIGHUP") else None,
    )


def _restore_sighup() -> None:
    """Undo the nohup under which the tests may run."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_resume_with_fewer_epochs_than_were_trained_is_refused(invoke, corpus_file, tmp_path, tree):
    out = tmp_path / "run"
    done = invoke("train", corpus_file, "--out", out, *QUICK, "--max-steps", 1000, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    before = tree(out)
    done = invoke("train", "--resume", "--out", out, "--epochs", 1)
    assert done.returncode == 2
    assert "--epochs sets epochs to 1, but the run has already reached epoch 2: set" in done.sentence
    assert tree(out) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--resume", "--force"],
            "--force cannot be used with --resume: --resume continues the run that --force would",
        ),
        (
            ["--dry-run", "--resume"],
            "--resume cannot be used with --dry-run: --dry-run only shows what would be learned",
        ),
        (["--dry-run", "--force"], "--force cannot be used with --dry-run"),
        (["--dry-run", "--find-lr"], "--find-lr cannot be used with --dry-run"),
        (
            ["--find-lr", "--resume"],
            "--resume cannot be used with --find-lr: --find-lr trains a model that is not kept",
        ),
        (["--find-lr", "--force"], "--force cannot be used with --find-lr"),
        (
            ["--resume", "--max-steps", 1],
            "--max-steps sets max_steps to 1, but the run has already reached step 2",
        ),
        (
            ["--resume", "--preset", "small"],
            "--preset small sets layers to 2, but the run was started with 1",
        ),
    ],
)
def test_options_that_contradict_each_other_or_the_run_are_refused(
    invoke, quick_run, tree, options, sentence
):
    before = tree(quick_run)
    done = invoke("train", "--out", quick_run, *options)
    assert done.returncode == 2
    assert sentence in done.sentence
    assert tree(quick_run) == before
