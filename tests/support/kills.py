"""Kills a training run with SIGKILL at random moments and resumes it until it ends."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

# Kills itself during the second checkpoint write, when the files exist but are not yet renamed.
_DIE_IN_CHECKPOINT = """
import os, signal, sys
from edgechat.runtime import atomic_write
import edgechat.train.checkpoint as checkpoint
writes = 0
real = atomic_write.sync_folder
def sync_folder(folder):
    global writes
    if folder.name.startswith(".tmp-") and folder.parent.name == "checkpoints":
        writes += 1
        if writes == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    real(folder)
atomic_write.sync_folder = sync_folder
from edgechat.cli import main
sys.argv[0] = "edgechat"
main()
"""


def train_through_kills(arguments: list[str], out: Path, *, kills: int, seed: int) -> int:
    """Run `edgechat train` with `arguments` until it ends, killed `kills` times on the way, the first time
    inside a checkpoint write. Returns the number of kills that hit a running process."""
    command = [*arguments, "--out", str(out), "--resume"]
    died = subprocess.run(
        [sys.executable, "-c", _DIE_IN_CHECKPOINT, "train", *command], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    names = {path.name[:5] for path in (out / "checkpoints").iterdir()}
    assert names == {".tmp-", "step-"}, "the kill did not hit a checkpoint write beside a good checkpoint"
    hit = 1
    chance = random.Random(seed)
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgechat", "train", *command], stderr=subprocess.PIPE
        )
        if hit < kills:
            assert process.stderr is not None
            for line in process.stderr:  # wait for the training: killing an import tests nothing
                if line.startswith(b"training"):
                    break
            time.sleep(chance.uniform(0.0, 0.6))
            process.kill()
        _, errors = process.communicate()
        if process.returncode == -signal.SIGKILL:
            hit += 1
        else:
            assert process.returncode == 0, errors.decode()
            return hit
