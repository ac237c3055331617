"""Replies for coroutines: threads search for them, so that no event loop is blocked."""

import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from .reply import Reply
from .stream import ReplyStream

T = TypeVar("T")


class CoroutineThreads:
    """The threads of one model, used by coroutines only.

    They are not those of the event loop's default executor, whose other work would wait behind long replies.
    They end when this object is no longer referenced; a reply in progress refers to it.
    """

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor  # here, for the same reason as asyncio below

        self._pool = ThreadPoolExecutor(thread_name_prefix="edgechat")

    async def reply(self, make_stream: Callable[[], ReplyStream]) -> Reply:
        """The reply of the stream that `make_stream` creates. Cancelling the task stops the search before its
        next step."""
        stream = await self._run(make_stream)
        try:
            return await self._run(lambda: stream.reply)
        finally:
            stream.cancel()

    async def pieces(
        self, make_stream: Callable[[], ReplyStream], on_done: Callable[[Reply], None] = lambda reply: None
    ) -> AsyncGenerator[str, None]:
        """Like `reply`, piece by piece; each is searched for when it is asked for.

        `on_done` is called with the reply when the iteration ends, but not if it is cancelled or left early.
        """
        stream = await self._run(make_stream)
        try:
            while piece := await self._run(lambda: next(stream, "")):
                yield piece
            on_done(stream.reply)
        finally:
            stream.cancel()

    async def replies(self, search: Callable[[Callable[[], bool]], list[Reply]]) -> list[Reply]:
        """The replies that `search` returns. Its argument is a function that says whether to stop, to be
        called before each step."""
        cancelled = threading.Event()
        try:
            return await self._run(lambda: search(cancelled.is_set))
        finally:
            cancelled.set()

    async def _run(self, call: Callable[[], T]) -> T:
        import asyncio  # here, since it is a tenth of the start-up time, and whoever awaits has loaded it

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
