"""`edgechat verify`, `info` and `doctor`."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from edgechat import __version__
from edgechat.cli.describe import describe_fp32_comparison
from edgechat.runtime.bundle import read_bundle, write_bundle
from edgechat.runtime.closed_set import encode_replies


def resealed(bundle: Path, out: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """A copy of a bundle with other files or manifest values, and correct hashes."""
    checked = read_bundle(bundle)
    manifest = dataclasses.replace(checked.manifest, **changes)
    write_bundle(out, manifest, checked.files | (files or {}), replace_existing=False)
    return out


def test_verify_repeats_the_golden_vectors(edgechat, bundle_folder):
    done = edgechat("verify", bundle_folder, "--json")
    values = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert values["passed"] is True
    assert values["mismatches"] == 0
    assert values["sources"] == 8
    assert {"bundle", "device", "replies", "near_ties", "worst_difference"} <= values.keys()


def test_verify_shows_a_table(invoke, bundle_folder):
    done = invoke("verify", bundle_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "passed"


def test_verify_fails_where_this_machine_gives_other_replies(invoke, bundle_folder, tmp_path):
    golden = json.loads((bundle_folder / "golden.json").read_bytes())
    for case in golden["cases"]:
        case["greedy"]["tokens"] = [7, *case["greedy"]["tokens"]]
        case["greedy"]["margin"] = 1.0
    bundle = resealed(bundle_folder, tmp_path / "bundle", {"golden.json": json.dumps(golden).encode()})
    done = invoke("verify", bundle)
    assert done.returncode == 1
    assert "FAILED" in done.stdout.splitlines()[-1]
    values = json.loads(invoke("verify", bundle, "--json").stdout)
    assert (values["passed"], values["mismatches"]) == (False, 8)


def test_verify_fails_where_log_probabilities_differ(invoke, bundle_folder, tmp_path):
    golden = json.loads((bundle_folder / "golden.json").read_bytes())
    golden["cases"][0]["candidates"]["logp"][0] -= 0.06
    bundle = resealed(bundle_folder, tmp_path / "bundle", {"golden.json": json.dumps(golden).encode()})
    assert invoke("verify", bundle).returncode == 1


@pytest.mark.parametrize("command", ["verify", "bench"])
@pytest.mark.parametrize(
    "golden", [b"", b"{}", b"[]", b'{"cases": [{}]}', b'{"cases": [{"src": ["a"]}], "max_length": 3}']
)
def test_invalid_golden_vectors_are_reported_in_one_sentence(
    invoke, bundle_folder, tmp_path, command, golden
):
    bundle = resealed(bundle_folder, tmp_path / "bundle", {"golden.json": golden})
    done = invoke(command, bundle)
    assert done.returncode == 1
    assert "golden.json cannot be used" in done.sentence


def test_info_reports_a_calibration_of_an_unknown_kind(invoke, bundle_folder, tmp_path):
    newer = resealed(bundle_folder, tmp_path / "newer", calibration={"kind": "isotonic"})
    done = invoke("info", newer)
    assert re.search("^confidence +of a kind unknown to this version", done.stdout, re.MULTILINE)


def test_info_shows_what_the_manifest_says(invoke, bundle_folder):
    done = invoke("info", bundle_folder)
    manifest = read_bundle(bundle_folder).manifest
    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "precision",
        "fp32",
        "hidden 48",
        "the last checkpoint, step 240",
        "pairs.jsonl",
        *manifest.files,
    ):
        assert shown in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["bundle", str(bundle_folder)]
    sizes = {line.split()[0]: line.split()[1] for line in lines if " bytes " in line}
    assert sizes == {file.name: f"{file.stat().st_size:,}" for file in bundle_folder.iterdir()}


def test_info_names_the_pairs_that_a_perplexity_is_measured_on(invoke, bundle_folder, tmp_path):
    beside = {"pairs": 16, "agreement": 0.99, "perplexity": 1.25, "fp32_perplexity": 1.2}
    notes = {"valid_pairs": 1, "valid_perplexity": 2.5, "against_fp32": beside}
    bundle = resealed(bundle_folder, tmp_path / "bundle", quality=notes, proof={"replies": 1})
    lines = invoke("info", bundle).stdout.splitlines()
    assert "held-out perplexity  2.5 on 1 pair" in lines
    shown = "99.0% of tokens agree, perplexity 1.25 instead of 1.2 on 16 pairs, 15 of them training pairs"
    assert f"compared with fp32   {shown}" in lines
    assert "proof                1 reply, log-probabilities within None" in lines


def test_info_says_if_nothing_was_held_out(invoke, bundle_folder, tmp_path):
    bundle = resealed(
        bundle_folder, tmp_path / "bundle", quality={"valid_pairs": 0, "valid_perplexity": None}
    )
    assert "held-out perplexity  nothing was held out" in invoke("info", bundle).stdout.splitlines()


def test_info_says_that_a_perplexity_is_infinite(invoke, bundle_folder, tmp_path):
    bundle = resealed(
        bundle_folder, tmp_path / "bundle", quality={"valid_pairs": 7, "valid_perplexity": math.inf}
    )
    assert "held-out perplexity  infinite on 7 pairs" in invoke("info", bundle).stdout.splitlines()


@pytest.mark.parametrize(("replies", "said"), [(["yes"], "1 reply"), (["yes", "no", "no"], "2 replies")])
def test_info_says_how_many_replies_a_closed_set_has(invoke, bundle_folder, tmp_path, replies, said):
    bundle = resealed(bundle_folder, tmp_path / "bundle", {"replies.json": encode_replies(replies)})
    shown = invoke("info", bundle).stdout
    assert f"closed set           {said}, in replies.json; nothing else is replied\n" in shown


def test_info_as_json_is_the_manifest_and_the_signature(edgechat, bundle_folder):
    done = edgechat("info", bundle_folder, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    sealed = json.loads((bundle_folder / "edgechat.json").read_bytes())
    sealed.pop("sha256")
    assert json.loads(done.stdout) == sealed | {"signature": None}


def test_info_shows_a_bundle_with_unexpected_types_in_its_notes_for_people(invoke, bundle_folder, tmp_path):
    notes = {"steps": "many", "data": ["a\x1b[2Jb\nreply  100"]}
    bundle = resealed(bundle_folder, tmp_path / "bundle", provenance=notes, proof={}, quality={})
    done = invoke("info", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert "many steps" in done.stdout
    assert "\x1b" not in done.stdout
    assert not any(line.startswith("reply  100") for line in done.stdout.splitlines())
    assert invoke("info", bundle, "--json").returncode == 0


def test_doctor_says_what_is_installed_and_whether_cuda_can_be_used(edgechat):
    done = edgechat("doctor", "--json")
    values = json.loads(done.stdout)
    assert done.stderr == ""
    assert list(values) == [
        "edgechat",
        "python",
        "platform",
        "cpus",
        "packages",
        "providers",
        "cuda",
        "problems",
    ]
    assert values["edgechat"] == __version__
    assert values["packages"]["numpy"] == metadata.version("numpy")
    assert values["cuda"]["reason"]
    assert done.returncode == (1 if values["problems"] else 0)


def test_doctor_shows_a_table(invoke):
    done = invoke("doctor")
    for shown in ("edgechat", "python", "onnxruntime", "device auto", "cuda"):
        assert shown in done.stdout
    assert not re.search(r"onnxruntime\S* +not installed", done.stdout)


@pytest.mark.parametrize("left", [None, "", "raise ImportError('libonnxruntime.so.1 is not there')"])
def test_a_partly_installed_onnxruntime_is_reported_with_the_remedy(tmp_path, left):
    """The remains of one of its two packages after the other was uninstalled."""
    (tmp_path / "onnxruntime").mkdir()
    if left is not None:
        (tmp_path / "onnxruntime" / "__init__.py").write_text(left)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgechat.cli import main; main()"
    if left is None:  # a folder without __init__.py would lose against the real package
        code = "import sys; sys.modules['onnxruntime'] = None; from edgechat.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("edgechat: onnxruntime is missing or only partly installed")


def test_verify_repeats_the_proof_against_the_run(invoke, run_folder, bundle_folder, tmp_path):
    done = invoke("verify", bundle_folder, "--against", run_folder, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert found["against"]["replies"] > 0
    assert f"against {run_folder}" in invoke("verify", bundle_folder, "--against", run_folder).stdout
    exported = invoke("export", run_folder, "--out", tmp_path / "int8", "--beyond-limits")
    [costs] = re.findall("int8 compared with fp32: (.*)", exported.stderr)
    shown = invoke("verify", tmp_path / "int8", "--against", run_folder).stdout
    exceeds = "--beyond-limits" in exported.stderr
    forced = "; exceeds its limits, written with --beyond-limits" if exceeds else ""
    assert re.search(rf"^compared with fp32 +{re.escape(costs + forced)}$", shown, re.MULTILINE)
    missing = invoke("verify", bundle_folder, "--against", tmp_path / "none")
    assert missing.returncode == 2
    assert "there is no run" in missing.stderr


def test_two_infinite_perplexities_are_the_same():
    quality = {"agreement": 1.0, "mean_logp": 0.0, "worst_logp": 0.0}
    perplexities = {"perplexity": math.inf, "fp32_perplexity": math.inf}
    assert "perplexity +0.00%" in describe_fp32_comparison(quality | perplexities)
