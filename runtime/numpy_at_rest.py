"""Imports NumPy so that the threads of its OpenBLAS rest.

OpenBLAS makes its threads when it is loaded, and they spin for work for a while before they sleep: 0.1 s
of CPU time of a process that prints one reply, and more on more cores. Nothing here uses BLAS. 4 is the
shortest while that it knows. Where NumPy was imported before, or the variable is set, nothing is changed;
for programs that this one starts, neither.
"""

import os
import sys

_SPIN = "OPENBLAS_THREAD_TIMEOUT"

if "numpy" not in sys.modules and _SPIN not in os.environ:
    os.environ[_SPIN] = "4"
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[_SPIN]
