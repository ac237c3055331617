"""A program: damage graphs at random, `SEED` `COUNT`, and let ONNX Runtime have those that the checks let
pass. Prints how many of them ran and how many ONNX Runtime refused, and the most memory it took in bytes."""

import random
import resource
import sys

import numpy as np
from fuzz import mutated
from graphs import honest

from edgechat.runtime.errors import BundleError
from edgechat.runtime.graphcheck import check_graphs
from edgechat.runtime.ort import OrtBackend


def main(seed: int, count: int) -> None:
    rng = random.Random(seed)
    spec, *graphs = honest(hidden=1, vocab=5)
    ran = refused = 0
    for _ in range(count):
        which = rng.randrange(2)
        raw = mutated(graphs[which], rng)
        pair = [raw if n == which else graph for n, graph in enumerate(graphs)]
        try:
            check_graphs(spec, *pair)
        except BundleError:
            continue
        try:
            backend = OrtBackend(spec, *pair, device="cpu", threads=1)
            state = backend.encode(np.full((2, 3), 4), np.array([3, 2]))
            backend.step(state, np.ones(4, np.int64), np.array([0, 0, 1, 1]), 3)
            ran += 1
        except BundleError:
            refused += 1
    unit = 1 if sys.platform == "darwin" else 1024
    print(ran, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
