"""The bundles that are open or near, to talk to one or compare with it."""

from collections.abc import Sequence
from pathlib import Path

from textual.content import Content

from ..engine import is_bundle, name_of
from ..keys import LISTING, bindings
from ..plain import content
from ..values import BundleChoice
from ..widgets.lines import one_line
from .listing import Listing


class BundleList(Listing[str]):
    """Gives the path of the bundle that was chosen, or typed."""

    BINDINGS = bindings(LISTING)
    HELP = """
    ### Bundles

    Those that are open, and those in folders near here. Type to narrow the list, or write the path of
    another: the folder that `edgechat export` wrote. It stands first as soon as it is one.
    """

    def __init__(self, title: str, choices: Sequence[BundleChoice], note: str) -> None:
        super().__init__(title, "Search, or the path of a bundle", note)
        self._choices = tuple(choices)
        self._shown: list[BundleChoice] = []

    def action_open(self) -> None:
        at = self.options.highlighted
        if at is not None and at < len(self._shown):
            self.dismiss(self._shown[at].path)
        elif self._typed:
            self.dismiss(self._typed)

    @property
    def _typed(self) -> str:
        typed = self.query_input.value.strip()
        try:
            return str(Path(typed).expanduser()) if typed.startswith("~") else typed
        except RuntimeError:  # the home of nobody
            return typed

    def search(self) -> None:
        typed, folded = self._typed, self._typed.casefold()
        found = [c for c in self._choices if folded in c.path.casefold() or folded in c.name.casefold()]
        exact = [c for c in found if c.path == typed]
        if typed and not exact and is_bundle(typed):
            exact = [BundleChoice(typed, name_of(typed), "")]
        self._shown = [*exact, *(c for c in found if c not in exact)]
        self.fill(map(_row, self._shown))


def _row(choice: BundleChoice) -> Content:
    return content(one_line(choice.name), "bold") + content(
        f"\n  {one_line(choice.about or choice.path)}", "dim"
    )
