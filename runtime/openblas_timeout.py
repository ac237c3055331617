"""Imports NumPy so that the threads of its OpenBLAS sleep at once.

OpenBLAS starts its threads when it is loaded, and they spin for a while before they sleep. That takes 0.1 s
of CPU time in a process that prints one reply, more with more cores, and the runtime does not use BLAS. 4 is
the shortest time that can be set. If NumPy was already imported, or the variable is set, nothing is changed.
The variable is removed again, so that child processes do not inherit it.
"""

import os
import sys

_VARIABLE = "OPENBLAS_THREAD_TIMEOUT"

if "numpy" not in sys.modules and _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = "4"
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[_VARIABLE]
