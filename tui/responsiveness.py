"""Keep the chat responsive to keys while another thread decodes a reply."""

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

#: Thread switch interval. Python's default of 5 ms adds up: handling a key takes many switches.
_SWITCH_INTERVAL_SECONDS = 0.0005

_lock = threading.Lock()
_active_count = 0
_was_enabled = False


def prepare_process() -> None:
    """Prepare the process. Call it after all imports, since garbage collection skips existing objects."""
    gc.freeze()
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection inside, in any number of threads. A collection that visits the trace of a
    long reply takes a tenth of a second, during which a key would wait."""
    global _active_count, _was_enabled
    with _lock:
        if not _active_count:
            _was_enabled = gc.isenabled()
            gc.disable()
        _active_count += 1
    try:
        yield
    finally:
        with _lock:
            _active_count -= 1
            if not _active_count and _was_enabled:
                gc.enable()
