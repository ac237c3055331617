"""Tools of the benchmarks: calls in turns, memory bandwidth, and the cost of processes."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgechat.runtime import EdgeChatError
from edgechat.runtime.measure import measure_process, measure_read_bandwidth, time_interleaved, weight_bytes

MEGABYTE = 1_000_000


def test_calls_take_turns_and_the_first_turn_warms_up():
    called = []
    ticks = iter(range(100))
    times = time_interleaved(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")},
        2,
        clock=lambda: float(next(ticks)),
    )
    assert called == ["a", "b"] * 3
    assert times == {"a": [1000.0, 1000.0], "b": [1000.0, 1000.0]}  # a tick is a second


def test_progress_counts_every_call_and_takes_none_of_their_time():
    done = []
    ticks = iter(range(100))
    times = time_interleaved(
        {"a": lambda: None, "b": lambda: None},
        2,
        clock=lambda: float(next(ticks)),
        progress=lambda count: (done.append(count), next(ticks)),
    )
    assert sum(done) == 6
    assert times == {"a": [1000.0, 1000.0], "b": [1000.0, 1000.0]}


def test_reading_from_memory_takes_longer_the_more_there_is():
    assert 0.1e9 < measure_read_bandwidth(1 << 24, repeat=3) < 10e12


def test_a_table_from_which_rows_are_gathered_is_not_counted():
    shape = {"table": (100, 8), "w": (8, 6), "unused": (7, 7)}
    weights = [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in shape.items()]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gather", ["y", "rows"], ["z"]),
    ]
    rows = numpy_helper.from_array(np.array([0, 1]), "rows")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 6])],
        [*weights, rows],
    )
    assert weight_bytes(helper.make_model(graph).SerializeToString()) == 8 * 6 * 4 + 2 * 8


def test_the_cost_of_a_process_does_not_include_the_memory_of_its_parent():
    held = bytearray(300 * MEGABYTE)  # the peak of a child would include that of its parent
    held[::4096] = b"x" * len(held[::4096])
    work = (
        "import time; x = bytearray(b'x') * {}; start = time.process_time()\n"
        "while time.process_time() < start + {}: pass"
    )
    small = measure_process([sys.executable, "-c", work.format(1, 0)])
    large = measure_process([sys.executable, "-c", work.format(80 * MEGABYTE, 0.2)])
    assert small is not None
    assert large is not None
    assert small.peak < 60 * MEGABYTE
    assert 70 * MEGABYTE < large.peak - small.peak < 90 * MEGABYTE
    assert large.cpu >= 0.2
    assert large.wall >= 0.2


def test_a_process_reads_its_stdin():
    read = "import sys; given = sys.stdin.buffer.read(); sys.exit(f'it read {given}')"
    with pytest.raises(EdgeChatError, match=r"it read b'a\\x00\\xc3\\xa9\\r\\n'$"):
        measure_process([sys.executable, "-c", read], "a\0é\r\n".encode())
    with pytest.raises(EdgeChatError, match=r"it read b''$"):
        measure_process([sys.executable, "-c", read])


def test_a_failed_process_raises_one_sentence():
    with pytest.raises(EdgeChatError, match="no such thing"):
        measure_process([sys.executable, "-c", "raise SystemExit('no such thing')"])
