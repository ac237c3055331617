"""A closed set of replies: texts of which one is said, and nothing else."""

import functools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

from .arguments import shown
from .errors import BundleError, DataError, UsageError
from .jsonobject import read_json
from .text import EOS, TextCodec, is_unicode, normal_form, trimmed

REPLIES = "replies.json"
MAX_REPLIES = 100_000
MAX_REPLY = 10_000  # characters
#: Replies from which a node remembers its children; below, they are as quickly looked up.
_REMEMBERED = 64
#: How many nodes do, those that were asked for last.
_NODES = 512

#: The replies that begin with what was said: those from the first to before the second number, and how
#: many ids were said.
Node = tuple[int, int, int]


class ClosedSet:
    """The rule (`constraints.Only`) that one of these replies is said.

    A trie over ids, kept as the sorted replies: a node is a range of them, and its children are the
    parts of that range with one next id. State: a node.

    Worked example: [5 6 eos], [5 7 eos] and [8 eos] sort (eos is 2) as they stand. The root is (0, 3, 0)
    and allows 5 and 8; after 5 comes (0, 2, 1), which allows 6 and 7.
    """

    name = "replies"

    def __init__(self, replies: Iterable[Sequence[int]]) -> None:
        self._replies = sorted({(*ids, EOS) for ids in replies})
        self.longest: int = max(map(len, self._replies))  # in tokens, end-of-sentence counted
        self.start: Node = (0, len(self._replies), 0)
        self._remembered = functools.lru_cache(maxsize=_NODES)(self._children)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ClosedSet) and self._replies == other._replies)

    def __hash__(self) -> int:
        return hash((len(self), self.longest))

    def __len__(self) -> int:
        return len(self._replies)

    def after(self, state: Node, id: int) -> Node:
        low, high, depth = state

        def next_id(reply: tuple[int, ...]) -> int:
            return reply[depth]

        first = bisect_left(self._replies, id, low, high, key=next_id)
        return first, bisect_right(self._replies, id, first, high, key=next_id), depth + 1

    def allowed(self, state: Node, left: int) -> Sequence[int]:
        low, high, _ = state
        return self._children(state) if high - low < _REMEMBERED else self._remembered(state)

    def _children(self, state: Node) -> Sequence[int]:
        low, high, depth = state
        return sorted({reply[depth] for reply in self._replies[low:high]})


def closed_set(replies: Sequence[str], codec: TextCodec) -> ClosedSet:
    """The rule for these texts, each spelled as the model learned to spell it.

    Raises:
        UsageError: a reply is longer than the model's longest.
    """
    encoded = []
    for number, reply in enumerate(replies, start=1):
        ids = codec.encode(reply)
        if len(ids) >= codec.max_target:
            raise UsageError(
                f"reply {number} of the closed set, {shown(reply)}, has {len(ids)} tokens: replies of this "
                f"model have at most {codec.max_target}, with their end"
            )
        encoded.append(ids)
    return ClosedSet(encoded)


def check_replies(values: object) -> tuple[str, ...]:
    """`values` as replies, trimmed and in the normal form, as models learn them: what is said is then one of
    them.

    Raises:
        ValueError: says what is wrong with them.
    """
    if not isinstance(values, list | tuple) or not 0 < len(values) <= MAX_REPLIES:
        raise ValueError(f"must be a list of 1 to {MAX_REPLIES:,} texts")
    replies = []
    for number, value in enumerate(values, start=1):
        text = normal_form(trimmed(value)) if isinstance(value, str) else ""
        if not 0 < len(text) <= MAX_REPLY:
            raise ValueError(f"reply {number} must be text of 1 to {MAX_REPLY:,} characters")
        if not is_unicode(text):
            raise ValueError(f"reply {number} holds half of a surrogate pair, which is no text")
        replies.append(text)
    return tuple(replies)


def parse_replies(raw: bytes) -> tuple[str, ...]:
    """The content of replies.json: a JSON list of texts.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        values = read_json(raw)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    return check_replies(values)


def bundled_replies(raw: bytes) -> tuple[str, ...]:
    """The replies of a bundle's replies.json; raises BundleError, which names the file."""
    try:
        return parse_replies(raw)
    except ValueError as error:
        raise BundleError(f"{REPLIES}: {error}") from None


def read_replies(path: Path) -> tuple[str, ...]:
    """The replies of a user's file: a JSON list of texts in a `.json`, else one a line.

    Raises:
        UsageError: there is no such file, or no reply in it.
        DataError: names the file and what is wrong with it.
    """
    try:
        raw = path.read_bytes()
        raw = raw.removeprefix(b"\xef\xbb\xbf")  # which Notepad begins a file with
        if not raw.strip():
            raise UsageError(f"{path} has no reply in it: give one a line, or a .json list of texts")
        if path.suffix == ".json":
            return parse_replies(raw)
        lines = (line.rstrip("\r") for line in raw.decode("utf-8").split("\n"))
        return check_replies([line for line in lines if line.strip()])
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def write_replies(replies: Sequence[str]) -> bytes:
    """The content of replies.json."""
    return (json.dumps(list(replies), indent=0, ensure_ascii=False) + "\n").encode()
