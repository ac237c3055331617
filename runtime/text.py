"""Text to ids and back: the one tokenizer that training, export, runtime and other languages share.

The tokenizer is a byte-level BPE (`tokenizer.json` of Hugging Face `tokenizers`): any text is a
sequence of its bytes, so nothing is unknown, and decoding gives the NFC form of what was encoded.
"""

import codecs
import copy
import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from .arguments import listed, shown
from .errors import BundleError, UsageError
from .tokenizerfile import SPECIAL_TOKENS as SPECIAL_TOKENS
from .tokenizerfile import byte_of_character, check_tokenizer

PAD, GO, EOS, UNK, SEP = 0, 1, 2, 3, 4
#: Ids that a reply never holds: the search bans them at every step.
NEVER_GENERATED = (PAD, GO, UNK, SEP)


def normal_form(text: str) -> str:
    """NFC, in which every text is encoded, so that models learn replies in it. Nothing is normalized as it is
    decoded: a model may still say a letter and its accent one after the other.
    """
    return unicodedata.normalize("NFC", text)


def trimmed(text: str) -> str:
    """A turn as models learn it and are asked it: without the space around it."""
    return text.strip()


def lowercased(text: str) -> str:
    """`text` in lower case, and once more in NFC: of one letter may come two (İ), of two one (J and a caron).

    This is `str.lower`, of no language in particular, and no case folding. That alters what is in lower case
    already: straße would be strasse, and copied so, and the sigma at the end of a word would be any other.
    """
    return normal_form(normal_form(text).lower())


def is_unicode(text: str) -> bool:
    """Whether `text` holds no half of a surrogate pair, which is no character and has no bytes."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def turns_of(conversation: Iterable[str]) -> list[str]:
    """The turns of a conversation; raises UsageError where they are no list, or one is no text."""
    turns = listed(conversation, "the turns of a conversation are a list of texts")
    for turn in turns:
        if not isinstance(turn, str):
            raise UsageError(f"a prompt is a text (str), not {shown(turn)}")
    return turns


@dataclass(frozen=True)
class EncodedSource:
    """A prompt, with its context, as the encoder sees it."""

    ids: list[int]
    truncated: bool  # true where something was cut to fit the longest source


class TextCodec:
    """Encodes prompts and replies, and decodes ids, exactly as the model was trained.

    `max_source` and `max_target` are in tokens; `max_target` includes the end-of-sentence.
    `turns` is how many turns of a conversation the source holds at most (1: the prompt alone).
    With `lowercase` they are read in lower case, however they are typed; replies keep their case.
    """

    def __init__(
        self,
        tokenizer_json: bytes,
        *,
        max_source: int,
        max_target: int,
        turns: int = 1,
        lowercase: bool = False,
    ) -> None:
        check_tokenizer(tokenizer_json)
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as error:  # tokenizers raises plain Exception for anything it cannot parse
            if type(error) is not Exception and not isinstance(error, ValueError):
                raise  # an app's own, of a signal's handler
            raise BundleError(f"tokenizer.json cannot be read: {error}") from error
        for id, token in enumerate(SPECIAL_TOKENS):
            if self._tokenizer.token_to_id(token) != id:
                raise BundleError(
                    f"tokenizer.json gives {token!r} the id {self._tokenizer.token_to_id(token)}, not {id}"
                )
        vocabulary = self._tokenizer.get_vocab()
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise BundleError("tokenizer.json leaves out ids, or gives one twice")
        # Not saved in tokenizer.json: a special token that a user types stays plain text.
        self._tokenizer.encode_special_tokens = True
        self.max_source: int = max_source
        self.max_target: int = max_target
        self.turns: int = turns
        self.lowercase: bool = lowercase
        self.vocab_size: int = len(vocabulary)
        self._bytes: dict[int, bytes] = {}

    def limited(self, *, max_source: int, max_target: int) -> "TextCodec":
        """The same tokenizer with other limits."""
        other = copy.copy(self)
        other.max_source, other.max_target = max_source, max_target
        return other

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with no special token among them."""
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):  # lone surrogates are no text
            text = text.encode("utf-8", "replace").decode("utf-8")
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def as_read(self, turn: str) -> str:
        """A turn of a source as its ids spell it."""
        return self._spelled(trimmed(turn))

    def _spelled(self, text: str) -> str:
        return lowercased(text) if self.lowercase else normal_form(text)

    def encode_source(self, turns: Sequence[str]) -> EncodedSource:
        """Ids of the last turns of a conversation, `trimmed`, oldest first, joined by the separator.

        The oldest text goes first where it does not fit. An empty source is one end-of-sentence.
        Raises UsageError as `turns_of` does.
        Worked example, turns=2, max_source=5: ["a", "b c", "d e f"] has the last two turns
        [b c <sep> d e f], of which the last five ids stay: [c <sep> d e f].
        """
        turns = turns_of(turns)
        # Cut by characters before tokenizing: a megabyte costs no more than the longest source.
        longest = self.max_source * self._longest_token
        ids: list[int] = []
        truncated = False
        for age, turn in enumerate(reversed(turns[-self.turns :])):
            if len(ids) >= self.max_source:
                truncated = True
                break
            text = trimmed(turn)
            if len(text) > longest:
                text, truncated = text[-longest:], True
            ids = self.encode(self._spelled(text)) + ([SEP] if age else []) + ids
        if len(ids) > self.max_source:
            ids, truncated = ids[-self.max_source :], True
        return EncodedSource(ids or [EOS], truncated)

    def encode_target(self, text: str) -> tuple[list[int], bool]:
        """Ids of a reply, always ending with end-of-sentence, and whether it was cut to fit."""
        ids = self.encode(text)
        return [*ids[: self.max_target - 1], EOS], len(ids) > self.max_target - 1

    @functools.cached_property
    def _longest_token(self) -> int:
        # Four code points can compose into one under NFC; lower-casing makes none fewer.
        return 4 * max(len(token) for token in self._tokenizer.get_vocab())

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; special tokens stand for none."""
        found = self._bytes.get(id)
        if found is None:
            token = "" if id < len(SPECIAL_TOKENS) else self._tokenizer.id_to_token(id) or ""
            alphabet = byte_of_character()
            # As the decoder of `tokenizers`: a token with any other character is text as it stands.
            in_alphabet = all(c in alphabet for c in token)
            found = bytes(alphabet[c] for c in token) if in_alphabet else token.encode()
            self._bytes[id] = found
        return found

    @functools.cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """`token_bytes` of every id."""
        return tuple(map(self.token_bytes, range(self.vocab_size)))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def decode_whole(self, ids: Iterable[int]) -> str:
        """As `decode`, without a last character of which only some bytes are there yet."""
        return self.agreed([ids])

    def agreed(self, replies: Iterable[Iterable[int]]) -> str:
        """The text that all of these begin with, however they spell it; whole characters only."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        spelled = [b"".join(map(self.token_bytes, ids)) for ids in replies]
        first, last = min(spelled), max(spelled)  # all others lie between them, and share what they share
        differ = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
        return decoder.decode(first[: next(differ, len(first))])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds; joined they are `decode(ids)`. Half a character is "" until
        the id that completes it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(self.token_bytes(id)) for id in ids]
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return pieces
