"""Log-probabilities of given replies, against what the table says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import UsageError
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scheduler import decode
from edgechat.runtime.scoring import score_targets
from edgechat.runtime.text import EOS

from .tables import TableBackend, random_table, scripted_table

V = 9
IDS = st.integers(5, V - 1)
PAIRS = st.lists(
    st.tuples(st.lists(IDS, min_size=1, max_size=5), st.lists(IDS, max_size=5).map(lambda ids: [*ids, EOS])),
    min_size=1,
    max_size=12,
)


def test_each_token_is_scored_given_the_ones_before_it():
    script = {(): {5: 0.5, 6: 0.25}, (5,): {6: 0.125}, (5, 6): {EOS: 0.75}}
    (scores,) = score_targets(TableBackend(scripted_table(V, script), V), [[7]], [[5, 6, EOS]])
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx([math.log(0.5), math.log(0.125), math.log(0.75)])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@given(pairs=PAIRS)
@settings(max_examples=15, deadline=None)
def test_scores_are_those_of_the_table_whatever_the_batch(batch_size, pairs):
    table = random_table(3, V)
    sources, targets = zip(*pairs, strict=True)
    scores = score_targets(TableBackend(table, V), sources, targets, batch_size=batch_size)
    for (source, target), got in zip(pairs, scores, strict=True):
        expected = [float(table(tuple(source), tuple(target[:t]))[target[t]]) for t in range(len(target))]
        assert got.tolist() == expected


def test_a_reply_scores_what_the_search_gave_it():
    backend = TableBackend(random_table(3, V, ending=1.0), V)
    (search,) = decode(backend, [[5, 6]], DecodingOptions(beam=4), max_length=8)
    best = search.hypotheses()[0]
    assert best.finished
    (scores,) = score_targets(backend, [[5, 6]], [[*best.tokens, EOS]])
    assert scores.tolist() == pytest.approx(best.token_logps, abs=1e-6)


def test_results_keep_the_order_of_the_pairs_and_progress_counts_them():
    done: list[int] = []
    targets = [[5] * length for length in (4, 1, 3, 2, 5)]
    scores = score_targets(
        TableBackend(random_table(3, V), V), [[5]] * 5, targets, batch_size=2, progress=done.append
    )
    assert [len(row) for row in scores] == [4, 1, 3, 2, 5]
    assert done == [2, 2, 1]


def test_nothing_to_score_is_no_scores():
    assert score_targets(TableBackend(random_table(3, V), V), [], []) == []


def test_a_wrong_batch_size_is_refused():
    with pytest.raises(UsageError, match=r"batch_size must be .* not 0"):
        score_targets(TableBackend(random_table(3, V), V), [[5]], [[EOS]], batch_size=0)
