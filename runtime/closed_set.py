"""A closed set of replies: texts of which every reply is one."""

import functools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

from .arguments import short_repr
from .errors import BundleError, DataError, UsageError
from .strict_json import read_json
from .text import EOS, TextCodec, is_unicode, strip_turn, to_nfc

REPLIES_FILE = "replies.json"
MAX_REPLIES = 100_000
MAX_REPLY_LENGTH = 10_000  # characters
#: A node of at least this many replies caches its children; for fewer, looking them up is as fast.
_MIN_CACHED_REPLIES = 64
#: Number of nodes whose children are cached, the most recently used ones.
_MAX_CACHED_NODES = 512

#: Start and end of a range of the sorted replies, namely of those that begin with the reply so far, and the
#: number of its tokens.
Node = tuple[int, int, int]


class ClosedSet:
    """The rule (`constraints.AllowRule`) that a reply is one of these.

    A trie over ids, stored as the sorted list of replies: a node is a range of them, and each of its children
    is the part of that range with the same next id. The state is a node.

    Worked example: [5 6 eos], [5 7 eos] and [8 eos] are in sorted order (eos is 2). The root is (0, 3, 0)
    and allows 5 and 8; after 5 the node is (0, 2, 1), which allows 6 and 7.
    """

    name = "replies"

    def __init__(self, replies: Iterable[Sequence[int]]) -> None:
        self._replies = sorted({(*ids, EOS) for ids in replies})
        self.max_length: int = max(map(len, self._replies))  # tokens, end-of-sentence counted
        self.start: Node = (0, len(self._replies), 0)
        self._cached_children = functools.lru_cache(maxsize=_MAX_CACHED_NODES)(self._children)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ClosedSet) and self._replies == other._replies)

    def __hash__(self) -> int:
        return hash((len(self), self.max_length))

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
        return self._children(state) if high - low < _MIN_CACHED_REPLIES else self._cached_children(state)

    def _children(self, state: Node) -> Sequence[int]:
        low, high, depth = state
        return sorted({reply[depth] for reply in self._replies[low:high]})


def make_closed_set(replies: Sequence[str], codec: TextCodec) -> ClosedSet:
    """The rule for these texts, each encoded as the model learned it.

    Raises:
        UsageError: a text is longer than the longest reply of the model.
    """
    encoded = []
    for number, reply in enumerate(replies, start=1):
        ids = codec.encode(reply)
        if len(ids) >= codec.max_target:
            raise UsageError(
                f"reply {number} of the closed set, {short_repr(reply)}, has {len(ids)} tokens and an "
                f"end-of-sentence: replies of this model have at most {codec.max_target} in total"
            )
        encoded.append(ids)
    return ClosedSet(encoded)


def check_replies(values: object) -> tuple[str, ...]:
    """`values` as replies, trimmed and in NFC like training data, so that a reply equals one of them.

    Raises:
        ValueError: says what is wrong with them.
    """
    if not isinstance(values, list | tuple) or not 0 < len(values) <= MAX_REPLIES:
        raise ValueError(f"must be a list of 1 to {MAX_REPLIES:,} texts")
    replies = []
    for number, value in enumerate(values, start=1):
        text = to_nfc(strip_turn(value)) if isinstance(value, str) else ""
        if not 0 < len(text) <= MAX_REPLY_LENGTH:
            raise ValueError(f"reply {number} must be text of 1 to {MAX_REPLY_LENGTH:,} characters")
        if not is_unicode(text):
            raise ValueError(f"reply {number} has a lone surrogate, so it is not valid Unicode")
        replies.append(text)
    return tuple(replies)


def check_replies_argument(values: object) -> tuple[str, ...]:
    """`check_replies` for the argument `replies` of a caller.

    Raises:
        UsageError: says what is wrong with them.
    """
    try:
        return check_replies(values)
    except ValueError as error:
        raise UsageError(f"replies: {error}") from None


def parse_replies(raw: bytes) -> tuple[str, ...]:
    """Parse the content of replies.json, a JSON list of texts.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        values = read_json(raw)
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    return check_replies(values)


def parse_bundle_replies(raw: bytes) -> tuple[str, ...]:
    """The replies in a bundle's replies.json; raises BundleError, which names the file."""
    try:
        return parse_replies(raw)
    except ValueError as error:
        raise BundleError(f"{REPLIES_FILE}: {error}") from None


def read_replies(path: Path) -> tuple[str, ...]:
    """The replies in a user's file: a JSON list of texts if its name ends with .json, else one per line.

    Raises:
        UsageError: there is no such file, or no reply in it.
        DataError: names the file and what is wrong with it.
    """
    try:
        raw = path.read_bytes()
        raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as Notepad writes it
        if not raw.strip():
            raise UsageError(f"{path} has no reply in it: write one per line, or a JSON list in a .json file")
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


def encode_replies(replies: Sequence[str]) -> bytes:
    """The content of replies.json."""
    return (json.dumps(list(replies), indent=0, ensure_ascii=False) + "\n").encode()
