"""A streamed reply: its search runs as it is iterated."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .backend import Backend
from .errors import EdgeChatError
from .options import DecodingOptions
from .process_bound import ProcessBound
from .reply import Reply
from .reply_maker import ReplyMaker
from .scheduler import SearchBatch


class ReplyStream(ProcessBound):
    """A reply in progress. Iterate over its settled pieces: text that is never taken back.

    Under beam search, text is settled when every hypothesis that can still win begins with it.
    The search runs in the thread that iterates or asks for `reply`. Several threads may do so at once: each
    step is taken by one of them, and each piece is given to one.
    """

    def __init__(
        self,
        backend: Callable[[], Backend[Any]],
        maker: ReplyMaker,
        turns: Sequence[str],
        options: DecodingOptions,
        on_done: Callable[[Reply], None],
    ) -> None:
        self._start = time.perf_counter()
        super().__init__()
        self._backend, self._maker, self._on_done = backend, maker, on_done
        self._source = maker.codec.encode_source(turns)
        self._search = maker.search(options, self._source.ids)
        self._lock = threading.RLock()  # reentrant: `on_done` may read `reply`
        self._batch: SearchBatch[Any] | None = None
        self._error: EdgeChatError | None = None  # why the search failed, for whoever asks again
        self._cancelled = threading.Event()
        self._reply: Reply | None = None
        self._emitted = ""
        #: What follows the settled text in the best reply so far; it may still change.
        self.tail: str = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for piece, _ in self.updates():
            if piece:
                return piece
        raise StopIteration

    def updates(self) -> Iterator[tuple[str, str]]:
        """Yield `(piece, tail)` for each step: the newly settled text, often "", and the unsettled text."""
        codec, search = self._maker.codec, self._search
        while True:
            with self._lock:  # threads that iterate share the pieces: none comes twice
                going_on = self._step()
                if not going_on:
                    self.tail = ""
                    update = (self._emit(self._result().text), "")
                else:
                    settled = codec.common_prefix(search.contenders())
                    best = codec.decode_complete_characters(search.hypotheses()[0].tokens)
                    self.tail = best[len(settled) :] if best.startswith(settled) else ""
                    update = (self._emit(settled), self.tail)
            yield update
            if not going_on:
                return

    def cancel(self) -> None:
        """Stop before the next step; may be called from any thread.

        The reply is then the best so far: a finished one if there is one, else one that is cut off. It has
        no confidence.
        """
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def reply(self) -> Reply:
        """The reply. Reading it runs the rest of the search first."""
        while True:
            with self._lock:
                if not self._step():
                    return self._result()

    def _result(self) -> Reply:
        if self._error is not None:
            raise self._error.with_traceback(None)
        assert self._reply is not None
        return self._reply

    def _step(self) -> bool:
        """Take one step of the search; return False when it is over. The caller holds the lock."""
        if self._reply is not None or self._error is not None:
            return False
        self.check_process()
        try:
            if self._batch is None and not self.cancelled:
                self._batch = SearchBatch(self._backend(), [self._source.ids], [self._search])
            if self._batch is not None and not self.cancelled and self._batch.step():
                return True
            reply = self._maker.reply(self._search, self._start, self._source)
        except BaseException as error:
            # Not the error itself, whose traceback would keep the sessions.
            self._error = (
                type(error)(*error.args)
                if isinstance(error, EdgeChatError)
                else EdgeChatError("there is no reply: the search failed before it ended")
            )
            self._batch = None
            raise
        # The batch holds the sessions, which must be freed when the model is closed.
        self._batch, self._reply = None, reply
        if not self.cancelled:
            self._on_done(self._reply)
        return False

    def _emit(self, text: str) -> str:
        """What `text` adds to the pieces given out so far."""
        piece, self._emitted = text[len(self._emitted) :], text
        return piece
