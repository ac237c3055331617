"""One prompt and the replies to it that are being made, shared by the screen and the thread that decodes."""

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
from .values import Insight, ReplyFacts

#: Seconds between two drawings of a reply that streams.
FRAME = 1 / 20

#: A new reply, or one that was made before.
Purpose = Literal["reply", "replay"]


class Cancellable(Protocol):
    """What can be told, from any thread, to end soon."""

    def cancel(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """A reply to make: by whom, to what, and how."""

    engine: Engine
    turns: Sequence[str]  # of the conversation, oldest first, the prompt last
    options: dict[str, Any]


class Turn:
    """The jobs of one exchange, done one after the other, so that their times can be compared. The screen
    stops it and notes in `done` what has come; the worker asks `due` and `stopped`. `side` is that of the
    reply that is replayed."""

    def __init__(
        self, number: int, exchange: int, jobs: Sequence[Job], purpose: Purpose = "reply", side: int = 0
    ) -> None:
        self.number, self.exchange, self.jobs, self.purpose = number, exchange, tuple(jobs), purpose
        self.side = side
        self.done: list[tuple[ReplyFacts, Insight | None]] = []
        self._stopped = threading.Event()
        self._drawn = threading.Event()
        self._drawn.set()
        self._last = self._next = 0.0
        self._stream: Cancellable | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def attach(self, stream: Cancellable) -> None:
        """What `stop` is to cancel; a turn that was stopped before has it cancelled at once. The first
        progress of a stream is always due."""
        self._stream = stream
        self._next = 0.0
        self._drawn.set()
        if self.stopped:
            stream.cancel()

    def stop(self) -> None:
        """End the turn: the search stops before its next step."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            stream.cancel()

    def detach(self) -> None:
        """Let go of the stream, which is over: Textual remembers a worker and its turn for long."""
        self._stream = None

    def due(self) -> bool:
        """Whether the worker shall show its progress now: a frame has passed, and the screen has drawn what
        it was given before and had as much time for other things, such as a key. So a flood of steps costs
        the screen no more than half its time."""
        now = time.monotonic()
        if not self._drawn.is_set() or now < self._next:
            return False
        self._drawn.clear()
        self._last = now
        return True

    def drawn(self) -> None:
        """The screen has drawn the progress it was given."""
        took = time.monotonic() - self._last
        self._next = self._last + max(FRAME, 2 * took)
        self._drawn.set()


def decode(turn: Turn, post: Callable[[Message], object]) -> None:
    """Do the jobs of a turn, and post what comes of them: the way of a worker's thread. After a failure,
    or once it is stopped, the rest is not done."""
    with keys_first():
        _decode(turn, post)


def _decode(turn: Turn, post: Callable[[Message], object]) -> None:
    for side, job in enumerate(turn.jobs):
        try:
            decoding = job.engine.decode(job.turns, job.options)
            turn.attach(decoding)
            for settled, tail in decoding.updates():
                if turn.stopped:
                    return
                if turn.due():
                    post(ReplyAdvanced(turn.number, side, settled, tail))
            post(ReplyFinished(turn.number, side, *decoding.result()))
        except Exception as error:
            log.error(error)
            post(ReplyFailed(turn.number, side, sentence(error)))
            return
        finally:
            turn.detach()
