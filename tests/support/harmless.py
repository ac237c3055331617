"""Runs `mutants` in a process of its own, where a crash, a hang or excessive memory is noticed."""

import subprocess
import sys
from pathlib import Path


def check_mutants(how: str, count: int, *, seed: int, timeout: float, least: int) -> None:
    """Check that `count` damaged graphs are refused in one sentence or do no harm, and that at least
    `least` of them run."""
    done = subprocess.run(
        [sys.executable, "mutants.py", str(seed), str(count), how],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    ran, _, slowest, memory = map(float, done.stdout.split())
    assert ran >= least
    assert slowest < 5
    assert memory < 2e9
