"""Sending prompts, and streaming and stopping replies."""

import itertools
import threading

from textual import events

from edgechat.runtime import DecodingOptions, UsageError
from edgechat.tui.messages import ReplyAdvanced, ReplyFinished
from edgechat.tui.reply_task import MIN_FRAME_SECONDS
from edgechat.tui.values import ReplyFacts
from edgechat.tui.widgets import ReplyMessage

from .conftest import TIMEOUT_SECONDS
from .fakes import FakeModel, Script, reply, table_model


async def test_a_prompt_is_sent_and_its_reply_shown(chat):
    async with chat(FakeModel(Script(end=reply("hi there")))) as c:
        await c.say("hello")
        assert c.messages == ["you: hello", "bot: hi there"]
        assert c.prompt == ""
        assert "you   hello" in c.drawn
        assert "bot   hi there" in c.drawn


async def test_a_real_model_replies_and_its_candidates_are_in_order(chat):
    model = table_model({"good day": 0.6, "hello": 0.3, "你好 🙂": 0.1})
    async with chat(model, size=(140, 40)) as c:
        await c.say("hi")
        assert c.messages == ["you: hi", "bot: good day"]
        assert [row[3] for row in c.candidates] == ["good day", "hello", "你好 🙂"]
        # ln 0.6, ln 0.3, ln 0.1
        assert [row[2] for row in c.candidates] == ["-0.51", "-1.20", "-2.30"]


async def test_the_candidates_are_listed_with_rank_score_and_logp(chat):
    async with chat(FakeModel(Script(end=reply("one", "two", "three")))) as c:
        await c.say("count")
        assert c.candidates == [
            ["● 1", "-0.25", "-1.00", "one"],
            [" 2", "-0.50", "-2.00", "two"],
            [" 3", "-0.75", "-3.00", "three"],
        ]


async def test_as_many_candidates_are_asked_for_as_the_beam_has(chat):
    model = FakeModel(beam=4)
    async with chat(model) as c:
        await c.say("hello")
        assert model.options == DecodingOptions(beam=4, n_best=4, trace=True)


async def test_the_unsettled_tail_is_dim_until_the_reply_is_final(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script([("good ", "dog")], reply("good day"), gate))) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: c.messages[-1] == "bot: good dog▌")
        text = c.screen.query("ReplyMessage").last().visual.text
        assert [text.plain[span.start : span.end] for span in text.spans] == ["dog", "▌"]
        assert {span.style for span in text.spans} == {"dim"}
        gate.set()
        await c.until(lambda: c.messages[-1] == "bot: good day")
        assert c.screen.query("ReplyMessage").last().visual.text.spans == []


def steps_until(event, tail=""):
    """Steps of a search that settle nothing."""
    while not event.wait(MIN_FRAME_SECONDS):
        yield "", tail


async def test_of_many_steps_a_few_are_drawn_and_no_text_is_lost(chat, monkeypatch):
    gate, drawn = threading.Event(), []
    advance = ReplyMessage.advance
    monkeypatch.setattr(
        ReplyMessage, "advance", lambda self, *text: (drawn.append(text[0]), advance(self, *text))
    )
    pieces = [(f"{n} ", "") for n in range(3000)]

    def flood():
        yield from pieces
        yield "end", ""
        yield from steps_until(gate)

    async with chat(FakeModel(Script(flood(), reply("done"), gate))) as c:
        await c.say("count", wait=False)
        await c.until(lambda: drawn[-1].endswith("end"))
        gate.set()
        assert drawn[-1] == "".join(piece for piece, _ in pieces) + "end"
        assert len(drawn) < 30


async def test_a_streaming_reply_of_several_rows_stays_visible(chat):
    gate = threading.Event()

    grown = threading.Event()

    def growing():
        yield "short", ""
        yield from steps_until(grown)
        yield " and then " + "longer " * 40, "at the end"
        yield from steps_until(gate, tail="at the end")

    async with chat(FakeModel(Script(growing(), gate=gate))) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: "short▌" in c.drawn)
        grown.set()
        await c.until(lambda: "at the end▌" in c.drawn)
        gate.set()
        await c.until(lambda: "fine" in c.drawn)


async def test_escape_stops_the_reply_keeps_its_text_and_marks_it(chat):
    model = FakeModel(Script([("so ", "far")], waits_for_cancel=True), Script())
    async with chat(model) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        await c.pilot.press("escape")
        assert c.messages[-1] == "bot: so far\n■ stopped"
        assert model.streams[0].cancelled.is_set()
        await c.say("again")
        assert c.messages[-1] == "bot: fine"
        assert model.received_turns[-1] == ["again"]  # it never said what was stopped


async def test_late_messages_of_a_stopped_task_are_dropped(chat):
    gate = threading.Event()
    deaf = Script([("old", "")], reply("too late"), gate, ignores_cancel=True)
    async with chat(FakeModel(deaf, Script([("new", "")], waits_for_cancel=True))) as c:
        await c.say("one", wait=False)
        await c.until(lambda: "old" in c.messages[-1])
        await c.pilot.press("escape")
        await c.say("two", wait=False)
        await c.until(lambda: "new" in c.messages[-1])
        gate.set()
        c.screen.post_message(ReplyAdvanced(1, 0, "late", ""))
        c.screen.post_message(ReplyFinished(1, 0, ReplyFacts("too late"), None))
        await c.pilot.pause()
        assert c.messages == ["you: one", "bot: old\n■ stopped", "you: two", "bot: new▌"]
        assert not c.screen.prompt.ready


async def test_a_failure_becomes_a_message_and_restores_the_prompt(chat):
    model = FakeModel(Script([("half", "")], UsageError("min_length is too large [/x")))
    async with chat(model) as c:
        await c.say("my precious\nprompt")
        assert c.messages[-1] == "error: min_length is too large [/x"
        assert c.messages[-2].endswith("✗ failed")
        assert c.prompt == "my precious\nprompt"


async def test_an_unexpected_failure_names_its_type(chat):
    async with chat(FakeModel(Script(end=ZeroDivisionError("by zero")))) as c:
        await c.say("hello")
        assert c.messages[-1] == "error: unexpected ZeroDivisionError: by zero"


async def test_a_failure_does_not_overwrite_the_next_prompt(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(end=UsageError("no"), gate=gate))) as c:
        await c.say("first", wait=False)
        await c.pilot.press("n", "e", "x", "t")
        gate.set()
        await c.until(lambda: c.screen.prompt.ready)
        assert c.prompt == "next"
        await c.pilot.press("up")
        assert c.prompt == "first"


async def test_a_second_prompt_waits_for_the_first_reply(chat):
    model = FakeModel(Script(waits_for_cancel=True))
    async with chat(model) as c:
        await c.say("one", wait=False)
        await c.say("two", wait=False)
        assert c.prompt == "two"
        assert len(model.streams) == 1
        assert "Wait for the reply" in c.notices[-1]


async def test_blank_prompts_do_nothing(chat):
    model = FakeModel()
    async with chat(model) as c:
        await c.pilot.press("enter", "space", "enter", "ctrl+o", "ctrl+j")
        assert model.streams == []
        assert c.messages == []


async def test_keys_are_echoed_before_a_flood_of_steps_ends(chat):
    """bench/echo.py measures how fast."""
    flood = itertools.repeat(("", "a tail " * 20))
    async with chat(FakeModel(Script(flood))) as c:
        await c.say("go", wait=False)
        await c.until(lambda: "a tail" in c.drawn)
        for key in "echoed":
            c.app.post_message(events.Key(key, key))
        await c.until(lambda: "echoed" in c.drawn)
        assert "replying" in c.drawn  # it does not end by itself
        await c.press("escape")
        assert c.screen.prompt.ready
        assert c.prompt == "echoed"


async def test_a_new_conversation_forgets_the_old_one(chat):
    model = FakeModel()
    async with chat(model) as c:
        await c.say("hello")
        await c.say("and you?")
        assert model.received_turns[-1] == ["fine", "and you?"]
        await c.press("ctrl+n")
        assert c.messages == []
        assert c.candidates == []
        assert "A small LSTM" in c.drawn
        await c.say("again")
        assert model.received_turns[-1] == ["again"]


async def test_a_new_conversation_stops_the_reply_of_the_old_one(chat):
    model = FakeModel(Script(waits_for_cancel=True))
    async with chat(model) as c:
        await c.say("hello", wait=False)
        await c.pilot.press("ctrl+n")
        assert model.streams[0].cancelled.is_set()
        assert c.messages == []
        assert c.screen.prompt.ready


async def test_quitting_cancels_the_reply_that_is_decoded(chat):
    model = FakeModel(Script([("a", "")], waits_for_cancel=True))
    async with chat(model) as c:
        await c.say("hello", wait=False)
        await c.pilot.press("ctrl+q")
    assert model.streams[0].cancelled.is_set()
    assert model.streams[0].ended.wait(TIMEOUT_SECONDS)
    assert c.app.return_code == 0


async def test_cut_replies_and_prompts_are_marked(chat):
    scripts = [
        Script(end=reply("", truncated=True)),
        Script(end=reply("long", finished=False)),
        Script(end=reply("b", truncated=True)),
    ]
    async with chat(FakeModel(*scripts)) as c:
        await c.say("one")
        assert c.messages[-1] == (
            "bot: ∅ an empty reply\n▲ the prompt is longer than the model reads, so its beginning was cut"
        )
        await c.say("two")
        assert c.messages[-1] == "bot: long\n… cut at the maximum length"
        await c.say("three")
        assert c.messages[-1] == (
            "bot: b\n▲ the prompt and its context are longer than the model reads, so the oldest text was cut"
        )


async def test_the_status_line_shows_bundle_settings_and_speed(chat, tmp_path):
    gate = threading.Event()
    model = FakeModel(Script(end=reply("a b c", ms=20.0), gate=gate))
    async with chat(model, store=tmp_path / "chats.db") as c:
        assert "demo · int8 · cpu · beam 3\n" in c.drawn
        await c.say("hello", wait=False)
        await c.until(lambda: "demo · replying · int8 · cpu · beam 3" in c.drawn)
        gate.set()
        # Three tokens in 20 ms.
        await c.until(lambda: "demo · int8 · cpu · beam 3 · 20 ms · 150 tokens/s" in c.drawn)
