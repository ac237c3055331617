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
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

#: How long a terminal may accept no output, and the time between checks.
_OUTPUT_TIMEOUT_SECONDS, _POLL_SECONDS = 3.0, 0.1


@contextlib.contextmanager
def quit_on_signals(quit: Callable[[], None], save: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP call `quit`, between any two instructions of the main thread.

    A signal may come more than once, since a shell passes on the signals that it receives. SIGHUP quits even
    if it was ignored, as under `nohup`: without a terminal there is nothing left to do. If the terminal is
    open but accepts no output, writing to it would block forever. The process then ends after `save`, which
    saves the conversation and returns what was lost, "" if nothing was.
    """
    signaled, ended = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        _leave_closed_terminal()
        if not signaled.is_set() and sys.platform != "win32":
            signaled.set()
            threading.Thread(target=_exit_if_output_blocks, args=(ended, save), daemon=True).start()
        quit()

    before = {number: signal.signal(number, end) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_if_output_blocks(ended: threading.Event, save: Callable[[], str]) -> None:
    """End the process if the terminal accepts no output for `_OUTPUT_TIMEOUT_SECONDS`, unless the chat
    ended."""
    accepted = time.monotonic()
    while not ended.wait(_POLL_SECONDS):
        if select.select([], [2], [], 0)[1]:  # Textual writes to stderr
            accepted = time.monotonic()
        elif time.monotonic() - accepted > _OUTPUT_TIMEOUT_SECONDS:
            os._exit(bool(save()))


def _leave_closed_terminal() -> None:
    """Redirect output from a closed terminal to the null device: Textual's attempt to restore the terminal
    would fail."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
                null_device = os.open(os.devnull, os.O_RDWR)
                os.dup2(null_device, fd)
                os.close(null_device)
                _ignore_sigcont()


def _ignore_sigcont() -> None:
    """Ignore SIGCONT, which comes with SIGHUP: Textual would set up the terminal again."""
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, lambda *_: None)
