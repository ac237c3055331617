"""Runs `mutants` in a process of its own, where a crash, a hang or excessive memory is noticed."""

import subprocess
import sys
from pathlib import Path


def check_mutants(kind: str, count: int, *, seed: int, timeout: float, min_runs: int) -> None:
    """Check that `count` damaged graphs are refused in one sentence or do no harm, and that at least
    `min_runs` of them run."""
    done = subprocess.run(
        [sys.executable, "mutants.py", str(seed), str(count), kind],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    ran, _, slowest, memory = map(float, done.stdout.split())
    assert ran >= min_runs
    assert slowest < 5
    assert memory < 2e9
