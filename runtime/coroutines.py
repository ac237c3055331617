"""Replies for coroutines: they are searched in threads, so that no event loop waits for one."""

import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from .reply import Reply
from .stream import ReplyStream

T = TypeVar("T")


class Threads:
    """The threads of one model, for coroutines alone: where they shared the event loop's own, what else runs
    in those would wait behind long replies. They end once nobody has this object, as replies that go on do.
    """

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor  # as asyncio below

        self._pool = ThreadPoolExecutor(thread_name_prefix="edgechat")

    async def reply(self, make: Callable[[], ReplyStream]) -> Reply:
        """The reply of the stream that `make` makes; cancelled, it stops before its next step."""
        stream = await self._run(make)
        try:
            return await self._run(lambda: stream.reply)
        finally:
            stream.cancel()

    async def pieces(self, make: Callable[[], ReplyStream]) -> AsyncGenerator[str, None]:
        """As `reply`, piece by piece; none is searched before it is asked for."""
        stream = await self._run(make)
        try:
            while piece := await self._run(lambda: next(stream, "")):
                yield piece
        finally:
            stream.cancel()

    async def replies(self, search: Callable[[Callable[[], bool]], list[Reply]]) -> list[Reply]:
        """The replies that `search` gives; what it is handed says, before each step, whether to stop."""
        cancelled = threading.Event()
        try:
            return await self._run(lambda: search(cancelled.is_set))
        finally:
            cancelled.set()

    async def _run(self, call: Callable[[], T]) -> T:
        import asyncio  # whoever has a coroutine has it loaded; nobody else pays a tenth of the start for it

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
