"""What keeps the chat quick to answer a key while a reply is decoded in another thread."""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

#: Seconds after which a thread that computes lets the other go on; Python's own 5 ms are many in a row.
_SWITCH = 0.0005

_lock = threading.Lock()
_decoding = 0
_collects = False


def begin() -> None:
    """To be called once all is imported. What there is stays: collections of garbage pass over it."""
    gc.freeze()
    sys.setswitchinterval(_SWITCH)


@contextlib.contextmanager
def keys_first() -> Iterator[None]:
    """Inside, in any number of threads, no garbage is collected: looking through all that the trace of a
    long reply holds takes a tenth of a second, for which a key would wait."""
    global _decoding, _collects
    with _lock:
        if not _decoding:
            _collects = gc.isenabled()
            gc.disable()
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if not _decoding and _collects:
                gc.enable()
