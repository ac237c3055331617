"""One prompt and the reply to it, shared by the screen and the thread that decodes."""

import threading
import time
from typing import Protocol

#: Seconds between two drawings of a reply that streams.
FRAME = 1 / 30


class Cancellable(Protocol):
    """What can be told, from any thread, to end soon."""

    def cancel(self) -> None: ...


class Turn:
    """A prompt whose reply is being decoded. The screen stops it; the worker asks `due` and `stopped`."""

    def __init__(self, number: int, prompt: str) -> None:
        self.number, self.prompt = number, prompt
        self._stopped = threading.Event()
        self._drawn = threading.Event()
        self._drawn.set()
        self._last = 0.0
        self._stream: Cancellable | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def attach(self, stream: Cancellable) -> None:
        """What `stop` is to cancel; a turn that was stopped before has it cancelled at once."""
        self._stream = stream
        if self.stopped:
            stream.cancel()

    def stop(self) -> None:
        """End the turn: the search stops before its next step."""
        self._stopped.set()
        if self._stream is not None:
            self._stream.cancel()

    def due(self) -> bool:
        """Whether the worker shall show its progress now: a frame has passed and the screen has drawn
        what it was given before. So a flood of steps costs the screen no more than it can do."""
        now = time.monotonic()
        if not self._drawn.is_set() or now - self._last < FRAME:
            return False
        self._drawn.clear()
        self._last = now
        return True

    def drawn(self) -> None:
        """The screen has drawn the progress it was given."""
        self._drawn.set()
