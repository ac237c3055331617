"""What a peer says on stdout: a line of JSON when it is ready, then one for each line it reads."""

import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace


def serve(make: Callable[[SimpleNamespace], Callable[[], int]], version: str) -> None:
    """Decode once for each line of stdin. `make` takes the sizes, and gives what decodes and says how many
    steps it took."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a toolkit prints is no answer
    decode = make(SimpleNamespace(**json.loads(sys.argv[1])))
    print(json.dumps({"version": version}), file=out, flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        steps = decode()
        ms = (time.process_time() - start) * 1e3
        print(json.dumps({"ms": ms, "steps": steps}), file=out, flush=True)
