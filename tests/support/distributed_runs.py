"""Starts several processes of one training, as torchrun does."""

import os
import subprocess
import sys
from pathlib import Path

import limits


def torchrun(*arguments: object, processes: int = 2, restarts: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a script, or a module with "-m", in several processes."""
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(processes), "--max-restarts", str(restarts),
            "--monitor-interval", "0.1", *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=limits.TIMEOUT_SECONDS,
        check=False,
        cwd=Path(os.environ.get("TMPDIR", "/tmp")),
    )  # fmt: skip
