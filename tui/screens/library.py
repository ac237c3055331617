"""The list of all conversations: search, open, rename and delete them."""

import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.content import Content

from ..keeper import Keeper
from ..keys import LIBRARY, bindings
from ..plain import content, counted
from ..store import GONE, LISTED, TITLE, Store, StoreError, title_of
from ..values import Summary
from ..widgets.lines import one_line
from .ask import Ask
from .dialog import FILLING, IN_ORDER, answer_of
from .listing import Listing

#: The note of the dialog that asks for a title.
RENAMES = f"The title of the conversation, at most {TITLE} characters"


class Library(Listing[Summary]):
    """Choose a conversation to open."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(LIBRARY)
    HELP = """
    ### Conversations

    Type to search titles, prompts, replies and corrections. A conversation matches if it contains all the
    words, whole or in part. It opens at the exchange where they were found.

    Undo restores a deleted conversation until you quit; then it is overwritten.
    """

    def __init__(self, keeper: Keeper) -> None:
        super().__init__("conversations", "Search")
        self._keeper = keeper
        self._query: str | None = None  # the query that the list is for
        self._found: list[Summary] = []
        self._deleted: dict[int, str] = {}  # titles by id, the latest deleted last

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "undo" and not self._deleted:
            return None
        return True

    @work(group=IN_ORDER)
    async def action_open(self) -> None:
        if picked := await self._pick():
            self.dismiss(picked)

    async def _pick(self) -> Summary | None:
        """The highlighted conversation, in the list for everything typed so far. None if it was deleted in
        the meantime."""
        before, query = self._highlighted, self._query
        await self._find()
        if not self.is_open:
            return None
        if (
            before
            and query == self._query
            and (self._highlighted is None or self._highlighted.id != before.id)
        ):
            self.notify(GONE, severity="warning")
            return None
        return self._highlighted

    @property
    def _highlighted(self) -> Summary | None:
        at = self.options.highlighted
        return None if at is None or at >= len(self._found) else self._found[at]

    @work(group=IN_ORDER)
    async def action_rename(self) -> None:
        if picked := await self._pick():
            title = await answer_of(Ask("rename", picked.title, note=RENAMES), self)
            if title and title.strip():
                await self._do(lambda store: store.rename(picked.id, title_of(title)))

    @work(group=IN_ORDER)
    async def action_delete(self) -> None:
        if picked := await self._pick():
            await self._do(lambda store: store.delete(picked.id))

    @work(group=IN_ORDER)
    async def action_undo(self) -> None:
        if self._deleted:
            last = list(self._deleted)[-1]
            await self._do(lambda store: store.restore(last))

    async def _do(self, change: Callable[[Store], None]) -> None:
        try:
            await self._keeper.do(change)
        except StoreError as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        await self._find()

    def search(self) -> None:
        self._search()

    @work(exclusive=True, group=FILLING)
    async def _search(self) -> None:
        await self._find()

    async def _find(self) -> None:
        """List the conversations that match the field."""
        if not self.is_open:
            return
        query = self.query_input.value
        try:
            found, deleted = await self._keeper.do(lambda store: (store.find(query), store.deleted()))
        except StoreError as error:
            if self.is_open:
                self.tell(str(error))
            return
        if not self.is_open:
            return
        before, at = self._highlighted, 0
        if query == self._query:  # keep the highlight on the same conversation, or in the same place
            ids = [summary.id for summary in found]
            at = ids.index(before.id) if before and before.id in ids else self.options.highlighted or 0
        self._query, self._found, self._deleted = query, found, deleted
        self.refresh_bindings()
        self.fill(map(_row, found[:LISTED]), at)
        self.tell(self._note())

    def _note(self) -> str:
        notes = []
        if count := self.count(len(self._found)):
            notes.append(count)
        elif not self._found and not self._deleted:
            notes.append("There are no conversations yet.")
        if self._deleted:
            last = list(self._deleted.values())[-1]
            notes.append(f"Deleted: {one_line(title_of(last))}. Undo restores it.")
        return " ".join(notes)


def _row(summary: Summary) -> Content:
    size = counted(summary.exchanges, "exchange")
    about = f"\n  {summary.bundle} · {size} · {_ago(time.time() - summary.updated)}"
    lines = content(one_line(summary.title) or "(no title)", "bold") + content(
        one_line(about).replace("⏎", "\n"), "dim"
    )
    if summary.excerpt:
        lines += content("\n  " + one_line(summary.excerpt), "dim italic")
    return lines


def _ago(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        n = int(seconds // size)
        if n >= 1:
            return f"{counted(n, name)} ago"
    return "just now"
