"""The trace of a search: the rows of each step, their attention, and the fate of their candidates."""

import dataclasses

import pytest

from edgechat.runtime import ChatModel, DecodingOptions, UsageError
from edgechat.runtime.constraints import make_text_rules
from edgechat.runtime.scheduler import decode
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, UNK
from edgechat.runtime.trace import trace_json

from .table_model import TableBackend, random_table
from .test_search import A, B, C, started, take


def test_each_candidate_has_its_fate():
    search = started(2, n_best=2, normalize="none", trace=True)
    # Ranked: A, the end, B (C is dropped). The first two that are not ends stay live; unk is always banned.
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


def test_a_trace_is_kept_on_request_and_does_not_change_the_reply(bundle_folder):
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


def test_a_banned_candidate_names_its_rule():
    rules = make_text_rules(DecodingOptions(banned=("b",)), (b"", b"", b"", b"", b"", b"a", b"b", b"c"))
    search = BeamSearch(
        DecodingOptions(
            beam=2, trace=True, normalize="none",
            banned=("b",), no_copy_ngram=1, no_repeat_ngram=1, min_length=1,
        ),
        max_length=9, vocab_size=8, source=(C,), text_rules=rules,
    )  # fmt: skip
    take(search, {EOS: -0.1, UNK: -0.2, A: -1.0, B: -2.0, C: -3.0})
    assert [(c.id, c.fate, c.rule) for c in search.trace[0].rows[0].candidates] == [
        (EOS, "banned", "min_length"), (UNK, "banned", "special"), (A, "live", None),
        (B, "banned", "banned"), (C, "banned", "no_copy_ngram"),
    ]  # fmt: skip
    take(search, {A: -1.0, EOS: -2.0})
    assert [(c.id, c.fate, c.rule, c.score) for c in search.trace[1].rows[0].candidates] == [
        (A, "banned", "no_repeat_ngram", None), (EOS, "finished", None, -1.0 - 2.0),
    ]  # fmt: skip


def test_a_trace_shows_what_a_prefix_bans_and_allows():
    vocabulary = (b"", b"", b"", b"", b"", b"a", b"b", b"c")
    options = DecodingOptions(beam=2, trace=True, prefix="b")
    (search,) = decode(
        TableBackend(random_table(1, 8), 8),
        [[5]],
        options,
        max_length=5,
        text_rules=make_text_rules(options, vocabulary),
    )
    (row,) = search.trace[0].rows
    fates = {c.id: (c.fate, c.rule) for c in row.candidates}
    assert fates[B] == ("live", None)
    assert {fate for id, fate in fates.items() if id in (A, C, EOS)} <= {("banned", "prefix")}


def test_a_trace_in_json_has_the_text_of_every_id(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as model:
        options = DecodingOptions(beam=2, trace=True, repetition_penalty=1.5)
        reply = model.reply("do you like tea", options)
        source = model.codec.encode_source(["do you like tea"]).ids
        found = trace_json(reply.trace, source, model.codec)
    assert list(found) == ["source", "steps"]
    assert "".join(token["text"] for token in found["source"]) == "do you like tea"
    assert len(found["steps"]) == len(reply.trace)
    ended = []
    for step in found["steps"]:
        for row in step["rows"]:
            assert list(row) == ["tokens", "text", "logp", "align", "candidates"]
            assert len(row["align"]) == len(source)
            for c in row["candidates"]:
                assert list(c) == ["id", "text", "logp", "total", "fate", "rule", "score"]
                assert (c["rule"] is not None) == (c["fate"] == "banned")
                ended += [(c["score"], row["text"], c["text"])] if c["fate"] == "finished" else []
    assert max(ended) == (reply.score, reply.text, "<eos>")


def test_no_trace_is_kept_by_default():
    search = started(2)
    take(search, {A: -1.0, B: -2.0, C: -3.0})
    assert isinstance(search, BeamSearch)
    assert search.trace == []


def test_trace_must_be_true_or_false():
    with pytest.raises(UsageError, match="trace must be True or False, not 'yes'"):
        DecodingOptions(trace="yes")
