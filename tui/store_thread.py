"""The store's thread. Only this thread uses the file, and it does its work in the order of the requests."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .store import GONE_MESSAGE, GoneError, Store, StoreError
from .titles import title_of
from .values import Exchange

T = TypeVar("T")


class StoreThread:
    """Runs work on a store in its own thread. The store is opened for the first request. `persistent` is
    false for a store in memory."""

    def __init__(self, open_store: Callable[[], Store], *, persistent: bool = True) -> None:
        self.persistent = persistent
        self._open = open_store
        self._unwritten: deque[Callable[[Store], None]] = deque()
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._closing = threading.Lock()
        self._closed: Future[str] | None = None

    async def run(self, work: Callable[[Store], T]) -> T:
        """Run `work` and wait for its result.

        Raises:
            StoreError: the store cannot be used.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[Store], T]) -> "Future[T]":
        """Run `work` without waiting for it."""
        return self._thread.submit(lambda: work(self._get_store()))

    def write(self, work: Callable[[Store], None]) -> "Future[None]":
        """Run a write without waiting for it. If the store cannot be written, the write is repeated before
        the next one, and when the thread is closed."""
        return self._thread.submit(self._write, work)

    async def finish_writes(self) -> None:
        """Repeat the writes that failed.

        Raises:
            StoreError: one of them failed again.
        """
        await asyncio.wrap_future(self._thread.submit(self._write_all))

    @property
    def has_unwritten(self) -> bool:
        """Whether a write has failed and was not repeated successfully yet."""
        return bool(self._unwritten)

    def close(self) -> str:
        """Finish all writes and close the file. Returns why something could not be written, "" if all was.

        Closing again returns the same: at the end of the chat, the main thread closes, and so does the thread
        that watches a blocked terminal (`tui/signals.py`).
        """
        with self._closing:
            if self._closed is None:
                self._closed = self._thread.submit(self._close)
                self._thread.shutdown()
        return self._closed.result()

    def _get_store(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _write(self, work: Callable[[Store], None]) -> None:
        self._unwritten.append(work)
        self._write_all()

    def _write_all(self) -> None:
        while self._unwritten:
            try:
                self._unwritten[0](self._get_store())
            except StoreError:
                raise
            except BaseException:  # repeating it would fail too
                self._unwritten.popleft()
                raise
            self._unwritten.popleft()

    def _close(self) -> str:
        problem = ""
        try:
            self._write_all()
        except StoreError as error:
            problem = str(error)
        if self._store is not None:
            with contextlib.suppress(StoreError):  # deleted conversations are purged by the next window
                self._store.close()
        return problem


class ConversationSaver:
    """Saves a conversation in the background as it changes.

    The exchanges have the numbers of `Transcript` here. After each write, `report` is called in the store's
    thread with what went wrong, "" if nothing did.

    A conversation that is in the store has an `id`, and `rows` maps its numbers to rows. Any other
    conversation is created with the first exchange that is added, after the `initial_exchanges`, which
    have the numbers from 1 on.
    """

    def __init__(
        self,
        store_thread: StoreThread,
        report: Callable[[str], None],
        *,
        id: int | None = None,
        rows: dict[int, int] | None = None,
        title: str = "",
        initial_exchanges: Sequence[Exchange] = (),
    ) -> None:
        self._store_thread, self._report = store_thread, report
        self.id = id
        # Only the store's thread uses these.
        self._rows = rows or {}
        self._title, self._initial_exchanges = title, tuple(initial_exchanges)
        self.is_gone = False  # whether the last write found the conversation deleted by another window

    @property
    def is_saved(self) -> bool:
        """Whether the whole conversation is saved, as far as is known."""
        return self._store_thread.persistent and not self._store_thread.has_unwritten and not self.is_gone

    def for_copy(self, title: str, initial_exchanges: Sequence[Exchange]) -> "ConversationSaver":
        """For a new conversation that begins with these exchanges of this one."""
        return ConversationSaver(
            self._store_thread, self._report, title=title, initial_exchanges=initial_exchanges
        )

    async def still_exists(self) -> bool:
        """Whether the conversation is still in the list of conversations."""
        try:
            await self._store_thread.run(lambda store: store.check_not_deleted(self.id or 0))
        except StoreError:
            return False
        return True

    def append(self, number: int, exchange: Exchange, bundle: str, *, instead_of: int | None = None) -> None:
        """Save a new exchange and delete `instead_of`. The first exchange creates the conversation."""

        def work(store: Store) -> None:
            if self.id is not None:
                old = None if instead_of is None else self._rows.get(instead_of)
                self._rows[number] = store.append(self.id, exchange, instead_of=old)
                self._rows.pop(instead_of or 0, None)
                return
            title = self._title or title_of(exchange.prompt)
            self.id, ids = store.create(title, bundle, [*self._initial_exchanges, exchange])
            self._rows = dict(zip([*range(1, len(ids)), number], ids, strict=True))

        self._submit(work)

    def update(self, number: int, exchange: Exchange) -> None:
        """Save the changes to an exchange."""

        def work(store: Store) -> None:
            if number not in self._rows:
                raise GoneError(GONE_MESSAGE)
            store.update(exchange, self._rows[number])

        self._submit(work)

    def rename(self, title: str) -> None:
        """Save a title, or remember it until the conversation is created."""

        def work(store: Store) -> None:
            self._title = title
            if self.id is not None:
                store.rename(self.id, title)

        self._submit(work)

    def _submit(self, work: Callable[[Store], None]) -> None:
        def write(store: Store) -> None:
            try:
                work(store)
            except GoneError as error:  # repeating the write would not help
                self.is_gone = True
                self._report(f"{error}. It is no longer saved; Again or Edit continues in a saved copy")
            else:
                self.is_gone = False

        def done(future: "Future[None]") -> None:
            self._report(str(future.exception() or ""))

        self._store_thread.write(write).add_done_callback(done)
