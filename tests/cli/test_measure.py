"""`edgechat eval` and `edgechat bench`."""

import json

import pytest

EVALUATION = {
    "model", "pairs", "perplexity", "exact_match", "bleu", "bleu_signature", "chrf", "chrf_signature",
    "distinct_1", "distinct_2", "mean_length", "eos_rate", "most_common_reply", "most_common_share",
    "truncated_prompts", "truncated_targets", "device", "seconds",
}  # fmt: skip


def test_eval_shows_its_figures_on_stdout_with_the_signature_of_sacrebleu(
    edgechat, bundle_folder, corpus_file
):
    done = edgechat("eval", bundle_folder, "--data", corpus_file)
    assert (done.returncode, done.stderr) == (0, "")
    for shown in ("perplexity", "exact match", "BLEU", "tok:13a", "chrF", "distinct-1", "commonest reply"):
        assert shown in done.stdout


def test_a_run_and_its_bundle_measure_the_same(invoke, run_folder, bundle_folder, corpus_file):
    measured = []
    for model, options in ((run_folder, ["--checkpoint", "last"]), (bundle_folder, [])):
        done = invoke("eval", model, "--data", corpus_file, "--json", *options)
        values = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert values.keys() == EVALUATION
        assert values["pairs"] == 16
        assert values["exact_match"] >= 12 / 16  # learned by heart, but for those held out
        measured.append(values)
    run, bundle = ({k: v for k, v in m.items() if k not in ("model", "seconds")} for m in measured)
    assert run["perplexity"] == pytest.approx(bundle["perplexity"], rel=1e-3)
    assert {**run, "perplexity": 0} == {**bundle, "perplexity": 0}


def test_without_data_a_run_is_measured_on_what_it_held_out(invoke, run_folder):
    values = json.loads(invoke("eval", run_folder, "--json").stdout)
    assert values["pairs"] == len((run_folder / "valid.jsonl").read_text().splitlines())


def test_a_bundle_without_data_is_wrong_use(invoke, bundle_folder):
    done = invoke("eval", bundle_folder)
    assert done.returncode == 2
    assert "--data is missing" in done.sentence


def test_a_limit_takes_the_first_pairs(invoke, bundle_folder, corpus_file):
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


def test_a_run_is_not_measured_on_a_device_that_is_not_there(invoke, run_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA can be used here")
    done = invoke("eval", run_folder, "--device", "cuda")
    assert done.returncode == 1
    assert "device cuda cannot be used" in done.sentence


def test_bench_times_load_reply_and_batches(edgechat, bundle_folder):
    done = edgechat("bench", bundle_folder, "--json", "--repeat", 3, "--beam", 2)
    values = json.loads(done.stdout)
    assert done.returncode == 0
    assert list(values) == [
        "bundle", "device", "threads", "beam", "load_ms", "reply_ms", "first_piece_ms", "token_ms",
        "floor_ms", "replies_per_second", "process", "weights_a_step", "size", "against",
    ]  # fmt: skip
    assert values["beam"] == 2
    assert 0 < values["reply_ms"]["p50"] <= values["reply_ms"]["p90"] <= values["reply_ms"]["p99"]
    assert all(rate > 0 for rate in values["replies_per_second"].values())
    assert done.stderr.startswith("timing on ")
    assert values["size"]["decoder.onnx"] == (bundle_folder / "decoder.onnx").stat().st_size
    # fp32 weights of one step are all of the decoder but its embedding table.
    assert 0.5 * values["size"]["decoder.onnx"] < values["weights_a_step"] < values["size"]["decoder.onnx"]
    assert 20e6 < values["process"]["peak_bytes"] < 500e6
    assert values["against"] == {}


def test_bench_shows_a_table(invoke, bundle_folder):
    done = invoke("bench", bundle_folder, "--repeat", 3)
    assert done.returncode == 0
    for shown in ("load", "fresh process", "reply, batch 1", "a token", "floor of a step", "batch 32"):
        assert shown in done.stdout


def test_bench_times_the_run_beside_its_bundle_on_prompts_of_the_users_and_draws(
    invoke, run_folder, bundle_folder, tmp_path
):
    (tmp_path / "prompts.txt").write_text("hello\nturn left twice\n")
    picture = tmp_path / "bench.png"
    done = invoke(
        "bench", bundle_folder, "--repeat", 3, "--against", run_folder, "--prompts", tmp_path / "prompts.txt",
        "--plot", picture, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    against = json.loads(done.stdout)["against"]
    assert list(against) == ["fp32", "PyTorch"]
    assert all(ms["p50"] > 0 for ms in against.values())
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bench_refuses_a_file_without_prompts(invoke, bundle_folder, tmp_path):
    (tmp_path / "none.txt").write_text("\n\n")
    done = invoke("bench", bundle_folder, "--prompts", tmp_path / "none.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"--prompts {tmp_path / 'none.txt'} holds no prompt" in done.stderr


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("bundle_folder", ["--checkpoint", "last"], "--checkpoint is of a run"),
        ("run_folder", ["--targets", "second"], "--targets goes with --data"),
    ],
)
def test_options_that_have_nothing_to_act_on_are_refused(
    request, invoke, corpus_file, model, options, sentence
):
    data = ["--data", corpus_file] if model == "bundle_folder" else []
    done = invoke("eval", request.getfixturevalue(model), *data, *options)
    assert done.returncode == 2
    assert sentence in done.sentence
