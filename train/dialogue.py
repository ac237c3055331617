"""Dialogues, and the pairs of source and target that are learned from them."""

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..runtime.text import trimmed

_SURROGATE = re.compile("[\ud800-\udfff]")


def as_text(name: str) -> str:
    """A file's name, or a key, whose bytes may be no UTF-8 or hold half of a surrogate pair, as what can be
    written."""
    return _SURROGATE.sub("\ufffd", name)


@dataclass(frozen=True)
class Turn:
    """What one side says. `train` False: it is context only, never learned."""

    text: str
    train: bool = True


@dataclass(frozen=True)
class Dialogue:
    """Turns in order; a pair is a dialogue of two."""

    turns: tuple[Turn, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the content, the same on every machine and in every version."""
        content = json.dumps([[turn.text, turn.train] for turn in self.turns], separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()


Targets = Literal["all", "second"]


def examples(dialogue: Dialogue, *, turns: int, targets: Targets) -> Iterator[tuple[list[str], str]]:
    """The (source, target) texts to learn from a dialogue, a source being at most `turns` turns.

    Worked example: turns=2 and the dialogue a b c d give ([a], b), ([a, b], c), ([b, c], d);
    with targets="second", where the bot is the second to speak, ([a], b) and ([b, c], d).
    """
    texts = [turn.text for turn in dialogue.turns]
    for i, turn in enumerate(dialogue.turns):
        if i and turn.train and (targets == "all" or i % 2):
            yield texts[max(0, i - turns) : i], turn.text


@dataclass
class Tally:
    """What a reader left out, by reason, and the keys it did not know."""

    dropped: Counter[str] = field(default_factory=Counter)
    ignored_keys: Counter[str] = field(default_factory=Counter)


def tidy(turns: Iterable[Turn], dropped: Counter[str]) -> Dialogue | None:
    """The dialogue of these turns, trimmed; None, and counted, where it has nothing to learn.

    A turn without text stays as context but is never learned.
    """
    kept: list[Turn] = []
    for turn in turns:
        text = trimmed(turn.text)
        if not text and turn.train and kept:
            dropped["empty response"] += 1
        kept.append(Turn(text, turn.train and bool(text)))
    if len(kept) < 2:
        dropped["dialogue of fewer than two turns"] += 1
        return None
    if not any(turn.train for turn in kept[1:]):
        # A pair without a response is counted already.
        if any(turn.text for turn in kept[1:]):
            dropped["dialogue without a turn to learn"] += 1
        return None
    return Dialogue(tuple(kept))
