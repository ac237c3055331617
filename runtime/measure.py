"""Measuring time, memory and memory bandwidth, for `edgechat bench` and the scripts in `bench/`.

CPU time is that of the calling thread, which does all the work if there is one intra-op thread. Threads of
other sessions that spin while they wait for work do not count.
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
from .onnx_file import read_model

#: Memory that is read to measure its bandwidth: more than the last-level cache of an edge machine.
READ_TEST_BYTES = 1 << 28
#: Runs the command in its arguments and prints wall and CPU seconds, peak memory and wait status. The peak
#: memory of a process includes that of the process that started it, so this one is as small as Python can be.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status]))
"""


@dataclass(frozen=True)
class ProcessCost:
    """The cost of a whole process, including the start of Python."""

    wall: float  # seconds
    cpu: float  # seconds of all threads, user and system
    peak: int  # peak memory in bytes


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    repeat: int,
    *,
    clock: Callable[[], float] = time.thread_time,
    pause: float = 0.0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Milliseconds of each call, `repeat` times, after one round to warm up.

    The calls take turns, so that a temporary slowdown of the machine affects them all. A `pause`, in seconds,
    before each call lets threads of the previous one fall asleep.
    """
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


def make_read_call(size: int = READ_TEST_BYTES) -> Callable[[], object]:
    """A function that reads `size` bytes of memory with one bitwise OR per 8 bytes, which every CPU computes
    faster than they arrive."""
    memory = np.ones(size // 8, dtype=np.int64)
    return lambda: np.bitwise_or.reduce(memory)


def measure_read_bandwidth(size: int = READ_TEST_BYTES, repeat: int = 7) -> float:
    """Bytes per second that one thread can read from memory: the best of `repeat` reads of `size` bytes."""
    times = time_interleaved({"read": make_read_call(size)}, repeat)
    return size / (min(times["read"]) / 1e3)


def weight_bytes(decoder: bytes) -> int:
    """Bytes of weights that one step of a decoder graph reads, whatever its number of rows: all except the
    tables from which Gather reads only some rows."""
    graph = read_model("decoder.onnx", decoder).graph
    assert graph is not None
    read = {name for node in graph.nodes for name in node.inputs[node.op_type == "Gather" :]}
    return sum(
        len(tensor.raw) for tensor in graph.initializers if tensor.raw is not None and tensor.name in read
    )


def measure_process(command: Sequence[str], stdin: bytes = b"") -> ProcessCost | None:
    """Run a command in its own process, with `stdin` as its input, and measure it. None on systems that do
    not report the cost of a process, such as Windows.

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
