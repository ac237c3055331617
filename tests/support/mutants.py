"""A program with the arguments SEED, COUNT and KIND (`bytes` or `structure`): damages graphs at random, and
runs those that pass the checks in ONNX Runtime. Prints how many ran, how many ONNX Runtime refused, the
longest CPU time of one in seconds, and the peak memory in bytes."""

import random
import resource
import sys
import time
from contextlib import suppress

import numpy as np
from byte_fuzz import mutate_bytes
from graph_fuzz import mutate_graph
from graphs import make_valid_graphs

from edgechat.runtime.errors import BundleError
from edgechat.runtime.graph_check import check_graphs
from edgechat.runtime.ort import OrtBackend

#: Bytes of address space. An allocation beyond it fails with an error that contains "alloc".
MAX_MEMORY_BYTES = 6 << 30
#: Invalid ids. A processor traps if it divides the first by the second.
_INVALID_IDS = (np.iinfo(np.int64).min, -1)
#: Graphs of every precision and with the options of the model.
_VALID_GRAPHS = {
    "bytes": [make_valid_graphs(hidden=1, vocab=5)],
    "structure": [
        make_valid_graphs(),
        make_valid_graphs(precision="int8"),
        make_valid_graphs(precision="fp16"),
        make_valid_graphs(precision="int8", hidden=32, embedding=16, attention=20, vocab=200),
        make_valid_graphs(precision="int8", layers=3, residual=True, layer_norm=True, bidirectional=True),
        make_valid_graphs(precision="int8", copy_attention=True, tied_output=True),
    ],
}
_MUTATIONS = {"bytes": mutate_bytes, "structure": mutate_graph}


def main(seed: int, count: int, kind: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    rng = random.Random(seed)
    ran = refused = 0
    slowest = 0.0
    for _ in range(count):
        spec, *graphs = rng.choice(_VALID_GRAPHS[kind])
        which = rng.randrange(2)
        raw = _MUTATIONS[kind](graphs[which], rng)
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
                _, state = backend.step(state, np.ones(4, np.int64), np.array(parents), 3, return_logp=True)
            ran += 1
            for number in _INVALID_IDS:
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
