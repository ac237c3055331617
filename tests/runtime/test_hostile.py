"""Damaged bundles, with wrong and with right hashes."""

import random
import shutil

import pytest
from bit_flips import check_bit_flips
from byte_fuzz import mutate_bytes
from graphs import make_valid_graphs
from run_mutants import check_mutants

from edgechat.runtime.errors import BundleError
from edgechat.runtime.graph_check import check_graphs


def test_flipped_bytes_anywhere_in_a_bundle_are_always_found(bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    check_bit_flips(tmp_path / "bundle", 300, seed=1)


def check_mutated(count: int, seed: int) -> None:
    """Damaged graphs with right hashes are refused in one sentence, or are as harmless as valid ones."""
    rng = random.Random(seed)
    spec, *graphs = make_valid_graphs(hidden=1, vocab=5)
    passed = 0
    for _ in range(count):
        which = rng.randrange(2)
        raw = mutate_bytes(graphs[which], rng)
        try:
            check_graphs(spec, *(raw if n == which else graph for n, graph in enumerate(graphs)))
        except BundleError as error:
            said = str(error)
        else:
            passed += 1
            continue
        if "\n" in said or not said.startswith(("encoder.onnx", "decoder.onnx")) or len(said) > 500:
            pytest.fail(said)
    assert 0 < passed < count / 10


def test_damaged_graphs_with_right_hashes_are_refused_in_one_sentence():
    check_mutated(2000, seed=1)


def test_restructured_graphs_are_refused_or_harmless_to_onnx_runtime():
    check_mutants("structure", 400, seed=1, timeout=120, min_runs=10)
