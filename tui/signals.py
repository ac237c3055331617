"""Quit the chat on the signals that ask a process to end, as if by its key."""

import contextlib
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: A closed terminal sends SIGHUP. Windows does not have it.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

#: Seconds for which a terminal may accept no output, and seconds between checks.
_PATIENCE, _INTERVAL = 3.0, 0.1


@contextlib.contextmanager
def quitting(quit: Callable[[], None], keep: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP call `quit`, between any two instructions of the main thread.

    A signal may come more than once, since a shell passes on the signals that it receives. SIGHUP quits even
    if it was ignored, as under `nohup`: without a terminal there is nothing left to do. If the terminal is
    open but accepts no output, writing to it would block forever. The process then ends after `keep`, which
    saves the conversation and returns what was lost, "" if nothing was.
    """
    asked, ended = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        _leave_closed_terminal()
        if not asked.is_set() and sys.platform != "win32":
            asked.set()
            threading.Thread(target=_end_unread, args=(ended, keep), daemon=True).start()
        quit()

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_unread(ended: threading.Event, keep: Callable[[], str]) -> None:
    """End the process if the terminal accepts no output for `_PATIENCE` seconds, unless the chat ended."""
    accepted = time.monotonic()
    while not ended.wait(_INTERVAL):
        if select.select([], [2], [], 0)[1]:  # Textual writes to stderr
            accepted = time.monotonic()
        elif time.monotonic() - accepted > _PATIENCE:
            os._exit(bool(keep()))


def _leave_closed_terminal() -> None:
    """Redirect output from a closed terminal to the null device: Textual's attempt to restore the terminal
    would fail."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, fd)
                os.close(nowhere)
                _stay_in_background()


def _stay_in_background() -> None:
    """Ignore SIGCONT, which comes with SIGHUP: Textual would set up the terminal again."""
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, lambda *_: None)
