"""Ctrl-C while a command starts, at any moment: exit code 130 and no traceback."""

import random
import signal
import subprocess
import sys
import time

import limits
import pytest

_MAIN = """
import os, signal, sys
from edgechat.cli import main
sys.argv[0] = "edgechat"
{}
print("up", flush=True)
main()
"""
#: An interrupt during an import, which the module turns into an error of its own.
_WITHIN_AN_IMPORT = """
class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == "onnxruntime":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                sum(range(1000))
            except KeyboardInterrupt:
                raise ImportError("initialization failed") from None
sys.meta_path.insert(0, Interrupting)
"""
#: An interrupt after all imports, before a command runs.
_BEFORE_A_COMMAND = """
import typer.main
def interrupting(*_):
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))
typer.main.get_params_from_function = interrupting
"""


def start(before: str) -> "subprocess.Popen[str]":
    """`edgechat --help`, about to start."""
    command = [sys.executable, "-c", _MAIN.format(before), "reply", "--help"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    return started


@pytest.mark.parametrize("before", [_WITHIN_AN_IMPORT, _BEFORE_A_COMMAND], ids=["import", "command"])
def test_an_interrupt_that_an_import_swallows_still_exits_with_130(before):
    started = start(before)
    assert started.communicate(timeout=limits.TIMEOUT_SECONDS)[1] == ""
    assert started.returncode == 130


def test_an_interrupt_at_any_moment_of_the_start_leaves_no_traceback():
    begun = time.perf_counter()
    start("").communicate(timeout=limits.TIMEOUT_SECONDS)
    chance, latest = random.Random(1), 0.5 * (time.perf_counter() - begun)
    codes = set()
    for _ in range(8):
        started = start("")
        time.sleep(chance.uniform(0, latest))
        started.send_signal(signal.SIGINT)
        assert "Traceback" not in started.communicate(timeout=limits.TIMEOUT_SECONDS)[1]
        codes.add(started.returncode)
        if started.returncode == 0:  # the interrupt came too late, as after a slow first start
            latest /= 2
    assert 130 in codes
    assert codes <= {0, 130, -signal.SIGINT}  # the signal ends Python itself while it starts or exits
