"""The signals that ask a process to end. Where they come, the chat is quit as it is by its key."""

import contextlib
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: A closed terminal sends SIGHUP, which Windows does not have.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

#: Seconds for which a terminal may take nothing of what is written to it, and between two looks at it.
_PATIENCE, _LOOK = 3.0, 0.1


@contextlib.contextmanager
def quitting(quit: Callable[[], None], keep: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Inside, each of them calls `quit`, between any two instructions of the main thread. They may come more
    than once: a shell passes on what it is sent. SIGHUP does so too where it was ignored, as `nohup` has it:
    without a terminal there is nothing left to do. Where the terminal is there and takes nothing, which would
    hold up what is written to it for ever, the process ends all the same when `keep` has kept what was said;
    it gives what is lost, or ""."""
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
    """End the process where the terminal takes nothing for long, unless it has ended."""
    taken = time.monotonic()
    while not ended.wait(_LOOK):
        if select.select([], [2], [], 0)[1]:  # where Textual writes
            taken = time.monotonic()
        elif time.monotonic() - taken > _PATIENCE:
            os._exit(bool(keep()))


def _leave_closed_terminal() -> None:
    """A terminal that is gone cannot be given back: what is written to it would fail. It goes nowhere now."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, fd)
                os.close(nowhere)
                _stay_in_background()


def _stay_in_background() -> None:
    """SIGCONT comes with SIGHUP. Textual would take the terminal again."""
    if hasattr(signal, "SIGCONT"):
        signal.signal(signal.SIGCONT, lambda *_: None)
