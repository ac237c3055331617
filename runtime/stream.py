"""What a model gives back: a reply with its candidates, whole or as it is being searched."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import EdgeChatError
from .options import DecodingOptions
from .scheduler import Batch
from .trace import TracedStep

if TYPE_CHECKING:
    from .chat import ChatModel


@dataclass(frozen=True)
class Candidate:
    """One of the n best replies. `score` is `logp` (natural log) with the repetition penalty, normalized by
    length, and with the coverage penalty (docs/decoding.md has the formula)."""

    text: str
    score: float
    logp: float
    tokens: tuple[str, ...]  # joined they are the text, up to surrounding space
    ids: tuple[int, ...]  # of the tokens: of two ways to spell the text, the likelier
    token_logps: tuple[float, ...]  # natural log; one more than tokens, the end-of-sentence, where finished
    finished: bool  # whether it came to its end; else the maximum length or a cancellation cut it
    #: With DecodingOptions(alignments=True), for each of `token_logps`: its attention over the source's
    #: tokens, in text order; each sums to 1.
    alignments: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Reply:
    """The best reply, with the n best as `candidates`, best first. `str(reply)` is its text.

    There may be fewer than n: only what finished counts, unless nothing did, and one text counts once.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    ms: float  # wall time, milliseconds, from the call (of a stream: with what its consumer took)
    truncated: bool  # true where the prompt and its context were longer than the longest source
    trace: tuple[TracedStep, ...] | None = None  # with DecodingOptions(trace=True): what each step did
    confidence: float | None = None
    """The probability, from 0 to 1, that this is the right reply, where the bundle was calibrated and the
    options allow what its own do. None where not, and where the reply or its search was cut."""

    @property
    def logp(self) -> float:
        """The natural-log probability of the best reply."""
        return self.candidates[0].logp

    @property
    def finished(self) -> bool:
        """Whether the best reply came to its end; else the maximum length or a cancellation cut it."""
        return self.candidates[0].finished

    def __str__(self) -> str:
        return self.text


class ReplyStream:
    """A reply that is being searched. Iterate over its settled pieces: text that is never taken back.

    Under beam search a piece is settled once every hypothesis that can still win begins with it.
    The search runs in whichever thread iterates or asks for the reply; each step is taken by one.
    """

    def __init__(
        self,
        model: "ChatModel",
        turns: Sequence[str],
        options: DecodingOptions,
        done: Callable[[Reply], None],
    ) -> None:
        self._start = time.perf_counter()
        self._model, self._done = model, done
        self._source = model.codec.encode_source(turns)
        self._search = model.search(options, self._source.ids)
        self._lock = threading.RLock()  # `done` may ask for the reply
        self._batch: Batch[Any] | None = None
        self._failed = False
        self._cancelled = threading.Event()
        self._reply: Reply | None = None
        self._emitted = ""
        #: What the best reply so far has after what is settled; it may still change.
        self.tail: str = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for piece, _ in self.updates():
            if piece:
                return piece
        raise StopIteration

    def updates(self) -> Iterator[tuple[str, str]]:
        """One `(piece, tail)` each step: what was settled now (often nothing), and the unsettled text."""
        codec, search = self._model.codec, self._search
        while True:
            with self._lock:  # two threads that iterate share the pieces; none comes twice
                going_on = self._step()
                if not going_on:
                    self.tail = ""
                    update = (self._emit(self._result().text), "")
                else:
                    settled = codec.agreed(search.contenders())
                    best = codec.decode_whole(search.hypotheses()[0].tokens)
                    self.tail = best[len(settled) :] if best.startswith(settled) else ""
                    update = (self._emit(settled), self.tail)
            yield update
            if not going_on:
                return

    def cancel(self) -> None:
        """Stop before the next step. The reply is then the best so far, and has no confidence: one that had
        finished by then, or else one that is cut, as long as it was."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def reply(self) -> Reply:
        """The reply; what is still to be searched is searched first."""
        while True:
            with self._lock:
                if not self._step():
                    return self._result()

    def _result(self) -> Reply:
        if self._reply is None:
            raise EdgeChatError("there is no reply: its search failed before it ended")
        return self._reply

    def _step(self) -> bool:
        """Take one step of the search; false once it is over. The caller holds the lock."""
        if self._reply is not None or self._failed:
            return False
        self._model.check_process()
        try:
            if self._batch is None and not self.cancelled:
                self._batch = Batch(self._model.backend, [self._source.ids], [self._search])
            if self._batch is not None and not self.cancelled and self._batch.step():
                return True
        except BaseException:
            self._failed, self._batch = True, None
            raise
        self._batch = None  # it holds the sessions, which are to be free once the model is closed
        self._reply = self._model.make_reply(self._search, self._start, self._source.truncated)
        if not self.cancelled:
            self._done(self._reply)
        return False

    def _emit(self, text: str) -> str:
        """What `text` adds to what was given out."""
        piece, self._emitted = text[len(self._emitted) :], text
        return piece
