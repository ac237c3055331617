"""The dialog for choosing a bundle."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from textual import work
from textual.content import Content

from ..engine import is_bundle, list_bundles, unopened_choice, why_no_bundle
from ..keys import LIST_ACTIONS, bindings
from ..safe_text import safe_content
from ..values import BundleChoice
from ..widgets.lines import one_line
from .dialog import ACTION_GROUP, SEARCH_GROUP
from .list_dialog import ListDialog


class BundleList(ListDialog[str]):
    """Choose a bundle. The result is its path."""

    BINDINGS = bindings(LIST_ACTIONS)
    HELP = """
    ### Bundles

    The open bundles, and the bundles in and below the current folder. Type to filter the list, or type the
    path of another bundle: the folder or file that `edgechat export` wrote. A path such as `~/` or
    `~/bundles/` lists the bundles in that folder too.
    """

    def __init__(self, title: str, choices: Sequence[BundleChoice], note: str) -> None:
        super().__init__(title, "Search, or type the path of a bundle", note)
        self._choices = tuple(choices)
        self._query: str | None = None  # the path that the list is for
        self._found: list[BundleChoice] = []

    @work(group=ACTION_GROUP)
    async def action_open(self) -> None:
        typed = self._typed
        if self._query != typed:
            await self._refresh_list()
        if not self.is_open:
            return
        at = self.options.highlighted
        if at is not None and at < len(self._found):
            self.dismiss(self._found[at].path)
        elif typed:
            self.show_error(await asyncio.to_thread(why_no_bundle, typed))

    @property
    def _typed(self) -> str:
        """The text in the field, with `~` expanded."""
        typed = self.query_input.value.strip()
        return os.path.expanduser("~/" if typed == "~" else typed)  # noqa: PTH111 - keeps a slash at the end

    def search(self) -> None:
        self._search()

    @work(exclusive=True, group=SEARCH_GROUP)
    async def _search(self) -> None:
        await self._refresh_list()

    async def _refresh_list(self) -> None:
        """List the bundle at the typed path, the choices that match the text, and the bundles whose paths
        begin with it."""
        typed = self._typed
        exact, completions = await asyncio.to_thread(_find_bundles, typed)
        if self.is_open and typed == self._typed:
            known = {choice.place: choice for choice in self._choices}
            folded = typed.casefold()
            matches = [c for c in self._choices if folded in c.path.casefold() or folded in c.name.casefold()]
            there = (known.get(choice.place, choice) for choice in completions)
            at_path = [choice for choice in matches if choice.path == typed]
            at_path = at_path or [known.get(choice.place, choice) for choice in exact]
            self._query, self._found = typed, list(dict.fromkeys([*at_path, *matches, *there]))
            self.fill(map(_row, self._found))


def _find_bundles(typed: str) -> tuple[list[BundleChoice], list[BundleChoice]]:
    """The bundle at exactly the typed path, if any, and the bundles in its folder that begin with it."""
    exact = [unopened_choice(typed)] if typed and is_bundle(typed) else []
    folder, begun = _folder(typed), os.path.basename(typed).casefold()  # noqa: PTH119 - "" after a slash
    in_folder = list_bundles(Path(folder)) if folder else []
    return exact, [c for c in in_folder if str(Path(c.path).relative_to(folder)).casefold().startswith(begun)]


def _folder(typed: str) -> str:
    """The folder of a path that is being typed, "" if the text has no slash."""
    return os.path.dirname(typed)  # noqa: PTH120 - unlike `Path.parent`, "folder/" gives "folder"


def _row(choice: BundleChoice) -> Content:
    return safe_content(one_line(choice.name), "bold") + safe_content(
        f"\n  {one_line(choice.about or choice.path)}", "dim"
    )
