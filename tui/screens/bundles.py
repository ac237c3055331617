"""The dialog for choosing a bundle."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from textual import work
from textual.content import Content

from ..engine import bundle_name, is_bundle, list_bundles, resolve_bundle, why_no_bundle
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
        if _folder(self._typed):
            self._search_folder()
        else:
            self._show_matches(self._typed, ())

    @work(exclusive=True, group=SEARCH_GROUP)
    async def _search_folder(self) -> None:
        await self._refresh_list()

    async def _refresh_list(self) -> None:
        """List the bundles that match the field, with those in a folder that was typed."""
        typed = self._typed
        folder = _folder(typed)
        in_folder = await asyncio.to_thread(list_bundles, Path(folder)) if folder else ()
        if self.is_open and typed == self._typed:
            self._show_matches(typed, in_folder)

    def _show_matches(self, typed: str, in_folder: Sequence[str]) -> None:
        """List the choices that match what was typed, and the paths in `in_folder` that begin with it.

        A bundle at exactly the typed path comes first.
        """
        folded = typed.casefold()
        known = {resolve_bundle(choice.path): choice for choice in self._choices} if typed else {}

        def choice_of(path: str) -> BundleChoice:
            return known.get(resolve_bundle(path)) or BundleChoice(path, bundle_name(path), "")

        found = [c for c in self._choices if folded in c.path.casefold() or folded in c.name.casefold()]
        exact = [choice for choice in found if choice.path == typed]
        if typed and not exact and is_bundle(typed):
            exact = [choice_of(typed)]
        folder, begun = Path(_folder(typed)), os.path.basename(folded)  # noqa: PTH119 - "" after a slash
        inside = {path: str(Path(path).relative_to(folder)) for path in in_folder}  # a `Path` has no "./"
        there = (choice_of(path) for path, name in inside.items() if name.casefold().startswith(begun))
        self._query, self._found = typed, list(dict.fromkeys([*exact, *found, *there]))
        self.fill(map(_row, self._found))


def _folder(typed: str) -> str:
    """The folder of a path that is being typed, "" if the text has no slash."""
    return os.path.dirname(typed)  # noqa: PTH120 - unlike `Path.parent`, "folder/" gives "folder"


def _row(choice: BundleChoice) -> Content:
    return safe_content(one_line(choice.name), "bold") + safe_content(
        f"\n  {one_line(choice.about or choice.path)}", "dim"
    )
