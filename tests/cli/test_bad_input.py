"""Bad input of every kind: one clear sentence, exit code 1 or 2, no traceback, nothing overwritten."""

import ctypes
import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import limits
import pytest
import typer
from typer.testing import CliRunner

from edgechat.cli.errors import CommandGroup
from edgechat.runtime.atomic_write import sha256
from edgechat.runtime.bundle import read_bundle
from edgechat.runtime.errors import BundleError, UsageError

CLOSED_STDOUT = "edgechat: stdout is closed, but the output goes there: redirect it to a file or a pipe\n"
GOOD = b'{"prompt": "hello", "response": "hi there"}\n{"prompt": "bye", "response": "see you"}\n'
ZIPPED = gzip.compress(GOOD * 400, mtime=0)
LONG = json.dumps({"prompt": "word " * 200, "response": "word " * 200}).encode()

CORPORA: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "empty"),
    "empty gz": ("a.jsonl.gz", gzip.compress(b""), "empty"),
    "blank": ("a.jsonl", b"\n\n", "no dialogue"),
    "binary": ("a.jsonl", bytes(range(256)) * 20, "binary"),
    "binary text": ("a.txt", bytes(range(256)) * 20, "binary"),
    "truncated gz": ("a.jsonl.gz", ZIPPED[: len(ZIPPED) // 2], "gzip"),
    "gz without its end": ("a.jsonl.gz", ZIPPED[:-4], "gzip"),
    "no gz at all": ("a.jsonl.gz", GOOD, "gzip"),
    "three columns": ("a.tsv", b"a\tb\tc\nd\te\tf\n", "line 1"),
    "one column": ("a.csv", b"prompt,response\na,b\nc\n", "line 3"),
    "broken quotes": ("a.csv", b'a,b\n"c,d\n', "line 2"),
    "no keys": ("a.jsonl", GOOD + b'{"question": "a", "reply": "b"}\n', "line 3"),
    "no object": ("a.jsonl", GOOD + b'["a", "b"]\n', "line 3"),
    "no JSON": ("a.jsonl", GOOD + b"{'prompt': 'a'}\n", "line 3"),
    "deep JSON": ("a.jsonl", b"[" * 100_000 + b"\n", "line 1"),
    "a number for text": ("a.jsonl", b'{"prompt": 1, "response": "b"}\n', "line 1"),
    "no UTF-8": ("a.jsonl", GOOD + b'{"prompt": "caf\xe9", "response": "b"}\n', "line 3"),
    "no UTF-8 in text": ("a.txt", b"caf\xe9\nb\n", "line 1"),
    "odd lines": ("a.txt", b"prompt\nresponse\nprompt\n", "line 3"),
    "one pair": ("a.jsonl", GOOD.splitlines(True)[0], "one distinct dialogue"),
    "one pair many times": ("a.jsonl", GOOD.splitlines(True)[0] * 50, "one distinct dialogue"),
    "every pair too long": ("a.jsonl", LONG + b"\n" + LONG.replace(b"word", b"wort") + b"\n", "longer than"),
    "unknown ending": ("a.pdf", GOOD, ".jsonl"),
}


@pytest.mark.parametrize("kind", CORPORA)
def test_an_unusable_corpus_is_refused_in_one_sentence(invoke, tree, tmp_path, kind):
    name, content, said = CORPORA[kind]
    (tmp_path / name).write_bytes(content)
    before = tree(tmp_path)
    for options in (["--out", tmp_path / "runs" / "run"], ["--dry-run"]):
        done = invoke("train", tmp_path / name, "--vocab-size", 300, *options)
        assert done.returncode == (2 if kind == "unknown ending" else 1)
        assert said in done.sentence
        assert name in done.sentence or kind == "every pair too long"
        assert len(done.sentence) < 400
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.jsonl.gz", "no-corpus", "chatterbot:klingon"])
def test_a_missing_corpus_is_wrong_use(invoke, tmp_path, name):
    done = invoke("train", name, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert name.split(":")[-1] in done.sentence
    assert not list(tmp_path.iterdir())


def test_a_folder_or_a_pipe_as_a_corpus_is_wrong_use(invoke, tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("folder.jsonl", "pipe.jsonl"):
        done = invoke("train", tmp_path / name, "--out", tmp_path / "run")
        assert done.returncode == 2
        assert name in done.sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["empty", "binary", "truncated gz", "no keys", "three columns"])
def test_unusable_evaluation_or_validation_data_is_refused(
    invoke, bundle_folder, tmp_path, corpus_file, kind
):
    name, content, said = CORPORA[kind]
    (tmp_path / name).write_bytes(content)
    commands = (
        ["eval", bundle_folder, "--data", tmp_path / name],
        ["train", corpus_file, "--out", tmp_path / "run", "--valid", tmp_path / name],
    )
    for command in commands:
        done = invoke(*command)
        assert done.returncode == 1
        assert said in done.sentence
    assert not (tmp_path / "run").exists()


def test_skip_bad_counts_and_skips_bad_lines_in_training(invoke, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"{}\n\xff\n" + GOOD.replace(b"bye", b"later"))
    done = invoke("train", tmp_path / "a.jsonl", "--dry-run", "--skip-bad", "--vocab-size", 300, "--json")
    report = json.loads(done.stdout)["report"]
    assert (done.returncode, report["dialogues"], sum(report["dropped"].values())) == (0, 4, 2)


Damage = Callable[[Path], None]


def _reseal(bundle: Path, **values: object) -> None:
    """Change values of the manifest and seal it again, as an attacker would."""
    path = bundle / "edgechat.json"
    manifest = json.loads(path.read_bytes()) | values | {"sha256": "0" * 64}
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    path.write_text(text.replace("0" * 64, sha256(text.encode())))


def _change_byte(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        raw = bytearray((bundle / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (bundle / name).write_bytes(raw)

    return damage


def _link(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        (bundle / name).rename(bundle.parent / name)
        (bundle / name).symlink_to(bundle.parent / name)

    return damage


def _replace_by_pipe(bundle: Path) -> None:
    (bundle / "golden.json").unlink()
    os.mkfifo(bundle / "golden.json")


FILES = ["edgechat.json", "tokenizer.json", "encoder.onnx", "decoder.onnx", "golden.json", "MODEL_CARD.md"]
BUNDLES: dict[str, tuple[Damage, str]] = {
    **{f"changed byte in {name}": (_change_byte(name), name) for name in FILES},
    **{f"no {name}": (lambda bundle, name=name: (bundle / name).unlink(), name) for name in FILES},
    **{f"link for {name}": (_link(name), "symbolic link") for name in FILES},
    "pipe": (_replace_by_pipe, "golden.json is not a regular file"),
    "cut": (lambda bundle: os.truncate(bundle / "encoder.onnx", 1000), "encoder.onnx"),
    "another file": (lambda bundle: (bundle / "run.sh").write_text("rm"), "'run.sh'"),
    "newer format": (lambda bundle: _reseal(bundle, format="2.0"), "format 2.0"),
    "no format": (lambda bundle: _reseal(bundle, format=None), "format"),
    "no manifest": (
        lambda bundle: (bundle / "edgechat.json").write_text("{"),
        "edgechat.json cannot be read: it is not JSON (Expecting",
    ),
    "wrong values": (lambda bundle: _reseal(bundle, model={"layers": "two"}), "layers"),
    "wrong decoding": (lambda bundle: _reseal(bundle, decoding={"beam": 0}), "beam"),
    "wrong state": (lambda bundle: _reseal(bundle, state=[1]), "state"),
    "other graphs": (lambda bundle: _reseal(bundle, memory=["keys", "values"]), "state map"),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_damaged_changed_or_unknown_bundle_is_refused(invoke, tree, tmp_path, bundle_folder, kind):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder, bundle)
    damage, said = BUNDLES[kind]
    damage(bundle)
    before = tree(bundle)
    commands = [["reply", bundle, "hello"], ["verify", bundle], ["bench", bundle, "--json"]]
    if kind != "other graphs":
        commands.append(["info", bundle])
    for command in commands:
        done = invoke(*command)
        assert done.returncode == 1
        assert said in done.sentence
        assert str(bundle) in done.sentence
    assert tree(bundle) == before


@pytest.mark.parametrize("name", ["nowhere", "", "x" * 5000, "a/" * 50 + "b"])
def test_a_missing_bundle_is_wrong_use(invoke, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for command in ("reply", "verify", "info", "bench"):
        done = invoke(command, name, *(["hello"] if command == "reply" else []))
        assert done.returncode == 2
        assert len(done.sentence) < 400


def test_a_folder_that_is_not_a_bundle_is_wrong_use(invoke, tmp_path):
    for command in ("verify", "info", "bench"):
        done = invoke(command, tmp_path)
        assert done.returncode == 2
        assert f"{tmp_path} is not a bundle: give the folder" in done.sentence
    (tmp_path / "thesis.txt").write_text("the only copy")
    assert "is not a bundle: give the folder" in invoke("reply", tmp_path, "hello").sentence


def test_a_file_that_is_not_a_bundle_is_wrong_use(invoke, bundle_folder):
    done = invoke("reply", bundle_folder / "encoder.onnx", "hello")
    assert done.returncode == 2
    assert "encoder.onnx is not a bundle: give the folder" in done.sentence


MEGABYTES = {
    "letters": "a" * 1_000_000,
    "words": "word " * 200_000,
    "Chinese": "你" * 333_333,
    "combining marks": "\u0301" * 500_000,
    "NULs": "\x00" * 1_000_000,
}


@pytest.mark.parametrize("kind", MEGABYTES)
@pytest.mark.parametrize("options", [[], ["--json"], ["--stream"]], ids=" ".join)
def test_a_megabyte_prompt_is_answered_with_bounded_work(invoke, bundle_folder, kind, options):
    start = time.process_time()
    done = invoke("reply", bundle_folder, *options, stdin=MEGABYTES[kind] + "\nhello\n")
    assert time.process_time() - start < 20
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert re.match("only the end of a prompt was read: it has more than [0-9]+ tokens", done.stderr)
    first, last = done.stdout.splitlines()[:2]
    assert options != ["--json"] or json.loads(first)["truncated"] is True
    assert (json.loads(last)["reply"] if options == ["--json"] else last) == "hi there"


# Disks that refuse a write --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, too small for the checkpoint of `_TRAIN`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = _mount(disk)
    if mounted is not None:
        pytest.skip(f"no small disk can be mounted here: {mounted}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def _mount(disk: Path) -> str | None:
    """The reason why it could not be mounted; None if it was."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() or "refused" if done.returncode else None


_TRAIN = ["--hidden", "96", "--vocab-size", "300", "--max-steps", "4", "--threads", "1", "--device", "cpu"]


def test_a_full_disk_ends_training_with_a_sentence_and_a_resumable_run(
    edgechat, invoke, corpus_file, small_disk, tmp_path
):
    done = edgechat("train", corpus_file, "--out", small_disk / "run", *_TRAIN)
    assert (done.returncode, done.stdout) == (1, "")
    _ends_with_a_sentence(done.stderr, os.strerror(errno.ENOSPC))
    assert not list(small_disk.rglob("step-*"))
    assert not list(small_disk.rglob(".tmp-*"))
    shutil.copytree(small_disk / "run", tmp_path / "run")
    assert invoke("train", "--resume", "--out", tmp_path / "run").returncode == 0


def test_a_full_disk_leaves_no_new_bundle_and_keeps_the_one_to_be_replaced(
    edgechat, run_folder, bundle_folder, small_disk, tree
):
    old = small_disk / "old"
    old.mkdir()
    (old / "edgechat.json").write_bytes(b"{}")
    (small_disk / "filler").write_bytes(bytes(180_000))
    for out, options in ((small_disk / "new", []), (old, ["--force"])):
        before = tree(small_disk)
        done = edgechat("export", run_folder, "--out", out, *options)
        assert (done.returncode, done.stdout) == (1, "")
        _ends_with_a_sentence(done.stderr, f"{out}: {os.strerror(errno.ENOSPC)}")
        assert tree(small_disk) == before


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2000, 100_000])
def test_a_file_size_limit_ends_training_with_a_sentence(corpus_file, tmp_path, limit):
    """A limit on the size of files, for systems where a small disk cannot be mounted."""
    resource = pytest.importorskip("resource", reason="there are no such limits on this platform")

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "run"
    done = _run(["train", corpus_file, "--out", out, *_TRAIN], set_limit)
    assert (done.returncode, done.stdout) == (1, "")
    _ends_with_a_sentence(done.stderr, os.strerror(errno.EFBIG))
    assert not list(tmp_path.rglob("step-*"))
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.slow
def test_a_read_only_folder_is_reported_before_the_work(
    corpus_file, run_folder, bundle_folder, tmp_path, tree
):
    if sys.platform != "linux":
        pytest.skip("capabilities of root can be dropped only on Linux")
    locked = tmp_path / "locked"
    shutil.copytree(bundle_folder, locked / "bundle")
    locked.chmod(0o555)
    (locked / "bundle").chmod(0o555)
    before = tree(locked)
    for command in (
        ["train", corpus_file, "--out", locked / "deep" / "run"],
        ["export", run_folder, "--out", locked / "bundle", "--force"],
        ["reply", bundle_folder, "hello", "--trace", locked / "trace.json"],
        ["bench", bundle_folder, "--plot", locked / "speed.png"],
    ):
        done = _run(command, _drop_root_capabilities)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        _ends_with_a_sentence(done.stderr, os.strerror(errno.EACCES))
    assert tree(locked) == before
    done = _run(["reply", locked / "bundle", "hello"], _drop_root_capabilities)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi there\n", "")
    locked.chmod(0o755)
    (locked / "bundle").chmod(0o755)


def test_a_read_only_run_or_bundle_is_reported_in_one_sentence(run_folder, bundle_folder, tmp_path, invoke):
    if sys.platform != "linux":
        pytest.skip("capabilities of root can be dropped only on Linux")
    run, bundle = (
        shutil.copytree(run_folder, tmp_path / "run"),
        shutil.copytree(bundle_folder, tmp_path / "b"),
    )
    assert invoke("keygen", "--out", tmp_path / "mine").returncode == 0
    for folder, command in (
        (run, ["train", "--resume", "--out", run, "--epochs", "61"]),
        (bundle, ["sign", bundle, "--key", tmp_path / "mine.key"]),
    ):
        (folder / "lock").unlink(missing_ok=True)
        folder.chmod(0o555)
        done = _run(command, _drop_root_capabilities)
        folder.chmod(0o755)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            done.stderr
            == f"edgechat: {folder} cannot be written: no file can be created in it (Permission denied)\n"
        )


@pytest.mark.slow
def test_an_unreadable_file_is_reported_in_one_sentence(bundle_folder, tmp_path):
    if sys.platform != "linux":
        pytest.skip("capabilities of root can be dropped only on Linux")
    secret = tmp_path / "secret"
    secret.write_text("hello")
    secret.chmod(0o000)
    for command in (
        ["reply", bundle_folder, "hello", "--replies", secret],
        ["reply", bundle_folder, "hello", "--require-signature", secret],
        ["bench", bundle_folder, "--prompts", secret],
        ["train", "--config", secret],
        ["train", "--dry-run", "--source", secret, "--target", secret],
        ["train", "--dry-run", "--tokenizer", secret, "chatterbot"],
    ):
        done = _run(command, _drop_root_capabilities)
        assert (done.returncode in (1, 2), done.stdout, done.stderr.count("\n")) == (True, "", 1)
        assert str(secret) in done.stderr
        _ends_with_a_sentence(done.stderr, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    "command",
    [
        ["reply", "hello", "--trace", "trace.json"],
        ["bench", "--plot", "speed.png"],
        ["keygen", "--out", "key"],
    ],
    ids=" ".join,
)
def test_nothing_is_written_into_a_bundle(invoke, bundle_folder, tmp_path, tree, command):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder, bundle)
    name, *rest, file = command
    given = [] if name == "keygen" else [bundle_folder]
    done = invoke(name, *given, *rest, bundle / file)
    assert done.returncode == 2
    assert f"{bundle} is a bundle, which may hold no other files: choose another {rest[-1]}" in done.sentence
    assert tree(bundle) == tree(bundle_folder)


def test_a_file_in_place_of_a_folder_is_reported_before_the_work(invoke, corpus_file, run_folder, tmp_path):
    (tmp_path / "file").write_text("text")
    for command in (["train", corpus_file], ["export", run_folder]):
        done = invoke(*command, "--out", tmp_path / "file" / "out")
        assert done.returncode == 2
        assert "file is a file, not a folder" in done.sentence
    assert (tmp_path / "file").read_text() == "text"


def _drop_root_capabilities() -> None:
    """Drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH at the exec: with them, root may write anywhere."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def _run(arguments: list[object], before: Callable[[], None]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edgechat", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=limits.TIMEOUT_SECONDS,
        preexec_fn=before,
    )


def _ends_with_a_sentence(stderr: str, said: str) -> None:
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("edgechat: ")
    assert said in stderr.splitlines()[-1]


# Errors that a test cannot provoke ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BundleError("the bundle\x1b[2J is bad"), 1, "edgechat: the bundle␛[2J is bad\n"),
        (UsageError("--beam is 0"), 2, "edgechat: --beam is 0\n"),
        (KeyboardInterrupt(), 130, "edgechat: interrupted\n"),
        (OSError(errno.ENOSPC, "full", "runs/a"), 1, "runs/a: No space left on device (free some space"),
        (OSError(errno.EIO, "bad"), 1, "edgechat: Input/output error\n"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory"),
        (
            ModuleNotFoundError("no torch", name="torch.nn"),
            1,
            "this command needs torch.nn: pip install torch\n",
        ),
        (
            ModuleNotFoundError("no platformdirs", name="platformdirs"),
            1,
            "this command needs platformdirs: pip install textual\n",
        ),
        (ModuleNotFoundError("no yaml", name="yaml"), 1, "this command needs yaml: pip install pyyaml\n"),
    ],
    ids=repr,
)
def test_an_error_becomes_one_sentence_and_an_exit_code(error, code, said):
    done = CliRunner().invoke(_failing(error), ["fail"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this platform has no /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["--version"], ["--show-completion"], ["reply", "--help"], ["info"]],
    ids=" ".join,
)
def test_a_full_stdout_is_reported_in_one_sentence(bundle_folder, arguments):
    given = [*arguments, bundle_folder] if arguments == ["info"] else arguments
    environment = {**os.environ, "SHELL": "/bin/bash"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            # --show-completion looks for the shell among the parent processes.
            ["bash", "-c", '"$@"; exit $?', "bash", sys.executable, "-m", "edgechat", *given],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment,
            timeout=limits.TIMEOUT_SECONDS,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"edgechat: {os.strerror(errno.ENOSPC)} (free some space and try again)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always gives a process a stdout")
@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["reply", "--help"],
        [],
        ["info", "BUNDLE"],
        ["info", "BUNDLE", "--json"],
        ["reply", "BUNDLE", "hello"],
    ],
    ids=" ".join,
)
def test_a_closed_stdout_is_reported_in_one_sentence(bundle_folder, command):
    given = [bundle_folder if word == "BUNDLE" else word for word in command]
    done = _run(given, lambda: os.close(1))
    assert done.returncode == 1
    assert done.stderr == CLOSED_STDOUT


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always gives a process a stdout")
def test_a_closed_stdout_is_reported_before_the_work_of_a_command_with_json(
    bundle_folder, run_folder, tmp_path
):
    for command in (
        ["export", run_folder, "--out", tmp_path / "bundle"],
        ["pack", bundle_folder, "--out", tmp_path / "mine.edgechat"],
        ["unpack", bundle_folder, "--out", tmp_path / "folder"],
        ["keygen", "--out", tmp_path / "mine"],
    ):
        done = _run([*command, "--json"], lambda: os.close(1))
        assert (done.returncode, done.stderr) == (1, CLOSED_STDOUT)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes of this kind")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["reply", "--help"]], ids=" ".join)
def test_a_closed_pipe_while_help_is_printed_is_not_a_failure(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "edgechat", *arguments],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=limits.TIMEOUT_SECONDS,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_aborted_prompt_counts_as_an_interrupt():
    done = CliRunner().invoke(_failing(typer.Abort()), ["fail"])
    assert (done.exit_code, done.stderr) == (130, "edgechat: interrupted\n")


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), RuntimeError("a bug"), ModuleNotFoundError("no", name="edgechat.bug")]
)
def test_a_bug_is_not_hidden(error):
    assert CliRunner().invoke(_failing(error), ["fail"]).exception is error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reply", "demo", "hi", "--beam", "many"), "'--beam': 'many' is not a whole number."),
        (("reply", "demo", "hi", "--beam", "1.5"), "'--beam': '1.5' is not a whole number."),
        (("train", "a.jsonl", "--learning-rate", "low"), "'--learning-rate': 'low' is not a number."),
        (("export", "run", "--precision", "int4"), "'--precision': 'int4' is not one of"),
    ],
)
def test_a_value_that_the_parser_refuses_is_named_with_its_option(invoke, arguments, said):
    done = invoke(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for {said}" in " ".join(done.stderr.replace("│", " ").split())


def _failing(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=CommandGroup)

    @app.callback()
    def main() -> None:
        """Makes a group that contains the one command."""

    @app.command()
    def fail() -> None:
        raise error

    return app


def test_the_undamaged_bundle_is_accepted(bundle_folder):
    assert set(read_bundle(bundle_folder).files) == set(FILES) - {"edgechat.json"}


# Arguments that are not UTF-8, and outputs without a name -------------------------------------------------

#: How Python represents an argument whose last byte is not UTF-8.
CAFE = os.fsdecode(b"caf\xe9")


def test_a_prompt_that_is_not_utf8_can_be_traced(invoke, bundle_folder, tmp_path):
    done = invoke("reply", bundle_folder, CAFE, "--trace", tmp_path / "t.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "t.json").read_bytes())["replies"][0]["prompt"] == CAFE


def test_a_license_that_is_not_utf8_is_refused_before_the_work(invoke, run_folder, tmp_path):
    done = invoke("export", run_folder, "--out", tmp_path / "out", "--data-licence", CAFE)
    assert done.returncode == 2
    assert done.sentence == r"--data-licence must be valid Unicode text, not 'caf\udce9'"


def test_a_plot_shows_a_name_that_is_not_utf8(invoke, bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / CAFE)
    done = invoke("bench", tmp_path / CAFE, "--repeat", 3, "--plot", tmp_path / f"{CAFE}.png")
    assert done.returncode == 0
    assert (tmp_path / f"{CAFE}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("out", ["", ".", "/", "..", "deep/.."])
def test_an_out_without_a_name_is_refused_before_the_work(
    invoke, tree, corpus_file, run_folder, bundle_folder, tmp_path, monkeypatch, out
):
    inside = tmp_path / "here"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for command in (
        ["keygen"],
        ["export", run_folder],
        ["export", run_folder, "--force"],
        ["unpack", bundle_folder],
        ["train", corpus_file],
    ):
        done = invoke(*command, "--out", out)
        assert done.returncode == 2
        assert re.match(
            "--out is .* does not end with a name|.*(exists|is not a run|is the current folder)",
            done.sentence,
        )
        assert len(done.sentence) < 400
    assert tree(tmp_path) == {"here": "no file"}
