"""The turns of the conversation, to find one and look at it."""

from collections.abc import Iterable

from textual.content import Content

from ..keys import LISTING, bindings
from ..plain import content
from ..search import excerpt, folded
from ..store import LISTED
from ..values import Exchange
from ..widgets.lines import one_line
from .listing import Listing


class Turns(Listing[int]):
    """Gives which of these exchanges, oldest first, is to be looked at, counted from 1."""

    BINDINGS = bindings(LISTING)
    HELP = """
    ### Turns

    Those of this conversation, the latest first. Type to search prompts, replies and corrections for all of
    the words, whole or in part; the one that you take is looked at.
    """

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        super().__init__("turns", "Search")
        self._said = [(turn, _texts(said)) for turn, said in enumerate(exchanges, start=1)][::-1]
        self._found: list[int] = []

    def action_open(self) -> None:
        at = self.options.highlighted
        if at is not None and at < len(self._found):
            self.dismiss(self._found[at])

    def search(self) -> None:
        terms = folded(self.query_input.value).split()
        found = [(turn, texts) for turn, texts in self._said if _holds_all(texts, terms)]
        self._found = [turn for turn, _ in found[:LISTED]]
        self.fill(_row(turn, texts, terms) for turn, texts in found[:LISTED])
        self.tell(self.how_many(len(found)))


def _texts(said: Exchange) -> list[str]:
    replies = [reply.text for reply in said.sides if reply]
    return [said.prompt, *replies, *([] if said.answer is None else [said.answer])]


def _holds_all(texts: list[str], terms: list[str]) -> bool:
    said = folded("\n".join(texts))
    return all(term in said for term in terms)


def _row(turn: int, texts: list[str], terms: list[str]) -> Content:
    said = excerpt(texts, terms[0]) if terms else texts[1] if len(texts) > 1 else ""
    return (
        content(one_line(texts[0]) or "(no prompt)", "bold")
        + content(f"\n  turn {turn}", "dim")
        + content(f" · {one_line(said)}" if said else "", "dim italic")
    )
