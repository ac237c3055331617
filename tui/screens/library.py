"""All conversations: to find, open, rename and delete."""

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
from .listing import Listing
from .over import FILLING, IN_ORDER, answer_of

#: What is asked for.
RENAMES = f"The conversation's title, {TITLE} characters at most"


class Library(Listing[Summary]):
    """Gives the conversation to open. What is typed is searched for."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(LIBRARY)
    HELP = """
    ### Conversations

    Type to search titles, prompts, replies and corrections for all of the words, whole or in part. It
    opens where they were found.

    What is deleted can be brought back with Undo until you quit; then it is overwritten.
    """

    def __init__(self, keeper: Keeper) -> None:
        super().__init__("conversations", "Search")
        self._keeper = keeper
        self._query: str | None = None  # that of what is shown
        self._found: list[Summary] = []
        self._deleted: dict[int, str] = {}  # titles by id, the latest last

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "undo" and not self._deleted:
            return None
        return True

    @work(group=IN_ORDER)
    async def action_open(self) -> None:
        if picked := await self._pick():
            self.dismiss(picked)

    async def _pick(self) -> Summary | None:
        """The one that is lit, of what goes with all that was typed; none where it went meanwhile."""
        before, query = self._lit, self._query
        await self._find()
        if not self._is_there:
            return None
        if before and query == self._query and (self._lit is None or self._lit.id != before.id):
            self.notify(GONE.capitalize(), severity="warning")
            return None
        return self._lit

    @property
    def _lit(self) -> Summary | None:
        at = self.options.highlighted
        return None if at is None or at >= len(self._found) else self._found[at]

    @property
    def _is_there(self) -> bool:
        """A search may end when the window is closed."""
        return self in self.app.screen_stack and bool(self.query("#note"))

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
        """Show what goes with what is typed."""
        if not self._is_there:
            return
        query = self.query_input.value
        try:
            found, deleted = await self._keeper.do(lambda store: (store.find(query), store.deleted()))
        except StoreError as error:
            if self._is_there:
                self.tell(str(error))
            return
        if not self._is_there:
            return
        lit, at = self._lit, 0
        if query == self._query:  # the same stays lit, or what stands in its place
            ids = [summary.id for summary in found]
            at = ids.index(lit.id) if lit and lit.id in ids else self.options.highlighted or 0
        self._query, self._found, self._deleted = query, found, deleted
        self.refresh_bindings()
        self.fill(map(_row, found[:LISTED]), at)
        self.tell(self._how_many())

    def _how_many(self) -> str:
        notes = []
        if shown := self.how_many(len(self._found)):
            notes.append(shown)
        elif not self._found and not self._deleted:
            notes.append("Nothing was said yet.")
        if self._deleted:
            last = list(self._deleted.values())[-1]
            notes.append(f"Deleted: {one_line(title_of(last))}. Undo brings it back.")
        return " ".join(notes)


def _row(summary: Summary) -> Content:
    about = f"\n  {summary.bundle} · {counted(summary.turns, 'turn')} · {_ago(time.time() - summary.updated)}"
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
