"""The task of making the replies to one prompt, shared by the screen and the worker thread that decodes."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from textual import log
from textual.message import Message

from .engine import Engine, sentence
from .keysfirst import keys_first
from .messages import ReplyAdvanced, ReplyFailed, ReplyFinished
from .values import ReplyFacts, Trace

#: Minimum seconds between two drawings of a streaming reply.
FRAME = 1 / 20

#: Make a new reply, or repeat an earlier one.
Purpose = Literal["reply", "replay"]


class Cancellable(Protocol):
    """A stream that any thread can cancel."""

    def cancel(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """A reply to make."""

    engine: Engine
    turns: Sequence[str]  # oldest first, the prompt last
    options: dict[str, Any]


class ReplyTask:
    """The jobs of one exchange, which are done one after the other so that their times can be compared.

    The screen calls `stop` and `drawn` and collects results in `done`; the worker checks `due` and `stopped`.
    For a replay, `side` is that of the reply.
    """

    def __init__(
        self, number: int, exchange: int, jobs: Sequence[Job], purpose: Purpose = "reply", side: int = 0
    ) -> None:
        self.number, self.exchange, self.jobs, self.purpose = number, exchange, tuple(jobs), purpose
        self.side = side
        self.done: list[tuple[ReplyFacts, Trace | None]] = []
        self._stopped = threading.Event()
        self._drawn = threading.Event()
        self._drawn.set()
        self._last = self._next = 0.0
        self._stream: Cancellable | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def attach(self, stream: Cancellable) -> None:
        """Set the stream that `stop` cancels. If the task is stopped already, cancel it now. The first
        progress of a stream is always due."""
        self._stream = stream
        self._next = 0.0
        self._drawn.set()
        if self.stopped:
            stream.cancel()

    def stop(self) -> None:
        """End the task. The search stops before its next step."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            stream.cancel()

    def detach(self) -> None:
        """Release the stream, which has ended: Textual keeps workers, and so their tasks, for long."""
        self._stream = None

    def due(self) -> bool:
        """Whether the worker should post its progress now: a frame has passed, and the screen has drawn the
        last progress and then had as much time for other work, such as keys. Progress therefore takes at most
        half of the screen's time."""
        now = time.monotonic()
        if not self._drawn.is_set() or now < self._next:
            return False
        self._drawn.clear()
        self._last = now
        return True

    def drawn(self) -> None:
        """Note that the screen has drawn the last progress."""
        took = time.monotonic() - self._last
        self._next = self._last + max(FRAME, 2 * took)
        self._drawn.set()


def decode(task: ReplyTask, post: Callable[[Message], object]) -> None:
    """Do the jobs of a task in a worker thread, until one fails or the task is stopped. `post` gets their
    progress and results."""
    with keys_first():
        _decode(task, post)


def _decode(task: ReplyTask, post: Callable[[Message], object]) -> None:
    for side, job in enumerate(task.jobs):
        try:
            decoding = job.engine.decode(job.turns, job.options)
            task.attach(decoding)
            for settled, tail in decoding.updates():
                if task.stopped:
                    return
                if task.due():
                    post(ReplyAdvanced(task.number, side, settled, tail))
            post(ReplyFinished(task.number, side, *decoding.result()))
        except Exception as error:
            log.error(error)
            post(ReplyFailed(task.number, side, sentence(error)))
            return
        finally:
            task.detach()
