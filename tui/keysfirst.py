"""Keep the chat responsive to keys while another thread decodes a reply."""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

#: Thread switch interval in seconds. Python's default of 5 ms adds up: handling a key takes many switches.
_SWITCH = 0.0005

_lock = threading.Lock()
_decoding = 0
_collects = False


def begin() -> None:
    """Prepare the process. Call it after all imports, since garbage collection skips existing objects."""
    gc.freeze()
    sys.setswitchinterval(_SWITCH)


@contextlib.contextmanager
def keys_first() -> Iterator[None]:
    """Disable garbage collection inside, in any number of threads. A collection that visits the trace of a
    long reply takes a tenth of a second, during which a key would wait."""
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
