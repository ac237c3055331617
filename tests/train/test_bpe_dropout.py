"""BPE dropout: the tokenizer's merges, some of them skipped, as a function of (seed, epoch, pair)."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_corpus import PAIRS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from edgechat.runtime.text import EOS, SEP, SPECIAL_TOKENS, TextCodec
from edgechat.train.batches import make_batch
from edgechat.train.bpe_dropout import BpeDropout
from edgechat.train.config import TrainingConfig
from edgechat.train.dataset import EncodedPairs
from edgechat.train.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer((text for pair in PAIRS for text in pair), 400)
CODEC = TextCodec(TOKENIZER, max_source=50, max_target=50, turns=2)
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
_IDS = {token: id for id, token in enumerate((*SPECIAL_TOKENS, *_BYTES, "lo", "ow", "low", "aa", "ab"))}


def make_dropout(share: float, *, seed: int = 0, codec: TextCodec = CODEC) -> BpeDropout:
    return BpeDropout(TOKENIZER, codec, share, seed=seed)


def make_tiny_dropout(share: float, *merges: tuple[str, str]) -> BpeDropout:
    """BPE dropout with a merge table that is small enough to check by hand."""
    model = {"type": "BPE", "vocab": _IDS, "merges": [list(merge) for merge in merges]}
    tokenizer = Tokenizer(models.BPE(vocab=_IDS, merges=list(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    added = json.loads(TOKENIZER)["added_tokens"]
    raw = json.dumps({**json.loads(tokenizer.to_str()), "model": model, "added_tokens": added}).encode()
    return BpeDropout(raw, TextCodec(raw, max_source=50, max_target=50), share, seed=0)


def encoded(pairs: list[tuple[list[str], str]], codec: TextCodec = CODEC) -> EncodedPairs:
    sides = zip(*((codec.encode_source(s).ids, codec.encode_target(t)[0]) for s, t in pairs), strict=True)
    flat = []
    for side in sides:
        offsets = np.cumsum([0, *map(len, side)])
        flat += [np.array([id for ids in side for id in ids], np.uint16), offsets.astype(np.int64)]
    return EncodedPairs(*flat)


def spell(cut: tuple[int, ...]) -> str:
    names = list(_IDS)
    return " ".join(names[id] for id in cut)


LOW = (("l", "o"), ("o", "w"), ("lo", "w"))


@pytest.mark.parametrize(
    ("skips", "pieces"),
    [
        ((0, 0), "low"),
        ((0, 1), "lo w"),
        ((1, 0), "l ow"),  # l+ow is not a merge
        ((2, 0), "l o w"),
        ((9, 9), "l o w"),
    ],
)
def test_each_merge_is_the_best_one_that_is_not_skipped(skips, pieces):
    assert spell(make_tiny_dropout(0.5, *LOW).split_word("low", skips)) == pieces


def test_of_equal_merges_the_leftmost_come_first():
    one = make_tiny_dropout(0.5, ("a", "a"), ("a", "b"))
    # aaab: three merges can be made, a+a at 0, a+a at 1, a+b at 2
    cuts = [spell(one.split_word("aaab", (skip, 9, 9))) for skip in (0, 1, 2, 3)]
    assert cuts == ["aa a b", "a aa b", "a a ab", "a a a b"]


def test_tokens_have_the_probability_that_follows_from_their_merges():
    share, n = 0.3, 20_000
    one = make_tiny_dropout(share, *LOW)
    random = np.random.default_rng(7)
    drawn = np.array(one._draw_skips(2 * n, random)).reshape(n, 2)
    seen = Counter(spell(one.split_word("low", tuple(row))) for row in drawn.tolist())
    # l+o is made (0.7), then lo+w (0.7) or not (0.3); else o+w (0.3 * 0.7); else neither (0.3 * 0.3)
    expected = {"low": 0.7 * 0.7, "lo w": 0.7 * 0.3, "l ow": 0.3 * 0.7, "l o w": 0.3 * 0.3}
    assert seen.keys() == expected.keys()
    for pieces, probability in expected.items():
        assert seen[pieces] / n == pytest.approx(probability, abs=4 * (0.25 / n) ** 0.5)


@given(st.text(max_size=60))
def test_without_skipped_merges_words_are_split_as_by_the_tokenizer(text):
    one = make_dropout(0.5)
    text = text.encode("utf-8", "replace").decode()
    ids = [id for word in one._pretokenize(text) for id in one.split_word(word, (0,) * (len(word) - 1))]
    assert ids == CODEC.encode(text)


@given(st.text(max_size=40), st.lists(st.integers(0, 3), max_size=200))
def test_every_split_has_the_same_text(text, skips):
    one = make_dropout(0.5)
    text = text.encode("utf-8", "replace").decode()
    cycle = itertools.cycle(skips or [0])
    ids = [
        id
        for word in one._pretokenize(text)
        for id in one.split_word(word, tuple(itertools.islice(cycle, len(word))))
    ]
    assert CODEC.decode(ids) == CODEC.decode(CODEC.encode(text))


def test_turns_stay_apart_and_every_target_ends():
    pairs = encoded([(["good morning", "how are you"], "i am fine thank you"), ([""], "hello")])
    one = make_dropout(1.0)
    source, target = one.split_pair(pairs, 0, 0)
    cut = source.index(SEP)
    assert (CODEC.decode(source[:cut]), CODEC.decode(source[cut + 1 :])) == ("good morning", "how are you")
    assert len(source) == len(b"good morninghow are you") + 1  # single bytes
    assert target[-1] == EOS
    assert len(target) == len(b"i am fine thank you") + 1
    assert one.split_pair(pairs, 1, 0)[0] == [EOS]


def test_the_split_of_a_pair_is_a_function_of_seed_epoch_and_pair():
    pairs = encoded([(["hello how are you"], "i am fine thank you")] * 3)

    def cut(seed: int, epoch: int, i: int) -> tuple[list[int], list[int]]:
        return make_dropout(0.4, seed=seed).split_pair(pairs, i, epoch)

    again = make_dropout(0.4)
    for epoch, i in ((1, 2), (0, 1), (1, 0)):
        again.split_pair(pairs, i, epoch)
    assert again.split_pair(pairs, 0, 0) == cut(0, 0, 0)
    others = [cut(0, 0, 0), cut(1, 0, 0), cut(0, 1, 0), cut(0, 0, 1), cut(0, 0, 2)]
    assert len({str(other) for other in others}) == 5
    batch = again.make_batch(pairs, np.array([2, 0]), 0)
    expected = [cut(0, 0, i) for i in (2, 0)]
    assert [row[:n].tolist() for row, n in zip(batch.src, batch.src_len, strict=True)] == [
        source for source, _ in expected
    ]
    assert batch.target_len.tolist() == [len(target) for _, target in expected]


def test_a_side_that_would_be_too_long_stays_as_it_was():
    text = "hello how are you"
    whole = len(CODEC.encode(text))
    codec = CODEC.with_limits(max_source=whole, max_target=50)
    pairs = encoded([([text], text)], codec)
    source, target = make_dropout(1.0, codec=codec).split_pair(pairs, 0, 0)
    assert source == CODEC.encode(text)
    assert len(target) == len(text) + 1
    for epoch in range(50):
        assert len(make_dropout(0.1, codec=codec).split_pair(pairs, 0, epoch)[0]) <= whole


def test_text_that_was_truncated_within_a_word_stays_as_it_was():
    word = [CODEC.encode(c)[0] for c in "hello"]  # single letters, unlike the tokenizer's split
    assert CODEC.encode("hello") != word
    pairs = EncodedPairs(*[np.array(word, np.uint16), np.array([0, 5])] * 2)
    assert make_dropout(0.5).split_pair(pairs, 0, 0) == (word, word)
    half = CODEC.encode("é")[1:]  # the second byte of a character
    pairs = EncodedPairs(*[np.array(half, np.uint16), np.array([0, len(half)])] * 2)
    assert make_dropout(0.5).split_pair(pairs, 0, 0) == (half, half)


def test_a_configuration_without_bpe_dropout_needs_none():
    assert BpeDropout.from_config(TrainingConfig(), TOKENIZER, CODEC) is None
    pairs = encoded([(["hello"], "hello")])
    one = BpeDropout.from_config(TrainingConfig(bpe_dropout=1.0), TOKENIZER, CODEC)
    assert one.split_pair(pairs, 0, 0) != (
        pairs.source(0).tolist(), pairs.target(0).tolist()
    )  # fmt: skip
    assert make_batch(pairs, np.array([0])).src[0].tolist() == CODEC.encode("hello")
