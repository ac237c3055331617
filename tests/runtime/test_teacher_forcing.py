"""Log-probabilities of given replies, compared with the table."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechat.runtime import UsageError
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scheduler import decode
from edgechat.runtime.teacher_forcing import forced_steps, score_targets
from edgechat.runtime.text import EOS

from .table_model import TableBackend, fake_attention, random_table, scripted_table

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


def test_a_forced_step_has_its_inputs_and_outputs():
    table = random_table(3, V)
    backend, sources = TableBackend(table, V), [(5, 6), (7,)]
    target = np.array([[5, EOS], [8, 6]])
    state = backend.encode(np.array([[5, 6], [7, 0]]), np.array([2, 1]))
    first, second = forced_steps(backend, state, target)
    assert (first.tokens.tolist(), first.parents.tolist()) == ([1, 1, 1, 1], [0, 0, 1, 1])
    assert (second.tokens.tolist(), second.parents.tolist()) == ([5, 5, 8, 8], [0, 1, 2, 3])
    assert first.before is state
    assert first.after is second.before
    assert second.after.rows == [((5, 6), (5,)), ((5, 6), (5,)), ((7,), (8,)), ((7,), (8,))]
    for step, fed in ((first, [(), ()]), (second, [(5,), (8,)])):
        for source, prefix, logp, align in zip(sources, fed, step.logp, step.align, strict=True):
            assert logp.tolist() == table(source, prefix).tolist()
            assert align[: len(source)].tolist() == fake_attention(source, prefix).tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@given(pairs=PAIRS)
@settings(max_examples=15)
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
