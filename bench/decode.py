"""Decoding speed compared with PyTorch eager and other toolkits: random weights, exactly 20 steps, source
length 12, beam 5.

    make bench        or        .venv/bin/python bench/decode.py --check --json decode.json

All implementations take the same number of steps and take turns in one run; figures are medians. CPU time is
with one thread, wall time with one and two. Run nothing else at the same time. The milliseconds depend on the
machine; compare ratios. bench/README.md explains what is measured, and how to install the peers.
"""

import argparse
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from peers import DecodingPeer, DecodingSettings, find_decoding_peers

from edgechat.export.graphs import build_decoder, build_encoder, graph_spec
from edgechat.export.int8_levels import measure_levels
from edgechat.export.precision import Float32, Int8, Precision
from edgechat.runtime import DecodingOptions
from edgechat.runtime.backend import Backend, pad
from edgechat.runtime.measure import READ_TEST_BYTES, make_read_call, time_interleaved, weight_bytes
from edgechat.runtime.ort import OrtBackend
from edgechat.runtime.scheduler import decode as search
from edgechat.runtime.text import GO
from edgechat.train.backend import TorchBackend
from edgechat.train.config import load_preset
from edgechat.train.model import Seq2Seq

STEPS, SOURCE_LENGTH, BEAM = 20, 12, 5
PAUSE_SECONDS = 0.02  # seconds before each wall time, in which spinning threads fall asleep
THREADS = (1, 2)
ENGINES = ("eager", "fp32", "int8")
_LEVEL_SENTENCES = 32  # sentences from which the levels of int8 are chosen, as in an export


@dataclass(frozen=True)
class Row:
    """Milliseconds of a batch of replies."""

    size: str
    batch: int
    cpu: dict[str, float]  # by engine and peer, with one thread
    wall: dict[str, float]  # by engine and threads, such as "int8 x2"
    step: dict[str, float]  # CPU time of one decoder step, by engine with a floor
    bytes_per_second: float  # at which one thread reads memory, measured in turns with the steps


@dataclass(frozen=True)
class Target:
    """A measured ratio and its required bound."""

    what: str
    measured: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def __str__(self) -> str:
        sign = "at most" if self.at_most else "at least"
        verdict = "pass" if self.met else "MISSED"
        return f"{verdict:<6}  {self.what:<60} {self.measured:>7.3f}   {sign} {self.bound:g}"


class Engines:
    """One model with random weights, for each engine and number of threads."""

    def __init__(self, size: str) -> None:
        torch.manual_seed(0)
        config = load_preset(size)
        model = Seq2Seq(config.model, config.data.vocab_size).eval()
        self.vocab_size = model.vocab_size
        self.settings = DecodingSettings(
            config.model.layers, config.model.hidden, config.model.embedding, model.vocab_size,
            STEPS, SOURCE_LENGTH, BEAM,
        )  # fmt: skip
        self.floor_bytes: dict[str, int] = {}
        self._eager = TorchBackend(model)
        self._sessions: dict[tuple[str, int], OrtBackend] = {}
        self._build("fp32", model, Float32())
        level_sources = random_sources(_LEVEL_SENTENCES, model.vocab_size)
        levels = measure_levels(model, self.session("fp32"), level_sources, level_sources)
        self._build("int8", model, Int8(levels))

    def _build(self, name: str, model: Seq2Seq, precision: Precision) -> None:
        graphs = build_encoder(model, precision), build_decoder(model, precision)
        self.floor_bytes[name] = weight_bytes(graphs[1])
        for threads in THREADS:
            self._sessions[name, threads] = OrtBackend(
                graph_spec(model), *graphs, device="cpu", threads=threads
            )

    def call(self, engine: str, threads: int, sources: list[list[int]]) -> Callable[[], None]:
        """A function that decodes `sources`."""
        if engine != "eager":
            return functools.partial(decode, self._sessions[engine, threads], sources)

        def eager() -> None:
            torch.set_num_threads(threads)  # takes no time if it does not change
            decode(self._eager, sources)

        return eager

    def session(self, engine: str) -> OrtBackend:
        return self._sessions[engine, 1]


def decode(backend: Backend, sources: list[list[int]]) -> None:
    """Encode, then take `STEPS` steps with `BEAM` rows per sentence, as a search would."""
    take_steps(backend, backend.encode(*pad(sources)), len(sources))


def take_steps(backend: Backend, state: object, B: int) -> None:
    tokens, parents = np.full(B * BEAM, GO, dtype=np.int64), np.repeat(np.arange(B), BEAM)
    for _ in range(STEPS):
        out, state = backend.step(state, tokens, parents, BEAM + 2)
        tokens, parents = np.ascontiguousarray(out.cand_ids[:, 0]), np.arange(B * BEAM)


def random_sources(batch: int, vocab_size: int) -> list[list[int]]:
    return np.random.default_rng(0).integers(5, vocab_size, size=(batch, SOURCE_LENGTH)).tolist()


def measure(size: str, engines: Engines, batch: int, repeat: int, peers: list[DecodingPeer]) -> Row:
    sources = random_sources(batch, engines.vocab_size)
    single_thread_calls = {engine: engines.call(engine, 1, sources) for engine in ENGINES}
    peer_calls = {peer.name: peer.start(engines.settings, batch) for peer in peers}
    try:
        cpu = medians(time_interleaved({**single_thread_calls, **peer_calls}, repeat))
        # A peer measures its own time; the time of the call here is only the wait for its answer.
        cpu.update({peer.name: statistics.median(peer.times) for peer in peers})
    finally:
        for peer in peers:
            peer.stop()
    wall_calls = {
        f"{e} x{threads}": engines.call(e, threads, sources) for e in ENGINES for threads in THREADS
    }
    wall = medians(time_interleaved(wall_calls, repeat, clock=time.perf_counter, pause=PAUSE_SECONDS))
    torch.set_num_threads(1)
    step_calls = {
        engine: functools.partial(take_steps, backend, backend.encode(*pad(sources)), batch)
        for engine in engines.floor_bytes
        for backend in [engines.session(engine)]
    }
    run_ms = medians(time_interleaved({**step_calls, "read": make_read_call()}, repeat))
    bandwidth = READ_TEST_BYTES / (run_ms.pop("read") / 1e3)
    return Row(size, batch, cpu, wall, {engine: ms / STEPS for engine, ms in run_ms.items()}, bandwidth)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


class TimedSession:
    """A session that sums the CPU time of its runs."""

    def __init__(self, session: object) -> None:
        self._run = session.run  # type: ignore[attr-defined]
        self.seconds = 0.0

    def run(self, *arguments: object) -> object:
        start = time.thread_time()
        try:
            return self._run(*arguments)
        finally:
            self.seconds += time.thread_time() - start


def measure_python_overhead(backend: OrtBackend, repeat: int) -> float:
    """What Python adds to a step: the CPU time of a beam search at batch 1 outside ONNX Runtime, relative to
    the CPU time of its decoder runs."""
    sessions = backend._encoder, backend._decoder
    encoder, decoder = backend._encoder, backend._decoder = (
        TimedSession(sessions[0]),
        TimedSession(sessions[1]),
    )
    sources, options, shares = random_sources(1, backend.vocab_size), DecodingOptions(beam=BEAM), []
    try:
        for _ in range(repeat + 1):
            encoder.seconds = decoder.seconds = 0.0
            start = time.thread_time()
            [found] = search(backend, sources, options, max_length=STEPS)
            total = time.thread_time() - start
            assert len(found.hypotheses()[0].token_logps) == STEPS
            shares.append((total - encoder.seconds - decoder.seconds) / decoder.seconds)
    finally:
        backend._encoder, backend._decoder = sessions
    return statistics.median(shares[1:])


def targets(rows: list[Row], python_overhead: float | None, floor_ratio: float | None) -> Iterator[Target]:
    """The performance targets of the project whose figures were all measured."""
    rows_by_case = {(row.size, row.batch): row for row in rows}
    eager_bounds = {("small", 1): 10, ("classic", 1): 7.5, ("small", 32): 3.1, ("classic", 32): 4.2}
    for (size, batch), bound in eager_bounds.items():
        if row := rows_by_case.get((size, batch)):
            what = f"{size}, batch {batch}: int8 beside eager, CPU time"
            yield Target(what, row.cpu["eager"] / row.cpu["int8"], bound)
    for size in ("small", "classic"):
        if row := rows_by_case.get((size, 1)):
            eager, int8 = (min(row.wall[f"{e} x{t}"] for t in THREADS) for e in ("eager", "int8"))
            yield Target(f"{size}, batch 1: int8 beside eager, wall, each at its best", eager / int8, 7)
    if floor_ratio is not None:
        yield Target("classic, batch 1: fp32 over its bandwidth floor", floor_ratio, 1.6, at_most=True)
    if python_overhead is not None:
        yield Target(
            "small int8, batch 1: Python around a step, share of it", python_overhead, 0.15, at_most=True
        )
    peers = (
        ("opennmt", 1, 11),
        ("joeynmt", 1, 11),
        ("optimum", 1, 6),
        ("marian", 1, 3),
        ("opennmt", 32, 5),
    )
    for name, batch, bound in peers:
        row = rows_by_case.get(("small", batch))
        if row and name in row.cpu:
            what = f"small, batch {batch}: int8 beside {name}, CPU time a token"
            yield Target(what, row.cpu[name] / row.cpu["int8"], bound)


def print_row(row: Row, peers: list[DecodingPeer]) -> None:
    cpu, wall = row.cpu, row.wall
    peer_figures = "".join(f" {cpu[p.name]:>9.1f}" if p.name in cpu else f" {'-':>9}" for p in peers)
    wall_figures = "".join(f" {wall[f'{e} x{threads}']:>8.1f}" for e in ENGINES for threads in THREADS)
    print(
        f"{row.size:<8} {row.batch:>5}"
        + "".join(f" {cpu[engine]:>8.1f}" for engine in ENGINES)
        + f" {cpu['eager'] / cpu['int8']:>6.1f}x {peer_figures} {wall_figures}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["small", "classic"], help="presets")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--repeat", type=int, default=21, help="rounds; above batch 1, a third as many")
    parser.add_argument(
        "--peers", type=Path, default=Path("build/peers"), help="folder that contains NAME/bin/python"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peers, missing = find_decoding_peers(arguments.peers)
    for line in missing:
        print(f"skipped {line}")
    wall_headings = "".join(f" {f'{e} x{threads}':>8}" for e in ENGINES for threads in THREADS)
    print(f"ms a batch of replies of {STEPS} steps: CPU time with one thread, then wall time by threads")
    print(
        f"{'size':<8} {'batch':>5}"
        + "".join(f" {engine:>8}" for engine in ENGINES)
        + f" {'ratio':>7} {''.join(f' {p.name:>9}' for p in peers)} {wall_headings}"
    )
    rows: list[Row] = []
    floors: dict[str, dict[str, float]] = {}
    floor_ratio, python_overhead = None, None
    for size in arguments.sizes:
        engines = Engines(size)
        for batch in arguments.batches:
            repeat = arguments.repeat if batch == 1 else max(3, arguments.repeat // 3)
            # Peers have one size, that of `small`.
            rows.append(measure(size, engines, batch, repeat, peers if size == "small" else []))
            print_row(rows[-1], peers)
            if batch == 1:
                floors[size] = {
                    engine: count / rows[-1].bytes_per_second * 1e3
                    for engine, count in engines.floor_bytes.items()
                }
        if size == "small":
            python_overhead = measure_python_overhead(engines.session("int8"), arguments.repeat)
        del engines
        gc.collect()
    for row in rows:
        if row.batch == 1:
            for name, floor in floors[row.size].items():
                step, bandwidth = row.step[name], row.bytes_per_second / 1e9
                print(
                    f"{row.size} {name}: {step:.2f} ms a step, floor {floor:.2f} ms at {bandwidth:.1f} GB/s, "
                    f"{step / floor:.2f}x"
                )
                if (row.size, name) == ("classic", "fp32"):
                    floor_ratio = step / floor
    all_targets = list(targets(rows, python_overhead, floor_ratio))
    print(*all_targets, sep="\n")
    if arguments.json:
        values = {
            "steps": STEPS,
            "source": SOURCE_LENGTH,
            "beam": BEAM,
            "floor_ms_a_step": floors,
            "python_around_step": python_overhead,
            "rows": [asdict(row) for row in rows],
            "targets": [{**asdict(target), "met": target.met} for target in all_targets],
            "peers": {peer.name: peer.version for peer in peers},
            "skipped": missing,
        }
        arguments.json.write_text(json.dumps(values, indent=2) + "\n")
    if arguments.check and not all(target.met for target in all_targets):
        sys.exit(1)


if __name__ == "__main__":
    main()
