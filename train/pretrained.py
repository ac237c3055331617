"""Pretrained word vectors as initial rows of the embedding.

A token of a byte-level BPE takes the vector of the word that equals its text, with or without the leading
space that a token may have: `hello` and ` hello` both take that of "hello", letter for letter. Tokens that
are parts of words mostly have no vector and are initialized at random.

Files:
- text, also .gz: a word and its E numbers per line, separated by spaces (GloVe), with or without a first line
  of two numbers, the number of words and E (word2vec, fastText);
- .safetensors with a JSON list `words` in its metadata and one tensor [words, E] of their vectors;
- .safetensors with `embedding.weight` [V, E] and no words, such as the checkpoint of a run: row i belongs to
  token i, so it fits only its own tokenizer.
"""

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..runtime.backend import Floats, Ints
from ..runtime.display import plural
from ..runtime.errors import DataError, UsageError
from ..runtime.text import SPECIAL_TOKENS, TextCodec, to_nfc
from .readers import READ_ERRORS, as_data_error

_WEIGHT = "embedding.weight"


@dataclass(frozen=True)
class PretrainedVectors:
    """The rows that were found for a vocabulary of V tokens."""

    ids: Ints  # [n]
    vectors: Floats  # [n, E]
    vocab_size: int
    sha256: str  # of the file

    @property
    def found(self) -> int:
        return len(self.ids)

    def to_bytes(self) -> bytes:
        """The rows as a run stores them."""
        tensors = {"ids": torch.from_numpy(self.ids), "vectors": torch.from_numpy(self.vectors)}
        return safetensors.torch.save(tensors)


def set_embedding_rows(embedding: nn.Embedding, stored: bytes) -> None:
    """Set the rows of the embedding that a run stored."""
    tensors = safetensors.torch.load(stored)
    with torch.no_grad():
        embedding.weight[tensors["ids"]] = tensors["vectors"]


def read_pretrained_vectors(path: Path, codec: TextCodec, size: int) -> PretrainedVectors:
    """The vectors of `size` numbers that the file has for tokens of `codec`.

    Raises:
        UsageError: the file does not exist, has vectors of another size, or has none of the tokens.
        DataError: the file cannot be read.
    """
    digest = file_sha256(path)
    try:
        rows = (
            _rows_from_safetensors(path, codec, size)
            if path.suffix == ".safetensors"
            else _rows_from_text(path, codec, size)
        )
        found = dict(sorted(rows))
    except READ_ERRORS as error:
        raise as_data_error(path, error) from None
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not found:
        raise UsageError(f"{path} has none of the {codec.vocab_size:,} tokens of this vocabulary")
    vectors = np.stack(list(found.values()))
    if not np.isfinite(vectors).all():
        raise DataError(f"{path} has a number that is not finite")
    return PretrainedVectors(np.array(list(found), dtype=np.int64), vectors, codec.vocab_size, digest)


def file_sha256(path: Path) -> str:
    """The sha256 of the file of --pretrained-embeddings; errors as in `read_pretrained_vectors`."""
    if not path.is_file():
        raise UsageError(f"--pretrained-embeddings {path} is not a file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def tokens_of_words(codec: TextCodec) -> dict[str, list[int]]:
    """The ids of the tokens of each word: one, or two, with and without a leading space."""
    words: dict[str, list[int]] = defaultdict(list)
    for id in range(len(SPECIAL_TOKENS), codec.vocab_size):
        word = codec.decode([id]).removeprefix(" ")
        if word and not word[0].isspace() and "\ufffd" not in word:  # no parts of characters
            words[word].append(id)
    return words


Row = tuple[int, Floats]


def _rows_from_text(path: Path, codec: TextCodec, size: int) -> Iterator[Row]:
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
        yield from _rows_from_lines(path, lines, tokens_of_words(codec), size)


def _rows_from_lines(
    path: Path, lines: Iterable[str], remaining: dict[str, list[int]], size: int
) -> Iterator[Row]:
    """The rows of the words in `remaining`; if a word comes twice, the first row counts."""
    number = expected = 0
    for number, line in enumerate(lines, 1):
        parts = line.rstrip().replace("\t", " ").split(" ")
        if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            expected = int(parts[0])
            _check_size(path, int(parts[1]), size)
            continue
        if number == 1 and len(parts) > 1:
            _check_size(path, len(parts) - 1, size)
        word = to_nfc(" ".join(parts[:-size]))  # words of GloVe may contain spaces
        ids = remaining.pop(word, ())
        if word and not ids:
            continue
        try:
            if not word:
                raise ValueError
            vector = np.array(parts[-size:], dtype=np.float64)
        except ValueError:
            raise DataError(
                f"{path}, line {number}: not a word and {size} numbers, separated by spaces"
            ) from None
        if not (np.abs(vector) <= np.finfo(np.float32).max).all():
            raise DataError(f"{path}, line {number}: a number is not finite, or too large for 32 bits")
        for id in ids:
            yield id, vector.astype(np.float32)
    if expected and number <= expected:
        raise DataError(
            f"{path} is not complete: its first line announces {plural(expected, 'vector')}, and it has "
            f"{number - 1:,}"
        )


def _rows_from_safetensors(path: Path, codec: TextCodec, size: int) -> Iterator[Row]:
    with safe_open(path, "pt") as file:
        words = (file.metadata() or {}).get("words")
        names = list(file.keys())
        fits = _WEIGHT in names if words is None else len(names) == 1
        if not fits:
            raise DataError(
                f"{path} has neither a tensor {_WEIGHT} nor words in its metadata with one tensor of vectors"
            )
        name = _WEIGHT if words is None else names[0]
        tensor = file.get_tensor(name)
    if tensor.ndim != 2 or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DataError(
            f"{path}: {name} must be a matrix of floating-point numbers, not {kind} {tuple(tensor.shape)}"
        )
    _check_size(path, tensor.shape[1], size)
    vectors: Floats = tensor.float().numpy()
    if words is not None:
        remaining = tokens_of_words(codec)
        for word, vector in zip(_word_list(path, words, len(vectors)), vectors, strict=True):
            for id in remaining.pop(to_nfc(word), ()):
                yield id, vector
        return
    if len(vectors) != codec.vocab_size or not _same_tokenizer(path, codec):
        raise UsageError(f"{path} has the rows of another tokenizer: give that tokenizer with --tokenizer")
    yield from list(enumerate(vectors))[len(SPECIAL_TOKENS) :]


def _word_list(path: Path, raw: str, count: int) -> list[str]:
    try:
        words = json.loads(raw)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words) or len(words) != count:
        raise DataError(f"{path}: words must be a JSON list of {count} strings, one for each vector")
    return words


def _same_tokenizer(checkpoint: Path, codec: TextCodec) -> bool:
    """Whether the run around a checkpoint has the tokenizer of `codec`. True for files outside a run."""
    folders = list(checkpoint.resolve().parents)
    tokenizer_file = folders[min(2, len(folders) - 1)] / "tokenizer.json"
    if not tokenizer_file.is_file():
        return True
    other = TextCodec(tokenizer_file.read_bytes(), max_source=1, max_target=2)
    return other.vocabulary == codec.vocabulary


def _check_size(path: Path, found: int, size: int) -> None:
    if found != size:
        raise UsageError(
            f"{path} has vectors of {found} numbers, but the embedding has {size}: set --embedding {found}"
        )
