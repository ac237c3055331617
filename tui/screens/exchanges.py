"""The exchanges of the conversation, to find and select one."""

from collections.abc import Iterable

from textual.content import Content

from ..keys import LIST_ACTIONS, bindings
from ..safe_text import safe_content
from ..store import MAX_LISTED
from ..text_search import excerpt, fold_case
from ..values import Exchange
from ..widgets.lines import one_line
from .list_dialog import ListDialog


class ExchangeList(ListDialog[int]):
    """Choose one of these exchanges, which are given oldest first. The result is its position from 1 on."""

    BINDINGS = bindings(LIST_ACTIONS)
    HELP = """
    ### Exchanges

    The exchanges of this conversation, the latest first. Type to search prompts, replies and corrections. An
    exchange matches if it contains all the words, whole or in part. Enter selects it in the conversation.
    """

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        super().__init__("exchanges", "Search")
        self._texts = [(at, _texts(exchange)) for at, exchange in enumerate(exchanges, start=1)][::-1]
        self._found: list[int] = []

    def action_open(self) -> None:
        at = self.options.highlighted
        if at is not None and at < len(self._found):
            self.dismiss(self._found[at])

    def search(self) -> None:
        terms = fold_case(self.query_input.value).split()
        found = [(at, texts) for at, texts in self._texts if _contains_all(texts, terms)]
        self._found = [at for at, _ in found[:MAX_LISTED]]
        self.fill(_row(at, texts, terms) for at, texts in found[:MAX_LISTED])
        self.set_note(self.count_note(len(found)))


def _texts(exchange: Exchange) -> list[str]:
    replies = [reply.text for reply in exchange.replies if reply]
    return [exchange.prompt, *replies, *([] if exchange.answer is None else [exchange.answer])]


def _contains_all(texts: list[str], terms: list[str]) -> bool:
    text = fold_case("\n".join(texts))
    return all(term in text for term in terms)


def _row(at: int, texts: list[str], terms: list[str]) -> Content:
    shown = excerpt(texts, terms[0]) if terms else texts[1] if len(texts) > 1 else ""
    return (
        safe_content(one_line(texts[0]) or "(no prompt)", "bold")
        + safe_content(f"\n  exchange {at}", "dim")
        + safe_content(f" · {one_line(shown)}" if shown else "", "dim italic")
    )
