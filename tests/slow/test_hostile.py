"""Damaged and hostile bundles again, many more of them."""

import random
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import mutants
import pytest
from flips import check_flipped
from fuzz import mutated
from graphs import honest

from edgechat.runtime.errors import BundleError
from edgechat.runtime.onnxfile import read_model

pytestmark = pytest.mark.slow


def test_the_reader_survives_100_000_damaged_files_in_bounded_time_and_memory():
    rng = random.Random(7)
    originals = [raw for layers in (1, 2) for raw in honest(layers=layers, hidden=1, vocab=5)[1:]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worst = 0.0
    for _ in range(100_000):
        raw = mutated(rng.choice(originals), rng)
        start = time.process_time()
        with suppress(BundleError):
            read_model("x.onnx", raw)
        worst = max(worst, time.process_time() - start)
    assert worst < 1
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 100e6


def test_bits_flipped_anywhere_in_a_bundle_are_found_10_000_times(bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    check_flipped(tmp_path / "bundle", 10_000, seed=2)


def test_damaged_graphs_that_pass_the_checks_do_no_harm_to_onnx_runtime():
    """In a process of its own: a crash, a hang or gigabytes would be seen."""
    done = subprocess.run(
        [sys.executable, mutants.__file__, "3", "100000"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=Path(mutants.__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    ran, _, memory = map(int, done.stdout.split())
    assert ran > 100
    assert memory < 2e9
