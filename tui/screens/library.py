"""The list of all conversations: search, open, rename and delete them."""

import time
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.content import Content

from ..keys import LIBRARY_ACTIONS, bindings
from ..safe_text import plural, safe_content
from ..store import GONE_MESSAGE, MAX_LISTED, Store, StoreError
from ..store_thread import StoreThread
from ..titles import MAX_TITLE_CHARACTERS, title_of
from ..values import ConversationSummary
from ..widgets.lines import one_line
from .dialog import ACTION_GROUP, SEARCH_GROUP, show_dialog
from .list_dialog import ListDialog
from .text_dialogs import AskDialog

#: The note of the dialog that asks for a title.
TITLE_NOTE = f"The title of the conversation, at most {MAX_TITLE_CHARACTERS} characters"


class Library(ListDialog[ConversationSummary]):
    """Choose a conversation to open."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(LIBRARY_ACTIONS)
    HELP = """
    ### Conversations

    Type to search titles, prompts, replies and corrections. A conversation matches if it contains all the
    words, whole or in part. It opens at the exchange where they were found.

    Undo restores a deleted conversation until you quit; then it is overwritten.
    """

    def __init__(self, store_thread: StoreThread) -> None:
        super().__init__("conversations", "Search")
        self._store_thread = store_thread
        self._query: str | None = None  # the query that the list is for
        self._found: list[ConversationSummary] = []
        self._deleted: dict[int, str] = {}  # titles by id, the latest deleted last

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "undo" and not self._deleted:
            return None
        return True

    @work(group=ACTION_GROUP)
    async def action_open(self) -> None:
        if picked := await self._get_picked():
            self.dismiss(picked)

    async def _get_picked(self) -> ConversationSummary | None:
        """The highlighted conversation, in the list for everything typed so far. None if it was deleted in
        the meantime."""
        before, query = self._highlighted, self._query
        await self._refresh_list()
        if not self.is_open:
            return None
        if (
            before
            and query == self._query
            and (self._highlighted is None or self._highlighted.id != before.id)
        ):
            self.notify(GONE_MESSAGE, severity="warning")
            return None
        return self._highlighted

    @property
    def _highlighted(self) -> ConversationSummary | None:
        at = self.options.highlighted
        return None if at is None or at >= len(self._found) else self._found[at]

    @work(group=ACTION_GROUP)
    async def action_rename(self) -> None:
        if picked := await self._get_picked():
            title = await show_dialog(AskDialog("rename", picked.title, note=TITLE_NOTE), self)
            if title and title.strip():
                await self._change_store(lambda store: store.rename(picked.id, title_of(title)))

    @work(group=ACTION_GROUP)
    async def action_delete(self) -> None:
        if picked := await self._get_picked():
            await self._change_store(lambda store: store.delete(picked.id))

    @work(group=ACTION_GROUP)
    async def action_undo(self) -> None:
        if self._deleted:
            last = list(self._deleted)[-1]
            await self._change_store(lambda store: store.restore(last))

    async def _change_store(self, change: Callable[[Store], None]) -> None:
        try:
            await self._store_thread.run(change)
        except StoreError as error:
            self.notify(one_line(str(error)), severity="error", markup=False)
        await self._refresh_list()

    def search(self) -> None:
        self._search()

    @work(exclusive=True, group=SEARCH_GROUP)
    async def _search(self) -> None:
        await self._refresh_list()

    async def _refresh_list(self) -> None:
        """List the conversations that match the field."""
        if not self.is_open:
            return
        query = self.query_input.value
        try:
            found, deleted = await self._store_thread.run(
                lambda store: (store.find(query), store.deleted_titles())
            )
        except StoreError as error:
            if self.is_open:
                self.set_note(str(error))
            return
        if not self.is_open:
            return
        before, at = self._highlighted, 0
        if query == self._query:  # keep the highlight on the same conversation, or in the same place
            ids = [summary.id for summary in found]
            at = ids.index(before.id) if before and before.id in ids else self.options.highlighted or 0
        self._query, self._found, self._deleted = query, found, deleted
        self.refresh_bindings()
        self.fill(map(_row, found[:MAX_LISTED]), at)
        self.set_note(self._note())

    def _note(self) -> str:
        notes = []
        if count := self.count_note(len(self._found)):
            notes.append(count)
        elif not self._found and not self._deleted:
            notes.append("There are no conversations yet.")
        if self._deleted:
            last = list(self._deleted.values())[-1]
            notes.append(f"Deleted: {one_line(title_of(last))}. Undo restores it.")
        return " ".join(notes)


def _row(summary: ConversationSummary) -> Content:
    size = plural(summary.exchanges, "exchange")
    about = f"\n  {summary.bundle} · {size} · {_time_ago(time.time() - summary.updated)}"
    lines = safe_content(one_line(summary.title) or "(no title)", "bold") + safe_content(
        one_line(about).replace("⏎", "\n"), "dim"
    )
    if summary.excerpt:
        lines += safe_content("\n  " + one_line(summary.excerpt), "dim italic")
    return lines


def _time_ago(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        n = int(seconds // size)
        if n >= 1:
            return f"{plural(n, name)} ago"
    return "just now"
