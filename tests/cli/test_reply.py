"""`edgechat reply`, and what all commands share: streams, exit codes, help and completion."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import limits
import pytest
import typer

from edgechat import __version__
from edgechat.cli import console
from edgechat.cli.app import app
from edgechat.export import calibrate
from edgechat.runtime import bundle as bundle_module

PROMPTS = ["hello", "good morning", "你好吗", "שלום", "do you like tea", "turn left twice", "never seen"]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def test_a_reply_is_one_line_on_stdout_and_nothing_else_is_said(edgechat, bundle_folder):
    done = edgechat("reply", bundle_folder, "turn left twice", "do you like tea")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "LEFT LEFT\nyes, green tea 🍵\n"


def test_each_line_of_stdin_gets_one_line_in_order_even_an_empty_one(edgechat, bundle_folder):
    done = edgechat("reply", bundle_folder, stdin="hello\n\njump\r\n\nturn right twice")
    lines = done.stdout.split("\n")
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 6)
    assert (lines[0], lines[2], lines[4], lines[5]) == ("hi there", "JUMP", "RIGHT RIGHT", "")
    assert lines[1] == lines[3]


def test_a_byte_order_mark_is_not_part_of_the_first_prompt(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "--json", stdin="\ufeffhello\n\ufeffhello\n")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["hello", "\ufeffhello"]


def test_an_empty_bundle_name_does_not_mean_the_current_folder(invoke, bundle_folder, monkeypatch):
    monkeypatch.chdir(bundle_folder)
    done = invoke("reply", "", "hello")
    assert done.returncode == 2
    assert done.sentence.startswith("there is no bundle '': give")


def test_an_empty_stdin_gets_no_reply(invoke, bundle_folder):
    done = invoke("reply", bundle_folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_reply_on_a_terminal_explains_its_input(bundle_folder):
    ours, theirs = os.openpty()
    os.write(ours, b"turn left twice\n\x04")
    command = [sys.executable, "-m", "edgechat", "reply", str(bundle_folder)]
    done = subprocess.run(
        command, stdin=theirs, capture_output=True, text=True, timeout=limits.TIMEOUT_SECONDS, check=True
    )
    os.close(ours)
    os.close(theirs)
    assert done.stdout == "LEFT LEFT\n"
    assert done.stderr == "type one prompt per line; Ctrl-D ends\n"


def test_an_empty_prompt_gets_a_reply(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_invalid_utf8_on_stdin_is_replied_to(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, stdin=b"\xff\xfe\x00\nhello\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[1] == "hi there"


def test_json_is_an_object_a_line_with_exactly_the_documented_keys(edgechat, bundle_folder):
    done = edgechat("reply", bundle_folder, "--json", "--n-best", 3, "hello", "jump")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["prompt"] for row in rows] == ["hello", "jump"]
    for row in rows:
        assert list(row) == [
            "prompt", "reply", "score", "tokens", "candidates", "confidence", "finished", "truncated", "ms"
        ]  # fmt: skip
        assert 1 < len(row["candidates"]) <= 3
        for candidate in row["candidates"]:
            assert list(candidate) == ["reply", "score", "logp", "tokens"]
            assert "".join(candidate["tokens"]) == candidate["reply"]
        best = row["candidates"][0]
        assert {key: row[key] for key in ("reply", "score", "tokens")} == {
            key: best[key] for key in ("reply", "score", "tokens")
        }
        assert row["ms"] > 0
        assert row["truncated"] is False


def test_n_best_prints_distinct_replies_with_falling_scores(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "--n-best", 4, "hello")
    scores, texts = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert texts[0] == "hi there"
    assert len(set(texts)) == len(texts) > 1
    assert sorted(map(float, scores), reverse=True) == list(map(float, scores))


def test_a_stream_prints_what_the_same_command_prints_without_it(invoke, bundle_folder):
    whole = invoke("reply", bundle_folder, *PROMPTS)
    streamed = invoke("reply", bundle_folder, "--stream", *PROMPTS)
    assert whole.stdout.count("\n") == len(PROMPTS)
    assert streamed == whole


def test_decoding_options_reach_the_search(invoke, bundle_folder):
    def length(*options: object) -> int:
        done = invoke("reply", bundle_folder, "--json", *options, "good morning")
        return len(json.loads(done.stdout)["tokens"])

    assert length("--max-length", 3) <= 3
    assert length("--min-length", 12) >= 12
    none = invoke("reply", bundle_folder, "--json", "--normalize", "none", "never seen")
    best = json.loads(none.stdout)["candidates"][0]
    assert best["score"] == best["logp"]


def test_options_constrain_the_text_of_a_reply(invoke, bundle_folder):
    def said(*options: object) -> str:
        return invoke("reply", bundle_folder, *options, "do you like tea").stdout

    assert said() == "yes, green tea 🍵\n"
    assert said("--prefix", "no").startswith("no")
    assert "green" not in said("--banned", "green", "--banned", "🍵")
    assert said("--no-copy-ngram", 1, "--banned", "tea") != said()
    assert "my" in said("--required", "my", "--required", "tea")
    assert said("--beam", 6, "--groups", 3, "--diversity", 1, "--n-best", 3).count("\n") == 3
    assert "tea" in said("--no-repeat-ngram", 2, "--repetition-penalty", 1.1, "--coverage-penalty", 0.1)


@pytest.fixture(scope="module")
def sure_bundle(tmp_path_factory, invoke, run_folder) -> Path:
    """A bundle with a closed set, calibrated on fewer pairs than an export would accept."""
    folder = tmp_path_factory.mktemp("sure")
    replies = ["LEFT LEFT", "RIGHT RIGHT", "JUMP", "hi there"]
    (folder / "replies.json").write_text(json.dumps(replies))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "MIN_PAIRS", 1)
        out = folder / "bundle"
        options = ["--checkpoint", "last", "--replies", folder / "replies.json"]
        done = invoke("export", run_folder, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert "confidence calibrated on 2 held-out pairs" in done.stderr
    [right] = re.findall(r"held-out pairs, ([0-9.]+)% answered word for word", done.stderr)
    assert ("hint: hardly any reply equals the held-out one" in done.stderr) is (float(right) < 2)
    return out


def test_a_bundle_with_a_closed_set_replies_with_its_members(invoke, sure_bundle):
    done = invoke("reply", sure_bundle, "jump", "hello", "tell me a joke")
    said = done.stdout.splitlines()
    assert said[:2] == ["JUMP", "hi there"]
    assert said[2] in {"LEFT LEFT", "RIGHT RIGHT", "JUMP", "hi there"}


def test_a_reply_of_low_confidence_is_an_empty_line(invoke, sure_bundle):
    prompts = ["jump", "tell me a joke"]
    rows = [
        json.loads(line)
        for line in invoke("reply", sure_bundle, "--json", "--abstain-below", 0, *prompts).stdout.splitlines()
    ]
    sure, unsure = (row["confidence"] for row in rows)
    assert 0 <= unsure < sure <= 1
    assert not any(row["abstained"] for row in rows)
    least = (sure + unsure) / 2
    assert invoke("reply", sure_bundle, "--abstain-below", least, *prompts).stdout == "JUMP\n\n"
    done = invoke("reply", sure_bundle, "--json", "--abstain-below", least, *prompts)
    kept, abstained = map(json.loads, done.stdout.splitlines())
    assert (kept["reply"], kept["abstained"], kept["confidence"]) == ("JUMP", False, sure)
    assert (abstained["reply"], abstained["abstained"], abstained["confidence"]) == ("", True, unsure)
    assert abstained["candidates"][0]["reply"]


def test_json_has_the_confidence_without_abstain_below(invoke, sure_bundle, bundle_folder):
    def confidence(bundle, *options):
        given = json.loads(invoke("reply", bundle, "--json", *options, "jump").stdout)
        assert "abstained" not in given
        return given["confidence"]

    assert 0 < confidence(sure_bundle) < 1
    assert confidence(sure_bundle, "--n-best", 2) == confidence(sure_bundle)
    assert confidence(sure_bundle, "--normalize", "none") is None
    assert confidence(bundle_folder) is None


def test_abstain_below_goes_with_the_bundles_own_options(invoke, sure_bundle):
    own = ["--length-penalty", 0.6, "--replies", sure_bundle / "replies.json"]
    done = invoke("reply", sure_bundle, "--abstain-below", 0, *own, "jump")
    assert (done.returncode, done.stdout) == (0, "JUMP\n")


@pytest.mark.parametrize(
    "options",
    [["--stream"], ["--n-best", 2], ["--normalize", "none"], ["--sample"], ["--coverage-penalty", 1]],
    ids=str,
)
def test_abstain_below_without_a_confidence_is_refused(invoke, sure_bundle, options):
    done = invoke("reply", sure_bundle, "--abstain-below", 0.5, *options, "jump")
    assert done.returncode == 2
    assert "--abstain-below" in done.sentence


def test_abstain_below_needs_a_calibrated_bundle(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "--abstain-below", 0.5, "jump")
    assert done.returncode == 2
    assert "--abstain-below needs a calibrated bundle" in done.sentence
    done = invoke("reply", bundle_folder, "--ensemble", bundle_folder, "--abstain-below", 0.5, "hello")
    assert done.returncode == 2
    assert "--abstain-below cannot be used with --ensemble" in done.sentence


def test_a_closed_set_can_be_given_at_run_time(invoke, bundle_folder, tmp_path):
    (tmp_path / "replies.txt").write_text("JUMP\nhi there\n")
    done = invoke("reply", bundle_folder, "--replies", tmp_path / "replies.txt", "jump", "hello")
    assert done.stdout == "JUMP\nhi there\n"
    done = invoke("reply", bundle_folder, "--replies", tmp_path / "nowhere", "jump")
    assert (done.returncode, done.sentence) == (2, f"there is no file {tmp_path / 'nowhere'}")


def test_the_same_seed_gives_the_same_reply(invoke, bundle_folder):
    def drawn(*options: object) -> str:
        return invoke("reply", bundle_folder, "--sample", "--temperature", 5, *options, "hello").stdout

    assert drawn("--seed", 3) == drawn("--seed", 3)
    assert len({drawn("--seed", seed) for seed in range(5)}) > 1
    assert len(drawn("--seed", 3, "--n-best", 4).splitlines()) > 1
    assert drawn("--top-k", 1, "--top-p", 0.5, "--typical-p", 0.9) == drawn("--top-k", 1)


@pytest.mark.parametrize("options", [[], ["--stream"], ["--json"]], ids=str)
def test_trace_writes_json_and_keeps_the_usual_output(invoke, bundle_folder, tmp_path, options):
    path = tmp_path / "trace.json"
    path.write_text('{"format": 1, "replies": []}')
    prompts = ["hello", "do you like tea"]
    done = invoke("reply", bundle_folder, "--trace", path, *options, *prompts)
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" not in options:
        assert done.stdout == invoke("reply", bundle_folder, *options, *prompts).stdout
    values = json.loads(path.read_text(encoding="utf-8"))
    assert list(values) == ["format", "replies"]
    assert [(r["prompt"], r["reply"]) for r in values["replies"]] == [
        ("hello", "hi there"),
        ("do you like tea", "yes, green tea 🍵"),
    ]
    assert list(values["replies"][0]) == ["prompt", "reply", "source", "steps"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_trace_in_a_missing_folder_is_refused_before_the_work(invoke, bundle_folder, tmp_path):
    done = invoke("reply", bundle_folder, "--trace", tmp_path / "nowhere" / "trace.json", "hello")
    assert done.returncode == 2
    assert "there is no folder" in done.sentence
    done = invoke("reply", bundle_folder, "--trace", tmp_path, "hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.sentence == f"--trace is {tmp_path}, which is a folder: name a file in it"


def test_a_link_or_a_device_is_never_replaced_by_a_trace(invoke, bundle_folder, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("empty")  # as /dev/stdout is, where it was redirected to a new file
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        done = invoke("reply", bundle_folder, "--trace", tmp_path / name, "hello")
        assert (done.returncode, done.stdout) == (2, "")
        assert "is a link or a device" in done.sentence
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()


def test_a_reply_that_was_cut_off_is_reported(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "--max-length", "1", "hello")
    assert done.stderr == "a reply was cut off after 1 token\n"
    done = invoke("reply", bundle_folder, "--max-length", "1", "--json", "hello")
    assert json.loads(done.stdout)["finished"] is False
    done = invoke("reply", bundle_folder, "--json", "hello")
    assert json.loads(done.stdout)["finished"] is True
    assert done.stderr == ""


def test_only_a_trace_is_replaced_by_a_trace(invoke, bundle_folder, tmp_path):
    path = tmp_path / "golden.json"
    shutil.copy(bundle_folder / "golden.json", path)
    done = invoke("reply", bundle_folder, "--trace", path, "hello")
    assert done.returncode == 2
    assert done.sentence == f"--trace is {path}, which exists and is not a trace: choose another file"
    assert path.read_bytes() == (bundle_folder / "golden.json").read_bytes()
    path.write_bytes(b"")  # as mktemp creates it
    assert invoke("reply", bundle_folder, "--trace", path, "hello").returncode == 0


def test_an_ensemble_averages_its_bundles(invoke, bundle_folder, tmp_path):
    done = invoke("reply", bundle_folder, "--ensemble", bundle_folder, "--ensemble", bundle_folder, "hello")
    assert (done.returncode, done.stdout) == (0, "hi there\n")
    done = invoke("reply", bundle_folder, "--ensemble", tmp_path / "nowhere", "hello")
    assert (done.returncode, "there is no bundle" in done.sentence) == (2, True)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--temperature", "2"], "--temperature needs --sample, which is off"),
        (["--n-best", "3", "--beam", "2"], "--n-best is 3, more than --beam, which is 2: raise --beam"),
        (
            ["--normalize", "none", "--length-penalty", "1"],
            "--length-penalty needs --normalize gnmt, not none",
        ),
        (["--replies", "nowhere.txt"], "there is no file nowhere.txt"),
    ],
)
def test_an_error_names_options_as_they_are_typed(invoke, bundle_folder, given, sentence):
    done = invoke("reply", bundle_folder, "hello", *given)
    assert (done.returncode, done.stdout, done.sentence) == (2, "", sentence)


def test_alignments_have_a_row_of_weights_per_token(invoke, bundle_folder):
    done = invoke("reply", bundle_folder, "--json", "--alignments", "hello")
    (candidate,) = json.loads(done.stdout)["candidates"]
    assert list(candidate) == ["reply", "score", "logp", "tokens", "alignments"]
    assert (
        len(candidate["alignments"]) == len(candidate["tokens"]) + 1
    )  # the end-of-sentence token has attention weights too
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in candidate["alignments"])
    source = json.loads(done.stdout)["source"]
    assert "".join(source).strip() == "hello"
    assert {len(row) for row in candidate["alignments"]} == {len(source)}


@pytest.mark.parametrize(
    "options",
    [
        ["--beam", "0"],
        ["--beam", "100000000000000000000"],
        ["--n-best", "0"],
        ["--n-best", "6"],
        ["--max-length", "0"],
        ["--min-length", "-1"],
        ["--min-length", "5", "--max-length", "5"],
        ["--min-length", "9999"],
        ["--length-penalty", "nan"],
        ["--length-penalty", "-1"],
        ["--normalize", "none", "--length-penalty", "1"],
        ["--repetition-penalty", "0.5"],
        ["--coverage-penalty", "-1"],
        ["--no-repeat-ngram", "0"],
        ["--no-copy-ngram", "-1"],
        ["--prefix", ""],
        ["--prefix", "tea", "--banned", "e"],
        ["--banned", ""],
        ["--alignments"],
        ["--groups", "2"],
        ["--diversity", "1"],
        ["--required", ""],
        ["--temperature", "2"],
        ["--temperature", "0", "--sample"],
        ["--top-p", "1.5", "--sample"],
        ["--sample", "--stop", "first"],
        ["--stream", "--json"],
        ["--stream", "--n-best", "2"],
    ],
    ids=" ".join,
)
def test_invalid_options_are_refused_in_one_sentence(invoke, bundle_folder, options):
    done = invoke("reply", bundle_folder, "hello", *options)
    assert done.returncode == 2
    assert options[0].strip("-").replace("-", "_") in done.sentence.replace("-", "_")


def test_a_missing_device_is_refused_and_not_replaced_by_another(invoke, bundle_folder):
    from edgechat.runtime.device import check_cuda

    if check_cuda().usable:
        pytest.skip("CUDA can be used here")
    done = invoke("reply", bundle_folder, "hello", "--device", "cuda")
    assert done.returncode == 1
    assert "device cuda cannot be used" in done.sentence


@pytest.fixture(scope="module")
def shouting_bundle(tmp_path_factory: pytest.TempPathFactory, invoke) -> Path:
    """A bundle that has learned to reply with control characters."""
    folder = tmp_path_factory.mktemp("shouting")
    pair = {"response": "\x1b[2Jred\x9b31m\x07\u2028and\r\nso\ton"}
    lines = [json.dumps({"prompt": f"say {i}", **pair}) + "\n" for i in range(8)]
    (folder / "pairs.jsonl").write_text("".join(lines))
    sizes = ["--hidden", 48, "--embedding", 16, "--attention", 16, "--vocab-size", 300, "--dropout", 0]
    plan = ["--epochs", 60, "--batch-size", 2, "--learning-rate", 0.01, "--threads", 1, "--device", "cpu"]
    done = invoke("train", folder / "pairs.jsonl", "--out", folder / "run", *sizes, *plan)
    assert done.returncode == 0, done.stderr
    done = invoke("export", folder / "run", "--out", folder / "bundle", "--checkpoint", "last")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


@pytest.mark.parametrize("options", [[], ["--stream"], ["--n-best", "2"], ["--json"]], ids=" ".join)
def test_control_characters_of_prompt_and_reply_never_reach_stdout_raw(invoke, shouting_bundle, options):
    done = invoke("reply", shouting_bundle, *options, "say 3", "say\x1b]0;x\x07\x9b\x7f")
    assert done.returncode == 0
    assert "red" in done.stdout
    assert not CONTROL.search(done.stdout.replace("\t", ""))
    if "--n-best" not in options:
        assert len(done.stdout.splitlines()) == 2  # splits at U+2028 and U+0085 too
    if options == ["--json"]:
        row = json.loads(done.stdout.splitlines()[0])
        assert row["reply"] == "\x1b[2Jred\x9b31m\x07\u2028and\r\nso\ton"


def test_a_streamed_reply_with_line_breaks_is_the_line_that_is_printed_without_streaming(
    invoke, shouting_bundle
):
    whole = invoke("reply", shouting_bundle, "say 5")
    assert whole == invoke("reply", shouting_bundle, "--stream", "say 5")
    assert whole.stdout == "␛[2Jred\ufffd31m␇ and  so\ton\n"


def test_bidirectional_controls_are_shown_on_a_terminal_and_kept_in_a_pipe(capsys, monkeypatch):
    console.print_stdout("a\u202eb")
    console.print_stdout("\u2067c", end="")
    assert capsys.readouterr().out == "a\u202eb\n\u2067c"
    console.print_json({"reply": "a\u202eb"})
    assert json.loads(line := capsys.readouterr().out) == {"reply": "a\u202eb"}
    assert line.isascii()
    console.print_stderr("a\u202eb")
    assert capsys.readouterr().err == "a\ufffdb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.print_stdout("a\u202eb")
    console.print_stdout("\u2067c", end="")
    assert capsys.readouterr().out == "a\ufffdb\n\ufffdc"


def test_bidirectional_controls_in_a_table_are_shown_even_in_a_pipe(capsys):
    console.print_table([("data", "a\u202eb\x1b[2J"), ("\u2067precision", 1)])
    assert capsys.readouterr().out == "data        a\ufffdb␛[2J\n\ufffdprecision  1\n"


def test_numbers_that_json_lacks_become_null(capsys):
    console.print_json({"a": float("inf"), "b": [float("nan")], "c": {"d": -float("inf")}, "e": 1.5})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None], "c": {"d": None}, "e": 1.5}


def test_half_a_surrogate_pair_in_a_prompt_is_escaped_in_json(capsys):
    console.print_json({"prompt": "a\udcffb"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"prompt": "a\udcffb"}


def test_output_is_utf8_whatever_the_locale_says(bundle_folder):
    done = subprocess.run(
        [sys.executable, "-m", "edgechat", "reply", str(bundle_folder), "do you like tea", b"\xff"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("utf-8").splitlines()[0] == "yes, green tea 🍵"


def test_a_pipe_that_closes_early_is_not_an_error(bundle_folder):
    with subprocess.Popen(
        [sys.executable, "-m", "edgechat", "reply", str(bundle_folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"hello\n" * 300)
        process.stdin.close()
        assert process.stdout.readline() == b"hi there\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(limits.TIMEOUT_SECONDS)) == (b"", 0)


def test_a_closed_stdin_is_reported(bundle_folder):
    done = subprocess.run(
        [sys.executable, "-c", f"""
import os, sys
os.close(0)
os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "edgechat", "reply", {str(bundle_folder)!r}])
"""],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgechat: there is no TEXT")


def test_a_missing_demo_bundle_is_reported_with_the_remedy(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_module, "package_files", lambda package: tmp_path / "package")
    done = invoke("reply", "demo", "hello")
    assert done.returncode == 2
    assert "no demo bundle" in done.sentence
    assert "make demo" in done.sentence


def test_demo_is_the_one_in_the_package_unless_a_bundle_has_that_name(
    invoke, tmp_path, monkeypatch, bundle_folder
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_module, "package_files", lambda package: tmp_path / "package")
    shutil.copytree(bundle_folder, tmp_path / "package" / "demo")
    assert invoke("reply", "demo", "hello").stdout == "hi there\n"
    (tmp_path / "demo").mkdir()
    assert invoke("reply", "demo", "hello").stdout == "hi there\n"
    (tmp_path / "demo" / "edgechat.json").write_text("{}")
    done = invoke("reply", "demo", "hello")
    assert (done.returncode, "demo" in done.sentence) == (1, True)


def test_the_demo_is_looked_for_among_the_package_data():
    assert bundle_module.package_files("edgechat.models") == files("edgechat.models")


def test_a_chat_without_a_terminal_is_refused(edgechat, bundle_folder):
    done = edgechat("tui", bundle_folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "edgechat: the chat needs a terminal: for pipes and files, use edgechat chat or edgechat reply\n"
    )


def test_no_arguments_print_the_help_and_are_wrong_use(edgechat):
    done = edgechat()
    assert done.returncode == 2
    assert "edgechat train data.jsonl --out runs/mine" in done.stdout + done.stderr


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_every_command_has_help_that_names_its_arguments_and_options(invoke, command):
    done = invoke(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    [usage] = re.findall(f"Usage: edgechat {command} (.*)", done.stdout)
    assert usage == usage.upper()
    assert command in ("tui", "chat") or "--json" in done.stdout


def test_the_version_goes_to_stdout(edgechat):
    done = edgechat("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"edgechat {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["nonsense"], ["reply"], ["reply", "x", "--beam", "y"]]
)
def test_arguments_that_are_unknown_missing_or_of_the_wrong_kind_are_wrong_use(invoke, arguments):
    done = invoke(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_completion_script_of_a_shell_is_shown(shell):
    done = _python(["--show-completion", shell], _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "_EDGECHAT_COMPLETE" in done.stdout


def test_completion_knows_the_commands():
    done = _python([], _EDGECHAT_COMPLETE="complete_bash", COMP_WORDS="edgechat e", COMP_CWORD="1")
    assert sorted(done.stdout.split()) == ["eval", "export"]


def _python(arguments: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edgechat", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_run_in_place_of_a_bundle_is_recognized(invoke, run_folder):
    done = invoke("reply", run_folder, "hello")
    assert done.returncode == 2
    assert f"{run_folder} is a run, not a bundle: export it with edgechat export" in done.sentence
