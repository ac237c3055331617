"""`edgechat eval` and `edgechat bench`."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import limits
import pytest

from edgechat.cli import speed
from edgechat.runtime import ChatModel, DecodingOptions
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import read_bundle, write_bundle
from edgechat.runtime.text import TextCodec

EVALUATION = {
    "model", "checkpoint", "steps", "pairs", "perplexity", "exact_match", "bleu", "bleu_signature", "chrf",
    "chrf_signature", "distinct_1", "distinct_2", "mean_length", "eos_rate", "most_common_reply",
    "most_common_share", "truncated_prompts", "truncated_targets", "confidence", "device", "seconds",
}  # fmt: skip

#: What is said of the tests' corpus.
FEW = "note: only 16 pairs: the figures say little about other data\n"


def test_eval_shows_its_figures_on_stdout_with_the_signature_of_sacrebleu(
    edgechat, bundle_folder, corpus_file
):
    done = edgechat("eval", bundle_folder, "--data", corpus_file)
    assert (done.returncode, done.stderr) == (0, FEW)
    assert done.stdout.splitlines()[0] == f"model              {bundle_folder}, the last checkpoint, step 240"
    for shown in ("perplexity", "exact match", "BLEU", "tok:13a", "chrF", "distinct-1", "most common reply"):
        assert shown in done.stdout


def test_eval_notes_that_few_pairs_or_short_replies_say_little(invoke, bundle_folder, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "hello", "response": "hi"}\n' * 20)
    done = invoke("eval", bundle_folder, "--data", pairs, "--limit", 19, "--json")
    assert json.loads(done.stdout)["pairs"] == 19
    assert done.stderr == "note: only 19 pairs: the figures say little about other data\n"
    shown = invoke("eval", bundle_folder, "--data", pairs)
    assert shown.stderr == ""
    assert "BLEU               not meaningful for replies of fewer than 4 words  (nrefs:1|" in shown.stdout


def test_a_run_and_its_bundle_have_the_same_figures(invoke, run_folder, bundle_folder, corpus_file):
    measured = []
    for model, options in ((run_folder, ["--checkpoint", "last"]), (bundle_folder, [])):
        done = invoke("eval", model, "--data", corpus_file, "--json", *options)
        values = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, FEW)
        assert values.keys() == EVALUATION
        assert values["pairs"] == 16
        assert values["exact_match"] >= 12 / 16  # learned by heart, except for the held-out ones
        measured.append(values)
    run, bundle = ({k: v for k, v in m.items() if k not in ("model", "seconds")} for m in measured)
    assert run["perplexity"] == pytest.approx(bundle["perplexity"], rel=1e-3)
    assert {**run, "perplexity": 0} == {**bundle, "perplexity": 0}


@pytest.fixture
def calibrated(bundle_folder, tmp_path):
    """The bundle of the tests, with the identity as its calibration."""
    bundle = read_bundle(bundle_folder)
    fitted = {"kind": "platt", "a": 1.0, "b": 0.0, "pairs": 30, "right": 1.0, "ece_before": 0.0, "ece": 0.0}
    manifest = dataclasses.replace(bundle.manifest, calibration=fitted)
    write_bundle(tmp_path / "calibrated", manifest, bundle.files, replace_existing=False)
    return tmp_path / "calibrated"


def test_eval_measures_the_confidence_of_a_calibrated_bundle(invoke, calibrated, corpus_file):
    done = invoke("eval", calibrated, "--data", corpus_file, "--json")
    trust = json.loads(done.stdout)["confidence"]
    prompts = [json.loads(line)["prompt"] for line in corpus_file.read_text().splitlines()]
    replies = map(json.loads, invoke("reply", calibrated, "--json", *prompts).stdout.splitlines())
    sure = [reply["confidence"] for reply in replies]
    assert [row["at_least"] for row in trust["answered"]] == [0.5, 0.8, 0.9, 0.95]
    for row in trust["answered"]:
        assert row["answered"] == sum(confidence >= row["at_least"] for confidence in sure)
        assert 0 < row["right"] <= row["answered"]
    shown = invoke("eval", calibrated, "--data", corpus_file).stdout
    of_half = trust["answered"][0]
    share = f"{of_half['right'] / of_half['answered']:.1%}"
    assert (
        f"confidence ≥ 0.5   {of_half['answered']} of 16 answered, {of_half['right']} of them right ({share})"
        in shown
    )
    assert f"calibration error  {trust['expected_error']:.3f}\n" in shown


def test_eval_measures_no_confidence_where_replies_have_none(invoke, calibrated, bundle_folder, corpus_file):
    for bundle, options in ((bundle_folder, []), (calibrated, ["--normalize", "none"])):
        done = invoke("eval", bundle, "--data", corpus_file, *options)
        assert "BLEU" in done.stdout
        assert "confidence" not in done.stdout


def test_without_data_a_run_is_evaluated_on_its_held_out_pairs(invoke, run_folder):
    values = json.loads(invoke("eval", run_folder, "--json").stdout)
    assert values["pairs"] == len((run_folder / "valid.jsonl").read_text().splitlines())


def test_eval_of_nothing_asks_for_a_run_or_a_bundle(invoke, tmp_path):
    done = invoke("eval", tmp_path / "gone")
    assert done.returncode == 2
    assert (
        done.sentence == f"there is no run or bundle {tmp_path / 'gone'}: give a folder or file that exists"
    )


def test_eval_of_a_bundle_without_data_is_wrong_use(invoke, bundle_folder):
    done = invoke("eval", bundle_folder)
    assert done.returncode == 2
    assert "--data is missing" in done.sentence


@pytest.mark.slow
def test_eval_of_a_run_without_held_out_pairs_needs_data(edgechat, invoke, corpus_file, tmp_path):
    tiny = ("--hidden", 8, "--embedding", 8, "--attention", 8, "--vocab-size", 261, "--max-steps", 1)
    edgechat("train", corpus_file, "--out", tmp_path / "run", "--valid-fraction", 0, *tiny)
    done = invoke("eval", tmp_path / "run")
    assert done.returncode == 2
    assert "--data is missing" in done.sentence
    assert "held out no pairs" in done.sentence


def test_eval_of_parallel_text_equals_eval_of_pairs_in_one_file(invoke, bundle_folder, corpus_file, tmp_path):
    pairs = [json.loads(line) for line in corpus_file.read_text().splitlines()]
    source, target = tmp_path / "test.src", tmp_path / "test.tgt"
    source.write_text("".join(pair["prompt"] + "\n" for pair in pairs))
    target.write_text("".join(pair["response"] + "\n" for pair in pairs))
    one, two = (
        json.loads(invoke("eval", bundle_folder, *data, "--json").stdout)
        for data in (("--data", corpus_file), ("--source", source, "--target", target))
    )
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    done = invoke("eval", bundle_folder, "--source", source)
    assert (done.returncode, "give --target too" in done.sentence) == (2, True)


def test_skip_bad_skips_and_reports_bad_lines_in_eval(invoke, bundle_folder, corpus_file, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(corpus_file.read_bytes() + b'{"prompt": "x", "response": \n')
    done = invoke("eval", bundle_folder, "--data", bad, "--json")
    assert done.returncode == 1
    assert "--skip-bad" in done.sentence
    done = invoke("eval", bundle_folder, "--data", bad, "--json", "--skip-bad")
    assert done.returncode == 0
    assert json.loads(done.stdout)["pairs"] == len(corpus_file.read_bytes().splitlines())
    line = len(bad.read_bytes().splitlines())
    assert f"dropped  1 × bad line: is not JSON (first: bad.jsonl, line {line})\n" in done.stderr


def test_skip_bad_without_data_is_wrong_use(invoke, run_folder):
    done = invoke("eval", run_folder, "--skip-bad")
    assert done.returncode == 2
    assert "--skip-bad needs --data" in done.sentence


def test_limit_takes_the_first_pairs(invoke, bundle_folder, corpus_file):
    done = invoke("eval", bundle_folder, "--data", corpus_file, "--limit", 3, "--json", "--tokenize", "none")
    values = json.loads(done.stdout)
    assert values["pairs"] == 3
    assert "tok:none" in values["bleu_signature"]


def test_the_batch_size_changes_no_figure(invoke, bundle_folder, corpus_file):
    measured = []
    for size in (1, 7):
        done = invoke("eval", bundle_folder, "--data", corpus_file, "--json", "--batch-size", size)
        measured.append({k: v for k, v in json.loads(done.stdout).items() if k != "seconds"})
    one, seven = measured
    assert one.pop("perplexity") == pytest.approx(seven.pop("perplexity"), rel=1e-5)
    assert one == seven


def test_a_tokenizer_that_sacrebleu_lacks_is_wrong_use(invoke, bundle_folder, corpus_file):
    done = invoke("eval", bundle_folder, "--data", corpus_file, "--tokenize", "bogus")
    assert done.returncode == 2
    assert "--tokenize" in done.stderr


def test_eval_on_a_missing_device_is_refused(invoke, run_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA can be used here")
    done = invoke("eval", run_folder, "--device", "cuda")
    assert done.returncode == 1
    assert "device cuda cannot be used" in done.sentence


SPEED = {"reply_ms", "first_piece_ms", "token_ms", "replies_per_second"}


def check_speed(figures):
    for times in (figures["reply_ms"], figures["first_piece_ms"]):
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
    assert list(figures["replies_per_second"]) == ["1", "8", "32"]
    assert all(rate > 0 for rate in figures["replies_per_second"].values())
    assert 0 < figures["token_ms"] <= figures["reply_ms"]["p99"]


def test_bench_measures_a_bundle(edgechat, bundle_folder):
    done = edgechat("bench", bundle_folder, "--json", "--repeat", 3, "--beam", 2)
    values = json.loads(done.stdout)
    assert done.returncode == 0
    assert values.keys() == SPEED | {
        "bundle", "precision", "device", "threads", "beam", "load_ms", "start", "bytes", "step", "against"
    }  # fmt: skip
    assert (values["precision"], values["beam"], values["against"]) == ("fp32", 2, {})
    check_speed(values)
    assert values["bytes"] == {path.name: path.stat().st_size for path in bundle_folder.iterdir()}
    assert done.stderr.startswith("timing fp32 on ")
    assert ", 1 thread, beam 2\n" in done.stderr


def test_bench_measures_a_fresh_process_and_the_floor_of_a_step(invoke, bundle_folder):
    values = json.loads(invoke("bench", bundle_folder, "--json", "--repeat", 3).stdout)
    start, step = values["start"], values["step"]
    assert start["cpu_s"] > 0.05
    assert start["wall_s"] > 0.05
    assert 30e6 < start["peak_bytes"] < 300e6  # onnxruntime alone needs more than 30 MB
    assert 0 < step["weight_bytes"] < values["bytes"]["decoder.onnx"]
    assert step["floor_ms"] == pytest.approx(step["weight_bytes"] / step["bytes_per_second"] * 1e3, abs=1e-3)
    assert step["ms"] > 0


def test_the_fresh_process_of_bench_replies_with_the_options_of_the_others(bundle_folder, monkeypatch):
    asked: list[tuple[list[str], bytes]] = []
    monkeypatch.setattr(speed, "measure_process", lambda command, stdin: asked.append((command, stdin)))
    options = DecodingOptions(beam=2, prefix="hens")
    assert speed.measure_startup([str(bundle_folder), "cpu", "1"], "hi\0", options, 1) is None
    [(command, stdin)] = asked
    done = subprocess.run(
        command, input=stdin, capture_output=True, check=True, timeout=limits.TIMEOUT_SECONDS
    )
    assert done.stdout.decode().startswith("hens")


def test_bench_works_where_the_first_golden_source_has_a_zero_byte(invoke, bundle_folder, tmp_path):
    bundle = read_bundle(bundle_folder)
    golden = json.loads(bundle.files["golden.json"])
    [zero] = TextCodec(bundle.files["tokenizer.json"], max_source=9, max_target=9).encode("\0")
    golden["cases"][0]["src"].insert(0, zero)
    files = {**bundle.files, "golden.json": json.dumps(golden).encode()}
    write_bundle(tmp_path / "zero", bundle.manifest, files, replace_existing=False)
    done = invoke("bench", tmp_path / "zero", "--repeat", 3, "--json")
    assert json.loads(done.stdout)["start"]["cpu_s"] > 0.05


def test_bench_shows_a_table(invoke, bundle_folder):
    done = invoke("bench", bundle_folder, "--repeat", 3)
    assert done.returncode == 0
    for shown in ("load", "fresh process", "decoder.onnx", "GB/s", "reply p50", "first piece p99",
                  "per token", "batch 32"):  # fmt: skip
        assert shown in done.stdout


def test_bench_against_its_run_times_the_same_weights_in_other_engines(invoke, run_folder, tmp_path):
    bundle, plot = tmp_path / "int8", tmp_path / "speed.png"
    made = invoke("export", run_folder, "--out", bundle, "--checkpoint", "last", "--beyond-limits")
    assert made.returncode == 0, made.stderr
    done = invoke("bench", bundle, "--against", run_folder, "--repeat", 3, "--json", "--plot", plot)
    values = json.loads(done.stdout)
    assert values["precision"] == "int8"
    assert list(values["against"]) == ["fp32", "eager"]
    for figures in (values, *values["against"].values()):
        check_speed(figures)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_bench_replies_to_given_prompts(invoke, bundle_folder, tmp_path, monkeypatch):
    replied = []
    reply = ChatModel.reply
    monkeypatch.setattr(ChatModel, "reply", lambda self, p, *o: (replied.append(p), reply(self, p, *o))[1])
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes("\ufeffhello\r\n\ngood\u2028night".encode())
    assert invoke("bench", bundle_folder, "--repeat", 3, "--prompts", prompts).returncode == 0
    assert replied == ["hello", "good\u2028night"] * 2  # one pass warms up


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--prompts", "nowhere.txt"], 2, "--prompts is nowhere.txt, but there is no such file"),
        (
            ["--prompts", "empty.txt"],
            2,
            "--prompts is empty.txt, which has no prompt in it: write one per line",
        ),
        (["--plot", "speed.svg"], 2, "--plot is speed.svg, but plots are written as .png"),
        (["--plot", "no/speed.png"], 2, "there is no folder no"),
        (["--against", "nowhere"], 2, "there is no run nowhere"),
    ],
)
def test_bench_refuses_before_it_measures(
    invoke, bundle_folder, tmp_path, monkeypatch, options, code, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    done = invoke("bench", bundle_folder, *options)
    assert done.returncode == code
    assert sentence in done.sentence


def test_bench_against_a_run_of_another_bundle_is_wrong_use(invoke, bundle_folder, run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    tokenizer, info = (json.loads((other / name).read_bytes()) for name in ("tokenizer.json", "run.json"))
    (other / "tokenizer.json").write_text(json.dumps(tokenizer, indent=4))
    info["files"]["tokenizer.json"] = sha256((other / "tokenizer.json").read_bytes())
    (other / "run.json").write_text(json.dumps(info))
    done = invoke("bench", bundle_folder, "--against", other)
    assert done.returncode == 2
    assert "has another tokenizer than the bundle" in done.sentence


def test_bench_without_matplotlib_says_what_to_install(invoke, bundle_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke("bench", bundle_folder, "--plot", "speed.png")
    assert done.returncode == 1
    assert done.sentence == "this command needs matplotlib: pip install matplotlib"


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("bundle_folder", ["--checkpoint", "last"], "--checkpoint needs a run"),
        ("run_folder", ["--targets", "second"], "--targets needs --data"),
    ],
)
def test_options_without_effect_are_refused(request, invoke, corpus_file, model, options, sentence):
    data = ["--data", corpus_file] if model == "bundle_folder" else []
    done = invoke("eval", request.getfixturevalue(model), *data, *options)
    assert done.returncode == 2
    assert sentence in done.sentence


def test_eval_of_a_run_predicts_the_turns_that_the_run_learned(invoke, run_folder, bundle_folder, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data.jsonl"
    shutil.copytree(run_folder, run)
    info = json.loads((run / "run.json").read_text())
    info["config"]["data"]["targets"] = "second"
    (run / "run.json").write_text(json.dumps(info))
    data.write_text('{"turns": ["hi", "hello", "bye", "see you"]}\n')

    def pairs(model: Path, *options: object) -> int:
        return json.loads(invoke("eval", model, "--data", data, "--json", *options).stdout)["pairs"]

    assert (pairs(run), pairs(run, "--targets", "all"), pairs(bundle_folder)) == (2, 3, 3)


def test_eval_writes_the_replies_that_it_scored(invoke, calibrated, corpus_file, tmp_path):
    out = tmp_path / "replies.jsonl"
    command = ["eval", calibrated, "--data", corpus_file, "--data", corpus_file, "--json", "--out", out]
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"wrote {out}, 32 replies"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == json.loads(done.stdout)["pairs"] == 32
    assert rows[16:] == rows[:16]
    prompts = [json.loads(line) for line in corpus_file.read_text().splitlines()]
    replies = invoke("reply", calibrated, "--json", *(each["prompt"] for each in prompts)).stdout.splitlines()
    for row, pair, line in zip(rows, prompts, replies, strict=False):
        reply = json.loads(line)
        assert row == {
            "turns": [pair["prompt"]],
            "reference": pair["response"],
            "reply": reply["reply"],
            "score": pytest.approx(reply["score"], abs=1e-4),
            "confidence": pytest.approx(reply["confidence"], abs=1e-4),
        }
    written = out.read_bytes()
    refused = invoke(*command)
    assert refused.returncode == 2
    assert refused.sentence == f"{out} exists: choose another --out, or give --force to replace it"
    assert out.read_bytes() == written
    assert invoke(*command, "--limit", 1, "--force").returncode == 0
    assert out.read_bytes() == written[: written.index(b"\n") + 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--force"], "--force needs --out, which is not given"),
        (["--out", "{folder}"], "--out is {folder}, which is a folder: name a file in it"),
        (["--out", "-"], "--out is -, but it is not written to stdout: give it a name"),
        (["--out", "{folder}/none/replies.jsonl"], "--out is {folder}/none/replies.jsonl, but there is no"),
    ],
)
def test_eval_says_before_the_work_where_replies_cannot_be_written(invoke, tmp_path, options, sentence):
    done = invoke("eval", "demo", *(option.format(folder=tmp_path) for option in options))
    assert done.returncode == 2
    assert done.sentence.startswith(sentence.format(folder=tmp_path))


def test_eval_can_use_a_closed_set(invoke, bundle_folder, corpus_file, tmp_path):
    (tmp_path / "replies.txt").write_text("only this\n")
    done = invoke(
        "eval", bundle_folder, "--data", corpus_file, "--replies", tmp_path / "replies.txt", "--json"
    )
    values = json.loads(done.stdout)
    assert (values["most_common_reply"], values["most_common_share"]) == ("only this", 1.0)
