"""The packaged corpora by name."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dialogue import Dialogue

#: Reads a corpus from its first dialogue, and counts what it drops by reason.
Importer = Callable[[Counter[str]], "Iterator[Dialogue]"]

CORPUS_NAMES = ("chitchat", "chatterbot", "chatterbot:LANGUAGE,...")


def find_importer(name: str) -> Importer | None:
    """The importer of `chitchat`, `chatterbot` or `chatterbot:english,german`; None for other names.

    Raises EdgeChatError if the package is not installed, UsageError for an unknown language.
    """
    kind, colon, rest = name.partition(":")
    if name == "chitchat":
        from .chitchat import Chitchat

        return Chitchat()
    if kind == "chatterbot":
        from .chatterbot import Chatterbot

        return Chatterbot(rest.split(",") if colon else ["english"])
    return None
