"""Training the tokenizer: byte-level BPE that any binding of `tokenizers` reads the same way."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ..runtime.errors import BundleError, DataError, UsageError
from ..runtime.graph_check import MAX_ROW_ELEMENTS
from ..runtime.text import SPECIAL_TOKENS, TextCodec, to_nfc
from ..runtime.tokenizer_check import MAX_TOKEN_BYTES, WORD_PATTERN
from .report import ProgressCallback

#: The special tokens and the 256 bytes.
MIN_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256

#: A pair of tokens must occur this often to be merged. Otherwise small corpora give vocabularies of whole
#: sentences.
_MIN_PAIR_COUNT = 2
#: Characters. Longer words are cut into parts of this length for training, whose time grows with the square
#: of the length of a word.
_MAX_WORD_LENGTH = 1000

_PROBES = (
    *SPECIAL_TOKENS,
    "Hello, how are you?  I'm 42!",
    " a\tb\r\nc\n\n",
    "I_TURN_RIGHT api_call",
    "你好，世界",
    "👩‍👩‍👧‍👦 🇺🇦",
    "שָׁלוֹם مرحبا",
    "e\u0301 한글 a\u0323\u0302",
    "\x00\x1b\u200b\ufeff\ufffd\U0010ffff",
    "word " * 3000,
)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, progress: ProgressCallback | None = None
) -> bytes:
    """The `tokenizer.json` of a byte-level BPE of at most `vocab_size` tokens. The same texts give the same
    bytes.

    `texts` is streamed. A small corpus gives fewer tokens. Raises UsageError if `vocab_size` has no room for
    the special tokens and the 256 bytes.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UsageError(f"the vocabulary size must be at least {MIN_VOCAB_SIZE}, not {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_PAIR_COUNT,
        max_token_length=MAX_TOKEN_BYTES,  # else a long line of dashes would become one token
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    parts = (part for text in _with_progress(texts, progress) for part in _cut_long_words(text, words))
    tokenizer.train_from_iterator(parts, trainer)
    return tokenizer.to_str().encode("utf-8")


def _with_progress(texts: Iterable[str], progress: ProgressCallback | None) -> Iterator[str]:
    for count, text in enumerate(texts, start=1):
        yield text
        if progress and count % 1000 == 0:
            progress("tokenizer", count)


def _cut_long_words(text: str, words: pre_tokenizers.Split) -> Iterator[str]:
    """`text` as a whole, or in parts that end within its overlong words."""
    begin = 0
    for _, (start, end) in words.pre_tokenize_str(text) if len(text) > _MAX_WORD_LENGTH else ():
        for cut in range(start + _MAX_WORD_LENGTH, end, _MAX_WORD_LENGTH):
            yield text[begin:cut]
            begin = cut
    yield text[begin:]


def load_tokenizer(path: Path) -> bytes:
    """The content of an existing `tokenizer.json`, checked to behave like one that `train_tokenizer` makes.

    Raises:
        UsageError: the file does not exist.
        DataError: the file cannot be read; or its tokenizer has other special tokens, lacks one of the 256
            bytes, has more tokens than a bundle may have, truncates, pads or varies its encodings, or does
            not restore the NFC form of a text.
    """
    if not path.is_file():
        raise UsageError(f"--tokenizer {path} is not a file")
    try:
        content = path.read_bytes()
        codec = TextCodec(content, max_source=1, max_target=2)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except BundleError as error:
        raise DataError(f"{path} cannot be used: {error}") from None
    if codec.vocab_size > MAX_ROW_ELEMENTS:
        raise DataError(
            f"{path} has {codec.vocab_size:,} tokens, and a bundle has room for {MAX_ROW_ELEMENTS:,}: "
            "use one with fewer"
        )
    for probe in _PROBES:
        if not _round_trips(codec, probe):
            raise DataError(f"{path} alters text: decoding does not restore {probe[:40]!a}")
    return content


def _round_trips(codec: TextCodec, text: str) -> bool:
    ids = codec.encode(text)
    try:
        back = codec.decode(ids)
    except KeyError:  # a token with a character that does not stand for a byte
        return False
    return back == to_nfc(text) and min(ids) >= len(SPECIAL_TOKENS)
