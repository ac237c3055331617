"""`chatterbot`: questions and answers in 28 languages, from the package chatterbot-corpus (BSD).

Cleaning:
- A conversation that is not a list of texts is dropped. English has one and Ukrainian seven that are a
  string; a reader that iterates over it would get conversations of single letters.
- A pair of a text and its answer that occurred before is not learned again. Its answer stays as context for
  the next turns, and a conversation without a new pair is dropped. This leaves 1,176 of the 2,306 English
  pairs. (With the 87 pairs of letters there would be 2,393.)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from ...runtime.errors import DataError, UsageError
from ..dialogue import Dialogue, Turn, clean_dialogue
from .package import package_folder

# The C loader is ten times faster, but not every build of PyYAML has it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Chatterbot:
    """Reads the conversations of the given languages, in order of language, file and line."""

    def __init__(self, languages: Sequence[str]) -> None:
        data = package_folder("chatterbot_corpus", "chatterbot-corpus") / "data"
        known = sorted(path.name for path in data.iterdir() if path.is_dir())
        for language in languages:
            if language not in known:
                raise UsageError(f"chatterbot has no language {language!r}; it has {', '.join(known)}")
        self._files = [path for language in languages for path in sorted((data / language).glob("*.yml"))]

    def __call__(self, dropped: Counter[str]) -> Iterator[Dialogue]:
        seen: set[tuple[str, str]] = set()
        for path in self._files:
            for conversation in _read_conversations(path):
                if not isinstance(conversation, list) or not all(isinstance(t, str) for t in conversation):
                    dropped["conversation that is not a list of texts"] += 1
                    continue
                turns = _new_turns(conversation, seen, dropped)
                repeats = len(turns) < 2 <= len(conversation)  # its pairs have been counted already
                if not repeats and (dialogue := clean_dialogue(turns, dropped)):
                    yield dialogue


def _read_conversations(path: Path) -> list[Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path.name} of chatterbot-corpus cannot be read: {error}") from None
    conversations = content.get("conversations") if isinstance(content, dict) else None
    return conversations if isinstance(conversations, list) else []


def _new_turns(texts: Sequence[str], seen: set[tuple[str, str]], dropped: Counter[str]) -> list[Turn]:
    """The turns up to the last new one. Those that repeat a pair are context."""
    texts = [text.strip() for text in texts]
    turns = [Turn(text) for text in texts[:1]]
    last_new = 0
    for i, pair in enumerate(pairwise(texts), start=1):
        new = pair not in seen
        seen.add(pair)
        turns.append(Turn(pair[1], train=new))
        if new:
            last_new = i
        else:
            dropped["repeated pair"] += 1
    return turns[: last_new + 1]
