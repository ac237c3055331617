"""BPE dropout (Provilkov et al. 2020, arXiv:1910.13267): words are split into different tokens each epoch.

Each possible merge of the BPE is skipped with some probability. The split of pair i is a function of (seed,
epoch, i), so it is the same after a resume and in each process. The generator of `tokenizers` cannot be
seeded, hence this merge loop with the same rules: the merge that was learned first comes first, and of equal
ones the leftmost.
"""

import functools
import itertools
import json
from collections.abc import Sequence
from heapq import nsmallest
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..runtime.text import SPECIAL_TOKENS, TextCodec
from .batches import Batch, collate, make_batch
from .config import TrainingConfig
from .dataset import EncodedPairs

#: The last number of the seed of a pair. Without it pair 0 would have the same seed as the order of the
#: epoch, since NumPy pads a sequence of seeds with zeros.
_SEED_STREAM = 1
#: The splits of words of at most `_MAX_CACHED_BYTES` bytes are cached, `_CACHE_SIZE` of them.
_MAX_CACHED_BYTES, _CACHE_SIZE = 32, 1 << 16
_NO_MERGE = 1 << 30  # the rank of two neighbors that are never merged


class BpeDropout:
    """Splits training pairs into tokens again. A merge is skipped with `probability`: 0 gives
    the tokenizer's own tokens, 1 single bytes."""

    def __init__(self, tokenizer: bytes, codec: TextCodec, probability: float, *, seed: int) -> None:
        self._codec, self._probability, self._seed = codec, probability, seed
        self._ids, self._merges = _read_merges(json.loads(tokenizer)["model"])
        self._tokenizer = Tokenizer.from_str(tokenizer.decode("utf-8"))
        self._split_cached = functools.lru_cache(_CACHE_SIZE)(self._split_word)

    @classmethod
    def from_config(cls, config: TrainingConfig, tokenizer: bytes, codec: TextCodec) -> "BpeDropout | None":
        """The BPE dropout of the configuration; None if it is 0."""
        probability = config.bpe_dropout
        return cls(tokenizer, codec, probability, seed=config.seed) if probability else None

    def make_batch(self, pairs: EncodedPairs, indices: np.ndarray, epoch: int) -> Batch:
        """Collate the pairs of `indices` as they are split in this epoch."""
        split = [self.split_pair(pairs, int(i), epoch) for i in indices]
        return collate([source for source, _ in split], [target for _, target in split])

    def split_pair(self, pairs: EncodedPairs, i: int, epoch: int) -> tuple[list[int], list[int]]:
        """Source and target of pair i. One that would exceed the codec's limit keeps its own tokens."""
        rng = np.random.default_rng([self._seed, epoch, i, _SEED_STREAM])
        return (
            self._resplit_side(pairs.source(i).tolist(), self._codec.max_source, rng),
            self._resplit_side(pairs.target(i).tolist(), self._codec.max_target, rng),
        )

    def _resplit_side(self, ids: list[int], max_length: int, rng: np.random.Generator) -> list[int]:
        """Split the text between special tokens again; the special tokens stay."""
        new: list[int] = []
        for special, run in itertools.groupby(ids, key=lambda id: id < len(SPECIAL_TOKENS)):
            same = list(run)
            new += same if special else self._resplit_text(same, rng)
        return new if len(new) <= max_length else ids

    def _resplit_text(self, ids: list[int], rng: np.random.Generator) -> list[int]:
        """Other ids of the same text. They stay the same if the tokenizer would not make them from the text,
        for example at the start of a source that was truncated within a word."""
        try:
            text = b"".join(map(self._codec.token_bytes, ids)).decode("utf-8")
        except UnicodeDecodeError:
            return ids
        words = self._pretokenize(text)
        if [id for word in words for id in self.split_word(word, (0,) * (len(word) - 1))] != ids:
            return ids
        drawn = self._draw_skips(sum(len(word) - 1 for word in words), rng)
        new: list[int] = []
        start = 0
        for word in words:
            end = start + len(word) - 1
            new += self.split_word(word, tuple(drawn[start:end]))
            start = end
        return new

    def _pretokenize(self, text: str) -> list[str]:
        """The words of a text, which no merge crosses, in the vocabulary's alphabet of one character per
        byte."""
        normalized = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]

    def _draw_skips(self, count: int, rng: np.random.Generator) -> list[int]:
        """For each merge that is made, the number of better merges that are skipped before it."""
        if self._probability == 1:
            return [_NO_MERGE] * count
        drawn: list[int] = (rng.geometric(1 - self._probability, size=count) - 1).tolist()
        return drawn

    def split_word(self, word: str, skips: tuple[int, ...]) -> tuple[int, ...]:
        """The ids of a word of n characters whose t-th merge is not the best possible one, but the one after
        the best `skips[t]`; if there is none the word is finished. `skips` has n - 1 numbers.

        Worked example: with the merges l+o, o+w, lo+w in this order, "low" is [low] with (0, 0), [lo, w]
        with (0, 1), [l, ow] with (1, 0), and [l, o, w] with (2, 0).
        """
        if not any(skips):  # one cache entry for the tokenizer's own split
            skips = ()
        return (
            self._split_cached(word, skips)
            if len(word) <= _MAX_CACHED_BYTES
            else self._split_word(word, skips)
        )

    def _split_word(self, word: str, skips: Sequence[int]) -> tuple[int, ...]:
        ids, merges, none = [self._ids[c] for c in word], self._merges, (_NO_MERGE, 0)
        ranks = [merges.get(pair, none)[0] for pair in itertools.pairwise(ids)]
        for better in itertools.chain(skips, itertools.repeat(0)):
            if not ranks:
                break
            rank = nsmallest(better + 1, ranks)[-1] if 0 < better < len(ranks) else min(ranks)
            if better >= len(ranks) or rank == _NO_MERGE:
                break
            # Of equal merges the leftmost comes first.
            at = _nth_index(ranks, rank, better - sum(r < rank for r in ranks) if better else 0)
            ids[at : at + 2] = [merges[ids[at], ids[at + 1]][1]]
            del ranks[at]
            for i in (at - 1, at):
                if 0 <= i < len(ranks):
                    ranks[i] = merges.get((ids[i], ids[i + 1]), none)[0]
        return tuple(ids)


def make_training_batch(
    pairs: EncodedPairs, indices: np.ndarray, epoch: int, dropout: BpeDropout | None
) -> Batch:
    """The batch of the pairs of `indices` in this epoch, with BPE dropout if it is given."""
    return make_batch(pairs, indices) if dropout is None else dropout.make_batch(pairs, indices, epoch)


def _nth_index(values: list[int], value: int, n: int) -> int:
    """The index of the n-th occurrence of `value`, counted from 0."""
    at = values.index(value)
    for _ in range(n):
        at = values.index(value, at + 1)
    return at


def _read_merges(model: dict[str, Any]) -> tuple[dict[str, int], dict[tuple[int, int], tuple[int, int]]]:
    """The ids of all tokens, and for each mergeable pair of ids the rank of the merge and the id of the
    result."""
    ids: dict[str, int] = model["vocab"]
    split = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return ids, {(ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(split)}
