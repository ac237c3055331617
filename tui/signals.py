"""The signals that ask a process to end. Where they come, the chat is quit as it is by its key."""

import contextlib
import os
import signal
import stat
from collections.abc import Callable, Iterator

#: A closed terminal sends SIGHUP, which Windows does not have.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def quitting(quit: Callable[[], None]) -> Iterator[None]:
    """Inside, each of them calls `quit`, between any two instructions of the main thread. They may come more
    than once: a shell passes on what it is sent. SIGHUP does so too where it was ignored, as `nohup` has it:
    without a terminal there is nothing left to do."""

    def end(*_: object) -> None:
        _leave_closed_terminal()
        quit()

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
