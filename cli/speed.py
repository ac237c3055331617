"""The speed of a bundle: replies, decoder steps and fresh processes."""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime import ChatModel, DecodingOptions
from ..runtime.backend import pad
from ..runtime.bundle import Bundle
from ..runtime.measure import measure_process, measure_read_bandwidth, time_interleaved, weight_bytes
from ..runtime.text import GO
from .console import json_line

BATCH_SIZES = (1, 8, 32)
PERCENTILES = (50, 90, 99)
_TIMED_STEPS = 50
#: An application that loads a bundle and makes one reply. Prompt and options come over stdin, because an
#: argument is limited in length and cannot hold a zero byte.
_FRESH_PROCESS_CODE = """
import json, sys
from edgechat.runtime import ChatModel, DecodingOptions
bundle, device, threads = sys.argv[1:]
prompt, options = json.load(sys.stdin.buffer)
model = ChatModel.load(bundle, device=device, threads=int(threads))
print(model.reply(prompt, DecodingOptions.from_json(options)))
"""


@dataclass(frozen=True)
class Speed:
    """The speed of one engine. Milliseconds are wall time."""

    reply_ms: dict[str, float]  # by percentile, at batch 1
    first_piece_ms: dict[str, float]  # by percentile: until a stream yields its first piece
    token_ms: float  # mean, at batch 1
    replies_per_second: dict[str, float]  # by batch size


def measure_speeds(
    engines: Mapping[str, ChatModel],
    prompts: Sequence[str],
    options: DecodingOptions,
    repeat: int,
    rounds: int,
    progress: Callable[[int], None],
    *,
    pause: float,
) -> dict[str, Speed]:
    """The speeds of `engines` by name, timed in turns: `repeat` replies at batch 1, `rounds` batches by size.

    `pause` is the time before each call in seconds; `progress` is called with the number of calls.
    """
    calls: dict[str, Callable[[], object]] = {}
    tokens: dict[str, list[int]] = {name: [] for name in engines}
    for name, model in engines.items():
        calls[f"{name} reply"] = _make_reply_call(model, itertools.cycle(prompts), options, tokens[name])
        calls[f"{name} stream"] = _make_stream_call(model, itertools.cycle(prompts), options)
    single_times = time_interleaved(calls, repeat, clock=time.perf_counter, pause=pause, progress=progress)
    batched: dict[str, Callable[[], object]] = {}
    for name, model in engines.items():
        for size in BATCH_SIZES:
            batch = list(itertools.islice(itertools.cycle(prompts), size))
            batched[f"{name} {size}"] = _make_batch_call(model, batch, options)
    batch_times = time_interleaved(batched, rounds, clock=time.perf_counter, pause=pause, progress=progress)
    return {
        name: Speed(
            _percentiles(single_times[f"{name} reply"]),
            _percentiles(single_times[f"{name} stream"]),
            round(sum(single_times[f"{name} reply"]) / sum(tokens[name][1:]), 3),
            {str(n): round(n / statistics.median(batch_times[f"{name} {n}"]) * 1e3, 1) for n in BATCH_SIZES},
        )
        for name in engines
    }


def _make_reply_call(
    model: ChatModel, prompts: Iterator[str], options: DecodingOptions, tokens: list[int]
) -> Callable[[], object]:
    """A function that replies to the next prompt, and appends the number of tokens, its end included, to
    `tokens`."""

    def reply() -> None:
        tokens.append(len(model.reply(next(prompts), options).tokens) + 1)

    return reply


def _make_stream_call(
    model: ChatModel, prompts: Iterator[str], options: DecodingOptions
) -> Callable[[], object]:
    """A function that waits for the first piece of the reply to the next prompt, or for the end of an empty
    reply."""
    return lambda: next(iter(model.stream(next(prompts), options)), None)


def _make_batch_call(
    model: ChatModel, prompts: Sequence[str], options: DecodingOptions
) -> Callable[[], object]:
    return lambda: model.reply_batch(prompts, options, batch_size=len(prompts))


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(float(np.percentile(milliseconds, percent)), 2) for percent in PERCENTILES}


def measure_startup(
    arguments: list[str], prompt: str, options: DecodingOptions, repeat: int
) -> dict[str, Any] | None:
    """Median times and the peak memory of fresh processes that load the bundle and reply once; None where the
    system does not report them."""
    command = [sys.executable, "-c", _FRESH_PROCESS_CODE, *arguments]
    stdin = json_line([prompt, options.to_json()]).encode()
    costs = [measure_process(command, stdin) for _ in range(repeat)]
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    return {
        "wall_s": round(statistics.median(cost.wall for cost in known), 3),
        "cpu_s": round(statistics.median(cost.cpu for cost in known), 3),
        "peak_bytes": max(cost.peak for cost in known),
    }


def measure_step(bundle: Bundle, model: ChatModel, beam: int) -> dict[str, Any]:
    """The time of a decoder step at batch 1, and the time that one thread takes to read its weights from
    memory."""
    backend, rows = model.backend, max(2, beam)
    state = backend.encode(*pad([model.codec.encode_source(["hello"]).ids]))
    tokens, parents = np.full(rows, GO, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    candidates = min(beam + 2, backend.vocab_size)
    step = time_interleaved(
        {"": lambda: backend.step(state, tokens, parents, candidates)}, _TIMED_STEPS, clock=time.perf_counter
    )
    read_size, bandwidth = weight_bytes(bundle.files["decoder.onnx"]), measure_read_bandwidth()
    return {
        "ms": round(statistics.median(step[""]), 3),
        "weight_bytes": read_size,
        "bytes_per_second": round(bandwidth),
        "floor_ms": round(read_size / bandwidth * 1e3, 3),
    }
