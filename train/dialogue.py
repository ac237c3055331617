"""Dialogues, and the pairs of source and target that are learned from them."""

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..runtime.text import strip_turn
from .option_types import TargetTurns

_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(name: str) -> str:
    """A file name or key as valid text, with U+FFFD in place of surrogates (bytes that are not UTF-8)."""
    return _SURROGATE.sub("\ufffd", name)


@dataclass(frozen=True)
class Turn:
    """The text of one speaker. With `train` False it is only context and never learned."""

    text: str
    train: bool = True


@dataclass(frozen=True)
class Dialogue:
    """Turns in order; a pair is a dialogue of two."""

    turns: tuple[Turn, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the content, the same on all machines and in all versions."""
        content = json.dumps([[turn.text, turn.train] for turn in self.turns], separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()


class Pair(NamedTuple):
    """A training or held-out pair as text."""

    turns: list[str]  # the context, oldest first, then the prompt
    response: str


def extract_pairs(dialogue: Dialogue, *, turns: int, targets: TargetTurns) -> Iterator[Pair]:
    """The pairs to learn from a dialogue, with sources of at most `turns` turns.

    Worked example: turns=2 and the dialogue a b c d give ([a], b), ([a, b], c), ([b, c], d). With
    targets="second", where the bot speaks second, they are ([a], b) and ([b, c], d).
    """
    texts = [turn.text for turn in dialogue.turns]
    for i, turn in enumerate(dialogue.turns):
        if i and turn.train and (targets == "all" or i % 2):
            yield Pair(texts[max(0, i - turns) : i], turn.text)


@dataclass
class Tally:
    """Counts of what a reader dropped, by reason, and of the keys that it ignored."""

    dropped: Counter[str] = field(default_factory=Counter)
    first_bad: dict[str, str] = field(default_factory=dict)  # reason -> file and number of the first bad line
    ignored_keys: Counter[str] = field(default_factory=Counter)


def clean_dialogue(turns: Iterable[Turn], dropped: Counter[str]) -> Dialogue | None:
    """The dialogue of these turns, trimmed. None, and counted in `dropped`, if it has nothing to learn.

    A turn without text stays as context but is never learned.
    """
    kept: list[Turn] = []
    for turn in turns:
        text = strip_turn(turn.text)
        if not text and turn.train and kept:
            dropped["empty response"] += 1
        kept.append(Turn(text, turn.train and bool(text)))
    if len(kept) < 2:
        dropped["dialogue of fewer than two turns"] += 1
        return None
    if not any(turn.train for turn in kept[1:]):
        # A dialogue of empty responses has been counted already.
        if any(turn.text for turn in kept[1:]):
            dropped["dialogue without a turn to learn"] += 1
        return None
    return Dialogue(tuple(kept))
