"""Many searches in a batch find the same as each alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import UsageError
from edgechat.runtime.backend import pad
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scheduler import SearchBatch, decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS

from .table_model import Ids, TableBackend, random_table, scripted_table

V = 9
OPTIONS = [
    {"beam": 1},
    {"beam": 3, "n_best": 2},
    {"beam": 3, "n_best": 2, "normalize": "average", "stop": "first"},
    {"beam": 20, "min_length": 2},
]
SOURCES = st.lists(st.lists(st.integers(5, V - 1), min_size=1, max_size=6), min_size=1, max_size=20)


def ragged_table(source: Ids, prefix: Ids):
    """The first id of a source controls how early its replies end, so that sentences leave at different
    times."""
    return random_table(7, V, ending=2.0 * (source[0] - 6))(source, prefix)


def alone(sources, options: DecodingOptions, max_length: int):
    return [
        decode(TableBackend(ragged_table, V), [source], options, max_length=max_length)[0].hypotheses()
        for source in sources
    ]


def some_sources(count: int) -> list[list[int]]:
    random = np.random.default_rng(1)
    return [random.integers(5, V, size=random.integers(1, 7)).tolist() for _ in range(count)]


def test_sources_are_padded_at_the_end():
    src, src_len = pad([[5, 6, 7], [8]])
    assert src.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert src_len.tolist() == [3, 1]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(sources=SOURCES)
@settings(max_examples=8)
def test_a_batch_finds_exactly_what_each_search_finds_alone(options, batch_size, sources):
    options = DecodingOptions(**options)
    together = decode(TableBackend(ragged_table, V), sources, options, max_length=8, batch_size=batch_size)
    assert [search.hypotheses() for search in together] == alone(sources, options, 8)
    assert all(search.done for search in together)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sentences_that_are_done_leave_the_batch_and_the_others_keep_their_rows(options):
    sources, options = some_sources(24), DecodingOptions(**options)
    backend = TableBackend(ragged_table, V)
    together = decode(backend, sources, options, max_length=8, batch_size=24)
    assert len(backend.selects) >= 1
    assert [search.hypotheses() for search in together] == alone(sources, options, 8)


def test_sentences_leave_by_the_quarter_and_not_one_by_one():
    sources = some_sources(24)
    backend = TableBackend(ragged_table, V)
    decode(backend, sources, DecodingOptions(beam=3), max_length=8, batch_size=24)
    size = 24
    for kept in backend.selects:
        assert len(kept) <= 0.75 * size
        size = len(kept)


def test_sentences_of_similar_length_are_encoded_together_and_results_keep_their_order():
    backend = TableBackend(ragged_table, V)
    sources = [[5] * length for length in (6, 1, 5, 2, 4, 3)]
    done: list[int] = []
    searches = decode(
        backend, sources, DecodingOptions(beam=2), max_length=4, batch_size=2, progress=done.append
    )
    assert [[len(source) for source in batch] for batch in backend.sources] == [[1, 2], [3, 4], [5, 6]]
    assert done == [2, 2, 2]
    assert [search.hypotheses() for search in searches] == alone(sources, DecodingOptions(beam=2), 4)


def test_no_sources_are_no_searches():
    assert decode(TableBackend(ragged_table, V), [], DecodingOptions(), max_length=4) == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_a_wrong_batch_size_is_refused_by_name(batch_size):
    with pytest.raises(UsageError, match=f"batch_size must be .* not {batch_size}"):
        decode(TableBackend(ragged_table, V), [[5]], DecodingOptions(), max_length=4, batch_size=batch_size)


def test_searches_of_different_options_but_one_number_of_rows_share_a_batch():
    wide = 14

    def tempting(source: Ids, prefix: Ids):
        """Ids that may be banned are the likeliest: with too few candidates a search gets none that is
        allowed."""
        row = random_table(7, wide)(source, prefix)
        row[5:] -= 5
        return row

    options = [
        DecodingOptions(beam=1, trace=True),
        DecodingOptions(beam=2, n_best=2, normalize="none", trace=True),
        DecodingOptions(beam=2, min_length=3, stop="first", trace=True),
        DecodingOptions(beam=2, repetition_penalty=3, trace=True),
    ] * 6
    sources = some_sources(len(options))
    searches = [
        BeamSearch(each, max_length=6, vocab_size=wide, source=source)
        for each, source in zip(options, sources, strict=True)
    ]
    batch = SearchBatch(TableBackend(tempting, wide), sources, searches)
    while batch.step():
        pass
    for each, source, search in zip(options, sources, searches, strict=True):
        (alone,) = decode(TableBackend(tempting, wide), [source], each, max_length=6)
        assert search.hypotheses() == alone.hypotheses()
        assert search.min_gap == alone.min_gap
        assert search.trace == alone.trace


class Wanting(BeamSearch):
    """Returns every id of the vocabulary as a candidate."""

    def request(self):
        return super().request()._replace(candidates=self._vocab_size)


@given(
    seed=st.integers(0, 10_000),
    beam=st.integers(1, 4),
    more=st.sampled_from(
        [
            {},
            {"stop": "first"},
            {"groups": 2},
            {"repetition_penalty": 2.0},
            {"no_repeat_ngram": 1},
            {"min_length": 2},
            {"coverage_penalty": 0.5},
        ]
    ),
)
@settings(max_examples=200)
def test_more_candidates_than_requested_change_nothing(seed, beam, more):
    beam *= more.get("groups", 1)
    options, found = DecodingOptions(beam=beam, n_best=beam, **more), []
    for kind in (BeamSearch, Wanting):
        search = kind(options, max_length=6, vocab_size=14, source=(5, 6))
        batch = SearchBatch(TableBackend(random_table(seed, 14, ending=1.0), 14), [(5, 6)], [search])
        while batch.step():
            pass
        found.append((search.hypotheses(), search.min_gap))
    assert found[0] == found[1]


def test_a_search_that_is_done_does_not_change_while_it_waits_for_the_others():
    ends = scripted_table(V, {(): {EOS: 0.6, 5: 0.4}, (5,): {EOS: 1.0}})
    goes_on = random_table(7, V, ending=-50.0)
    sources = [[8], *([5, id] for id in (5, 6, 7, 8))]  # one of five: too few to leave the batch

    def table(source: Ids, prefix: Ids):
        return ends(source, prefix) if source == (8,) else goes_on(source, prefix)

    backend = TableBackend(table, V)
    options = DecodingOptions(beam=1, normalize="average")
    first, *_ = decode(backend, sources, options, max_length=5)
    assert backend.selects == []
    # Going on would find the word 5, whose average, log(0.4) / 2, is above log(0.6) / 1.
    assert first.hypotheses()[0].tokens == ()


def test_a_cancelled_decode_stops_before_its_next_step_and_begins_no_other_batch():
    backend = TableBackend(random_table(1, V, ending=-50.0), V)
    searches = decode(
        backend, some_sources(9), DecodingOptions(beam=2), max_length=50, batch_size=3,
        cancelled=lambda: backend.steps >= 4,
    )  # fmt: skip
    assert backend.steps == 4
    assert len(backend.sources) == 1
    assert len(searches) == 9
    assert sorted(len(search.hypotheses()[0].tokens) for search in searches) == [0] * 6 + [4] * 3
    assert not any(search.done or search.hypotheses()[0].finished for search in searches)
