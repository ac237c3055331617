"""The trace of a search: each step's rows, what they looked at, and what became of their candidates."""

import dataclasses

import pytest

from edgechat.runtime import ChatModel, DecodingOptions, UsageError
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, UNK

from .test_search import A, B, C, started, take


def test_each_candidate_has_the_fate_that_the_rule_gives_it():
    search = started(2, n_best=2, normalize="none", trace=True)
    # Ranked: A, the end, B (C falls away). The first two that are no end live on; unk may never come.
    take(search, {UNK: -0.5, A: -1.0, EOS: -2.0, B: -3.0, C: -4.0})
    (row,) = search.trace[0].rows
    assert (row.tokens, row.logp) == ((), 0.0)
    assert [(c.id, c.fate) for c in row.candidates] == [
        (UNK, "banned"), (A, "live"), (EOS, "finished"), (B, "live"), (C, "pruned"),
    ]  # fmt: skip
    take(search, {A: -0.25, B: -5.0}, {C: -0.5, A: -6.0})
    first, second = search.trace[1].rows
    assert (first.tokens, second.tokens) == ((A,), (B,))
    assert [(c.id, c.logp, c.total, c.fate) for c in first.candidates] == [
        (A, -0.25, -1.0 - 0.25, "live"), (B, -5.0, -1.0 - 5.0, "pruned"),
    ]  # fmt: skip
    assert [c.fate for c in second.candidates] == ["live", "pruned"]


def test_a_reply_has_the_trace_it_was_asked_for_and_is_the_same_with_it(bundle_folder):
    model = ChatModel.load(bundle_folder, device="cpu")
    options = DecodingOptions(beam=3)
    plain = model.reply("turn left thrice", options)
    traced, batched = (
        model.reply("turn left thrice", dataclasses.replace(options, trace=True)),
        model.reply_batch(["turn left thrice", "bye"], dataclasses.replace(options, trace=True))[0],
    )
    assert plain.trace is None
    assert (traced.text, traced.score) == (plain.text, plain.score)
    source = model.codec.encode_source(["turn left thrice"]).ids
    for reply in (traced, batched):
        assert len(reply.trace) >= len(reply.tokens)
        for step in reply.trace:
            for row in step.rows:
                assert len(row.align) == len(source)
                assert sum(row.align) == pytest.approx(1.0, abs=1e-5)
    # The likeliest way through the steps is the reply.
    lived = [c.id for c in traced.trace[0].rows[0].candidates if c.fate == "live"]
    assert model.codec.decode(lived[:1]) == traced.tokens[0]


def test_without_asking_nothing_is_kept():
    search = started(2)
    take(search, {A: -1.0, B: -2.0, C: -3.0})
    assert isinstance(search, BeamSearch)
    assert search.trace == []


def test_a_trace_that_is_neither_on_nor_off_is_refused():
    with pytest.raises(UsageError, match="trace must be True or False, not 'yes'"):
        DecodingOptions(trace="yes")
