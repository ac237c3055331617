"""Which extensions stay live: the first K, diverse groups, and banks of required texts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import BundleError, ChatModel, DecodingOptions, UsageError
from edgechat.runtime.constraints import RequiredTexts, make_text_rules
from edgechat.runtime.scheduler import decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.selection import likeliest_ids, select_best, select_by_bank, select_by_group
from edgechat.runtime.text import EOS

from .table_model import (
    TableBackend,
    random_table,
    reference_beam_search,
    reference_replies,
    run_and_check_settled,
    token_ids,
)
from .test_constraints import SOURCE, VOCABULARY, A, B, V, found, ruled

AB, BA = 7, 8


def ranked(*rows: tuple[float, int, int]):
    """Extensions of (rank, row, id)."""
    return sorted((-rank, row, id, rank) for rank, row, id in rows)


def ids(extensions) -> list[tuple[int, int]]:
    return [(row, id) for _, row, id, _ in extensions]


@given(values=st.lists(st.sampled_from([-3.0, -2.0, -1.0, -np.inf]), min_size=1, max_size=12), data=st.data())
def test_the_likeliest_ids_are_in_order_and_ties_go_to_the_lower(values, data):
    count = data.draw(st.integers(1, len(values)))
    row = np.array(values, dtype=np.float32)
    expected = sorted(range(len(values)), key=lambda id: (-values[id], id))[:count]
    assert likeliest_ids(row, count).tolist() == expected


# --- by hand --------------------------------------------------------------------------------------


def test_the_first_k_stay_live_and_ends_among_them_are_finished():
    choice = select_best(ranked((-1.0, 0, A), (-2.0, 0, EOS), (-3.0, 1, B), (-4.5, 1, EOS), (-6.0, 0, B)), 2)
    assert (ids(choice.ended), ids(choice.extended)) == ([(0, EOS)], [(0, A), (1, B)])
    assert choice.gap == 1.0  # between the end at -2, the second, and B at -3, the third


def test_a_group_avoids_the_tokens_of_earlier_groups():
    group = {A: -1.0, B: -1.2, EOS: -2.0}
    groups = [
        lambda taken, row=row: ranked(*((rank - taken.get(id, 0), row, id) for id, rank in group.items()))
        for row in range(3)
    ]
    # The second's A counts as -1.5, so it takes B; the third's A and B as -1.5 and -1.7, so it takes A.
    choice = select_by_group(groups, 1, 0.5)
    assert ids(choice.extended) == [(0, A), (1, B), (2, A)]
    assert ids(select_by_group(groups, 1, 0.0).extended) == [(0, A), (1, A), (2, A)]
    # At 2.0 the third's A and B count as -3 and -3.2, and its end, at -2, ends it before A.
    assert ids(select_by_group(groups, 1, 2.0).ended) == [(2, EOS)]


def test_banks_take_turns_and_the_furthest_comes_first():
    extensions = ranked((-1.0, 0, 10), (-1.5, 0, 11), (-3.0, 1, 12), (-7.0, 1, 13), (-9.0, 1, 14))
    progress = {10: (0, 0), 11: (0, 0), 12: (1, 1), 13: (1, 2), 14: (1, 2)}
    choose = lambda beam: select_by_bank([(e, progress[e[2]]) for e in extensions], beam, last=False)  # noqa: E731
    assert {id for _, id in ids(choose(1).extended)} == {13}  # the most bytes, the likelier of two
    assert {id for _, id in ids(choose(3).extended)} == {13, 12, 10}
    assert {id for _, id in ids(choose(4).extended)} == {13, 12, 10, 14}


def test_an_end_counts_among_the_first_k_of_its_bank():
    extensions = ranked((-1.0, 0, 10), (-1.5, 0, 11), (-3.0, 1, 12), (-4.0, 1, EOS))
    progress = {10: (0, 0), 11: (0, 0), 12: (2, 3), EOS: (2, 3)}
    reached = [(extension, progress[extension[2]]) for extension in extensions]
    assert ids(select_by_bank(reached, 2, last=False).ended) == [(1, EOS)]
    assert not select_by_bank(reached, 1, last=False).ended
    assert select_by_bank(reached, 1, last=True).ended


def test_progress_counts_the_bytes_of_a_required_text():
    rule = RequiredTexts([b"aba", b"bb"], VOCABULARY)
    state = rule.start
    said = []
    for id in (A, B, B, AB, BA):  # a b b ab ba
        state = rule.after(state, id)
        said.append(state)
    assert said == [(1, 0), (2, 1), (0, 2), (2, 2), (1, 2)]  # "aba" is not in abbabba
    assert rule.after((2, 2), A) == (3, 2)
    assert [rule.progress(s) for s in ((0, 0), (1, 0), (0, 2), (2, 2), (3, 2))] == [
        (0, 0), (1, 1), (2, 2), (3, 4), (4, 5),
    ]  # fmt: skip
    assert (rule.banned((3, 1)), rule.banned((3, 2))) == ((EOS,), ())


def test_ids_that_lead_to_the_same_progress_are_grouped():
    rule = RequiredTexts([b"aba", b"bb"], VOCABULARY)
    lead = lambda *state: [(progress, ids.tolist()) for progress, ids in rule.ids_by_progress(state)]  # noqa: E731
    special = [0, 1, 3, 4]
    # After "ab": "aba" says the first text and loses the second, which "abab" has begun; "abb" says the
    # second and loses the first, which "abba" has begun.
    assert lead(2, 1) == [
        ((0, 0), special), ((2, 3), [A]), ((2, 2), [B]), ((3, 4), [AB]), ((3, 3), [BA]), ((1, 3), [EOS]),
    ]  # fmt: skip


@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=6).map(str.encode), min_size=1, max_size=3),
    said=st.lists(st.integers(A, BA), max_size=5),
)
@settings(max_examples=200)
def test_the_progress_of_every_id_follows_from_its_bytes(texts, said):
    rule = RequiredTexts(texts, VOCABULARY)
    state = rule.start
    for id in said:
        state = rule.after(state, id)
    led = {id: progress for progress, ids in rule.ids_by_progress(state) for id in ids.tolist()}
    assert sorted(led) == list(range(V))
    assert led[EOS] == rule.progress(state)
    assert all(led[id] == rule.progress(rule.after(state, id)) for id in range(A, V))


def test_hypotheses_of_a_complete_group_do_not_contend():
    search = BeamSearch(DecodingOptions(beam=2, groups=2), max_length=9, vocab_size=V, source=SOURCE)
    first, second = {EOS: -0.1, A: -0.11}, {B: -0.1, EOS: -5.0}
    search.advance([[*first], [*second]], [[*first.values()], [*second.values()]], np.ones((2, 4)))
    assert search.contenders() == [(), (B,)]  # not (A,), of the first group, which took its end


def two_groups(**options: object) -> BeamSearch:
    values = {"beam": 2, "groups": 2, "diversity": 0.0, "normalize": "none"} | options
    return BeamSearch(DecodingOptions(**values), max_length=9, vocab_size=V, source=SOURCE)


def take(search: BeamSearch, *rows: dict[int, float]) -> None:
    search.advance([[*row] for row in rows], [[*row.values()] for row in rows], np.ones((len(rows), 4)))


def test_a_reply_that_a_complete_group_finishes_may_count_for_another_group():
    search = two_groups(n_best=2)
    take(search, *[{EOS: -0.1, A: -1.0}] * 2)  # the first has its reply; for the second it does not count
    take(search, *[{EOS: -0.1, A: -1.0}] * 2)  # both end again, of which the first needs no more
    assert search.done
    assert token_ids(search.hypotheses()) == [(), (A,)]


def test_a_reply_counts_for_the_next_group_if_the_first_has_better_ones():
    search = two_groups(n_best=2, beam=4)
    take(search, *[{A: -1.0, B: -1.5, AB: -9.0}] * 2)
    take(search, *[{EOS: -0.3, AB: -9.0}, {EOS: -0.1, AB: -9.0}] * 2)  # both groups end A at -1.3, B at -1.6
    assert search.done
    assert token_ids(search.hypotheses()) == [(A,), (B,)]


def test_the_gap_includes_that_of_replies_of_two_groups():
    search = two_groups(n_best=2)
    take(search, {EOS: -0.1, A: -5.0}, {B: -0.05, A: -9.0})
    take(search, {B: -1.0, A: -9.0}, {EOS: -0.06, A: -9.0})  # -0.05 - 0.06 = -0.11
    assert token_ids(search.hypotheses()) == [(), (B,)]
    assert search.min_gap == pytest.approx(0.01)


@given(
    seed=st.integers(0, 10_000),
    groups=st.sampled_from([2, 3]),
    size=st.sampled_from([1, 2, 3]),
    n_best=st.integers(1, 3),
    diversity=st.sampled_from([0.0, 0.5]),
    stop=st.sampled_from(["exact", "first"]),
    ending=st.sampled_from([-2.0, 0.0, 2.0]),
)
@settings(max_examples=150)
def test_text_settled_across_groups_is_never_taken_back(seed, groups, size, n_best, diversity, stop, ending):
    options = DecodingOptions(
        beam=groups * size, groups=groups, n_best=min(n_best, groups * size), diversity=diversity, stop=stop
    )
    table = random_table(seed, V, ending=ending)
    search = BeamSearch(options, max_length=7, vocab_size=V, source=SOURCE)
    run_and_check_settled(search, TableBackend(table, V), SOURCE)
    assert len(set(token_ids(search.hypotheses()))) == len(search.hypotheses())


def test_groups_of_nearly_equal_models_differ_only_at_near_ties():
    noise, steps, differ = 0.02, 3, 0
    for seed in range(200):
        options = DecodingOptions(beam=4, groups=2, n_best=1 + seed % 4, diversity=0.3)
        exact, other = random_table(seed, V), random_table(seed + 1000, V, ties=True)

        def shaken(source, prefix, exact=exact, other=other):
            return exact(source, prefix) + np.float32(noise) * other(source, prefix)  # by at most `noise`

        ours, theirs = (
            decode(TableBackend(table, V), [list(SOURCE)], options, max_length=steps)[0]
            for table in (exact, shaken)
        )
        if token_ids(ours.hypotheses()) != token_ids(theirs.hypotheses()):
            differ += 1
            assert min(ours.min_gap, theirs.min_gap) <= 2 * steps * noise
    assert differ > 0


# --- against definitions --------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    options=ruled(
        beam=st.sampled_from([2, 4, 6]),
        n_best=st.integers(1, 3),
        groups=st.just(2),
        diversity=st.sampled_from([None, 0.0, 0.3, 5.0]),
    ),
    max_length=st.integers(3, 6),
    ending=st.sampled_from([-3.0, 1.0]),
)
@settings(max_examples=120)
def test_groups_find_the_same_as_their_definition(seed, options, max_length, ending):
    """Detects too few candidates per row, and a stop that is too early."""
    table = random_table(seed, V, ending=ending)
    expected = reference_beam_search(table, SOURCE, V, options, max_length, VOCABULARY)
    ours = found(table, options, max_length)
    assert [(h.tokens, h.finished) for h in ours] == [(h.tokens, h.finished) for h in expected]
    assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-6)


def test_groups_make_the_n_best_differ_earlier():
    def first_words(**more) -> int:
        options = DecodingOptions(beam=6, n_best=6, **more)
        return sum(len({t[:1] for t in token_ids(found(random_table(s, V), options, 6))}) for s in range(30))

    assert first_words(groups=3, diversity=3.0) > first_words()


REQUIRED = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=2)


@given(seed=st.integers(0, 10_000), options=ruled(beam=st.just(400), n_best=st.just(2), required=REQUIRED))
@settings(max_examples=40)
def test_a_wide_beam_finds_the_best_reply_with_the_required_texts(seed, options):
    try:
        table, rules = random_table(seed, V), make_text_rules(options, VOCABULARY)
    except UsageError:  # a required text holds a banned one
        return
    expected = reference_replies(table, SOURCE, V, options, 4, VOCABULARY)[:2]
    (search,) = decode(TableBackend(table, V), [list(SOURCE)], options, max_length=4, text_rules=rules)
    ours = [h for h in search.hypotheses() if h.finished]
    assert token_ids(ours) == token_ids(expected)
    assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, 0.01])
def test_invalid_log_probabilities_raise_with_required_texts_too(value):
    with pytest.raises(BundleError, match="above 0 or not numbers"):
        found(lambda source, prefix: np.full(V, value, dtype=np.float32), DecodingOptions(required=["a"]), 6)


@given(
    seed=st.integers(0, 10_000),
    required=REQUIRED,
    beam=st.integers(1, 5),
    ending=st.sampled_from([-3.0, 1.0, 6.0]),
    normalize=st.sampled_from(["none", "average", "gnmt"]),
)
@settings(max_examples=150)
def test_the_narrowest_beam_produces_the_required_texts(seed, required, beam, ending, normalize):
    table = random_table(seed, V, ending=ending)
    options = DecodingOptions(beam=beam, required=required, normalize=normalize)
    for h in found(table, options, sum(map(len, required)) + 3):
        text = b"".join(VOCABULARY[id] for id in h.tokens)
        assert h.finished
        assert all(each.encode() in text for each in required)


class Generous(TableBackend):
    """Returns all candidates, as if another sentence of the batch had requested them."""

    def step(self, state, tokens, parents, candidates, *, return_logp=False):
        return super().step(state, tokens, parents, self.vocab_size, return_logp=return_logp)


#: Every text of one to three of a, b and c: more than a row has candidates.
MANY = (*[b""] * 5, *("".join(w).encode() for n in (1, 2, 3) for w in itertools.product("abc", repeat=n)))


@pytest.mark.parametrize(
    "values",
    [
        {"beam": 4, "required": ("a", "b")},
        {"beam": 3, "required": ("a",), "no_copy_ngram": 1, "repetition_penalty": 1.5},
        {"beam": 4, "groups": 2, "diversity": 5.0},
        {"beam": 4, "groups": 4, "n_best": 4, "banned": ("ab",)},
    ],
    ids=str,
)
def test_a_reply_does_not_depend_on_the_options_of_others_in_its_batch(values):
    options = DecodingOptions(**values)
    rules = make_text_rules(options, MANY)
    for seed in range(20):
        table = random_table(seed, len(MANY))
        alone, among = (
            decode(backend(table, len(MANY)), [list(SOURCE)], options, max_length=6, text_rules=rules)[0]
            for backend in (TableBackend, Generous)
        )
        assert alone.hypotheses() == among.hypotheses()


# --- what is refused, and on a real bundle --------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"beam": 5, "groups": 2}, "beam is 5, which cannot be divided into 2 equal groups"),
        ({"beam": 2, "groups": 4}, "beam is 2, which cannot be divided into 4 equal groups"),
        ({"groups": 0}, "groups must be a whole number"),
        ({"diversity": 1.0}, "diversity needs groups"),
        ({"beam": 4, "groups": 2, "diversity": -1}, "diversity must be a number"),
        ({"beam": 4, "groups": 2, "required": ("a",)}, "groups cannot be used with required"),
        ({"beam": 4, "groups": 2, "sample": True}, "groups cannot be used with sample"),
        ({"required": ("a",), "sample": True}, "required cannot be used with sample"),
        ({"required": "a"}, "required must be a list of at most 16 texts"),
        ({"required": ("a",), "replies": ("a",)}, "required cannot be used with replies"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(values, said):
    with pytest.raises(UsageError, match=said):
        DecodingOptions(**values)


def test_a_required_text_that_contains_a_banned_one_is_refused():
    with pytest.raises(UsageError, match="required 'bab' contains 'ab', which is banned"):
        make_text_rules(DecodingOptions(required=("bab",), banned=("ab",)), VOCABULARY)


@given(
    text=st.text("ab", min_size=1, max_size=6).map(str.encode),
    words=st.sets(st.text("ab", min_size=1, max_size=4).map(str.encode), max_size=4),
)
@settings(max_examples=60)
def test_the_fewest_tokens_that_contain_a_text_equal_those_found_by_enumeration(text, words):
    vocabulary = (*[b""] * 5, *sorted({b"a", b"b"} | words))
    tried = (
        n
        for n in itertools.count(1)
        if any(text in b"".join(said) for said in itertools.product(vocabulary[5:], repeat=n))
    )
    fewest = next(tried)
    assert RequiredTexts([text], vocabulary).min_tokens == fewest
    assert RequiredTexts([b"a", text], vocabulary).min_tokens == fewest


def test_a_required_text_within_a_token_fits_into_a_reply_of_that_token():
    with ChatModel.load("demo", device="cpu") as model:
        assert len(model.codec.encode(" tha")) > 1  # the tokenizer spells it differently
        assert b" that" in model.codec.vocabulary
        reply = model.reply("what is that?", DecodingOptions(required=(" tha",), max_length=2, beam=20))
        assert " tha" in reply.text
        assert len(reply.tokens) == 1
        assert reply.finished


def test_every_reply_of_the_bundle_contains_the_required_texts(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as model:
        for required in (("green",), ("tea", "my"), ("zebra",), ("é",)):
            options = DecodingOptions(required=required)
            for prompt in ("do you like tea", "hello"):
                stream = model.stream(prompt, options)
                assert "".join(stream) == stream.reply.text
                assert all(text in stream.reply.text for text in required)
                assert stream.reply.candidates[0].finished
        assert (
            model.reply("do you like tea", DecodingOptions(required=("green",))).text == "yes, green tea 🍵"
        )
        with pytest.raises(UsageError, match="required texts do not fit into a reply"):
            model.reply("hello", DecodingOptions(required=("never ever",), max_length=3))
        long = "do you like green tea"
        most = len(model.codec.encode(long)) + 1
        model.maker.text_rules(DecodingOptions(required=(long, "you like", "green tea"), max_length=most))
        diverse = model.reply("hello", DecodingOptions(beam=6, n_best=6, groups=3, diversity=50))
        assert len({c.text[:1] for c in diverse.candidates}) > 1
