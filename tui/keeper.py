"""The store's thread: it alone touches the file, in the order in which it was asked to."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .store import GONE, GoneError, Store, StoreError, title_of
from .values import Exchange

T = TypeVar("T")


class Keeper:
    """Runs work on a store in a thread of its own. The file is opened with the first of it. Where nothing is
    on a disk, it does not `last`."""

    def __init__(self, open_store: Callable[[], Store], *, lasts: bool = True) -> None:
        self.lasts = lasts
        self._open = open_store
        self._unwritten: deque[Callable[[Store], None]] = deque()
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")

    async def do(self, work: Callable[[Store], T]) -> T:
        """The result of `work`.

        Raises:
            StoreError: the store cannot be used.
        """
        return await asyncio.wrap_future(self.begin(work))

    def begin(self, work: Callable[[Store], T]) -> "Future[T]":
        """As `do`, without waiting."""
        return self._thread.submit(lambda: work(self._opened()))

    def write(self, work: Callable[[Store], None]) -> "Future[None]":
        """As `begin`, for what shall not be lost: where the store cannot be written to, it is tried again
        before the next such work, and in the end."""
        return self._thread.submit(self._write, work)

    @property
    def behind(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._unwritten)

    def close(self) -> str:
        """Wait for what is being written, and close the file. Gives why not all could be written, or ""."""
        closed = self._thread.submit(self._close)
        self._thread.shutdown()
        return closed.result()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _write(self, work: Callable[[Store], None]) -> None:
        self._unwritten.append(work)
        self._write_all()

    def _write_all(self) -> None:
        while self._unwritten:
            try:
                self._unwritten[0](self._opened())
            except StoreError:
                raise
            except BaseException:  # no other time would help
                self._unwritten.popleft()
                raise
            self._unwritten.popleft()

    def _close(self) -> str:
        wrong = ""
        try:
            self._write_all()
        except StoreError as error:
            wrong = str(error)
        if self._store is not None:
            with contextlib.suppress(StoreError):  # what was deleted is forgotten by the next window
                self._store.close()
        return wrong


class Kept:
    """A conversation as it is kept while it goes on: each change is written behind it. Its exchanges have
    numbers of their own here. After each write `report` is told what went wrong, "" where nothing did, from
    the keeper's thread.

    One that is in the store has an `id`, and `rows` by number. One that is not begins there with the first
    exchange that is added, after `before`, which have the numbers from 1 on.
    """

    def __init__(
        self,
        keeper: Keeper,
        report: Callable[[str], None],
        *,
        id: int | None = None,
        rows: dict[int, int] | None = None,
        title: str = "",
        before: Sequence[Exchange] = (),
    ) -> None:
        self._keeper, self._report = keeper, report
        self.id = id
        # The keeper's thread alone looks at these, and so in order.
        self._rows = rows or {}
        self._title, self._before = title, tuple(before)
        self.gone = False  # as far as is known: another window deleted it, or a turn of it

    @property
    def lasts(self) -> bool:
        """Whether all that is said here outlives the window, as far as is known."""
        return self._keeper.lasts and not self._keeper.behind and not self.gone

    def another(self, title: str, before: Sequence[Exchange]) -> "Kept":
        """How a conversation is kept that begins with what was said in this one."""
        return Kept(self._keeper, self._report, title=title, before=before)

    async def is_there(self) -> bool:
        """Whether the list of conversations has it."""
        try:
            await self._keeper.do(lambda store: store.check_there(self.id or 0))
        except StoreError:
            return False
        return True

    def append(self, number: int, exchange: Exchange, bundle: str, *, instead_of: int | None = None) -> None:
        """Keep one more, in the place of another if one is named; with the first the conversation begins."""

        def work(store: Store) -> None:
            if self.id is not None:
                old = None if instead_of is None else self._rows.get(instead_of)
                self._rows[number] = store.append(self.id, exchange, instead_of=old)
                self._rows.pop(instead_of or 0, None)
                return
            title = self._title or title_of(exchange.prompt)
            self.id, ids = store.create(title, bundle, [*self._before, exchange])
            self._rows = dict(zip([*range(1, len(ids)), number], ids, strict=True))

        self._begin(work)

    def update(self, number: int, exchange: Exchange) -> None:
        """Keep what changed of one."""

        def work(store: Store) -> None:
            if number not in self._rows:
                raise GoneError(GONE)
            store.update(exchange, self._rows[number])

        self._begin(work)

    def rename(self, title: str) -> None:
        """Give the conversation a title; one that has not begun will have it."""

        def work(store: Store) -> None:
            self._title = title
            if self.id is not None:
                store.rename(self.id, title)

        self._begin(work)

    def _begin(self, work: Callable[[Store], None]) -> None:
        def write(store: Store) -> None:
            try:
                work(store)
            except GoneError as error:  # to try again would not help
                self.gone = True
                self._report(f"{error}. It is not kept any more; Again and Edit go on in a copy that is")
            else:
                self.gone = False

        def done(future: "Future[None]") -> None:
            self._report(str(future.exception() or ""))

        self._keeper.write(write).add_done_callback(done)
