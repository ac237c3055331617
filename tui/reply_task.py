"""The task of making the replies to one prompt, shared by the screen and the worker thread that decodes."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from textual import log
from textual.message import Message

from .engine import Engine, error_message
from .messages import ReplyAdvanced, ReplyFailed, ReplyFinished
from .responsiveness import no_garbage_collection
from .values import ReplyFacts, Trace

#: Minimum time between two drawings of a streaming reply.
MIN_FRAME_SECONDS = 1 / 20

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

    The screen calls `stop` and `on_progress_drawn` and collects the `results`; the worker checks
    `should_post_progress` and `is_stopped`. For a replay, `side` is that of the reply.
    """

    def __init__(
        self,
        number: int,
        exchange_number: int,
        jobs: Sequence[Job],
        purpose: Purpose = "reply",
        side: int = 0,
    ) -> None:
        self.number, self.exchange_number, self.jobs, self.purpose = (
            number,
            exchange_number,
            tuple(jobs),
            purpose,
        )
        self.side = side
        self.results: list[tuple[ReplyFacts, Trace | None]] = []
        self._stopped = threading.Event()
        self._drawn = threading.Event()
        self._drawn.set()
        self._posted_at = self._next_due_at = 0.0
        self._stream: Cancellable | None = None

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def attach(self, stream: Cancellable) -> None:
        """Set the stream that `stop` cancels. If the task is stopped already, cancel it now. The first
        progress of a stream is always due."""
        self._stream = stream
        self._next_due_at = 0.0
        self._drawn.set()
        if self.is_stopped:
            stream.cancel()

    def stop(self) -> None:
        """End the task. The search stops before its next step."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            stream.cancel()

    def detach(self) -> None:
        """Release the stream, which has ended: Textual keeps workers, and so their tasks, for long."""
        self._stream = None

    def should_post_progress(self) -> bool:
        """Whether the worker should post its progress now: a frame has passed, and the screen has drawn the
        last progress and then had as much time for other work, such as keys. Progress therefore takes at most
        half of the screen's time."""
        now = time.monotonic()
        if not self._drawn.is_set() or now < self._next_due_at:
            return False
        self._drawn.clear()
        self._posted_at = now
        return True

    def on_progress_drawn(self) -> None:
        """Note that the screen has drawn the last progress."""
        took = time.monotonic() - self._posted_at
        self._next_due_at = self._posted_at + max(MIN_FRAME_SECONDS, 2 * took)
        self._drawn.set()


def run_task(task: ReplyTask, post: Callable[[Message], object]) -> None:
    """Do the jobs of a task in a worker thread, until one fails or the task is stopped. `post` gets their
    progress and results."""
    with no_garbage_collection():
        _run_jobs(task, post)


def _run_jobs(task: ReplyTask, post: Callable[[Message], object]) -> None:
    for side, job in enumerate(task.jobs):
        try:
            decoding = job.engine.decode(job.turns, job.options)
            task.attach(decoding)
            for settled, tail in decoding.updates():
                if task.is_stopped:
                    return
                if task.should_post_progress():
                    post(ReplyAdvanced(task.number, side, settled, tail))
            post(ReplyFinished(task.number, side, *decoding.result()))
        except Exception as error:
            log.error(error)
            post(ReplyFailed(task.number, side, error_message(error)))
            return
        finally:
            task.detach()
