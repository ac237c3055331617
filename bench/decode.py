"""Decoding speed beside PyTorch eager: random weights, a fixed 20 steps, source length 12, beam 5.

    make bench        or        .venv/bin/python bench/decode.py --sizes small classic --batches 1 32

Both run the same steps in the same process, interleaved, one thread each; the figures are medians of CPU
time. Let nothing else run meanwhile: ratios hold, milliseconds are this machine's.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.runtime.backend import Backend, pad
from edgechat.runtime.ort import OrtBackend
from edgechat.runtime.text import GO
from edgechat.train.backend import TorchBackend
from edgechat.train.config import load_preset
from edgechat.train.model import Seq2Seq

STEPS, SOURCE, BEAM = 20, 12, 5


def model_of(size: str) -> Seq2Seq:
    """A preset's model with random weights."""
    torch.manual_seed(0)
    config = load_preset(size)
    return Seq2Seq(config.model, config.data.vocab_size).eval()


def ort_backend(model: Seq2Seq) -> OrtBackend:
    graphs = build_encoder(model), build_decoder(model)
    return OrtBackend(graph_spec(model), *graphs, device="cpu", threads=1)


def decode(backend: Backend, sources: list[list[int]]) -> None:
    """Encode, then take `STEPS` steps of `BEAM` rows a sentence, as a search would."""
    B = len(sources)
    state = backend.encode(*pad(sources))
    tokens, parents = np.full(B * BEAM, GO, dtype=np.int64), np.repeat(np.arange(B), BEAM)
    for _ in range(STEPS):
        out, state = backend.step(state, tokens, parents, BEAM + 5)
        tokens, parents = np.ascontiguousarray(out.cand_ids[:, 0]), np.arange(B * BEAM)


def interleaved(calls: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Median CPU milliseconds of each call, taken in turns after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(repeat + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if round_number:
                times[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["small"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'size':<8} {'batch':>5} {'eager':>8} {'fp32':>8} {'ratio':>6}   CPU ms a reply of {STEPS} steps")
    for size in arguments.sizes:
        model = model_of(size)
        backends: dict[str, Backend] = {"eager": TorchBackend(model), "fp32": ort_backend(model)}
        for batch in arguments.batches:
            random = np.random.default_rng(0)
            sources = random.integers(5, model.vocab_size, size=(batch, SOURCE)).tolist()
            calls = {name: functools.partial(decode, backend, sources) for name, backend in backends.items()}
            ms = interleaved(calls, arguments.repeat)
            ratio = ms["eager"] / ms["fp32"]
            print(f"{size:<8} {batch:>5} {ms['eager']:>8.1f} {ms['fp32']:>8.1f} {ratio:>5.1f}x")


if __name__ == "__main__":
    main()
