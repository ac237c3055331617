"""Many damaged and hostile bundles."""

import random
import resource
import shutil
import sys
import time
from contextlib import suppress

import pytest
from bit_flips import check_bit_flips
from byte_fuzz import mutate_bytes
from graphs import make_valid_graphs
from run_mutants import check_mutants

from edgechat.runtime.errors import BundleError
from edgechat.runtime.onnx_file import read_model

pytestmark = pytest.mark.slow


def test_the_reader_survives_100_000_damaged_files_in_bounded_time_and_memory():
    rng = random.Random(7)
    originals = [raw for layers in (1, 2) for raw in make_valid_graphs(layers=layers, hidden=1, vocab=5)[1:]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worst = 0.0
    for _ in range(100_000):
        raw = mutate_bytes(rng.choice(originals), rng)
        start = time.process_time()
        with suppress(BundleError):
            read_model("x.onnx", raw)
        worst = max(worst, time.process_time() - start)
    assert worst < 1
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 100e6


def test_bits_flipped_anywhere_in_a_bundle_are_found_10_000_times(bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    check_bit_flips(tmp_path / "bundle", 10_000, seed=2)


def test_graphs_with_damaged_bytes_do_no_harm_to_onnx_runtime():
    check_mutants("bytes", 100_000, seed=3, timeout=1200, min_runs=100)


def test_graphs_with_changed_structure_do_no_harm_to_onnx_runtime():
    check_mutants("structure", 20_000, seed=4, timeout=1800, min_runs=1000)
