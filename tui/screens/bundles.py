"""The dialog for choosing a bundle."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from textual import work
from textual.content import Content

from ..engine import bundles_near, is_bundle, name_of, place_of, why_no_bundle
from ..keys import LISTING, bindings
from ..plain import content
from ..values import BundleChoice
from ..widgets.lines import one_line
from .dialog import FILLING, IN_ORDER
from .listing import Listing


class BundleList(Listing[str]):
    """Choose a bundle. The result is its path."""

    BINDINGS = bindings(LISTING)
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

    @work(group=IN_ORDER)
    async def action_open(self) -> None:
        typed = self._typed
        if self._query != typed:
            await self._find()
        if not self.is_open:
            return
        at = self.options.highlighted
        if at is not None and at < len(self._found):
            self.dismiss(self._found[at].path)
        elif typed:
            self.refuse(await asyncio.to_thread(why_no_bundle, typed))

    @property
    def _typed(self) -> str:
        """The text in the field, with `~` expanded."""
        typed = self.query_input.value.strip()
        return os.path.expanduser("~/" if typed == "~" else typed)  # noqa: PTH111 - keeps a slash at the end

    def search(self) -> None:
        if _folder(self._typed):
            self._search_folder()
        else:
            self._show(self._typed, ())

    @work(exclusive=True, group=FILLING)
    async def _search_folder(self) -> None:
        await self._find()

    async def _find(self) -> None:
        """List the bundles that match the field, with those in a folder that was typed."""
        typed = self._typed
        folder = _folder(typed)
        near = await asyncio.to_thread(bundles_near, Path(folder)) if folder else ()
        if self.is_open and typed == self._typed:
            self._show(typed, near)

    def _show(self, typed: str, near: Sequence[str]) -> None:
        """List the choices that match what was typed, and the paths in `near` that begin with it.

        A bundle at exactly the typed path comes first.
        """
        folded = typed.casefold()
        known = {place_of(choice.path): choice for choice in self._choices} if typed else {}

        def choice_of(path: str) -> BundleChoice:
            return known.get(place_of(path)) or BundleChoice(path, name_of(path), "")

        found = [c for c in self._choices if folded in c.path.casefold() or folded in c.name.casefold()]
        exact = [choice for choice in found if choice.path == typed]
        if typed and not exact and is_bundle(typed):
            exact = [choice_of(typed)]
        folder, begun = Path(_folder(typed)), os.path.basename(folded)  # noqa: PTH119 - "" after a slash
        inside = {path: str(Path(path).relative_to(folder)) for path in near}  # a `Path` has no "./"
        there = (choice_of(path) for path, name in inside.items() if name.casefold().startswith(begun))
        self._query, self._found = typed, list(dict.fromkeys([*exact, *found, *there]))
        self.fill(map(_row, self._found))


def _folder(typed: str) -> str:
    """The folder of a path that is being typed, "" if the text has no slash."""
    return os.path.dirname(typed)  # noqa: PTH120 - unlike `Path.parent`, "folder/" gives "folder"


def _row(choice: BundleChoice) -> Content:
    return content(one_line(choice.name), "bold") + content(
        f"\n  {one_line(choice.about or choice.path)}", "dim"
    )
