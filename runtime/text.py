"""Text to ids and back: the tokenizer that training, export and runtime share.

It is a byte-level BPE (a `tokenizer.json` of Hugging Face `tokenizers`). Every text is a sequence of bytes,
so no text is unknown, and decoding returns the NFC form of the text that was encoded.
"""

import codecs
import copy
import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from .arguments import short_repr, to_list
from .errors import BundleError, UsageError
from .tokenizer_check import SPECIAL_TOKENS as SPECIAL_TOKENS
from .tokenizer_check import check_tokenizer, token_bytes

PAD, GO, EOS, UNK, SEP = 0, 1, 2, 3, 4
#: Ids that never occur in a reply: the search bans them at every step.
NEVER_GENERATED = (PAD, GO, UNK, SEP)


def to_nfc(text: str) -> str:
    """`text` in NFC. Every text is normalized before it is encoded, so models learn replies in NFC. Decoded
    text is not normalized: a model can still produce a letter followed by its combining accent.
    """
    return unicodedata.normalize("NFC", text)


def strip_turn(text: str) -> str:
    """A turn without the whitespace around it, as in training and for prompts."""
    return text.strip()


def to_lowercase(text: str) -> str:
    """`text` in lower case and NFC. Normalization is repeated after lower-casing, which may change it: İ
    becomes two characters, and a J with a combining caron becomes one.

    This is `str.lower`, independent of language, and not case folding, which would change lower-case text
    too: straße would become strasse, and be copied so, and a final sigma would become an ordinary one.
    """
    return to_nfc(to_nfc(text).lower())


def is_unicode(text: str) -> bool:
    """Whether `text` is free of lone surrogates, which are not characters and cannot be encoded."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def check_turns(conversation: Iterable[str]) -> list[str]:
    """The turns of a conversation as a list.

    Raises:
        UsageError: `conversation` is not a list, or a turn is not text.
    """
    turns = to_list(conversation, "a conversation must be a list of texts")
    for turn in turns:
        if not isinstance(turn, str):
            raise UsageError(f"a prompt must be text (str), not {short_repr(turn)}")
    return turns


@dataclass(frozen=True)
class EncodedSource:
    """A prompt with its context, as the encoder reads it."""

    ids: list[int]
    truncated: bool  # whether text was cut to fit the maximum length of a source


class TextCodec:
    """Encodes prompts and replies, and decodes ids, exactly as in training.

    `max_source` and `max_target` are in tokens; `max_target` includes the end-of-sentence. `turns` is the
    maximum number of turns of a conversation in a source; 1 is the prompt alone. With `lowercase`, sources
    are converted to lower case; replies keep their case. `vocab_size` is the number of tokens that the model
    has, if it is known.

    Raises:
        BundleError: the tokenizer is not safe to use, or has another number of tokens.
    """

    def __init__(
        self,
        tokenizer_json: bytes,
        *,
        max_source: int,
        max_target: int,
        turns: int = 1,
        lowercase: bool = False,
        vocab_size: int | None = None,
    ) -> None:
        check_tokenizer(tokenizer_json, vocab_size)
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as error:  # tokenizers raises plain Exception for anything that it cannot parse
            if type(error) is not Exception and not isinstance(error, ValueError):
                raise  # raised by a signal handler of the app
            raise BundleError(f"tokenizer.json cannot be read: {error}") from error
        for id, token in enumerate(SPECIAL_TOKENS):
            if self._tokenizer.token_to_id(token) != id:
                raise BundleError(
                    f"tokenizer.json gives {token!r} the id {self._tokenizer.token_to_id(token)}, not {id}"
                )
        vocabulary = self._tokenizer.get_vocab()
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise BundleError("tokenizer.json skips ids, or gives an id to two tokens")
        # tokenizer.json does not save this: the name of a special token in a prompt is encoded as plain text.
        self._tokenizer.encode_special_tokens = True
        self.max_source: int = max_source
        self.max_target: int = max_target
        self.turns: int = turns
        self.lowercase: bool = lowercase
        self.vocab_size: int = len(vocabulary)
        self._bytes: dict[int, bytes] = {}

    def with_limits(self, *, max_source: int, max_target: int) -> "TextCodec":
        """The same tokenizer with other limits."""
        other = copy.copy(self)
        other.max_source, other.max_target = max_source, max_target
        return other

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens."""
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):  # it has lone surrogates, which cannot be encoded
            text = text.encode("utf-8", "replace").decode("utf-8")
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def normalize_turn(self, turn: str) -> str:
        """A turn of a source as the model reads it: trimmed, in NFC, and in lower case if that is its
        setting."""
        return self._normalize(strip_turn(turn))

    def _normalize(self, text: str) -> str:
        return to_lowercase(text) if self.lowercase else to_nfc(text)

    def encode_source(self, turns: Sequence[str]) -> EncodedSource:
        """The ids of the last turns of a conversation, each stripped (`strip_turn`), oldest first,
        joined by the separator.

        If they do not fit, the oldest text is cut. An empty source is one end-of-sentence.

        Worked example, turns=2, max_source=5: the last two turns of ["a", "b c", "d e f"] are
        [b c <sep> d e f], of which the last five ids are kept: [c <sep> d e f].

        Raises:
            UsageError: as `check_turns`.
        """
        turns = check_turns(turns)
        # Cut by characters before tokenizing, so that a megabyte takes no longer than the longest source.
        max_characters = self.max_source * self._max_token_characters
        ids: list[int] = []
        truncated = False
        for age, turn in enumerate(reversed(turns[-self.turns :])):
            if len(ids) >= self.max_source:
                truncated = True
                break
            text = strip_turn(turn)
            if len(text) > max_characters:
                text, truncated = text[-max_characters:], True
            ids = self.encode(self._normalize(text)) + ([SEP] if age else []) + ids
        if len(ids) > self.max_source:
            ids, truncated = ids[-self.max_source :], True
        return EncodedSource(ids or [EOS], truncated)

    def encode_target(self, text: str) -> tuple[list[int], bool]:
        """The ids of a reply, always ending with the end-of-sentence, and whether it was cut to fit."""
        ids = self.encode(text)
        return [*ids[: self.max_target - 1], EOS], len(ids) > self.max_target - 1

    @functools.cached_property
    def _max_token_characters(self) -> int:
        # NFC may compose up to four code points into one; lower-casing never reduces their number.
        return 4 * max(len(token) for token in self._tokenizer.get_vocab())

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; none for special tokens."""
        found = self._bytes.get(id)
        if found is None:
            token = "" if id < len(SPECIAL_TOKENS) else self._tokenizer.id_to_token(id) or ""
            found = self._bytes[id] = token_bytes(token)
        return found

    @functools.cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """`token_bytes` of every id."""
        return tuple(map(self.token_bytes, range(self.vocab_size)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def decode_complete_characters(self, ids: Iterable[int]) -> str:
        """Like `decode`, but without an incomplete character at the end."""
        return self.common_prefix([ids])

    def common_prefix(self, replies: Iterable[Iterable[int]]) -> str:
        """The longest text, in whole characters, with which all `replies` begin, however they are
        tokenized."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        spelled = [b"".join(map(self.token_bytes, ids)) for ids in replies]
        first, last = min(spelled), max(spelled)  # all others sort between them
        differ = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        return decoder.decode(first[: next(differ, len(first))])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds; joined, it is `decode(ids)`. A character is added by the id that
        completes it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(self.token_bytes(id)) for id in ids]
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return pieces
