"""Ctrl-C and SIGTERM during training: a request to stop after the current step."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

_STOPPING_MESSAGE = (
    b"stopping after this step; Ctrl-C again stops at once and loses the steps since the checkpoint\n"
)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first signal into a request to stop, which the caller polls at a moment that loses nothing.

    Handled are Ctrl-C, SIGTERM, and SIGHUP (the terminal was closed) unless it is ignored, as under nohup. A
    second Ctrl-C ends the process at once.

    Yields:
        A function that returns whether a stop was requested.
    """
    requested = False

    def request(number: int, frame: Any) -> None:
        nonlocal requested
        requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not `print_stderr`: the signal may have interrupted a write to the same buffer.
        with contextlib.suppress(OSError):
            os.write(2, _STOPPING_MESSAGE)

    signals = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
