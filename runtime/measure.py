"""How long things take, and how fast they could be: what `edgechat bench` and `bench/` measure with.

CPU time is that of the calling thread, which with one intra-op thread does all the work: threads of other
sessions that wait for work, and spin meanwhile, do not count.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import EdgeChatError
from .onnxfile import read_model

_STREAMED = 1 << 28  # bytes: more than the last-level cache of an edge machine
#: Runs the command of its arguments and prints its wall and CPU seconds, peak memory and exit code. A process
#: begins with the peak of the one that started it, so the one that does is as small as Python can be.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status]))
"""


@dataclass(frozen=True)
class ProcessCost:
    """What a whole process took, the start of Python included."""

    wall: float  # seconds
    cpu: float  # seconds, of all threads, user and system
    peak: int  # bytes of memory at most


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    repeat: int,
    *,
    clock: Callable[[], float] = time.thread_time,
    pause: float = 0.0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Milliseconds of each call, `repeat` times, taken in turns after one that warms up: what slows the
    machine for a while slows all. A `pause` in seconds lets threads of the call before fall asleep."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeat + 1):
        for name, call in calls.items():
            if pause:
                time.sleep(pause)
            start = clock()
            call()
            if turn:
                times[name].append((clock() - start) * 1e3)
            progress(1)
    return times


def read_bandwidth(size: int = _STREAMED, repeat: int = 7) -> float:
    """Bytes a second that one thread can read from memory, at best: it streams over `size` bytes, and does
    one bitwise or for each 8 of them, which every CPU does faster than they come."""
    memory = np.ones(size // 8, dtype=np.int64)
    fastest = min(
        min(times) for times in interleaved({"read": lambda: np.bitwise_or.reduce(memory)}, repeat).values()
    )
    return memory.nbytes / (fastest / 1e3)


def weight_bytes(decoder: bytes) -> int:
    """Bytes of weights that one step of a decoder graph reads, whatever its rows: all but the tables of
    which it only looks up rows."""
    graph = read_model("decoder.onnx", decoder).graph
    assert graph is not None
    read = {name for node in graph.nodes for name in node.inputs[node.op_type == "Gather" :]}
    return sum(
        len(tensor.raw) for tensor in graph.initializers if tensor.raw is not None and tensor.name in read
    )


def process_cost(command: Sequence[str], stdin: bytes = b"") -> ProcessCost | None:
    """Run a command in a process of its own, which may read `stdin`, and measure it; None on a system that
    does not say what a process took, as Windows.

    Raises:
        EdgeChatError: the command failed.
    """
    if not hasattr(os, "wait4"):
        return None
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        input=stdin,
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        raise EdgeChatError(f"{command[0]} could not be run: {said}")
    wall, cpu, peak, status = json.loads(done.stdout)
    if status:
        raise EdgeChatError(f"{' '.join(command)} failed: {said}")
    return ProcessCost(wall, cpu, peak if sys.platform == "darwin" else peak * 1024)
