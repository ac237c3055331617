"""The search, compared with enumeration and with a beam search without a stop, and step by step by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime.errors import BundleError
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scheduler import decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, GO, NEVER_GENERATED, PAD, SEP, UNK

from .table_model import (
    Ids,
    Table,
    TableBackend,
    greedy_reply,
    random_table,
    reference_beam_search,
    reference_replies,
    run_and_check_settled,
    scripted_table,
    settled_ids,
    token_ids,
)

V = 8  # five special ids and three words
A, B, C = 5, 6, 7
SOURCE = (5, 6)
SEEDS = st.integers(0, 10_000)

NORMALIZATIONS = [
    {"normalize": "none"},
    {"normalize": "average"},
    {"normalize": "gnmt", "length_penalty": 0.0},
    {"normalize": "gnmt", "length_penalty": 0.6},
    {"normalize": "gnmt", "length_penalty": 2.0},
]
OPTIONS = st.builds(
    lambda beam, n_best, **rest: DecodingOptions(beam=beam, n_best=min(n_best, beam), **rest),
    beam=st.integers(1, 7),
    n_best=st.integers(1, 7),
    normalize=st.sampled_from(["none", "average", "gnmt"]),
    min_length=st.integers(0, 3),
    stop=st.sampled_from(["exact", "first"]),
)


def search(table: Table, options: DecodingOptions, max_length: int, *, vocab_size: int = V) -> BeamSearch:
    backend = TableBackend(table, vocab_size)
    return decode(backend, [list(SOURCE)], options, max_length=max_length)[0]


def started(beam: int, **options: object) -> BeamSearch:
    return BeamSearch(DecodingOptions(beam=beam, **options), max_length=9, vocab_size=V, source=(5,))


def take(search: BeamSearch, *rows: dict[int, float]) -> None:
    """Advance with candidates given as id -> log-probability, likelier first, the same number per row."""
    search.advance(
        [list(row) for row in rows],
        np.array([list(row.values()) for row in rows], dtype=np.float32).tolist(),
        np.ones((len(rows), 1), dtype=np.float32),
    )


# --- against enumeration --------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("min_length", [0, 2])
@pytest.mark.parametrize("max_length", [1, 4])
@pytest.mark.parametrize("stop", ["exact", "first"])
def test_every_score_equals_exhaustive_enumeration(normalization, min_length, max_length, stop):
    if min_length >= max_length:
        max_length = min_length + 1
    # At most 3 ** 3 prefixes live, each with 4 extensions: 108 at a step, fewer than the beam. As many
    # replies are wanted as there can be, so neither rule stops before the maximum length.
    options = DecodingOptions(beam=128, n_best=128, min_length=min_length, stop=stop, **normalization)
    for seed in range(3):
        table = random_table(seed, V)
        expected = reference_replies(table, SOURCE, V, options, max_length)
        assert len(expected) == sum(3**length for length in range(min_length, max_length))
        found = search(table, options, max_length).hypotheses()
        finished = [hypothesis for hypothesis in found if hypothesis.finished]
        assert token_ids(finished) == token_ids(expected)
        for ours, theirs in zip(finished, expected, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-9)
            assert ours.logp == pytest.approx(theirs.logp, abs=1e-9)
            assert ours.token_logps == pytest.approx(theirs.token_logps, abs=1e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@given(seed=SEEDS, min_length=st.integers(0, 3), ending=st.sampled_from([-4.0, 0.0, 2.0]))
@settings(max_examples=15)
def test_the_exact_stop_finds_the_best_of_all_replies(normalization, seed, min_length, ending):
    options = DecodingOptions(beam=128, n_best=2, min_length=min_length, **normalization)
    table = random_table(seed, V, ending=ending)
    expected = reference_replies(table, SOURCE, V, options, 4)[:2]
    found = search(table, options, 4).hypotheses()
    assert [h.score for h in found if h.finished] == pytest.approx([h.score for h in expected], abs=1e-9)


@given(seed=SEEDS, options=OPTIONS, ending=st.sampled_from([-4.0, 0.0, 2.0]))
@settings(max_examples=60)
def test_the_first_stop_never_finds_better_than_the_exact_one(seed, options, ending):
    table = random_table(seed, V, ending=ending)
    first, exact = (
        search(table, DecodingOptions.from_json({**options.to_json(), "stop": stop}), 6).hypotheses()
        for stop in ("first", "exact")
    )
    for ours, theirs in zip(first, exact, strict=False):
        assert (ours.finished, ours.score) <= (theirs.finished, theirs.score)


# --- against greedy, and against the same beam without a stop -------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("stop", ["exact", "first"])
@given(seed=SEEDS, ties=st.booleans(), min_length=st.integers(0, 3), ending=st.sampled_from([0.0, 2.0]))
@settings(max_examples=20)
def test_a_beam_of_one_is_greedy_search(normalization, stop, seed, ties, min_length, ending):
    table = random_table(seed, V, ties=ties, ending=ending)
    options = DecodingOptions(beam=1, min_length=min_length, stop=stop, **normalization)
    (found,) = search(table, options, 6).hypotheses()
    expected = greedy_reply(table, SOURCE, V, min_length=min_length, max_length=6)
    assert (found.tokens, found.finished) == expected


@given(
    seed=SEEDS,
    options=OPTIONS.filter(lambda o: o.beam > 1 and o.stop == "exact"),
    max_length=st.integers(4, 9),
    ties=st.booleans(),
    ending=st.sampled_from([-4.0, 0.0, 2.0]),
)
@settings(max_examples=150)
def test_the_exact_stop_changes_nothing_but_the_time(seed, options, max_length, ties, ending):
    table = random_table(seed, V, ties=ties, ending=ending)
    found = search(table, options, max_length).hypotheses()
    assert found == reference_beam_search(table, SOURCE, V, options, max_length)


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
def test_the_exact_stop_does_save_steps(normalization):
    table = random_table(3, V, ending=3.0)
    backend = TableBackend(table, V)
    decode(backend, [list(SOURCE)], DecodingOptions(beam=4, **normalization), max_length=40)
    assert backend.steps < 40


@given(seed=SEEDS, options=OPTIONS, ending=st.sampled_from([-4.0, 0.0, 2.0]))
@settings(max_examples=60)
def test_replies_are_distinct_and_sorted(seed, options, ending):
    found = search(random_table(seed, V, ending=ending), options, 6).hypotheses()
    assert len(set(token_ids(found))) == len(found) <= options.n_best
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert len({h.finished for h in found}) == 1


@given(seed=SEEDS, options=OPTIONS, ties=st.booleans())
@settings(max_examples=60)
def test_a_reply_is_made_of_words_and_keeps_both_lengths(seed, options, ties):
    for h in search(random_table(seed, V, ties=ties), options, 6).hypotheses():
        assert not {PAD, GO, EOS, UNK, SEP} & set(h.tokens)
        assert options.min_length <= len(h.tokens) <= 6 - h.finished
        assert len(h.token_logps) == len(h.tokens) + h.finished
        assert math.fsum(h.token_logps) == pytest.approx(h.logp, abs=1e-6)


@pytest.mark.parametrize("beam", [8, 9, 100])
def test_a_beam_wider_than_the_vocabulary_works(beam):
    table = random_table(1, V)
    options = DecodingOptions(beam=beam, n_best=3, normalize="none")
    assert search(table, options, 3).hypotheses() == reference_beam_search(table, SOURCE, V, options, 3)


def test_a_vocabulary_of_one_word_works():
    table = random_table(1, 6)
    options = DecodingOptions(beam=5, n_best=2, normalize="none")
    found = search(table, options, 4, vocab_size=6).hypotheses()
    assert token_ids(found) == token_ids(reference_replies(table, SOURCE, 6, options, 4)[:2])


# --- one step, by hand ----------------------------------------------------------------------------


def test_the_first_step_feeds_go_to_one_row_and_nothing_to_the_spares():
    request = started(3).request()
    assert request.tokens == [GO, PAD, PAD]
    assert request.parents == [0, 0, 0]


def test_enough_candidates_are_requested():
    assert (
        BeamSearch(DecodingOptions(beam=3), max_length=9, vocab_size=100, source=(5,)).request().candidates
        == 3 + 2 + 4
    )
    longer = DecodingOptions(beam=3, min_length=1)  # the end is banned too
    assert BeamSearch(longer, max_length=9, vocab_size=100, source=(5,)).request().candidates == 3 + 2 + 5
    assert started(9).request().candidates == V


def test_extensions_are_ranked_by_their_sums():
    search = started(2)
    take(search, {A: -1.0, B: -2.0, C: -3.0}, {A: 0.0, B: 0.0, C: 0.0})
    assert search.request().tokens == [A, B]
    # From A: -1 - 2 = -3 and -1 - 4 = -5. From B: -2 - 0.5 = -2.5 and -2 - 2 = -4.
    take(search, {A: -2.0, C: -4.0}, {C: -0.5, B: -2.0})
    assert search.request().tokens == [C, A]
    assert search.request().parents == [1, 0]
    assert token_ids(search.hypotheses()) == [(B, C)]
    assert search.hypotheses()[0].token_logps == (-2.0, -0.5)


def test_ties_go_to_the_lower_row_then_the_lower_id():
    search = started(3)
    take(search, {B: -1.0, C: -1.0, A: -2.0})
    assert search.request().tokens == [B, C, A]
    # B + A = -1 - 1, B + C = -1 - 1, C + A = -1 - 1 and A + A = -2 - 0 all tie: three of them live on.
    take(search, {A: -1.0, C: -1.0}, {A: -1.0, B: -3.0}, {A: 0.0, B: -9.0})
    assert list(zip(search.request().parents, search.request().tokens, strict=True)) == [
        (0, A),
        (0, C),
        (1, A),
    ]


def test_an_end_counts_only_among_the_first_k_extensions():
    search = started(2, n_best=2)
    take(search, {A: -1.0, B: -2.0, EOS: -3.0})  # the end ranks third
    assert search.request().tokens == [A, B]
    assert not any(h.finished for h in search.hypotheses())


def test_an_end_among_the_first_k_does_not_take_the_place_of_a_live_one():
    search = started(2, n_best=2)
    take(search, {A: -1.0, EOS: -2.0, B: -3.0, C: -4.0})
    assert search.request().tokens == [A, B]
    assert [(h.tokens, h.logp, h.finished) for h in search.hypotheses()] == [((), -2.0, True)]


def test_spare_rows_are_never_taken():
    search = started(4)
    take(search, {A: -1.0, B: -9.0}, {C: 0.0, B: 0.0}, {C: 0.0, B: 0.0}, {C: 0.0, B: 0.0})
    request = search.request()
    assert (request.tokens, request.parents) == ([A, B, PAD, PAD], [0, 0, 0, 0])
    take(search, {A: -1.0, B: -2.0}, {A: -1.0, B: -2.0}, {C: 0.0, A: 0.0}, {C: 0.0, A: 0.0})
    assert search.request().tokens == [A, B, A, B]
    assert search.request().parents == [0, 0, 1, 1]


def test_banned_ids_are_skipped_however_likely_they_are():
    search = started(1, min_length=1)
    likely = dict.fromkeys((PAD, GO, EOS, UNK, SEP), 0.0)
    take(search, {**likely, B: -5.0, C: -6.0}, {**likely, A: 0.0, B: 0.0})
    assert search.request().tokens[0] == B


def test_the_minimum_length_bans_the_end_for_as_many_tokens():
    search = started(1, min_length=2)
    for _ in range(2):
        take(search, {EOS: -0.1, A: -1.0}, {EOS: -0.1, A: -1.0})
        assert not search.done
    take(search, {EOS: -0.1, A: -1.0}, {EOS: -0.1, A: -1.0})
    assert search.done
    assert search.hypotheses()[0].tokens == (A, A)


# --- stopping -------------------------------------------------------------------------------------


def test_the_first_stop_ends_with_the_nth_finished_reply():
    search = started(3, n_best=2, stop="first", normalize="none")
    take(search, {A: -0.1, EOS: -5.0, B: -6.0})
    assert not search.done
    take(search, {A: -0.1, EOS: -7.0, B: -8.0}, {A: -9.0, B: -9.5, C: -9.75})
    assert search.done
    assert token_ids(search.hypotheses()) == [(), (A,)]


def test_the_exact_stop_waits_while_a_live_reply_can_still_win():
    search = started(2, normalize="none")
    take(search, {A: -1.0, EOS: -2.0, B: -3.0})
    assert not search.done  # A has -1, above the finished one's -2
    take(search, {A: -1.5, B: -1.75}, {A: -1.0, B: -1.0})
    assert search.done  # -1 - 1.5 is below -2: nothing can follow that makes it better
    assert token_ids(search.hypotheses()) == [()]


def test_the_exact_stop_considers_the_maximum_length_of_a_reply():
    search = started(2, normalize="average")
    take(search, {EOS: -2.0, A: -3.0, B: -4.0})
    # A has -3 now, but with 8 more certain tokens its average would be -3 / 9, above -2 / 1.
    assert not search.done


def test_a_finished_reply_is_not_extended():
    backend = TableBackend(scripted_table(V, {(): {A: 1.0}, (A,): {EOS: 1.0}}), V)
    (found,) = decode(backend, [list(SOURCE)], DecodingOptions(beam=3), max_length=50)
    assert backend.steps == 2
    assert token_ids(found.hypotheses()) == [(A,)]


@given(seed=SEEDS, options=OPTIONS, max_length=st.integers(4, 7))
@settings(max_examples=40)
def test_no_search_takes_more_steps_than_the_maximum_length(seed, options, max_length):
    backend = TableBackend(random_table(seed, V, ending=-6.0), V)
    decode(backend, [list(SOURCE)], options, max_length=max_length)
    assert backend.steps <= max_length


def test_replies_cut_at_the_maximum_length_only_count_where_none_has_finished():
    # The cut replies are likelier than the finished one, and still do not count beside it.
    script = {
        (): {A: 0.6, B: 0.3, EOS: 0.1},
        (A,): {C: 1.0},
        (B,): {C: 1.0},
        (A, C): {C: 1.0},
        (B, C): {C: 1.0},
    }
    options = DecodingOptions(beam=3, n_best=3, normalize="none")
    found = search(scripted_table(V, script), options, 3).hypotheses()
    assert [(h.tokens, h.finished) for h in found] == [((), True)]
    unfinished = DecodingOptions(beam=3, n_best=3, normalize="none", min_length=2)
    found = search(scripted_table(V, script), unfinished, 3).hypotheses()
    assert [(h.tokens, h.finished) for h in found] == [((A, C, C), False), ((B, C, C), False)]
    assert found[0].score == pytest.approx(math.log(0.6))


# --- invalid output of a model --------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, 100.0, 0.01])
def test_invalid_log_probabilities_raise_one_clear_error(value):
    def table(source: Ids, prefix: Ids):
        return np.full(V, value, dtype=np.float32) if prefix else random_table(1, V)(source, prefix)

    with pytest.raises(BundleError, match="above 0 or not numbers: its weights are damaged"):
        search(table, DecodingOptions(beam=2, min_length=1), 9)


def test_a_log_probability_may_be_above_0_by_rounding():
    search = started(1)
    take(search, {EOS: 1e-4, A: -9.0}, {A: 0.0, B: 0.0})
    assert search.hypotheses()[0].finished


class Blind(TableBackend):
    """A graph may return NaN in its attention only."""

    def step(self, *arguments, **options):
        out, state = super().step(*arguments, **options)
        out.align[:, -1] = math.nan
        return out, state


@pytest.mark.parametrize(
    "values", [{"coverage_penalty": 0.2}, {"alignments": True}, {"trace": True}], ids=str
)
def test_attention_that_is_not_finite_raises_if_it_is_used(values):
    def find(options: DecodingOptions) -> BeamSearch:
        return decode(Blind(random_table(1, V), V), [list(SOURCE)], options, max_length=4)[0]

    with pytest.raises(BundleError, match="attention weights that are not numbers: its weights are damaged"):
        find(DecodingOptions(**values))
    assert find(DecodingOptions()).done


def test_if_no_token_may_follow_the_reply_is_cut_off():
    found = search(scripted_table(V, {(): {A: 0.5, B: 0.5}}), DecodingOptions(beam=2, n_best=2), 9)
    assert found.done
    assert [(h.tokens, h.finished) for h in found.hypotheses()] == [((A,), False), ((B,), False)]


def test_if_no_token_is_allowed_the_reply_is_empty():
    for options in (DecodingOptions(beam=1), DecodingOptions(beam=3, normalize="average")):
        found = search(scripted_table(V, {}), options, 9)
        assert found.done
        assert [(h.tokens, h.score, h.finished) for h in found.hypotheses()] == [((), 0.0, False)]
        assert settled_ids(found) == []


def test_if_only_banned_ids_are_possible_the_reply_is_empty():
    script = {(): dict.fromkeys(NEVER_GENERATED, 0.25)}
    assert search(scripted_table(V, script), DecodingOptions(), 9).hypotheses()[0].tokens == ()


# --- settled text ---------------------------------------------------------------------------------


@given(
    seed=SEEDS,
    options=OPTIONS,
    max_length=st.integers(4, 9),
    ties=st.booleans(),
    ending=st.sampled_from([-4.0, 0.0, 2.0]),
)
@settings(max_examples=200)
def test_settled_text_grows_and_begins_the_final_reply(seed, options, max_length, ties, ending):
    table = random_table(seed, V, ties=ties, ending=ending)
    search = BeamSearch(options, max_length=max_length, vocab_size=V, source=(5,))
    run_and_check_settled(search, TableBackend(table, V), SOURCE)


def test_a_beam_of_one_settles_every_token_at_once():
    search = started(1)
    for n in range(1, 4):
        take(search, {A: -1.0, EOS: -2.0}, {A: -1.0, EOS: -2.0})
        assert settled_ids(search) == [A] * n


def test_text_that_all_live_replies_begin_with_is_settled():
    search = started(2)
    take(search, {A: -1.0, B: -1.5, C: -9.0})
    assert settled_ids(search) == []
    take(search, {B: -1.0, C: -1.0}, {A: -9.0, B: -9.0})  # both that live on come from A
    assert settled_ids(search) == [A]


def test_a_live_reply_that_can_no_longer_win_does_not_delay_a_piece():
    search = started(2, n_best=2, normalize="none")
    take(search, {A: -0.5, B: -4.0, C: -9.0})
    take(search, {EOS: -0.5, C: -7.0}, {C: -1.0, A: -9.0})  # A ends with -1; B C lives with -5
    assert not search.done
    assert settled_ids(search) == [A]


# --- near decisions -------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["exact", "first"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("ending", [-9.0, 0.0, 2.0])  # the first leaves only replies that were cut
def test_replies_of_nearly_equal_models_differ_only_at_near_ties(stop, normalization, ending):
    noise, steps, differ, wide = 0.02, 3, 0, 14  # more words than a row's candidates
    for seed in range(200):
        options = DecodingOptions(beam=3, n_best=1 + seed % 3, stop=stop, **normalization)
        exact, other = random_table(seed, wide, ending=ending), random_table(seed + 1000, wide, ties=True)

        def shaken(source: Ids, prefix: Ids, exact: Table = exact, other: Table = other):
            return exact(source, prefix) + np.float32(noise) * other(source, prefix)  # by at most `noise`

        ours, theirs = (search(table, options, steps, vocab_size=wide) for table in (exact, shaken))
        if token_ids(ours.hypotheses()) != token_ids(theirs.hypotheses()):
            differ += 1
            assert min(ours.min_gap, theirs.min_gap) <= 2 * steps * noise
    assert differ > 0


def test_the_hypothesis_that_just_missed_the_beam_is_seen_despite_ends_and_banned_ids():
    words = {EOS: 0.2, A: 0.1, B: 0.05, C: 0.04999}
    table = scripted_table(20, {(): {**dict.fromkeys(NEVER_GENERATED, 0.9), **words}})
    found = search(table, DecodingOptions(beam=2), 1, vocab_size=20)
    assert found.min_gap == pytest.approx(math.log(0.05 / 0.04999), rel=1e-2)


def test_a_clear_decision_has_a_large_gap():
    search = started(1)
    take(search, {A: -1.0, B: -1.5}, {A: 0.0, B: 0.0})
    assert search.min_gap == 0.5
