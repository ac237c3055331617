"""The memory of search traces."""

import gc

import pytest

from edgechat.runtime import TracedStep
from edgechat.tui import transcript
from edgechat.tui.engine import Engine
from edgechat.tui.values import (
    MAX_TRACE_BYTES,
    AttendedToken,
    BeamCandidate,
    BeamRow,
    Exchange,
    ReplyFacts,
    Trace,
)
from edgechat.tui.widgets.hints import NOT_TRACED

from .fakes import FakeModel, table_model

TABLE = {"ab": 0.6, "cd": 0.4}


def trace(candidates: int, weights: int) -> Trace:
    ways = BeamRow("12345", -1.0, (BeamCandidate("a", -1.0, -1.0, "live"),) * candidates)
    token = AttendedToken("a", (1 / weights,) * weights)
    return Trace(("x",) * weights, ("x",), 64, ((token, token),), ((ways, ways),))


def test_the_size_of_a_trace_counts_candidates_attention_and_texts():
    assert trace(3, 4).size == 2 * 3 * 190 + 2 * 4 * 32 + 2 * 5


def test_the_oldest_traces_are_dropped_when_all_together_are_too_large(monkeypatch):
    one = trace(100, 10)
    monkeypatch.setattr(transcript, "MAX_TRACE_BYTES", 3 * one.size)
    held = transcript.Transcript()
    for number in range(1, 6):
        held.keep_trace(number, trace(100, 10))
    assert [number for number in range(1, 6) if held.trace(number)] == [3, 4, 5]
    held.keep_trace(3, trace(100, 10))  # made again, so it is the newest
    held.keep_trace(1, trace(100, 10))
    assert [number for number in range(1, 6) if held.trace(number)] == [1, 3, 5]
    held.keep_trace(6, trace(1000, 10))  # larger than all may be: it alone is there
    assert [number for number in range(1, 7) if held.trace(number)] == [6]


def test_a_search_is_traced_if_its_longest_reply_has_a_small_trace():
    engine = Engine(FakeModel(), "demo")  # replies of at most 64 tokens
    assert engine.can_trace(["hello"], {"beam": 5, "max_length": 500})
    assert engine.can_trace(["hello"], {"beam": 64, "max_length": None})
    # 64 rows of 64 candidates at 190 bytes, and 250 ids on average at 8: 900 kB a step
    assert not engine.can_trace(["hello"], {"beam": 64, "max_length": 500})
    assert not engine.can_trace(["hello"], {"beam": 1, "max_length": 10_000})
    assert MAX_TRACE_BYTES == 64_000_000


async def test_a_search_that_is_too_large_is_not_traced_and_the_views_say_so(chat):
    async with chat(table_model(TABLE), size=(140, 40)) as c:
        c.screen.use_preset({"beam": 64, "max_length": 500})
        await c.say("hi")
        for view in ("attention", "beam"):
            assert " ".join(NOT_TRACED.split()[:6]) in await c.view(view)
        assert "ab" in await c.view("tokens")
        c.screen.use_preset({"beam": 64})
        await c.press("ctrl+r")
        await c.until(lambda: c.screen.prompt.ready)
        assert "step 1 of" in await c.view("beam")


def test_speeds_are_collected_when_replies_end(monkeypatch):
    computed = []
    speed = ReplyFacts.tokens_per_second.fget
    counting = property(lambda reply: computed.append(reply) or speed(reply))
    monkeypatch.setattr(ReplyFacts, "tokens_per_second", counting)

    def reply(tokens):
        return ReplyFacts("r", tokens=tokens, ms=1000)

    held = transcript.Transcript([Exchange("p", reply=reply(n), other=reply(n + 1)) for n in range(1, 1001)])
    computed.clear()

    def speeds(side):
        return [round(speed) for speed in held.speeds(side)]

    assert speeds(0) == list(range(1, 1001))
    assert speeds(1) == list(range(2, 1002))
    assert computed == []
    number = held.begin_exchange("again", instead_of=1000)
    assert speeds(0) == list(range(1, 1000))
    assert held.undo_replacement(number)
    assert speeds(0) == list(range(1, 1001))
    number = held.begin_exchange("again", instead_of=1000)
    held.end_exchange(number, Exchange("again", reply=reply(7)), "demo")
    held.update_exchange(1, Exchange("p", "failed"))
    assert speeds(0) == [*range(2, 1000), 7]
    assert speeds(1) == list(range(3, 1001))
    assert len(computed) < 10


@pytest.mark.parametrize("leave", ["escape", "ctrl+n"])
async def test_the_trace_of_a_stopped_reply_is_freed(chat, leave):
    before = count(TracedStep)  # of other tests
    async with chat(table_model(TABLE, seconds=0.05)) as c:
        await c.say("hi", wait=False)
        await c.until(lambda: count(TracedStep) > before)
        await c.press(leave)
        await c.until(lambda: count(TracedStep) <= before)


async def test_the_trace_of_a_reply_is_freed_with_its_conversation(chat):
    traced, ways = count(TracedStep), count(Trace)
    async with chat(table_model(TABLE)) as c:
        await c.say("hi")
        assert count(Trace) > ways
        assert count(TracedStep) <= traced
        await c.press("ctrl+n")
        await c.until(lambda: count(Trace) <= ways)


def count(kind: type) -> int:
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())
