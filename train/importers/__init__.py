"""The corpora that come as packages, by name, each with its own cleaning."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import EdgeChatError

if TYPE_CHECKING:
    from ..dialogue import Dialogue

__all__ = ["KNOWN", "Importer", "importer", "package_folder"]

#: Reads a corpus from its first dialogue, counting what it drops by reason.
Importer = Callable[[Counter[str]], "Iterator[Dialogue]"]

KNOWN = ("chitchat", "chatterbot", "chatterbot:LANGUAGE,...")


def importer(name: str) -> Importer | None:
    """The importer of `chitchat`, `chatterbot` or `chatterbot:english,german`; None for other names.

    Raises EdgeChatError where the package is not installed, UsageError for an unknown language.
    """
    kind, colon, rest = name.partition(":")
    if name == "chitchat":
        from .chitchat import Chitchat

        return Chitchat()
    if kind == "chatterbot":
        from .chatterbot import Chatterbot

        return Chatterbot(rest.split(",") if colon else ["english"])
    return None


def package_folder(module: str, distribution: str) -> Path:
    """The folder of an installed package, which is found but not run.

    Raises EdgeChatError, with the mend, where it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EdgeChatError(f"the package {distribution} is not installed: pip install {distribution}")
    return Path(spec.submodule_search_locations[0])
