"""Shared by tests: a small corpus, a run that was trained on it, and the bundle of the run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import limits
import pytest
from tests_corpus import PAIRS

ROOT = Path(__file__).parents[1]
# `python -m pytest` puts the root on sys.path, from where `train` could be imported without `edgechat`.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# No test depends on the speed of the machine.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

#: A model that learns the pairs by heart within seconds.
TINY = [
    "--hidden", "48", "--embedding", "24", "--attention", "24", "--vocab-size", "320", "--epochs", "60",
    "--batch-size", "4", "--learning-rate", "0.01", "--dropout", "0", "--save-every", "60",
    "--valid-fraction", "0.1", "--threads", "1", "--device", "cpu",
]  # fmt: skip

Edgechat = Callable[..., "subprocess.CompletedProcess[str]"]


def run_edgechat(
    *arguments: object, stdin: str | bytes | None = None, timeout: float = limits.TIMEOUT_SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, as a user does."""
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "edgechat", *map(str, arguments)],
        input=raw if raw is not None else b"",
        capture_output=True,
        timeout=timeout,
        check=False,
        cwd=os.environ.get("TMPDIR", "/tmp"),
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="session")
def edgechat() -> Edgechat:
    return run_edgechat


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "pairs.jsonl"
    lines = [json.dumps({"prompt": p, "response": r}, ensure_ascii=False) + "\n" for p, r in PAIRS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """A run that has learned the pairs. Tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    done = run_edgechat("train", corpus_file, "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def untrained(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run before its first step. Tests must not change it."""
    folder = tmp_path_factory.mktemp("untrained") / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("checkpoints", "metrics.*"))
    return folder


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory, run_folder: Path) -> Path:
    """The bundle of that run's last checkpoint. Tests must not change it."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    done = run_edgechat("export", run_folder, "--out", out, "--checkpoint", "last", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    return out
