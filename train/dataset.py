"""The encoded corpus: a tokenizer, flat arrays of ids to train on, and a held-out split."""

import functools
import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..runtime.errors import CheckpointError, DataError
from ..runtime.text import SEP, SPECIAL_TOKENS, TextCodec, to_lowercase
from .corpus import Corpus
from .dialogue import Dialogue, Pair, extract_pairs
from .option_types import TargetTurns
from .ranges import check_values
from .report import CorpusReport, ProgressCallback, percentiles
from .tokenizer import train_tokenizer

Ids = npt.NDArray[Any]  # uint16 or int32
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedPairs:
    """n pairs of source and target ids, concatenated without padding.

    `*_ids` is uint16 if the vocabulary fits, else int32; `*_offsets` is int64 [n + 1].
    """

    src_ids: Ids
    src_offsets: Offsets
    tgt_ids: Ids
    tgt_offsets: Offsets

    def __len__(self) -> int:
        return len(self.src_offsets) - 1

    def source(self, i: int) -> Ids:
        """Source ids of pair i, [S]; a view."""
        return self.src_ids[self.src_offsets[i] : self.src_offsets[i + 1]]

    def target(self, i: int) -> Ids:
        """Target ids of pair i, [T], ending with end-of-sentence; a view."""
        return self.tgt_ids[self.tgt_offsets[i] : self.tgt_offsets[i + 1]]

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return save_tensors(dict(vars(self)))

    @classmethod
    def from_bytes(cls, raw: bytes, path: Path) -> "EncodedPairs":
        """The pairs that `to_bytes` wrote, read from `path`. Raises CheckpointError for any other content."""
        try:
            tensors = load_tensors(raw)
            pairs = cls(**tensors)
        except (SafetensorError, TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged or not an encoded corpus: {error}") from None
        sides = ((pairs.src_ids, pairs.src_offsets), (pairs.tgt_ids, pairs.tgt_offsets))
        if not all(_is_consistent(*side) for side in sides) or len(pairs.src_offsets) != len(
            pairs.tgt_offsets
        ):
            raise CheckpointError(
                f"{path} is damaged or not an encoded corpus: its arrays do not fit together"
            )
        return pairs


def _is_consistent(ids: Ids, offsets: Offsets) -> bool:
    return bool(
        ids.dtype in (np.uint16, np.int32)
        and offsets.dtype == np.int64
        and ids.ndim == offsets.ndim == 1
        and len(offsets) >= 1
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and (np.diff(offsets) > 0).all()
    )


class _PairsBuilder:
    """Encoded pairs that are being collected."""

    def __init__(self, vocab_size: int) -> None:
        self._dtype: type[np.uint16] | type[np.int32] = np.uint16 if vocab_size <= 1 << 16 else np.int32
        code = "H" if self._dtype is np.uint16 else "i"
        self._ids = (array(code), array(code))
        self._offsets = (array("q", [0]), array("q", [0]))

    def append(self, source: list[int], target: list[int]) -> None:
        for ids, offsets, new in zip(self._ids, self._offsets, (source, target), strict=True):
            ids.extend(new)
            offsets.append(len(ids))

    def finish(self) -> EncodedPairs:
        src_ids, tgt_ids = (np.array(ids, self._dtype) for ids in self._ids)
        src_offsets, tgt_offsets = (np.array(offsets, np.int64) for offsets in self._offsets)
        return EncodedPairs(src_ids, src_offsets, tgt_ids, tgt_offsets)


@dataclass(frozen=True)
class DataConfig:
    """How a corpus becomes pairs. Lengths are in tokens; a target's includes its end-of-sentence."""

    turns: int = 1  # of a source, including the prompt
    targets: TargetTurns = "all"
    lowercase: bool = False  # sources only; targets keep their case
    vocab_size: int = 8000
    max_source: int = 50
    max_target: int = 50
    valid_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)

    def codec(self, tokenizer: bytes, kind: type[TextCodec] = TextCodec) -> TextCodec:
        """The codec of texts under this configuration."""
        return kind(
            tokenizer,
            max_source=self.max_source,
            max_target=self.max_target,
            turns=self.turns,
            lowercase=self.lowercase,
        )


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that is ready for training. `valid_texts[i]` is the text of pair i of `valid`."""

    tokenizer: bytes
    codec: TextCodec
    train: EncodedPairs
    valid: EncodedPairs
    valid_texts: list[Pair]
    report: CorpusReport


class _CachingCodec(TextCodec):
    """A codec with a cache, so that a turn is not encoded again for each source that has it as context."""

    @functools.cached_property
    def _cached_encode(self) -> Callable[[str], list[int]]:
        return functools.lru_cache(maxsize=128)(super().encode)

    def encode(self, text: str) -> list[int]:
        return self._cached_encode(text)


HeldOutPredicate = Callable[[Dialogue], bool]


def prepare_corpus(
    corpus: Corpus,
    config: DataConfig,
    *,
    tokenizer: bytes | None = None,
    valid: Corpus | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedCorpus:
    """Split a corpus, train the tokenizer on the training part unless one is given, and encode the pairs.

    Without `valid`, `ceil(valid_fraction * n)` of the n distinct dialogues are held out: those with the
    smallest hash of seed and digest. So equal dialogues are on the same side of the split; with `lowercase`
    dialogues whose prompts differ only in case count as equal. When dialogues are added or removed, the
    others keep their side, except a few at the boundary. The corpus is read three times (twice with a
    tokenizer); only held-out texts, ids and 8 bytes per dialogue are kept in memory.

    Raises:
        DataError: the corpus has nothing to learn, or no two distinct dialogues to split; all of its pairs
            are truncated; or it changes while it is read.
    """
    fraction = 0.0 if valid is not None else config.valid_fraction
    is_held_out = _choose_held_out(corpus, config, fraction, progress)
    report = corpus.report
    if tokenizer is None:
        texts = (
            text
            for dialogue, pairs in _dialogues_with_pairs(corpus, config)
            if not is_held_out(dialogue)
            for text in _tokenizer_texts(dialogue, pairs, config)
        )
        tokenizer = train_tokenizer(texts, config.vocab_size, progress=progress)
    encoder = _PairEncoder(config.codec(tokenizer, _CachingCodec))
    for count, (dialogue, pairs) in enumerate(_dialogues_with_pairs(corpus, config), start=1):
        encoder.add(pairs, is_held_out(dialogue))
        if progress and count % 1000 == 0:
            progress("encoding", count)
    if corpus.report.sha256 != report.sha256:
        raise DataError(f"{corpus.name} changed while it was read: start again once it is complete")
    if valid is not None:
        for _, pairs in _dialogues_with_pairs(valid, config):
            encoder.add(pairs, held_out=True)
        if not encoder.dialogues[True]:
            raise DataError(f"{valid.name} holds no pair to validate with{_most_common_drop(valid.report)}")
        report = report.with_valid(valid.report)
    return encoder.finish(tokenizer, config.codec(tokenizer), report)


def _dialogues_with_pairs(corpus: Corpus, config: DataConfig) -> Iterator[tuple[Dialogue, list[Pair]]]:
    """The dialogues that have pairs under this configuration, each with its pairs."""
    for dialogue in corpus:
        if pairs := list(extract_pairs(dialogue, turns=config.turns, targets=config.targets)):
            yield dialogue, pairs


def _tokenizer_texts(dialogue: Dialogue, pairs: list[Pair], config: DataConfig) -> list[str]:
    """The texts of a dialogue for the training of the tokenizer: with `lowercase`, sources in lower case."""
    if not config.lowercase:
        return [turn.text for turn in dialogue.turns]
    sources = dict.fromkeys(text for turns, _ in pairs for text in turns)
    return [*map(to_lowercase, sources), *(response for _, response in pairs)]


def _choose_held_out(
    corpus: Corpus, config: DataConfig, fraction: float, progress: ProgressCallback | None
) -> HeldOutPredicate:
    """Read the corpus once and decide which of its dialogues are held out."""

    def key(dialogue: Dialogue) -> int:
        if config.lowercase:
            *sources, last = dialogue.turns
            dialogue = Dialogue((*(replace(turn, text=to_lowercase(turn.text)) for turn in sources), last))
        mixed = hashlib.sha256(f"{config.seed} {dialogue.digest}".encode("ascii")).digest()
        return int.from_bytes(mixed[:8], "big")

    keys = array("Q")
    for dialogue, _ in _dialogues_with_pairs(corpus, config):
        keys.append(key(dialogue))
        if progress and len(keys) % 1000 == 0:
            progress("reading", len(keys))
    if not keys:
        nothing = "no pair to learn" if corpus.report.dialogues else "no dialogue"
        raise DataError(f"{corpus.name} holds {nothing}{_most_common_drop(corpus.report)}")
    if fraction == 0:
        return lambda dialogue: False
    distinct = np.unique(np.frombuffer(keys, np.uint64))
    if len(distinct) < 2:
        raise DataError(
            f"{corpus.name} holds one distinct dialogue, and a part must be held out: "
            "give more data, or held-out data with --valid"
        )
    count = min(math.ceil(fraction * len(distinct)), len(distinct) - 1)
    last = int(distinct[count - 1])
    return lambda dialogue: key(dialogue) <= last


def _most_common_drop(report: CorpusReport) -> str:
    if not report.dropped:
        return ""
    reason, count = max(report.dropped.items(), key=lambda item: item[1])
    return f" (dropped: {count:,} × {reason})"


class _PairEncoder:
    """Encodes pairs into the two sides of the split and counts them. Index True is the held-out side."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._sides = (_PairsBuilder(codec.vocab_size), _PairsBuilder(codec.vocab_size))
        self._texts: list[Pair] = []
        self.dialogues = [0, 0]
        self._truncated_sources = self._truncated_targets = self._empty_prompts = self._untruncated = 0

    def add(self, pairs: list[Pair], held_out: bool) -> None:
        self.dialogues[held_out] += 1
        for pair in pairs:
            source = self._codec.encode_source(pair.turns)
            target, truncated = self._codec.encode_target(pair.response)
            self._sides[held_out].append(source.ids, target)
            if held_out:
                self._texts.append(pair)
            self._truncated_sources += source.truncated
            self._truncated_targets += truncated
            self._empty_prompts += not pair.turns[-1]
            self._untruncated += not (source.truncated or truncated)

    def finish(self, tokenizer: bytes, codec: TextCodec, report: CorpusReport) -> PreparedCorpus:
        if not self._untruncated:
            raise DataError(
                f"every pair is longer than --max-source {codec.max_source} / "
                f"--max-target {codec.max_target} tokens: raise them or give shorter data"
            )
        train, valid = (side.finish() for side in self._sides)
        ambiguous_prompts, ambiguous_pairs = _count_ambiguous(train, valid)
        report = replace(
            report,
            pairs=len(train) + len(valid),
            train_dialogues=self.dialogues[False],
            train_pairs=len(train),
            valid_dialogues=self.dialogues[True],
            valid_pairs=len(valid),
            valid_learned=_count_learned(valid, train),
            truncated_sources=self._truncated_sources,
            truncated_targets=self._truncated_targets,
            empty_prompts=self._empty_prompts,
            ambiguous_prompts=ambiguous_prompts,
            ambiguous_pairs=ambiguous_pairs,
            vocab_size=codec.vocab_size,
            source_tokens=percentiles(np.concatenate([np.diff(p.src_offsets) for p in (train, valid)])),
            target_tokens=percentiles(np.concatenate([np.diff(p.tgt_offsets) for p in (train, valid)])),
        )
        return PreparedCorpus(tokenizer, codec, train, valid, self._texts, report)


def _count_learned(valid: EncodedPairs, train: EncodedPairs) -> int:
    """The number of pairs of `valid` that are in `train` too."""

    def pair(pairs: EncodedPairs, i: int) -> tuple[bytes, bytes]:
        return pairs.source(i).tobytes(), pairs.target(i).tobytes()

    held_out = Counter(pair(valid, i) for i in range(len(valid)))
    return sum(held_out.pop(pair(train, i), 0) for i in range(len(train) if held_out else 0))


def _count_ambiguous(*parts: EncodedPairs) -> tuple[int, int]:
    """The number of sources with more than one target, and of the pairs that have such a source.

    Worked example: the pairs (a, x), (a, x), (a, y), (b, x) have one such source, a, in three pairs.
    """
    hashes = (
        hash(ids.tobytes())
        for pairs in parts
        for i in range(len(pairs))
        for ids in (pairs.source(i), pairs.target(i))
    )
    hashed = np.fromiter(hashes, np.int64).reshape(-1, 2)  # source, target
    distinct, times = np.unique(hashed, axis=0, return_counts=True)
    _, source, targets = np.unique(distinct[:, 0], return_inverse=True, return_counts=True)
    return int((targets > 1).sum()), int(times[targets[source] > 1].sum())


@dataclass(frozen=True)
class Sample:
    """One training pair as the model sees it. A piece is the text of an id, or its special token."""

    source: list[str]
    source_ids: list[int]
    source_pieces: list[str]
    target: str
    target_ids: list[int]
    target_pieces: list[str]


def pick_samples(prepared: PreparedCorpus, n: int = 3) -> list[Sample]:
    """`n` training pairs, evenly spaced. Their `source` has the turns that are left after truncation."""
    pairs, codec = prepared.train, prepared.codec
    chosen = sorted({i * len(pairs) // n for i in range(n)})
    return [_make_sample(codec, pairs.source(i).tolist(), pairs.target(i).tolist()) for i in chosen]


def _make_sample(codec: TextCodec, source: list[int], target: list[int]) -> Sample:
    return Sample(
        source=_decode_turns(codec, source),
        source_ids=source,
        source_pieces=_token_pieces(codec, source),
        target=codec.decode(target),
        target_ids=target,
        target_pieces=_token_pieces(codec, target),
    )


def _decode_turns(codec: TextCodec, ids: list[int]) -> list[str]:
    ends = [i for i, id in enumerate(ids) if id == SEP] + [len(ids)]
    return [codec.decode(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _token_pieces(codec: TextCodec, ids: list[int]) -> list[str]:
    special = dict(enumerate(SPECIAL_TOKENS))
    return [special.get(id, piece) for id, piece in zip(ids, codec.pieces(ids), strict=True)]
