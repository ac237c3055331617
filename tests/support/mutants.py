"""A program with the arguments SEED, COUNT and HOW (`bytes` or `structure`): damages graphs at random, and
runs those that pass the checks in ONNX Runtime. Prints how many ran, how many ONNX Runtime refused, the
longest CPU time of one in seconds, and the peak memory in bytes."""

import random
import resource
import sys
import time
from contextlib import suppress

import numpy as np
from fuzz import mutated
from graphs import honest
from restructured import restructured

from edgechat.runtime.errors import BundleError
from edgechat.runtime.graphcheck import check_graphs
from edgechat.runtime.ort import OrtBackend

#: Bytes of address space. An allocation beyond it fails with an error that contains "alloc".
MOST_MEMORY = 6 << 30
#: Invalid ids. A processor traps if it divides the first by the second.
_NO_IDS = (np.iinfo(np.int64).min, -1)
#: Graphs of every precision and with the options of the model.
_HONEST = {
    "bytes": [honest(hidden=1, vocab=5)],
    "structure": [
        honest(),
        honest(precision="int8"),
        honest(precision="fp16"),
        honest(precision="int8", hidden=32, embedding=16, attention=20, vocab=200),
        honest(precision="int8", layers=3, residual=True, layer_norm=True, bidirectional=True),
        honest(precision="int8", copy_attention=True, tied_output=True),
    ],
}
_CHANGE = {"bytes": mutated, "structure": restructured}


def main(seed: int, count: int, how: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    rng = random.Random(seed)
    ran = refused = 0
    slowest = 0.0
    for _ in range(count):
        spec, *graphs = rng.choice(_HONEST[how])
        which = rng.randrange(2)
        raw = _CHANGE[how](graphs[which], rng)
        pair = [raw if n == which else graph for n, graph in enumerate(graphs)]
        start = time.process_time()
        try:
            check_graphs(spec, *pair)
        except BundleError as error:
            if "\n" in str(error):
                raise
            continue
        try:
            backend = OrtBackend(spec, *pair, device="cpu", threads=1)
            state = backend.encode(np.full((2, 3), 4), np.array([3, 2]))
            for parents in ([0, 0, 1, 1], [1, 1, 3, 2]):
                _, state = backend.step(state, np.ones(4, np.int64), np.array(parents), 3, whole=True)
            ran += 1
            for number in _NO_IDS:
                with suppress(BundleError):
                    backend.step(state, np.full(4, number), np.array(parents), 3)
                with suppress(BundleError):
                    backend.encode(np.full((2, 3), number), np.array([3, 2]))
        except BundleError as error:
            if "alloc" in str(error):  # it requested too much memory
                raise
            refused += 1
        slowest = max(slowest, time.process_time() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    print(ran, refused, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
