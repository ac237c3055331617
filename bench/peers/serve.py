"""The peer's side of the protocol: one line of JSON on stdout when it is ready, then one for each line
read."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


def serve(make: Callable[[SimpleNamespace], Callable[[], int]], version: str) -> None:
    """Decode once for each line of stdin. `make` takes the sizes and returns a function that decodes and
    returns the number of steps."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a toolkit prints must not be mistaken for an answer
    decode = make(SimpleNamespace(**json.loads(sys.argv[1])))
    print(json.dumps({"version": version}), file=out, flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        steps = decode()
        ms = (time.process_time() - start) * 1e3
        print(json.dumps({"ms": ms, "steps": steps}), file=out, flush=True)


@dataclass(frozen=True)
class TrainingFunctions:
    """The functions to train a toolkit's model."""

    batch: Callable[[list[list[int]], list[list[int]]], Any]
    """Make the toolkit's own batch of sources and targets, as its data loader would."""
    update: Callable[[Any], None]
    """Forward, backward, clipping and optimizer step, as the toolkit does it."""
    loss: Callable[[Any], float]
    """The summed loss of a batch without dropout."""


def serve_training(make: Callable[[SimpleNamespace], TrainingFunctions], version: str) -> None:
    """Make an update, or compute a loss, for each batch of stdin."""
    out, sys.stdout = sys.stdout, sys.stderr
    functions = make(SimpleNamespace(**json.loads(sys.argv[1])))
    print(json.dumps({"version": version}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        batch = functions.batch(request["sources"], request["targets"])
        if request["learn"]:
            start = time.process_time()
            functions.update(batch)
            answer = {"ms": (time.process_time() - start) * 1e3}
        else:
            answer = {"loss": functions.loss(batch)}
        print(json.dumps(answer), file=out, flush=True)


def padded(rows: list[list[int]], padding: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [padding] * (longest - len(row)) for row in rows]
