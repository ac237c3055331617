"""Rules: each one by hand, and all of them against their definitions."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import ChatModel, DecodingOptions, UsageError
from edgechat.runtime.closed_set import ClosedSet
from edgechat.runtime.constraints import (
    BannedTexts,
    ForcedPrefix,
    MinLength,
    NoCopyNgram,
    NoRepeatNgram,
    RequiredTexts,
    make_text_rules,
)
from edgechat.runtime.measure import time_interleaved
from edgechat.runtime.scheduler import SearchBatch, decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, PAD, SEP

from .table_model import (
    TableBackend,
    ngrams,
    random_table,
    reference_beam_search,
    reference_replies,
    token_ids,
)

#: Five special ids, then tokens that overlap in every way.
VOCABULARY = (b"", b"", b"", b"", b"", b"a", b"b", b"ab", b"ba")
V = len(VOCABULARY)
A, B, AB, BA = 5, 6, 7, 8
SOURCE = (A, B, A, BA)


def state_after(rule, *ids: int):
    state = rule.start
    for id in ids:
        state = rule.after(state, id)
    return state


def banned_after(rule, *ids: int) -> set[int]:
    return set(rule.banned(state_after(rule, *ids)))


def found(table, options: DecodingOptions, max_length: int):
    rules = make_text_rules(options, VOCABULARY)
    (search,) = decode(
        TableBackend(table, V), [list(SOURCE)], options, max_length=max_length, text_rules=rules
    )
    return search.hypotheses()


# --- each rule by hand ----------------------------------------------------------------------------


def test_the_end_is_banned_before_the_minimum_length():
    assert [banned_after(MinLength(2), *[A] * n) for n in range(4)] == [{EOS}, {EOS}, set(), set()]


def test_an_ngram_is_not_repeated():
    assert banned_after(NoRepeatNgram(2), A, B, A) == {B}
    assert banned_after(NoRepeatNgram(2), A, B, A, AB, A) == {B, AB}
    assert banned_after(NoRepeatNgram(3), A, B, A) == set()
    assert banned_after(NoRepeatNgram(3), A, B, A, B) == {A}
    assert banned_after(NoRepeatNgram(2), A) == banned_after(NoRepeatNgram(2)) == set()
    assert banned_after(NoRepeatNgram(1), A, B) == {A, B}


@given(
    n=st.integers(1, 4),
    said=st.lists(st.sampled_from([A, B, 0xD7FF, 0xD800, (1 << 20) - 1]), max_size=30),
)
def test_the_banned_ids_are_those_that_followed_the_same_beginning(n, said):
    before = tuple(said[len(said) - n + 1 :])
    begun = len(said) >= n - 1
    followed = {gram[-1] for gram in ngrams(tuple(said), n) if gram[:-1] == before} if begun else set()
    assert banned_after(NoRepeatNgram(n), *said) == followed


def test_an_ngram_rule_takes_far_less_time_than_a_look_at_each_token():
    rule = NoRepeatNgram(3)
    state = state_after(rule, *(5 + at % 3001 for at in range(10_000)))
    looks = {"rule": lambda: rule.banned(state), "each": lambda: [ord(c) for c in state]}
    times = time_interleaved(looks, 200)
    assert 4 * sum(times["rule"]) < sum(times["each"])


def test_an_ngram_of_the_source_is_not_copied():
    rule = NoCopyNgram(2, SOURCE)
    assert banned_after(rule) == set()
    assert banned_after(rule, B, A) == {B, BA}
    assert banned_after(rule, A, B) == {A}
    assert banned_after(rule, AB) == set()
    assert banned_after(NoCopyNgram(1, SOURCE), AB) == {A, B, BA}
    assert banned_after(NoCopyNgram(9, SOURCE), AB) == set()


def test_special_ids_in_the_source_are_ignored():
    assert banned_after(NoCopyNgram(1, (EOS,))) == set()  # an empty prompt
    turns = (A, SEP, B, AB)
    assert banned_after(NoCopyNgram(1, turns)) == {A, B, AB}
    assert banned_after(NoCopyNgram(2, turns), A) == set()  # A and B were said by two
    assert banned_after(NoCopyNgram(2, turns), B) == {AB}


def test_a_banned_text_is_avoided_however_it_is_tokenized():
    rule = BannedTexts([b"aba"], VOCABULARY)
    assert banned_after(rule) == set()  # no token holds it whole
    assert banned_after(rule, A) == {BA}
    assert banned_after(rule, A, B) == banned_after(rule, AB) == {A, AB}
    assert banned_after(rule, B, BA) == {BA}  # the a at its end has begun it
    assert banned_after(rule, A, A) == {BA}
    assert banned_after(BannedTexts([b"ab"], VOCABULARY)) == {AB}
    assert banned_after(BannedTexts([b"ab", b"b"], VOCABULARY)) == {B, AB, BA}
    assert banned_after(BannedTexts([b"b", b"aa"], VOCABULARY), A) == {A, AB, B, BA}


def test_banned_texts_are_found_in_tokens_whatever_else_was_begun():
    words = (b"aab", b"aaab", b"abab", b"babb", b"", b"cc", b"bbbc", b"acca")
    for texts in ([b"aab"], [b"abb", b"b"], [b"aaa", b"bc"], [b"c"], [b"acc", b"cca", b"bab"]):
        assert banned_after(BannedTexts(texts, words)) == {
            id for id, said in enumerate(words) if any(text in said for text in texts)
        }


def test_a_thousand_banned_texts_take_little_more_time_than_ten():
    words = [f"{n:x}-{n * n:x}".encode() for n in range(4000)]
    texts = [f"x{n}y".encode() for n in range(1000)]
    times = time_interleaved(
        {"few": lambda: BannedTexts(texts[:10], words), "many": lambda: BannedTexts(texts, words)}, 5
    )
    assert min(times["many"]) < 10 * min(times["few"])


def test_a_prefix_may_be_tokenized_in_any_way():
    rule = ForcedPrefix(b"aba", VOCABULARY)
    assert set(rule.allowed(rule.start, 9)) == {A, AB}
    assert set(rule.allowed(state_after(rule, A), 9)) == {B, BA}
    assert set(rule.allowed(state_after(rule, AB), 9)) == {A, AB}  # "ab" goes past its end
    assert rule.allowed(state_after(rule, AB, AB), 9) is None
    assert rule.allowed(state_after(rule, A, BA), 9) is None


def test_a_spelling_of_a_prefix_that_leaves_no_room_for_the_rest_is_not_begun():
    rule = ForcedPrefix(b"abab", VOCABULARY)
    assert rule.min_tokens == 2  # ab ab
    assert rule.allowed(rule.start, 2) == []  # the end-of-sentence is the third
    assert rule.allowed(rule.start, 3) == [AB]
    assert set(rule.allowed(rule.start, 4)) == {A, AB}  # a ba b or a b ab, and the end
    assert rule.allowed(state_after(rule, A), 3) == [B, BA]
    assert rule.allowed(state_after(rule, A, B), 2) == [AB]
    assert rule.allowed(state_after(rule, A, B), 3) == [A, AB]


@given(
    text=st.text("ab", min_size=1, max_size=6).map(str.encode),
    words=st.sets(st.text("ab", min_size=1, max_size=4).map(str.encode), max_size=4),
)
@settings(max_examples=60)
def test_the_fewest_tokens_of_a_prefix_equal_those_found_by_enumeration(text, words):
    vocabulary = (*[b""] * 5, *sorted({b"a", b"b"} | words))
    tried = (
        n
        for n in itertools.count(1)
        if any(b"".join(said).startswith(text) for said in itertools.product(vocabulary[5:], repeat=n))
    )
    assert ForcedPrefix(text, vocabulary).min_tokens == next(tried)


@given(
    texts=st.sets(
        st.text("ab\xff", min_size=1, max_size=4).map(lambda text: text.encode("latin-1")), min_size=1
    ),
    words=st.lists(st.text("ab\xff", max_size=4).map(lambda text: text.encode("latin-1")), max_size=6),
    picks=st.lists(st.integers(0, 99), max_size=6),
)
def test_a_text_is_banned_and_a_prefix_forced_in_every_state_as_defined(texts, words, picks):
    """Also with several ids of the same bytes."""
    vocabulary = [b"", b"a", b"b", b"\xff", *words]
    ban, said = BannedTexts(texts, vocabulary), b""
    state = ban.start
    for pick in picks:
        allowed = [id for id, more in enumerate(vocabulary) if not any(text in said + more for text in texts)]
        assert [id for id in range(len(vocabulary)) if id not in ban.banned(state)] == allowed
        id = allowed[pick % len(allowed)]
        state, said = ban.after(state, id), said + vocabulary[id]
    for text in texts:
        prefix = ForcedPrefix(text, vocabulary)
        for rest in (text[n:] for n in range(len(text))):
            assert prefix.allowed(rest, 99) == [
                id
                for id, word in enumerate(vocabulary)
                if word and (word.startswith(rest) or rest.startswith(word))
            ]


# --- all of them against their definitions --------------------------------------------------------

TEXT = st.text("ab", min_size=1, max_size=4)
RULES = {
    "min_length": st.integers(0, 2),
    "no_repeat_ngram": st.none() | st.integers(1, 3),
    "no_copy_ngram": st.none() | st.integers(1, 3),
    "banned": st.lists(TEXT, max_size=2).map(tuple),
    "prefix": st.none() | TEXT,
    "repetition_penalty": st.sampled_from([1.0, 1.2, 3.0]),
    "coverage_penalty": st.sampled_from([0.0, 0.2, 1.0]),
    "normalize": st.sampled_from(["none", "average", "gnmt"]),
}


@st.composite
def ruled(draw, **more):
    values = {name: draw(strategy) for name, strategy in {**RULES, **more}.items()}
    if values["prefix"] and any(text in values["prefix"] for text in values["banned"]):
        values["prefix"] = None
    values["n_best"] = min(values.get("n_best", 1), values["beam"])
    return DecodingOptions(**values)


@pytest.mark.parametrize(
    "only",
    [
        {"no_repeat_ngram": 1},
        {"no_repeat_ngram": 2},
        {"no_copy_ngram": 1},
        {"no_copy_ngram": 2},
        {"banned": ("ab",)},
        {"banned": ("aa", "bab")},
        {"prefix": "ab"},
        {"prefix": "baba", "normalize": "average"},
        {"repetition_penalty": 1.5},
        {"coverage_penalty": 0.5},
    ],
    ids=str,
)
def test_each_option_alone_gives_what_enumeration_gives(only):
    options = DecodingOptions(beam=400, n_best=60, **only)
    changed = 0
    for seed in range(4):
        table = random_table(seed, V)
        expected = reference_replies(table, SOURCE, V, options, 4, VOCABULARY)
        ours = found(table, options, 4)
        assert token_ids(ours) == token_ids(expected[:60])
        assert [h.score for h in ours] == pytest.approx([h.score for h in expected[:60]], abs=1e-6)
        assert [h.logp for h in ours] == pytest.approx([h.logp for h in expected[:60]], abs=1e-6)
        free = DecodingOptions(beam=400, n_best=60, normalize=options.normalize)
        changed += [h.score for h in found(table, free, 4)] != [h.score for h in ours]
    assert changed  # the option has an effect here


@given(seed=st.integers(0, 10_000), options=ruled(beam=st.just(400), n_best=st.just(2)))
@settings(max_examples=40)
def test_all_options_together_give_what_enumeration_gives(seed, options):
    table = random_table(seed, V)
    expected = reference_replies(table, SOURCE, V, options, 4, VOCABULARY)[:2]
    ours = [h for h in found(table, options, 4) if h.finished]
    assert token_ids(ours) == token_ids(expected)
    assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-6)


NARROW = ruled(
    beam=st.integers(2, 4), n_best=st.integers(1, 3), alignments=st.booleans(), trace=st.booleans()
)


@given(
    seed=st.integers(0, 10_000),
    options=NARROW,
    max_length=st.integers(3, 7),
    ending=st.sampled_from([-3.0, 1.0]),
)
@settings(max_examples=150)
def test_a_narrow_beam_keeps_every_rule_exactly(seed, options, max_length, ending):
    """Detects too few candidates per row, and a stop that is too early."""
    table = random_table(seed, V, ending=ending)
    expected = reference_beam_search(table, SOURCE, V, options, max_length, VOCABULARY)
    ours = found(table, options, max_length)
    assert [(h.tokens, h.finished) for h in ours] == [(h.tokens, h.finished) for h in expected]
    assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-6)


@given(
    seed=st.integers(0, 10_000),
    options=NARROW,
    max_length=st.integers(3, 7),
    ending=st.sampled_from([-3.0, 1.0]),
)
@settings(max_examples=100)
def test_text_that_contenders_share_is_never_taken_back_under_any_option(seed, options, max_length, ending):
    table = random_table(seed, V, ending=ending)
    search = BeamSearch(
        options,
        max_length=max_length,
        vocab_size=V,
        source=SOURCE,
        text_rules=make_text_rules(options, VOCABULARY),
    )
    batch = SearchBatch(TableBackend(table, V), [SOURCE], [search])
    agreed, running = [_agreed(search)], True
    while running:
        running = batch.step()
        agreed.append(_agreed(search))
    for earlier, later in itertools.pairwise(agreed):
        assert later.startswith(earlier)
    assert agreed[-1] == b"".join(VOCABULARY[id] for id in search.hypotheses()[0].tokens)


def _agreed(search: BeamSearch) -> bytes:
    spelled = [b"".join(VOCABULARY[id] for id in ids) for ids in search.contenders()]
    agreed = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*spelled, strict=False))
    return bytes(each[0] for each in agreed)


def test_searches_of_different_rules_share_a_batch():
    table = random_table(3, V)
    every = [
        DecodingOptions(beam=3, prefix="bab"),
        DecodingOptions(beam=3, banned=("a",)),
        DecodingOptions(beam=3, no_repeat_ngram=1, repetition_penalty=2.0, min_length=2),
        DecodingOptions(beam=3),
    ]
    searches = [
        BeamSearch(
            each, max_length=5, vocab_size=V, source=SOURCE, text_rules=make_text_rules(each, VOCABULARY)
        )
        for each in every
    ]
    batch = SearchBatch(TableBackend(table, V), [SOURCE] * len(every), searches)
    while batch.step():
        pass
    for each, search in zip(every, searches, strict=True):
        assert search.hypotheses() == found(table, each, 5)


# --- candidates requested, and options refused ----------------------------------------------------


def test_as_many_extra_candidates_are_requested_as_rules_may_ban():
    wide = 100
    plain = BeamSearch(DecodingOptions(beam=3), max_length=9, vocab_size=wide, source=(5,)).request()
    copied = BeamSearch(
        DecodingOptions(beam=3, no_copy_ngram=1), max_length=9, vocab_size=wide, source=(5, 6, 7)
    ).request()
    assert copied.candidates == plain.candidates + 3
    assert not plain.needs_logp
    forced = DecodingOptions(beam=3, prefix="ab")
    texts = make_text_rules(forced, VOCABULARY)
    assert (
        BeamSearch(forced, max_length=9, vocab_size=wide, source=(5,), text_rules=texts).request().needs_logp
    )


def test_texts_without_a_tokenizer_are_refused():
    for options in (DecodingOptions(banned=("a",)), DecodingOptions(prefix="a")):
        with pytest.raises(UsageError, match="need a tokenizer"):
            BeamSearch(options, max_length=9, vocab_size=V, source=(5,))


def test_a_prefix_that_contains_a_banned_text_is_refused():
    with pytest.raises(UsageError, match="prefix contains 'ab', which is banned"):
        make_text_rules(DecodingOptions(prefix="bab", banned=("bb", "ab")), VOCABULARY)


# --- on a real bundle -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as loaded:
        yield loaded


def test_a_banned_text_is_in_no_reply_of_the_bundle(model):
    assert model.reply("how are you").text == "i am fine, thanks"
    for text in ("fine", "i am", "ine, th", "s"):
        options = DecodingOptions(beam=5, n_best=5, banned=(text,))
        replies = [model.reply("how are you", options), *model.reply_batch(["how are you"] * 2, options)]
        for reply in replies:
            assert all(text not in candidate.text for candidate in reply.candidates)


def test_a_prefix_begins_every_reply_of_the_bundle_and_is_scored(model):
    for prefix in ("i", "i am fi", "no, ", "é🍵"):
        reply = model.reply("how are you", DecodingOptions(n_best=5, prefix=prefix))
        assert all(c.text.startswith(prefix) for c in reply.candidates)
        assert all(len(c.token_logps) == len(c.tokens) + c.finished for c in reply.candidates)
    free, forced = model.reply("how are you"), model.reply("how are you", DecodingOptions(prefix="i am fi"))
    assert (forced.text, forced.score) == (free.text, pytest.approx(free.score, abs=1e-4))


def test_a_prefix_is_normalized_like_replies(model):
    reply = model.reply("hello", DecodingOptions(prefix="e\u0301"))
    assert reply.text.startswith("\u00e9")


def test_a_prefix_without_room_for_it_is_refused(model):
    with pytest.raises(UsageError, match="prefix does not fit into a reply of at most 3 tokens"):
        model.reply("hello", DecodingOptions(prefix="something quite long", max_length=3))


def test_a_reply_to_an_empty_prompt_ends_though_ngrams_are_not_copied(model):
    free, copies_not = model.reply(""), model.reply("", DecodingOptions(no_copy_ngram=1))
    assert copies_not == dataclasses.replace(free, ms=copies_not.ms)
    assert free.candidates[0].finished


def test_a_prefix_that_barely_fits_is_complete(model):
    for prefix in ("i am fine, thanks", "qxzzyk q", "turn it on"):
        most = len(model.codec.encode(prefix)) + 1
        for beam in (1, 5):
            options = DecodingOptions(beam=beam, n_best=beam, prefix=prefix, max_length=most)
            replies = [model.reply("hello", options), *model.reply_batch(["how are you", "no"], options)]
            for reply in replies:
                assert all(c.text.startswith(prefix) for c in reply.candidates)


def test_no_ngram_of_the_prompt_is_copied(model):
    source = model.codec.encode_source(["turn left twice"]).ids
    reply = model.reply("turn left twice", DecodingOptions(n_best=5, no_copy_ngram=1))
    for candidate in reply.candidates:
        ids = model.codec.encode(candidate.text)
        assert PAD not in ids
        assert not set(candidate.tokens) & {model.codec.decode([id]) for id in source}


def test_alignments_are_the_attention_of_each_token(model):
    source = model.codec.encode_source(["how are you"]).ids
    options = DecodingOptions(n_best=2, alignments=True)
    for reply in (
        model.reply("how are you", options),
        model.reply_batch(["how are you", "x" * 40], options)[0],
    ):
        for candidate in reply.candidates:
            assert len(candidate.alignments) == len(candidate.token_logps)
            for row in candidate.alignments:
                assert len(row) == len(source)
                assert sum(row) == pytest.approx(1.0, abs=1e-5)
    assert model.reply("how are you").candidates[0].alignments is None


def test_the_caches_of_rules_are_bounded():
    """Without a bound, 60 prompts with a vocabulary of 4,000 kept 47 MB."""
    text, words = b"abcdefghij" * 100, tuple(bytes([b]) for b in range(256))
    banned, prefix, required = (
        BannedTexts([text], words), ForcedPrefix(text, words), RequiredTexts([text], words)
    )  # fmt: skip
    for n in range(len(text)):
        banned.banned(text[:n])
        prefix.allowed(text[n:], 5000)
        required.ids_by_progress((n,))
    closed = ClosedSet([(*[5] * n, 6, id) for n in range(600) for id in range(7, 71)])  # each [5 .. 6] has 64
    state = closed.start
    for _ in range(600):
        closed.allowed(closed.after(state, 6), 5000)
        state = closed.after(state, 5)
    for remembered in (
        banned.banned,
        prefix._cached_next_ids,
        required._cached_overlapping_by_progress,
        closed._cached_children,
    ):
        assert remembered.cache_info().currsize == 512
