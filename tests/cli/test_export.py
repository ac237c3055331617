"""`edgechat export`: from a run to a sealed and proved bundle, without overwriting anything."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgechat.export import exporter, quality
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import read_bundle
from edgechat.runtime.errors import CheckpointError
from edgechat.train.run import open_run


@pytest.fixture(scope="module")
def exported(edgechat, run_folder, tmp_path_factory):
    """An export in a process of its own: the process, and the bundle."""
    out = tmp_path_factory.mktemp("exported") / "deep" / "bundle"
    options = ["--beam", 3, "--normalize", "average", "--data-licence", "CC0"]
    return edgechat("export", run_folder, "--out", out, "--json", *options), out


def test_export_prints_the_proof_to_stderr_and_json_to_stdout(exported):
    done, out = exported
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert list(values) == ["bundle", "size", "seconds", "proof", "quality"]
    assert values["bundle"] == str(out)
    assert values["size"] == sum(path.stat().st_size for path in out.iterdir())
    assert values["proof"]["replies"] > 0
    assert "proved: " in done.stderr
    assert "next: edgechat reply" in done.stderr


def test_replies_that_differ_at_near_ties_are_not_called_the_same(invoke, run_folder, tmp_path, monkeypatch):
    proof = {"replies": 384, "near_ties": 5, "worst_logp": 1e-5, "steps": 100}
    proof |= {"pairs": 64, "worst_state": 1e-5, "worst_align": 1e-5, "beams": [1], "batch_sizes": [1, 7]}
    monkeypatch.setattr(exporter, "prove_graphs", lambda *_, **__: proof)
    done = invoke("export", run_folder, "--out", tmp_path / "bundle", "--precision", "fp32")
    assert "proved: 379 replies are the same token by token (5 near ties), " in done.stderr


@pytest.mark.parametrize(
    ("a", "said"),
    [
        (0.9, "calibration error 0.152 before, 0.148 after\n"),
        (1.0, "calibration error 0.148, which fitting does not lower: probabilities are kept\n"),
    ],
)
def test_export_reports_the_calibration_error(invoke, run_folder, tmp_path, monkeypatch, a, said):
    fitted = {
        "kind": "platt",
        "a": a,
        "b": 0.0,
        "pairs": 40,
        "right": 0.225,
        "ece_before": 0.152,
        "ece": 0.148,
    }
    monkeypatch.setattr(exporter, "calibrate", lambda *_: fitted)
    done = invoke("export", run_folder, "--out", tmp_path / "bundle", "--precision", "fp32")
    right = "22.5% answered word for word"
    assert f"confidence calibrated on 40 held-out pairs, {right}: {said}" in done.stderr


def test_export_hints_where_a_closed_set_does_not_fit_the_data(invoke, run_folder, tmp_path):
    replies, out = tmp_path / "replies.txt", tmp_path / "bundle"
    replies.write_text("hi there\nHi there\nJUMP\n")
    options = ["--replies", replies, "--precision", "fp32", "--checkpoint", "last"]
    done = invoke("export", run_folder, "--out", out, "--json", *options)
    held_out = [json.loads(line) for line in (run_folder / "valid.jsonl").read_text().splitlines()]
    outside = sum(pair["response"] not in ("hi there", "Hi there", "JUMP") for pair in held_out)
    fit = json.loads(done.stdout)["quality"]["closed_set"]
    assert (fit["replies"], fit["held_out"], fit["held_out_outside"]) == (3, len(held_out), outside)
    assert (fit["never_learned"], fit["alike"]) == (1, 1)
    assert read_bundle(out).manifest.quality["closed_set"] == fit
    assert "hint: 1 of 3 replies of the closed set is not a response in the training data" in done.stderr
    assert "hint: 1 reply of the closed set differs from another only in white space or case\n" in done.stderr
    assert "closed set: 3 replies" in (out / "MODEL_CARD.md").read_text()


def test_decoding_options_and_license_of_an_export_are_in_the_bundle(exported):
    manifest = read_bundle(exported[1]).manifest
    assert (manifest.decoding.beam, manifest.decoding.normalize) == (3, "average")
    assert manifest.provenance["data_licence"] == "CC0"


def test_a_bundle_does_not_contain_paths_of_the_machine_that_made_it(exported, run_folder):
    for path in exported[1].iterdir():
        content = path.read_bytes()
        assert str(run_folder.parent).encode() not in content
        assert str(Path.home()).encode() + b"/" not in content


@pytest.fixture(params=[1, 2])
def torch_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_two_exports_of_a_checkpoint_are_the_same_bytes(
    invoke, run_folder, bundle_folder, tmp_path, tree, torch_threads
):
    done = invoke(
        "export", run_folder, "--out", tmp_path / "bundle", "--checkpoint", "last", "--precision", "fp32"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert tree(tmp_path / "bundle") == tree(bundle_folder)
    assert torch.get_num_threads() == torch_threads


def test_an_existing_bundle_is_never_overwritten(invoke, run_folder, bundle_folder, tmp_path, tree):
    before = tree(bundle_folder)
    done = invoke("export", run_folder, "--out", bundle_folder)
    assert done.returncode == 2
    assert "exists" in done.sentence
    assert tree(bundle_folder) == before


def test_force_does_not_replace_what_is_not_a_bundle(invoke, run_folder, tmp_path, tree):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("the only copy")
    (tmp_path / "file").write_text("the only copy")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for name in ("folder", "file", "link"):
        for force in ([], ["--force"]):
            done = invoke("export", run_folder, "--out", tmp_path / name, *force)
            assert done.returncode == 2
            assert f"{name} is not a bundle" in done.sentence
    assert tree(tmp_path) == before


def test_force_replaces_a_bundle(invoke, run_folder, bundle_folder, tmp_path):
    out = tmp_path / "bundle"
    shutil.copytree(bundle_folder, out)
    done = invoke(
        "export", run_folder, "--out", out, "--force", "--beyond-limits", "--beam", 2, "--checkpoint", "last"
    )
    assert done.returncode == 0, done.stderr
    assert read_bundle(out).manifest.decoding.beam == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.report.json"]


def test_something_else_than_a_run_or_a_run_without_checkpoint_is_refused(invoke, run_folder, tmp_path):
    out = tmp_path / "bundle"
    demo = Path(__file__).parents[2] / "models" / "demo"
    (tmp_path / "empty").mkdir()
    shutil.copytree(run_folder, tmp_path / "young")
    shutil.rmtree(tmp_path / "young" / "checkpoints")
    for name, code, said in (
        ("nowhere", 2, "there is no run"),
        ("empty", 2, "is not a run"),
        ("young", 1, "has no checkpoint yet"),
        (demo, 2, "is not a run (it looks like a bundle): it has no run.json"),
    ):
        done = invoke("export", tmp_path / name, "--out", out)
        assert done.returncode == code
        assert said in done.sentence
    assert not out.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused(invoke, run_folder, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    for path in run.glob(f"checkpoints/*/{name}"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
    done = invoke("export", run, "--out", tmp_path / "bundle")
    assert done.returncode == 1
    assert name in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["run.json", "tokenizer.json", "corpus/train.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff\x00"])
def test_a_run_with_a_damaged_or_missing_file_is_refused(invoke, run_folder, tmp_path, name, content):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    done = invoke("export", run, "--out", tmp_path / "bundle")
    is_none = content is None and name == "run.json"  # wrong use
    assert (done.returncode, done.stdout) == (2 if is_none else 1, "")
    assert done.stderr.splitlines()[-1].startswith("edgechat: ")
    assert Path(name).name in done.stderr
    assert not (tmp_path / "bundle").exists()


RUN_FILES = ["tokenizer.json", "corpus/train.safetensors", "corpus/valid.safetensors", "valid.jsonl"]


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_changed_file_of_a_run_is_reported_wherever_it_is_read(run_folder, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    raw = bytearray((run / name).read_bytes())
    raw[-3] ^= 1
    (run / name).write_bytes(raw)

    def read() -> None:
        opened = open_run(run)
        assert len(opened.train_pairs) and opened.valid_texts()  # noqa: PT018 - both are read

    with pytest.raises(CheckpointError) as caught:
        read()
    assert str(caught.value).startswith(f"{run / name} is damaged or belongs to another run")


@pytest.mark.parametrize("content", [b"", b"[1]\n", b'{"turns": ["a"]}\n', b"\xff"])
def test_damaged_held_out_pairs_whose_hash_matches_are_reported(invoke, run_folder, tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    info = json.loads((run / "run.json").read_text())
    info["files"]["valid.jsonl"] = sha256(content)
    (run / "run.json").write_text(json.dumps(info))
    (run / "valid.jsonl").write_bytes(content)
    done = invoke("eval", run)
    assert done.returncode == 1
    assert f"{run / 'valid.jsonl'} is damaged: " in done.sentence


@pytest.mark.parametrize("content", ["{}", "[]", '{"config": 1}', None])
def test_a_run_json_with_other_contents_is_reported(invoke, run_folder, tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    if content is None:
        content = json.dumps(json.loads((run / "run.json").read_text()) | {"files": []})
    (run / "run.json").write_text(content)
    done = invoke("eval", run)
    assert f"{run / 'run.json'} is damaged: it is not what `edgechat train` wrote" == done.sentence


@pytest.mark.parametrize(
    ("section", "value", "wrong"),
    [
        ("environment", [], "is damaged: it is not what `edgechat train` wrote"),
        ("environment", {}, "is damaged: it is not what `edgechat train` wrote"),
        ("corpus", {"name": 3, "sha256": ""}, ", section corpus: name must be a string, not 3"),
        ("from", {"data": "a", "step": "1", "sha256": ""}, "from: step must be a whole number, not '1'"),
        ("files", {"tokenizer.json": 3}, ", section files: tokenizer.json must be a string, not 3"),
    ],
)
def test_a_value_of_the_wrong_type_in_run_json_is_reported(run_folder, tmp_path, section, value, wrong):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, section: value}))
    with pytest.raises(CheckpointError) as caught:
        open_run(run)
    assert str(caught.value).startswith(str(run / "run.json"))
    assert str(caught.value).endswith(wrong)


def test_a_run_json_with_a_value_that_this_version_does_not_know_is_reported(invoke, run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    info = json.loads((run / "run.json").read_text())
    info["config"]["training"]["optimizer"] = "lion"
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(CheckpointError, match=r"run\.json, section training: optimizer .*lion"):
        open_run(run)
    done = invoke("eval", run)
    assert done.returncode == 1
    assert f"{run / 'run.json'}, section training: optimizer" in done.sentence


def test_export_prints_its_checkpoint_and_the_last_one(invoke, run_folder, tmp_path):
    said = invoke("export", run_folder, "--out", tmp_path / "best").stderr
    assert "taking the best checkpoint, step " in said
    assert "; the last is step " in said


def test_force_replaces_a_bundle_but_does_not_lift_the_quality_limits(
    invoke, run_folder, bundle_folder, tmp_path, tree, monkeypatch
):
    out = tmp_path / "bundle"
    shutil.copytree(bundle_folder, out)
    done = invoke("export", run_folder, "--out", out)
    assert done.sentence == f"{out} exists: choose another --out, or give --force to replace it"
    command = ["export", run_folder, "--out", out, "--checkpoint", "last"]
    assert invoke(*command, "--force", "--precision", "fp32", "--beam", 2).returncode == 0
    assert read_bundle(out).manifest.decoding.beam == 2
    before = tree(out)
    monkeypatch.setitem(quality.LIMITS, "int8", replace(quality.LIMITS["int8"], mean_logp=0.0))
    done = invoke(*command, "--force")
    assert done.returncode == 1
    assert "int8 is not good enough for this model: the mean log-probability error is " in done.stderr
    assert tree(out) == before
    done = invoke(*command, "--force", "--beyond-limits")
    assert done.returncode == 0
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert re.fullmatch(
        r"warning: int8 exceeds its limits \(the mean log-probability error is \S+, but at most 0\.0 is "
        r"allowed\): written because of --beyond-limits, and the bundle records it",
        warning,
    )


def test_a_beam_too_large_for_a_bundle_is_wrong_use(invoke, corpus_file, tmp_path):
    run = tmp_path / "run"
    sizes = ["--hidden", 8, "--vocab-size", 300, "--max-target", 400, "--max-steps", 1, "--layers", 1]
    assert invoke("train", corpus_file, "--out", run, *sizes).returncode == 0
    done = invoke("export", run, "--out", tmp_path / "bundle", "--beam", 501)
    assert done.returncode == 2
    # 501 * 400 = 200,400
    assert done.stderr.splitlines()[-1] == (
        "edgechat: --beam is 501, too large for replies of up to 400 tokens: in a bundle, beam times tokens "
        "may be at most 200,000, not 200,400"
    )
    assert "graphs" not in done.stderr  # it is told before the work
    assert not (tmp_path / "bundle").exists()
