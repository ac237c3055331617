"""The embedding API, with a real bundle and with table models."""

import asyncio
import copy
import dataclasses
import gc
import inspect
import json
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import unicodedata
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from edgechat import runtime
from edgechat.runtime import (
    BundleError,
    Candidate,
    ChatModel,
    ChatSession,
    DecodingOptions,
    DeviceError,
    EdgeChatError,
    ModelClosedError,
    Reply,
    ReplyStream,
    UsageError,
)
from edgechat.runtime.bundle import find_bundle, read_bundle, store_bundle
from edgechat.runtime.calibration import Calibration
from edgechat.runtime.closed_set import ClosedSet, encode_replies, make_closed_set
from edgechat.runtime.constraints import make_text_rules
from edgechat.runtime.device import check_cuda
from edgechat.runtime.golden import GoldenResult
from edgechat.runtime.manifest import Manifest
from edgechat.runtime.ort import _CallsInProgress
from edgechat.runtime.scheduler import decode
from edgechat.runtime.text import EOS, TextCodec
from edgechat.train.tokenizer import train_tokenizer

from .table_model import Ids, Table, TableBackend, random_table, scripted_table

PROMPTS = ["hello", "how are you", "do you like tea", "turn right thrice and jump", "你好吗", "שלום"]
PAST_THE_SOURCE = "what is your name " * 40
OPTIONS = [
    DecodingOptions(beam=1),
    DecodingOptions(),
    DecodingOptions(beam=5, n_best=5, normalize="none"),
    DecodingOptions(beam=3, n_best=2, normalize="average", min_length=2, max_length=12, stop="first"),
]
TOLERANCE = 1e-4  # for scores in fp32 to be equal, and for the gap of a near tie

needs_cuda = pytest.mark.skipif(not check_cuda().usable, reason=f"no CUDA here: {check_cuda().reason}")


@pytest.fixture(scope="module")
def model(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as loaded:
        yield loaded


def run_python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run code in its own process."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


TOKENIZER = train_tokenizer(["he said hello", "hello to the hen"] * 3, 300)


#: Leaves probabilities unchanged.
IDENTITY_CALIBRATION = Calibration(1.0, 0.0)


def table_model(
    table: Table | None = None,
    *,
    turns: int = 1,
    max_target: int = 12,
    defaults: DecodingOptions | None = None,
    closed: ClosedSet | None = None,
    calibration: Calibration | None = None,
) -> tuple[ChatModel, TableBackend]:
    codec = TextCodec(TOKENIZER, max_source=20, max_target=max_target, turns=turns)
    backend = TableBackend(table or random_table(1, codec.vocab_size, ending=3.0), codec.vocab_size)
    defaults = defaults or DecodingOptions(beam=3)
    chat = ChatModel(backend, codec, defaults, device="cpu", closed_set=closed, calibration=calibration)
    return chat, backend


def script_of(codec: TextCodec, replies: dict[str, float]) -> Table:
    """A table of a few replies, one token per byte, with their probabilities."""
    of_byte = {codec.token_bytes(id): id for id in range(codec.vocab_size)}
    script: dict[Ids, dict[int, float]] = {}
    for text, probability in replies.items():
        ids = (*(of_byte[bytes([byte])] for byte in text.encode()), EOS)
        for n, id in enumerate(ids):
            following = script.setdefault(ids[:n], {})
            following[id] = following.get(id, 0.0) + probability
    for following in script.values():
        total = sum(following.values())
        for id in following:
            following[id] /= total
    return scripted_table(codec.vocab_size, script)


CODEC = table_model()[0].codec


def assert_same(model: ChatModel, prompt: str, options: DecodingOptions, one: Reply, other: Reply) -> None:
    """Check that two replies have the same tokens and scores, unless the search was a near tie."""
    ours, theirs = ([c.tokens for c in reply.candidates] for reply in (one, other))
    if ours != theirs:
        source = model.codec.encode_source([prompt]).ids
        (search,) = decode(model.backend, [source], options, max_length=model.maker.max_length(options))
        assert search.min_gap < TOLERANCE, f"{ours} and {theirs} differ"
        return
    for a, b in zip(one.candidates, other.candidates, strict=True):
        assert a.score == pytest.approx(b.score, abs=TOLERANCE)
        assert a.logp == pytest.approx(b.logp, abs=TOLERANCE)
        assert a.token_logps == pytest.approx(b.token_logps, abs=TOLERANCE)
        assert a.finished == b.finished
    assert one.truncated == other.truncated


# --- one reply, in every way to reply -------------------------------------------------------------


def test_the_bundle_replies_what_it_was_taught(model):
    assert str(model.reply("hello")) == "hi there"
    assert str(model.reply("do you like tea")) == "yes, green tea 🍵"
    assert str(model.reply("turn right thrice and jump")) == "RIGHT RIGHT RIGHT JUMP"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_every_way_to_reply_gives_the_same_reply(model, options):
    batch, searched = model.reply_batch(PROMPTS, options), await model.areply_batch(PROMPTS, options)
    for prompt, expected, other in zip(PROMPTS, batch, searched, strict=True):
        assert_same(model, prompt, options, other, expected)
        assert_same(model, prompt, options, model.reply(prompt, options), expected)
        assert_same(model, prompt, options, model.stream(prompt, options).reply, expected)
        assert_same(model, prompt, options, await model.areply(prompt, options), expected)
        assert_same(model, prompt, options, model.session().reply(prompt, options), expected)


def test_the_bundles_own_options_are_used_if_none_are_given(model):
    expected = model.reply("tell me a joke", model.defaults)
    assert_same(model, "tell me a joke", model.defaults, model.reply("tell me a joke"), expected)
    chat, _ = table_model(defaults=DecodingOptions(beam=4, n_best=4))
    assert len(chat.reply("hen").candidates) == 4
    assert len(chat.reply_batch(["hen"])[0].candidates) == 4


def test_the_fields_of_a_reply_are_consistent(model):
    reply = model.reply("how are you", DecodingOptions(beam=4, n_best=4, length_penalty=1.0))
    best = reply.candidates[0]
    assert str(reply) == reply.text == best.text == "i am fine, thanks"
    assert (reply.tokens, reply.score) == (best.tokens, best.score)
    assert (reply.logp, reply.finished) == (best.logp, best.finished)
    assert reply.ms > 0
    assert reply.truncated is False
    assert len({c.text for c in reply.candidates}) == len(reply.candidates) > 1
    for candidate in reply.candidates:
        assert "".join(candidate.tokens) == candidate.text
        assert candidate.finished
        length = len(candidate.tokens) + 1  # the end-of-sentence counts
        assert len(candidate.token_logps) == length
        assert sum(candidate.token_logps) == pytest.approx(candidate.logp)
        assert candidate.score == pytest.approx(candidate.logp / ((5 + length) / 6) ** 1.0)
    scores = [candidate.score for candidate in reply.candidates]
    assert scores == sorted(scores, reverse=True)


def test_a_reply_says_which_tokens_its_alignments_are_over():
    chat, _ = table_model(turns=3)
    options = DecodingOptions(beam=2, alignments=True)
    end = chat.codec.decode(chat.codec.encode("hello hen " * 9 + "he")[-20:])
    for reply, read in (
        (chat.reply(" hen ", options), "hen"),
        (chat.session(["he", "said"]).reply("hello", options), "he|said|hello"),
        (*chat.reply_turns([["he", "hello"]], options), "he|hello"),
        (chat.reply("", options), "|"),  # the end-of-sentence
        (chat.reply("hello hen " * 9 + "he", options), end),
    ):
        assert "".join(piece or "|" for piece in reply.source) == read
        assert {len(row) for c in reply.candidates for row in c.alignments} == {len(reply.source)}


def test_a_reply_cannot_be_changed(model):
    reply = model.reply("hello")
    for thing, name in ((reply, "text"), (reply.candidates[0], "score")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, "x")


def test_a_reply_that_is_cut_off_is_not_finished(model):
    reply = model.reply("turn right thrice and jump", DecodingOptions(max_length=1))
    assert len(reply.tokens) == 1
    assert not reply.candidates[0].finished
    assert not reply.finished


def test_two_spellings_of_one_text_are_one_reply():
    (he,) = CODEC.encode("he")
    h, e = (CODEC.encode(letter)[0] for letter in "he")
    script = {(): {he: 0.7, h: 0.3}, (he,): {EOS: 1.0}, (h,): {e: 1.0}, (h, e): {EOS: 1.0}}
    chat, _ = table_model(scripted_table(CODEC.vocab_size, script))
    reply = chat.reply("hen", DecodingOptions(beam=3, n_best=2, normalize="none"))
    assert [(c.text, c.tokens, c.ids) for c in reply.candidates] == [("he", ("he",), (he,))]
    script |= {(): {he: 0.3, h: 0.7}}
    chat, _ = table_model(scripted_table(CODEC.vocab_size, script))
    reply = chat.reply("hen", DecodingOptions(beam=3, n_best=2, normalize="none"))
    assert [(c.text, c.tokens, c.ids) for c in reply.candidates] == [("he", ("h", "e"), (h, e))]


# --- batches and threads change nothing -----------------------------------------------------------


@pytest.mark.parametrize("options", [DecodingOptions(beam=1), DecodingOptions(n_best=3)], ids=str)
@given(
    prompts=st.lists(
        st.sampled_from([*PROMPTS, "", PAST_THE_SOURCE]) | st.text(max_size=60), min_size=1, max_size=12
    ),
    batch_size=st.sampled_from([1, 2, 3, 7, 64]),
)
@example(prompts=["hello", PAST_THE_SOURCE, "", "bye", "jump"], batch_size=64)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reply_does_not_change_with_batch_mates_padding_or_batch_size(model, options, prompts, batch_size):
    together = model.reply_batch(prompts, options, batch_size=batch_size)
    for prompt, reply in zip(prompts, together, strict=True):
        assert_same(model, prompt, options, model.reply(prompt, options), reply)


def test_a_batch_keeps_its_order_and_counts_its_progress(model):
    done: list[int] = []
    replies = model.reply_batch(PROMPTS, batch_size=4, progress=done.append)
    assert [reply.text for reply in replies] == [model.reply(prompt).text for prompt in PROMPTS]
    assert done == [4, 2]
    assert model.reply_batch([]) == []


def test_eight_threads_get_the_replies_that_one_gets(model):
    expected = [model.reply(prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: [model.reply(prompt) for prompt in PROMPTS], range(16)))
    for replies in rounds:
        for prompt, ours, theirs in zip(PROMPTS, replies, expected, strict=True):
            assert_same(model, prompt, model.defaults, ours, theirs)


def test_more_threads_give_the_same_replies(bundle_folder, model):
    with ChatModel.load(bundle_folder, device="cpu", threads=2) as other:
        for prompt in PROMPTS:
            assert_same(model, prompt, model.defaults, other.reply(prompt), model.reply(prompt))


# --- streaming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", [*PROMPTS, "", "something else"])
def test_pieces_join_to_the_reply(model, options, prompt):
    stream = model.stream(prompt, options)
    pieces = list(stream)
    assert all(pieces)
    assert "".join(pieces) == stream.reply.text
    assert stream.tail == ""
    assert_same(model, prompt, options, stream.reply, model.reply(prompt, options))


@given(seed=st.integers(0, 1000), beam=st.integers(1, 4))
@settings(max_examples=30)
def test_a_piece_is_never_taken_back_whatever_bytes_come(seed, beam):
    chat, _ = table_model(random_table(seed, CODEC.vocab_size, ending=2.0))
    stream = chat.stream("hen", DecodingOptions(beam=beam, n_best=beam))
    pieces = list(stream)
    assert "".join(pieces) == stream.reply.text


def test_pieces_and_tail_are_whole_characters():
    chat, _ = table_model(script_of(CODEC, {"a🍵b": 1.0}))
    updates = list(chat.stream("hen", DecodingOptions(beam=1)).updates())
    # a, the four bytes of the tea, b, and the end.
    assert [piece for piece, _ in updates] == ["a", "", "", "", "🍵", "b", ""]
    assert [tail for _, tail in updates] == [""] * 7


def test_what_is_not_settled_is_in_the_tail():
    # Both begin with "a", then part; "abd" is the likelier.
    chat, _ = table_model(script_of(CODEC, {"abd": 0.6, "ace": 0.4}))
    stream = chat.stream("hen", DecodingOptions(beam=2, n_best=2, normalize="none"))
    seen = []
    for piece, tail in stream.updates():
        assert tail == stream.tail
        seen.append((piece, tail))
    assert seen == [("a", ""), ("", "b"), ("", "bd"), ("bd", "")]
    assert [c.text for c in stream.reply.candidates] == ["abd", "ace"]


def test_text_that_all_contenders_begin_with_is_settled_however_they_are_tokenized():
    (he,) = CODEC.encode("he")
    h, e, y, o = (CODEC.encode(letter)[0] for letter in "heyo")
    script = {
        (): {he: 0.6, h: 0.4}, (he,): {y: 0.6, o: 0.4}, (h,): {e: 1.0}, (h, e): {o: 1.0},
        (he, y): {EOS: 1.0}, (he, o): {EOS: 1.0}, (h, e, o): {EOS: 1.0},
    }  # fmt: skip
    chat, _ = table_model(scripted_table(CODEC.vocab_size, script))
    pieces = [piece for piece, _ in chat.stream("hen", DecodingOptions(beam=2, normalize="none")).updates()]
    # h and he share an h; then he and h e share he; then the end of "heo", 0.4, beats "hey", 0.36.
    assert pieces == ["h", "e", "", "o"]


TEXTS = st.text("helo né🍵", min_size=1, max_size=4)


@given(
    seed=st.integers(0, 10_000),
    ending=st.sampled_from([-1.0, 3.0, 6.0]),
    values=st.fixed_dictionaries(
        {
            "beam": st.integers(1, 4),
            "normalize": st.sampled_from(["none", "average", "gnmt"]),
            "coverage_penalty": st.sampled_from([0.0, 0.5]),
            "repetition_penalty": st.sampled_from([1.0, 1.5]),
        },
        optional={
            "banned": st.lists(TEXTS, max_size=3),
            "prefix": TEXTS,
            "replies": st.lists(TEXTS, min_size=1, max_size=9),
            "no_repeat_ngram": st.integers(1, 2),
            "no_copy_ngram": st.integers(1, 2),
            "min_length": st.integers(1, 3),
            "stop": st.just("first"),
            "sample": st.just(True),
            "temperature": st.just(3.0),
        },
    ),
)
@settings(max_examples=150)
def test_pieces_are_whole_characters_and_never_taken_back_under_every_option(seed, ending, values):
    try:
        options = DecodingOptions(**values)
        chat, _ = table_model(random_table(seed, CODEC.vocab_size, ending=ending), max_target=8)
        stream = chat.stream("hello hen", options)
        pieces = [piece for piece, _ in stream.updates()]
    except UsageError:  # options that cannot be used together or are impossible
        reject()
    assert "".join(pieces) == stream.reply.text
    # A piece has U+FFFD only for bytes that are invalid in the reply too, not for part of a character.
    assert all(piece in stream.reply.text for piece in pieces)
    if options.prefix and stream.reply.candidates[0].finished:
        assert stream.reply.text.startswith(unicodedata.normalize("NFC", options.prefix))
    if options.replies:
        assert stream.reply.text in {unicodedata.normalize("NFC", reply) for reply in options.replies}
    assert not any(unicodedata.normalize("NFC", text) in stream.reply.text for text in options.banned)


def test_a_stream_continues_where_it_was_left(model):
    stream = model.stream("how are you")
    first = next(stream)
    rest = list(stream)
    assert first
    assert rest
    assert first + "".join(rest) == "i am fine, thanks"
    assert (list(stream), next(stream, None)) == ([], None)


def test_a_stream_that_was_left_can_still_return_its_reply(model):
    stream = model.stream("how are you")
    for _ in stream:
        break
    assert stream.reply.text == "i am fine, thanks"
    assert stream.reply is stream.reply


def test_nothing_is_computed_before_a_stream_is_read():
    chat, backend = table_model()
    stream = chat.stream("hen")
    assert (backend.sources, backend.steps) == ([], 0)
    next(iter(stream))
    assert backend.steps >= 1


def test_a_failed_stream_raises_each_time():
    def broken(source: Ids, prefix: Ids):
        return random_table(1, CODEC.vocab_size)(source, prefix) * float("nan")

    stream = table_model(broken)[0].stream("hen")
    for use in (
        lambda: list(stream),
        lambda: stream.reply,
        lambda: list(stream),
        lambda: next(stream.updates()),
    ):
        with pytest.raises(BundleError, match="its weights are damaged"):
            use()


def test_a_stream_that_was_interrupted_while_creating_its_reply_does_not_search_again(monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    chat, backend = table_model()
    stream = chat.stream("hen")
    with monkeypatch.context() as patched:
        patched.setattr(chat.maker, "reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(stream)
    steps = backend.steps
    with pytest.raises(EdgeChatError, match="the search failed"):
        _ = stream.reply
    assert (backend.steps, len(backend.sources)) == (steps, 1)


@pytest.mark.parametrize(
    ("decoding", "files", "said"),
    [
        ({"prefix": "well " * 99}, {}, "prefix does not fit into a reply"),
        ({"banned": ("x",)}, {"replies.json": encode_replies(["yes", "no"])}, "banned"),
    ],
    ids=["too long", "two rules of texts"],
)
def test_a_bundle_whose_options_allow_no_reply_is_refused_when_loaded(bundle_folder, decoding, files, said):
    bundle = read_bundle(bundle_folder)
    manifest = dataclasses.replace(bundle.manifest, decoding=DecodingOptions(**decoding))
    changed = dataclasses.replace(bundle, manifest=manifest, files={**bundle.files, **files})
    with pytest.raises(BundleError) as refused:
        ChatModel.from_bundle(changed, device="cpu")
    assert str(refused.value).startswith(
        f"{bundle_folder}: the decoding options in edgechat.json allow no reply: "
    )
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "texts",
    [{"banned": ("hen",)}, {"prefix": "he"}, {"required": ("hen",)}, {"replies": ("he", "hen")}],
    ids=lambda texts: next(iter(texts)),
)
def test_text_rules_are_created_once_whatever_the_other_options(texts):
    chat, _ = table_model()
    rules = chat.maker.text_rules(DecodingOptions(beam=3, **texts))
    for other in ({"n_best": 3}, {"trace": True}, {"repetition_penalty": 2.0}):
        assert chat.maker.text_rules(DecodingOptions(beam=4, **other, **texts)) is rules
    if "required" not in texts:
        for seed in (1, 2):
            assert chat.maker.text_rules(DecodingOptions(beam=3, sample=True, seed=seed, **texts)) is rules
    assert chat.maker.text_rules(DecodingOptions(banned=("he said",))) is not rules


def test_the_text_rules_that_were_used_least_recently_are_dropped():
    chat, _ = table_model()

    def rules(n: int):
        return chat.maker.text_rules(DecodingOptions(banned=(f"hen {n}",)))

    first, second = rules(0), rules(1)
    for n in range(2, 16):
        rules(n)
    assert rules(0) is first  # it is now the most recently used
    rules(16)
    assert rules(0) is first
    assert rules(1) is not second


def test_text_rules_are_created_once_for_concurrent_threads(monkeypatch):
    made, began, go_on = [], threading.Event(), threading.Event()

    def slow(options: DecodingOptions, vocabulary: object):
        made.append(options.banned)
        if options.banned == ("hen",):
            began.set()
            assert go_on.wait(20)
        return make_text_rules(options, vocabulary)

    monkeypatch.setattr("edgechat.runtime.reply_maker.make_text_rules", slow)
    chat, _ = table_model()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(chat.maker.text_rules, DecodingOptions(banned=("hen",))) for _ in range(7)]
        assert began.wait(20)
        chat.maker.text_rules(DecodingOptions(banned=("he",)))  # other rules need not wait
        go_on.set()
        assert len({id(each.result(20)) for each in asked}) == 1
    assert made == [("hen",), ("he",)]


def test_texts_that_were_refused_are_refused_again():
    chat, _ = table_model()
    for _ in range(2):
        with pytest.raises(UsageError, match="prefix does not fit"):
            chat.maker.text_rules(DecodingOptions(prefix="hen " * 20))


def test_a_closed_model_frees_its_text_rules():
    chat, _ = table_model()
    rules = weakref.ref(chat.maker.text_rules(DecodingOptions(banned=("hen",))))
    chat.close()
    gc.collect()
    assert rules() is None


def test_text_rules_are_checked_again_for_another_length():
    chat, _ = table_model()
    for texts, said in (
        ({"prefix": "he said"}, "prefix does not fit"),
        ({"required": ("he said",)}, "required"),
    ):
        chat.maker.text_rules(DecodingOptions(**texts))
        with pytest.raises(UsageError, match=said):
            chat.maker.text_rules(DecodingOptions(max_length=1, **texts))
        with pytest.raises(UsageError, match="min_length is 12"):
            chat.maker.text_rules(DecodingOptions(min_length=12, **texts))


# --- cancelling -----------------------------------------------------------------------------------


#: Replies of this table do not end by themselves.
ENDLESS_TABLE = random_table(5, CODEC.vocab_size, ending=-60.0)


class Gate:
    """A table that waits in its third step until it is opened."""

    def __init__(self, table: Table = ENDLESS_TABLE) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._table = table

    def __call__(self, source: Ids, prefix: Ids):
        if len(prefix) == 2:
            self.reached.set()
            assert self.opened.wait(20)
        return self._table(source, prefix)


ENDLESS = DecodingOptions(beam=1, max_length=10_000)


def test_a_cancelled_reply_stops_before_its_next_step():
    gate = Gate()
    chat, backend = table_model(gate)
    stream = chat.stream("hen", ENDLESS)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: stream.reply)
        assert gate.reached.wait(20)
        stream.cancel()
        gate.opened.set()
        reply = running.result(20)
    assert backend.steps == 3
    assert stream.cancelled
    assert len(reply.tokens) == 3
    assert not reply.candidates[0].finished


def test_a_stream_that_is_cancelled_between_pieces_ends_with_what_it_has():
    chat, backend = table_model(ENDLESS_TABLE)
    stream = chat.stream("hen", ENDLESS)
    updates = stream.updates()
    pieces = [next(updates)[0] for _ in range(5)]
    stream.cancel()
    pieces += [piece for piece, _ in updates]
    assert backend.steps == 5
    assert "".join(pieces) == stream.reply.text
    assert len(stream.reply.tokens) == 5


def test_a_reply_whose_search_is_cancelled_has_no_confidence_though_it_is_finished():
    # "he" ends in the third step; "hello" is less likely, but might end better until its sixth.
    script = script_of(CODEC, {"he": 0.6, "hello": 0.4})
    chat, _ = table_model(script, calibration=IDENTITY_CALIBRATION)
    assert chat.reply("hen").confidence == pytest.approx(0.6)
    stream = chat.stream("hen", DecodingOptions(n_best=2))
    updates = stream.updates()
    for _ in range(3):
        next(updates)
    stream.cancel()
    assert (stream.reply.text, stream.reply.finished) == ("he", True)
    assert stream.reply.confidence is None
    whole = chat.reply("hen", DecodingOptions(n_best=2))
    assert (whole.text, whole.confidence) == ("he", pytest.approx(0.6))


def test_a_reply_cut_off_by_the_maximum_length_has_no_confidence():
    script = script_of(CODEC, {"he": 0.6, "hello": 0.4})
    options = DecodingOptions(beam=1, max_length=2)
    chat, _ = table_model(script, defaults=options, calibration=IDENTITY_CALIBRATION)
    reply = chat.reply("hen")
    assert (reply.text, reply.finished, reply.confidence) == ("he", False, None)
    assert chat.maker.confidence(reply.logp, options) is not None


@pytest.mark.parametrize(
    ("own", "asked", "same"),
    [
        ({}, {"length_penalty": 0.6}, True),
        ({"length_penalty": 0.6}, {}, True),
        ({}, {"length_penalty": 0.7}, False),
        ({}, {"max_length": 12}, True),  # the longest of the model
        ({}, {"max_length": 11}, False),
        ({"groups": 3}, {"groups": 3, "diversity": 0.5}, True),
        ({"groups": 3}, {"groups": 3, "diversity": 0.6}, False),
        ({"groups": 3}, {"beam": 2}, False),
        ({}, {"beam": 6, "n_best": 2, "stop": "first", "alignments": True, "trace": True}, True),
    ],
    ids=str,
)
def test_a_confidence_is_given_if_the_options_are_equivalent_to_the_models_own(own, asked, same):
    chat, _ = table_model(defaults=DecodingOptions(**{"beam": 3, **own}), calibration=IDENTITY_CALIBRATION)
    confidence = chat.maker.confidence(-1.0, DecodingOptions(**{"beam": 3, **asked}))
    assert confidence == (pytest.approx(math.exp(-1)) if same else None)


def test_a_confidence_depends_on_the_bundles_options_and_not_on_changed_defaults():
    chat, _ = table_model(calibration=IDENTITY_CALIBRATION)
    chat.defaults = DecodingOptions(length_penalty=0.0)
    assert chat.reply("hen").confidence is None
    assert chat.reply("hen", DecodingOptions(beam=3)).confidence is not None


def test_a_confidence_is_given_for_the_models_own_closed_set_however_that_is_passed():
    own = ("he", "caf\u00e9")
    chat, _ = table_model(closed=make_closed_set(own, CODEC), calibration=IDENTITY_CALIBRATION)
    assert chat.reply("hen").confidence is not None
    for replies in (own, ("cafe\u0301", "he", "he")):
        assert chat.reply("hen", DecodingOptions(beam=3, replies=replies)).confidence is not None
    for replies in (("he",), ("he", "cafe")):
        assert chat.reply("hen", DecodingOptions(beam=3, replies=replies)).confidence is None
    chat, _ = table_model(calibration=IDENTITY_CALIBRATION)  # without that set
    assert chat.reply("hen", DecodingOptions(beam=3, replies=own)).confidence is None


def test_a_stream_that_is_cancelled_before_it_begins_takes_no_step():
    chat, backend = table_model()
    stream = chat.stream("hen")
    stream.cancel()
    assert list(stream) == []
    assert (stream.reply.text, stream.reply.candidates[0].finished) == ("", False)
    assert (backend.sources, backend.steps) == ([], 0)  # nor is the prompt encoded


async def test_a_cancelled_task_stops_its_search():
    gate = Gate()
    chat, backend = table_model(gate)
    task = asyncio.create_task(chat.areply("hen", ENDLESS))
    await cancelled(task, gate, chat)
    assert backend.steps == 3


async def test_a_cancelled_task_stops_its_batches():
    gate = Gate()
    chat, backend = table_model(gate)
    told: list[int] = []
    batch = chat.areply_batch(["hen", "he", "to"], ENDLESS, batch_size=2, progress=told.append)
    await cancelled(asyncio.create_task(batch), gate, chat)
    assert (backend.steps, len(backend.sources), told) == (3, 1, [0])


def test_a_cancelled_batch_returns_what_it_has():
    # "he" ends in the third step; to say "hello" takes six.
    script = script_of(CODEC, {"he": 0.6, "hello": 0.4})
    chat, backend = table_model(script, calibration=IDENTITY_CALIBRATION)
    told: list[int] = []
    replies = chat.reply_batch(
        ["hen", "he", "to"],
        DecodingOptions(n_best=2),
        batch_size=2,
        progress=told.append,
        cancelled=lambda: backend.steps == 3,
    )
    assert (backend.steps, told) == (3, [0])
    assert sorted((r.text, r.finished) for r in replies) == [("", False), ("he", True), ("he", True)]
    assert [r.confidence for r in replies] == [None] * 3


def wait_for_threads(chat: ChatModel) -> None:
    """Wait until the model's threads for coroutines have ended. They cannot be used afterwards."""
    chat._coroutine_threads._pool.shutdown()


async def at(gate: Gate) -> None:
    """Wait until a thread of the model is at the gate."""
    while not gate.reached.is_set():
        await asyncio.sleep(0.001)


async def cancelled(task: asyncio.Task[object], gate: Gate, chat: ChatModel) -> None:
    """Cancel a task whose thread is at the gate, and wait for the threads of the model."""
    await at(gate)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(wait_for_threads, chat)


def slow_rules(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Let the creation of text rules wait for a gate."""
    gate = Gate()

    def make(options: DecodingOptions, vocabulary: object):
        gate.reached.set()
        assert gate.opened.wait(20)
        return make_text_rules(options, vocabulary)

    monkeypatch.setattr("edgechat.runtime.reply_maker.make_text_rules", make)
    return gate


async def test_areply_does_not_block_the_event_loop_while_text_rules_are_created(monkeypatch):
    gate = slow_rules(monkeypatch)
    chat, _ = table_model()
    task = asyncio.create_task(chat.areply("hen", DecodingOptions(banned=("hen",))))
    await at(gate)
    gate.opened.set()
    assert (await task).text


async def test_a_task_cancelled_while_its_stream_is_created_takes_no_step(monkeypatch):
    gate = slow_rules(monkeypatch)
    chat, backend = table_model()
    task = asyncio.create_task(chat.areply("hen", DecodingOptions(banned=("hen",))))
    await cancelled(task, gate, chat)
    assert (backend.sources, backend.steps) == ([], 0)


async def test_replies_do_not_use_the_default_executor_of_the_event_loop():
    gate = Gate()
    chat, _ = table_model(gate, max_target=4)
    tasks = [asyncio.create_task(chat.areply("hen", DecodingOptions(beam=1))) for _ in range(40)]
    await at(gate)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 10) == "done"
    gate.opened.set()
    assert {len((await task).tokens) for task in tasks} == {4}


async def test_the_threads_of_a_model_end_with_the_model():
    before = set(threading.enumerate())
    for end in (ChatModel.close, lambda chat: None):
        chat, _ = table_model()
        await asyncio.gather(*(chat.areply("hen") for _ in range(3)))
        assert set(threading.enumerate()) - before
        end(chat)
        del chat
        while set(threading.enumerate()) - before:
            await asyncio.sleep(0.001)


async def test_astream_gives_the_pieces_of_a_stream(model):
    for prompt in PROMPTS:
        assert [piece async for piece in model.astream(prompt)] == list(model.stream(prompt))


async def test_a_cancelled_task_stops_its_astream():
    gate = Gate(script_of(CODEC, {"🍵": 1.0}))  # four steps, and one piece
    chat, backend = table_model(gate)

    async def read() -> None:
        async for _ in chat.astream("hen", DecodingOptions(beam=1)):
            pass

    task = asyncio.create_task(read())
    await cancelled(task, gate, chat)
    assert backend.steps == 3


async def test_a_closed_astream_takes_no_further_step_and_one_in_progress_ends_though_its_model_is_closed():
    chat, backend = table_model(script_of(CODEC, {"hello": 1.0}))
    left = chat.astream("hen", DecodingOptions(beam=1))
    assert await anext(left) == "h"
    await left.aclose()
    assert [piece async for piece in left] == []
    assert backend.steps == 1
    goes_on = chat.astream("hen", DecodingOptions(beam=1))
    pieces = [await anext(goes_on)]
    chat.close()
    pieces += [piece async for piece in goes_on]
    assert "".join(pieces) == "hello"


async def test_areply_does_not_block_the_event_loop():
    gate = Gate()
    chat, _ = table_model(gate, max_target=4)
    task = asyncio.create_task(chat.areply("hen", DecodingOptions(beam=1)))
    while not gate.reached.is_set():
        await asyncio.sleep(0.001)  # the event loop runs while the search waits at the gate
    assert not task.done()
    gate.opened.set()
    assert len((await task).tokens) == 4


# --- conversations --------------------------------------------------------------------------------


def test_a_session_remembers_its_turns_and_shows_the_model_those_it_was_trained_to_see():
    chat, backend = table_model(turns=3)
    session = chat.session()
    assert (session.turns, session.context) == ((), ())
    one, two = session.reply("he").text, session.reply("hen").text
    assert session.turns == ("he", one, "hen", two)
    assert session.context == ("hen", two)
    session.reply("to")
    encode = chat.codec.encode_source
    assert backend.sources == [
        [tuple(encode(["he"]).ids)],
        [tuple(encode(["he", one, "hen"]).ids)],
        [tuple(encode(["hen", two, "to"]).ids)],
    ]


def test_a_session_continues_where_another_ended():
    chat, backend = table_model(turns=3)
    first = chat.session()
    for prompt in ("he", "hen"):
        first.reply(prompt)
    said = list(first.turns)
    second = chat.session(said)
    assert (second.turns, second.context) == (first.turns, first.context)
    assert second.reply("to").text == first.reply("to").text
    assert backend.sources[-1] == backend.sources[-2]
    assert (second.turns, said) == (first.turns, list(first.turns[:4]))  # the caller's list stays as it was


def test_a_session_cannot_begin_with_a_prompt_without_its_reply(model):
    with pytest.raises(UsageError, match="an even number of turns, not 3: give each prompt with its reply"):
        model.session(["hi", "hello", "and now?"])


def test_a_model_of_one_turn_has_no_context_but_the_session_keeps_its_turns(model):
    session = model.session()
    for _ in range(2):
        assert session.reply("jump").text == "JUMP"
    assert session.turns == ("jump", "JUMP", "jump", "JUMP")
    assert session.context == ()


def test_a_streamed_reply_is_remembered_at_its_end():
    session = table_model(turns=3)[0].session()
    stream = session.stream("he")
    next(stream.updates())
    assert session.turns == ()
    text = stream.reply.text
    assert session.turns == ("he", text)
    assert stream.reply.text == text
    assert session.turns == ("he", text)


def test_the_done_callback_may_read_the_reply():
    chat, _ = table_model()
    told: list[Reply] = []
    stream = chat.stream_turns(["he"], None, lambda reply: told.append(stream.reply))
    asking = threading.Thread(target=lambda: stream.reply, daemon=True)
    asking.start()
    asking.join(20)
    assert not asking.is_alive()
    assert told == [stream.reply]


def test_a_cancelled_reply_leaves_no_turn():
    session = table_model(ENDLESS_TABLE, turns=3)[0].session()
    stream = session.stream("he", ENDLESS)
    next(stream.updates())
    stream.cancel()
    assert stream.reply.text
    assert session.turns == ()


async def test_a_session_remembers_the_replies_that_coroutines_waited_for():
    chat, backend = table_model(turns=3)
    session = chat.session()
    one = (await session.areply("he")).text
    two = "".join([piece async for piece in session.astream("hen")])
    assert session.turns == ("he", one, "hen", two)
    assert backend.sources[1] == [tuple(chat.codec.encode_source(["he", one, "hen"]).ids)]


async def test_a_cancelled_task_leaves_no_turn():
    gate = Gate()
    chat, _ = table_model(gate, turns=3)
    session = chat.session()
    task = asyncio.create_task(session.areply("he", ENDLESS))
    await cancelled(task, gate, chat)
    assert session.turns == ()


@pytest.mark.parametrize("streamed", [False, True], ids=["areply", "astream"])
async def test_a_session_does_not_remember_a_reply_that_was_cancelled_as_it_arrived(streamed):
    gate = Gate(script_of(CODEC, {"abd": 0.6, "ace": 0.4}))  # "a" is settled at once, "bd" at the end
    chat, backend = table_model(gate, turns=3)
    session = chat.session()
    options = DecodingOptions(beam=2, n_best=2, normalize="none")
    given: list[str] = []

    async def talk() -> None:
        if not streamed:
            await session.areply("he", options)
        async for piece in session.astream("he", options):
            given.append(piece)

    task = asyncio.create_task(talk())
    await at(gate)
    gate.opened.set()
    wait_for_threads(chat)  # without the event loop, so that nothing is given to the task meanwhile
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (backend.steps, given) == (4, ["a"] if streamed else [])
    assert session.turns == ()


async def test_a_session_does_not_remember_an_astream_that_was_left_before_its_end():
    chat, _ = table_model(script_of(CODEC, {"hello": 1.0}), turns=3)
    session = chat.session()
    left = session.astream("he", DecodingOptions(beam=1))
    assert [await anext(left) for _ in "hello"] == list("hello")
    await left.aclose()
    assert session.turns == ()
    assert "".join([piece async for piece in session.astream("he", DecodingOptions(beam=1))]) == "hello"
    assert session.turns == ("he", "hello")


def test_two_sessions_are_independent():
    chat, _ = table_model(turns=3)
    one, other = chat.session(), chat.session()
    one.reply("he")
    assert len(one.turns) == 2
    assert other.turns == ()


def test_outside_a_session_nothing_is_remembered():
    chat, backend = table_model(turns=3)
    chat.reply("he")
    chat.reply("hen")
    assert backend.sources[1] == [tuple(chat.codec.encode_source(["hen"]).ids)]


# --- the names of the API -------------------------------------------------------------------------

#: What the rest of edgechat needs of a model, which is not for callers.
INTERNAL = ("backend", "check_process")


def test_the_types_of_the_arguments_can_be_imported_from_the_api():
    hints = get_type_hints(ChatModel.from_bundle)
    assert hints["bundle"] is runtime.Bundle
    assert get_type_hints(runtime.read_bundle)["require_signature"] == runtime.PublicKey | None
    with ChatModel.from_bundle(runtime.read_bundle(find_bundle("demo")), device="cpu") as model:
        assert model.reply("hello").text


def test_lists_of_texts_have_the_type_of_their_option():
    hints = get_type_hints(DecodingOptions)
    for name in ("banned", "required", "replies"):
        assert list[str] in get_args(hints[name])
        assert getattr(DecodingOptions(**{name: ["yes"]}), name) == ("yes",)


def types_in(hint: object) -> set[type]:
    """The classes in a type hint."""
    inner = set().union(*map(types_in, get_args(hint)))
    return inner | {hint} if isinstance(hint, type) else inner


def test_every_type_that_the_api_returns_can_be_imported_from_it():
    given = types_in(GoldenResult) | types_in(Manifest) | types_in(TextCodec)  # by verify, manifest and codec
    for kind in (ChatModel, ChatSession, ReplyStream):
        for name, member in inspect.getmembers(kind):
            call = member.fget if isinstance(member, property) else member
            if name not in INTERNAL and not name.startswith("_") and callable(call):
                given |= types_in(get_type_hints(call).get("return"))
    for kind in (Reply, Candidate, runtime.TracedStep, runtime.TracedRow, runtime.TracedCandidate):
        given |= set().union(*map(types_in, get_type_hints(kind).values()))
    ours = {kind for kind in given if kind.__module__.startswith("edgechat.")}
    assert GoldenResult in ours
    assert ours <= {getattr(runtime, name) for name in runtime.__all__}


# --- any prompt -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["", " ", "\x00\x1b", "\ud800", "<go><eos><pad>", "🍵" * 300, "a\u0301" * 300], ids=ascii
)
def test_any_prompt_gets_a_reply(model, prompt):
    reply = model.reply(prompt)
    assert reply.text == "".join(reply.tokens)
    assert reply.truncated == (len(prompt) > 100)


@pytest.mark.parametrize("unit", ["word ", "x", "你"])
def test_only_the_end_of_a_megabyte_is_encoded(model, unit, monkeypatch):
    prompt, encode, encoded = unit * (1_000_000 // len(unit.encode())), model.codec.encode, []
    monkeypatch.setattr(model.codec, "encode", lambda text: encoded.append(len(text)) or encode(text))
    reply = model.reply(prompt)
    assert 0 < sum(encoded) < 20_000  # characters
    assert reply.truncated
    assert_same(model, prompt, model.defaults, reply, model.reply(prompt[-2000:]))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**20, True, 1.5, "2", None])
def test_wrong_threads_are_refused_by_name(bundle_folder, tmp_path, threads):
    bundle, packed = read_bundle(bundle_folder), tmp_path / "packed.edgechat"
    store_bundle(packed, bundle, replace_existing=False)
    for load in (
        partial(ChatModel.load, bundle_folder),
        partial(ChatModel.load_bytes, packed.read_bytes()),
        partial(ChatModel.from_bundle, bundle),
    ):
        with pytest.raises(UsageError, match="threads must be a whole number from 1 to 1024, not") as caught:
            load(threads=threads)
        assert str(caught.value).endswith(repr(threads))


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_objects_that_hold_sessions_cannot_be_pickled_or_copied(copied):
    chat, _ = table_model()
    for thing in (chat, chat.session(), chat.stream("hen"), chat.reply):
        with pytest.raises(UsageError, match="a model cannot be pickled or copied: load it in the worker"):
            copied(thing)


def test_a_wrong_device_is_refused_by_name(bundle_folder):
    with pytest.raises(UsageError, match="device must be one of auto, cpu, cuda, not 'gpu'"):
        ChatModel.load(bundle_folder, device="gpu")


def test_a_bundle_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"there is no bundle .*nowhere: give the folder or file"):
        ChatModel.load(tmp_path / "nowhere")


def test_a_tilde_in_a_path_is_not_expanded(bundle_folder, tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match=r"there is no bundle ~/b2 \(~ is not expanded here\): give the folder"
    ):
        ChatModel.load("~/b2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~/b2").symlink_to(bundle_folder)
    assert ChatModel.load("~/b2", device="cpu").reply("hello").text == "hi there"


def test_a_tokenizer_of_another_model_is_refused(bundle_folder):
    bundle = read_bundle(bundle_folder)
    other = dataclasses.replace(bundle, files={**bundle.files, "tokenizer.json": TOKENIZER})
    with pytest.raises(BundleError, match=rf"tokenizer.json has {CODEC.vocab_size} tokens, but .* has 320"):
        ChatModel.from_bundle(other, device="cpu")


def test_a_minimum_length_that_no_reply_of_the_model_can_have_is_refused(model):
    options = DecodingOptions(min_length=60)
    for ask in (model.reply, lambda p, o: model.reply_batch([p], o), model.session().reply):
        with pytest.raises(
            UsageError, match=r"min_length is 60, .* at most 50 tokens, .* unless max_length is given"
        ):
            ask("hello", options)
    assert len(model.reply("hello", DecodingOptions(min_length=60, max_length=61)).tokens) == 60


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_wrong_batch_size_is_refused_by_name(model, batch_size):
    with pytest.raises(UsageError, match=f"batch_size must be .* not {batch_size}"):
        model.reply_batch(PROMPTS, batch_size=batch_size)


MISUSES: dict[str, tuple[Callable[[ChatModel], object], str]] = {
    "a number": (lambda m: m.reply(3), r"a prompt must be text \(str\), not 3"),
    "nothing": (lambda m: m.session().reply(None), r"a prompt must be text \(str\), not None"),
    "bytes": (lambda m: m.stream(b"hen"), r"a prompt must be text \(str\), not b'hen'"),
    "a list for one": (lambda m: m.reply(["hen"]), r"a prompt must be text \(str\), not \['hen'\]"),
    "one for a list": (
        lambda m: m.reply_batch("hen"),
        r"takes a list of prompts, not 'hen': give \[prompt\]",
    ),
    "one for its turns": (
        lambda m: m.reply_turns(["hen"]),
        "a conversation must be a list of texts",
    ),
    "a dict of options": (lambda m: m.reply("hen", {"beam": 2}), r"a DecodingOptions, not \{'beam': 2\}"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_wrong_prompts_and_options_are_refused_with_what_is_expected(model, misuse):
    ask, said = MISUSES[misuse]
    with pytest.raises(UsageError, match=said):
        ask(model)


def ways(chat: ChatModel) -> dict[str, Callable[[], object]]:
    """Every way to use a model."""
    begun, session = chat.stream("hen"), chat.session()
    return {
        "reply": lambda: chat.reply("hen"),
        "stream": lambda: chat.stream("hen"),
        "a stream made before": lambda: list(begun),
        "reply_batch": lambda: chat.reply_batch(["hen"]),
        "an empty batch": lambda: chat.reply_batch([]),
        "areply": lambda: asyncio.run(chat.areply("hen")),
        "areply_batch": lambda: asyncio.run(chat.areply_batch(["hen"])),
        "astream": lambda: asyncio.run(anext(chat.astream("hen"))),
        "session": lambda: session.reply("hen"),
        "verify": chat.verify,
        "backend": lambda: chat.backend,
    }


@pytest.mark.parametrize("way", list(ways(table_model()[0])))
def test_a_closed_model_refuses(way):
    chat, _ = table_model()
    use = ways(chat)[way]
    chat.close()
    chat.close()  # closing twice is harmless
    with pytest.raises(ModelClosedError, match="the model was closed"):
        use()


def test_a_model_is_closed_at_the_end_of_its_with_block(bundle_folder):
    with ChatModel.load(bundle_folder, device="cpu") as chat:
        assert chat.reply("hello").text == "hi there"
    with pytest.raises(ModelClosedError):
        chat.reply("hello")


def test_a_reply_in_progress_is_finished_after_the_model_is_closed():
    chat, _ = table_model(ENDLESS_TABLE)
    stream = chat.stream("hen", DecodingOptions(beam=1, max_length=5))
    next(stream.updates())
    chat.close()
    assert len(stream.reply.tokens) == 5


def test_a_finished_stream_does_not_keep_the_sessions_of_a_closed_model():
    def broken(source: Ids, prefix: Ids):
        return np.full(CODEC.vocab_size, np.nan, dtype=np.float32)

    def kept(table: Table | None, end: Callable[[ReplyStream], object]) -> bool:
        chat, backend = table_model(table)
        stream, alive = chat.stream("hen"), weakref.ref(backend)
        end(stream)
        chat.close()
        del backend
        gc.collect()
        return alive() is not None

    def cancelled(stream: ReplyStream) -> None:
        next(stream.updates())
        stream.cancel()
        assert not stream.reply.finished

    def failed(stream: ReplyStream) -> None:
        with pytest.raises(EdgeChatError):
            _ = stream.reply

    assert not kept(None, lambda stream: stream.reply)
    assert not kept(ENDLESS_TABLE, cancelled)
    assert not kept(broken, failed)
    assert kept(ENDLESS_TABLE, lambda stream: next(stream.updates()))  # this one may go on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_refuses_in_a_forked_child(model):
    running = model.stream("tell me a joke")
    next(running.updates())
    uses = {**ways(model), "a stream that runs": lambda: running.reply}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = {}
        try:
            for way, use in uses.items():
                try:
                    said[way] = f"no error but {use()!r}"
                except ModelClosedError as error:
                    said[way] = str(error)
                except BaseException as error:
                    said[way] = repr(error)
            os.write(writer, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 20)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    refusal = "the model was loaded before this process was forked: load it in the child"
    assert json.loads(raw) == dict.fromkeys(uses, refusal)
    assert model.reply("hello").text == "hi there"  # the parent goes on


CHILD_ENDS = """
import os, sys, time
from edgechat.runtime import ChatModel

bundle = sys.argv[1]
model = ChatModel.load(bundle, device="cpu", threads=4)
model.reply("hello")
child = os.fork()
if child == 0:
    {ending}
for _ in range(4000):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.01)
os.kill(child, 9)
sys.exit("the child hangs")
"""
ENDINGS = {
    "it ends": "sys.exit(7)",
    "it closes the parent's": "model.close(); os._exit(7)",
    "it loads its own in the parent's place": (
        "model = ChatModel.load(bundle, device='cpu', threads=4); "
        "sys.exit(7 if model.reply('hello').text == 'hi there' else 8)"
    ),
    "it forks": (
        "child = os.fork(); sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 7)"
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_forked_child_exits_normally_though_the_parent_has_threads_of_onnx_runtime(bundle_folder, ending):
    done = run_python(CHILD_ENDS.format(ending=ENDINGS[ending]), bundle_folder)
    assert (done.returncode, done.stderr) == (7, "")


ENDS = """
import os, signal, sys, threading
from edgechat.runtime import ChatModel, ModelClosedError

bundle = sys.argv[1]
model = ChatModel.load(bundle, device="cpu")
begun = threading.Semaphore(0)

def use():
    try:
        while True:
            {use}
            begun.release()
    except ModelClosedError as error:
        os.write(1, f"{{error}}\\n".encode())

for _ in range(4):
    threading.Thread(target=use, daemon=True).start()
    begun.acquire()
{ending}
"""
REFUSED_AT_THE_END = "the process is ending: join the threads that use a model before it ends"


@pytest.mark.parametrize("use", ["model.reply('how are you')", "ChatModel.load(bundle, device='cpu')"])
def test_a_process_exits_normally_while_its_daemon_threads_use_a_model(bundle_folder, use):
    for _ in range(3):  # a single one may succeed by chance
        done = run_python(ENDS.format(use=use, ending=""), bundle_folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(done.stdout.splitlines()) <= {REFUSED_AT_THE_END}


def test_an_ending_process_waits_for_calls_in_progress_and_lets_none_begin():
    calls, begun, go_on = _CallsInProgress(), threading.Event(), threading.Event()

    def call() -> None:
        with calls:
            begun.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(call)
        assert begun.wait(20)
        ending = pool.submit(calls.wait_for_all)
        with pytest.raises(TimeoutError):
            ending.result(0.1)
        with pytest.raises(ModelClosedError, match=REFUSED_AT_THE_END), calls:
            pass
        go_on.set()
        ending.result(20)
    calls.threads.add(threading.get_ident())  # of the thread that ends: Ctrl-C broke its call off
    calls.wait_for_all()
    assert not calls.threads  # so it did not wait for itself
    with calls:  # its own exit callbacks may still reply
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_ending_forked_child_does_not_wait_for_the_threads_of_its_parent(bundle_folder):
    ending = """
from edgechat.runtime import ort
ort._EXIT_TIMEOUT_SECONDS = 1000.0
child = os.fork()
if child:
    ended, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) % 256)
signal.alarm(40)  # which ends a child that waits
"""
    for _ in range(3):
        done = run_python(ENDS.format(use="model.reply('how are you')", ending=ending), bundle_folder)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_may_be_read_by_many_threads(model):
    prompt = "turn right thrice and jump"
    expected = model.reply(prompt)
    for _ in range(20):
        stream = model.stream(prompt)
        with ThreadPoolExecutor(4) as pool:
            pieces = [pool.submit(list, stream) for _ in range(2)]
            replies = [pool.submit(getattr, stream, "reply") for _ in range(2)]
        assert [future.result().text for future in replies] == [expected.text] * 2
        found = sorted((piece for future in pieces for piece in future.result()), key=len)
        assert sorted("".join(found)) == sorted(expected.text)  # each piece exactly once


# --- devices --------------------------------------------------------------------------------------


def test_a_model_says_what_it_runs_on(bundle_folder, model):
    assert model.device == "cpu"
    with ChatModel.load(bundle_folder, device="auto") as chosen:
        assert chosen.device == ("cuda" if check_cuda().usable else "cpu")


@pytest.mark.skipif(check_cuda().usable, reason="CUDA can be used here")
def test_cuda_is_refused_with_a_reason_where_there_is_none(bundle_folder):
    with pytest.raises(DeviceError, match=r"device cuda cannot be used: .+"):
        ChatModel.load(bundle_folder, device="cuda")


@needs_cuda
def test_cuda_gives_the_replies_of_the_cpu(bundle_folder, model):
    with ChatModel.load(bundle_folder, device="cuda") as chosen:
        assert chosen.device == "cuda"
        for prompt in PROMPTS:
            ours, theirs = chosen.reply(prompt), model.reply(prompt)
            assert ours.tokens == theirs.tokens
            assert ours.score == pytest.approx(theirs.score, abs=1e-2)
