"""`chitchat`: people who chat by text message, from the package chitchat-dataset (MIT).

Cleaning:
- Consecutive messages of one sender are joined by spaces into one turn.
- A conversation is dropped if only one side speaks, or if a fifth or more of its turns are noise: letter spam
  (1 to 4 letters that repeat 8 times or more in a row) or a word of more than 25 characters.
- The others are cut into several dialogues at turns that are noise, are longer than 60 words, or contain a
  URL or an e-mail address, which no model should repeat. Such a turn is neither learned nor seen as context.
  A piece of a single turn is dropped.

Swear words are not filtered: review the replies of a bot before others talk to it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from ...runtime.errors import DataError
from ..dialogue import Dialogue, Turn, clean_dialogue
from .package import package_folder

_MAX_TURN_WORDS = 60
_MAX_WORD_CHARACTERS = 25
_MAX_NOISE_SHARE = 0.2
# Matched against lower case.
_LETTER_SPAM = re.compile(r"([^\W\d_]{1,4}?)\1{7,}")
_URL = re.compile(r"https?:|\bwww\.|\w\.(?:com|org|net|edu|gov|io)\b")
_EMAIL = re.compile(r"\S@\w")


class Chitchat:
    """Reads the conversations in the order of the file."""

    def __init__(self) -> None:
        self._path = package_folder("chitchat_dataset", "chitchat-dataset") / "dataset.json"

    def __call__(self, dropped: Counter[str]) -> Iterator[Dialogue]:
        try:
            text = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _read_error(error) from None
        for conversation in _parse_values(text):
            for turns in _split_conversation(_sender_turns(conversation), dropped):
                if dialogue := clean_dialogue((Turn(turn) for turn in turns), dropped):
                    yield dialogue


def _parse_values(text: str) -> Iterator[Any]:
    """The values of the single JSON object `text`, parsed one at a time, since all together they take ten
    times the memory of their text."""
    decoder, at = json.JSONDecoder(), re.compile(r'\s*[{,]\s*"[^"]*"\s*:\s*')
    end = 0
    try:
        while key := at.match(text, end):
            value, end = decoder.raw_decode(text, key.end())
            yield value
    except ValueError as error:
        raise _read_error(error) from None
    if text[end:].strip() != "}":
        raise _read_error(f"it is cut off or not a list of conversations, from character {end + 1:,} on")


def _read_error(why: object) -> DataError:
    return DataError(f"dataset.json of chitchat-dataset cannot be read: {why}")


def _sender_turns(conversation: Any) -> list[str]:
    try:
        messages = [m for block in conversation["messages"] for m in block if m["text"].strip()]
        return [
            " ".join(message["text"].strip() for message in group)
            for _, group in groupby(messages, key=lambda message: message["sender"])
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise _read_error(f"a conversation in it has no messages of texts and senders ({error!r})") from None


def _split_conversation(turns: list[str], dropped: Counter[str]) -> Iterator[list[str]]:
    """The dialogues that a conversation is cut into."""
    if len(turns) < 2:
        dropped["one-sided conversation"] += 1
        return
    flaws = [_find_flaw(turn) for turn in turns]
    noise = sum(flaw in ("letter spam", "overlong word") for flaw in flaws)
    if noise >= _MAX_NOISE_SHARE * len(turns):
        dropped["spam conversation"] += 1
        return
    dropped.update(f"turn with {flaw}" for flaw in flaws if flaw)
    for flawed, group in groupby(zip(turns, flaws, strict=True), key=lambda item: item[1] is not None):
        if flawed:
            continue
        piece = [turn for turn, _ in group]
        if len(piece) > 1:
            yield piece
        else:
            dropped["single turn between such turns"] += 1


def _find_flaw(turn: str) -> str | None:
    turn = turn.lower()
    words = turn.split()
    if _URL.search(turn):
        return "URL"
    if _EMAIL.search(turn):
        return "e-mail address"
    if _LETTER_SPAM.search(turn):
        return "letter spam"
    if max(map(len, words)) > _MAX_WORD_CHARACTERS:
        return "overlong word"
    if len(words) > _MAX_TURN_WORDS:
        return f"more than {_MAX_TURN_WORDS} words"
    return None
