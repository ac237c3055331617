"""The inspector, the knobs, Again, Edit, and comparisons."""

import json
import math
import threading
from dataclasses import replace

import pytest
from textual.widgets import Input, Static

from edgechat.runtime import ChatModel, DecodingOptions, UsageError
from edgechat.runtime.bundle import MANIFEST_FILE
from edgechat.tui import ChatApp, knobs
from edgechat.tui.engine import Engine, with_seed
from edgechat.tui.messages import KnobStepped
from edgechat.tui.values import AttendedToken, CandidateRow, Trace
from edgechat.tui.widgets.lines import bar, display_token, fit_cells, format_ms, last_cells, sparkline

from .conftest import Chat
from .fakes import FakeModel, Script, TableBackend, byte_codec, reply, table_model

#: Greedy would say "ab"; "cd" begins less likely.
TABLE = {"ab": 0.6, "cd": 0.4}


async def test_the_inspector_shows_the_numbers_of_the_search(chat):
    async with chat(table_model(TABLE), size=(140, 40)) as c:
        await c.say("hi")
        drawn = await c.view("attention")
        assert "a  " in drawn
        assert drawn.count("█100") == 3  # of each of a, b and the end, all goes to the one place there is
        drawn = await c.view("tokens")
        row = next(line for line in drawn.splitlines() if "60%" in line)
        assert f"{math.log(0.6):.2f}" in row
        assert "c 40%" in row  # what might have come instead
        drawn = await c.view("beam")
        assert "step 1 of" in drawn
        assert "● a" in drawn
        c.screen.inspector.beam.focus()
        await c.press("right", "right")
        assert "step 3 of" in c.drawn
        assert "■ ⟨end⟩" in c.drawn
        drawn = await c.view("meter")
        assert "for 2 tokens" in drawn
        assert "beam 3" in drawn
        drawn = await c.view("seen")
        assert "The prompt alone, 2 of at most 64 tokens" in drawn


async def test_the_meter_and_the_status_line_show_a_short_time_with_the_same_decimal(chat):
    async with chat(FakeModel(Script(end=reply("fine", ms=4.25))), size=(140, 40)) as c:
        await c.say("hello")
        drawn = await c.view("meter")
        assert "4.2 ms for 1 token" in drawn
        assert "4.2 ms" in drawn.splitlines()[-2]
        assert [format_ms(ms) for ms in (0.04, 9.9, 10.0, 1234.5)] == ["0.0 ms", "9.9 ms", "10 ms", "1234 ms"]


def long_model():
    return table_model({"abcdefghijklmnopqrstuvwxyz": 0.6, "zyx": 0.4})


async def scroll_hint(c, expected):
    """Wait until this hint, or none, is in the row of the tabs or below it."""
    await c.until(lambda: c.screen.inspector.scroll_hint.render() == expected)
    assert c.drawn.count("scroll") == bool(expected)


async def test_a_view_that_shows_only_a_part_says_which_keys_scroll_it(chat):
    async with chat(long_model()) as c:
        await c.say("a prompt that is longer than the terminal is wide")
        for view, arrows in (("attention", "↑↓←→"), ("tokens", "↑↓"), ("knobs", "↑↓")):
            await c.view(view)
            await scroll_hint(c, f"Shift+Tab {arrows} scroll")
            await c.press("shift+tab")
            assert c.screen.focused is c.screen.inspector.shown
            await scroll_hint(c, f"{arrows} scroll")
            await c.press("escape")
        await c.view("beam")
        await scroll_hint(c, "")  # the first step has one hypothesis
        await c.press("shift+tab", "right", "right")
        await scroll_hint(c, "↑↓ scroll")
        await c.pilot.resize_terminal(60, 24)  # beside the tabs, there is no room for it
        await scroll_hint(c, "")
        assert "knobs" in c.drawn
        await c.press("escape")
        await c.pilot.resize_terminal(140, 40)
        await scroll_hint(c, "")
        await c.view("attention")
        await scroll_hint(c, "Shift+Tab ←→ scroll")


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
async def test_a_view_that_shows_everything_gives_no_hint_of_scrolling(chat, size):
    async with chat(table_model(TABLE, beam=1), size=size) as c:
        for prompt in ("", "hi"):
            if prompt:
                await c.say(prompt)
            for view in ("candidates", "attention", "seen"):
                await c.view(view)
                await scroll_hint(c, "")


async def test_a_token_with_part_of_a_character_is_shown_as_a_dot(chat):
    """Each byte is a token here: é is C3 A9, è is C3 A8."""
    async with chat(table_model({"é": 0.6, "è": 0.4}), size=(140, 40)) as c:
        await c.say("ñ")

        async def tokens(view):
            return [line[78:].split() for line in (await c.view(view)).splitlines()]

        attention = await tokens("attention")
        assert attention[3] == ["·", "ñ"]  # of the prompt
        assert [row[0] for row in attention[4:7]] == ["·", "é", "⟨end⟩"]
        confidence = await tokens("tokens")
        assert [row[0] for row in confidence[4:7]] == ["·", "é", "⟨end⟩"]
        assert "\\xa8 40%" in " ".join(confidence[5])
        assert "● \\xc3" in await c.view("beam")


def test_the_trace_follows_the_tokenization_of_the_reply():
    # he·h·e is the likelier until its end (0.55), which comes only with 0.25 / 0.55; h·e·he then wins.
    said, other = ("h", "e", "he"), ("he", "h", "e")
    codec = byte_codec(("h", "e"))
    table = TableBackend(codec, {other: 0.25, (*other, "he"): 0.3, said: 0.45})
    engine = Engine(ChatModel(table, codec, DecodingOptions(beam=3), device="cpu"), "demo")
    decoding = engine.decode(["hello"], engine.options({"normalize": "none"}))
    list(decoding.updates())
    facts, trace = decoding.result()
    assert [row.tokens for row in facts.candidates] == [said, (*other, "he")]
    for row, way in zip(facts.candidates, trace.replies, strict=True):
        assert [token.text for token in way] == [*row.tokens, "⟨end⟩"]
    assert [token.alternatives[0][0] for token in trace.replies[0][:1]] == ["he"]


async def test_the_conversation_continues_with_the_chosen_candidate(chat):
    model = FakeModel(Script(end=reply("one", "two", "three")))
    async with chat(model, size=(140, 40)) as c:
        await c.say("count")
        c.screen.inspector.candidates.focus()
        await c.press("down", "enter")
        assert c.messages[-1] == "bot: two\n⇅ candidate 2, chosen by you"
        assert [row[0] for row in c.candidates] == [" 1", "● 2", " 3"]
        await c.say("go on")
        assert model.received_turns[-1] == ["two", "go on"]


async def test_candidates_wrap_the_same_with_and_without_a_scrollbar_before(chat):
    long, few = tuple(CandidateRow(n, -1.0, -1.0, "word " * 200, True) for n in (1, 2)), []
    async with chat(FakeModel(), size=(140, 40)) as c:
        table = c.screen.inspector.candidates
        for before in ((), long):
            table.show(before)
            await c.pilot.pause()
            assert table.show_vertical_scrollbar == bool(before)
            table.show((CandidateRow(1, -1.0, -1.0, "x" * 120, True),))
            await c.pilot.pause()
            few.append(c.drawn)
        assert few[0] == few[1]


async def test_an_exchange_is_selected_by_key_or_mouse(chat):
    async with chat(FakeModel(Script(end=reply("one")), Script(end=reply("two"))), size=(140, 40)) as c:
        await c.say("first")
        await c.say("second")
        assert c.candidates[0][3] == "two"
        await c.press("ctrl+up")
        assert c.candidates[0][3] == "one"
        await c.pilot.click(list(c.screen.query("UserMessage"))[1])
        await c.pilot.pause()
        assert c.candidates[0][3] == "two"
        await c.press("ctrl+up", "ctrl+y")
        assert c.app.clipboard == "one"


async def test_the_turns_that_the_model_read_are_shown(chat):
    async with chat(FakeModel(turns=2), size=(140, 40)) as c:
        await c.say("first")
        await c.say("second")
        drawn = " ".join((await c.view("seen")).split())
        assert "The prompt and the turn before it" in drawn
        assert "bot fine you second This model reads the last 2 turns" in drawn


async def test_lowercased_turns_are_shown_so_and_do_not_count_as_cut(chat):
    codec = byte_codec(turns=3)
    codec.lowercase = True
    model = ChatModel(TableBackend(codec, {"OK": 1.0}), codec, DecodingOptions(beam=1), device="cpu")
    async with chat(model, size=(140, 40)) as c:
        await c.say("AbÉ")
        drawn = await c.view("attention")
        assert "AbÉ" in drawn  # what was said
        assert c.chat.transcript.trace(1).source[:2] == ("a", "b")
        await c.say("C" * 62)
        head, shown, _ = await seen(c)
        assert head == "The prompt and the turn before it, the oldest cut, 64 of at most 64 tokens:"
        assert shown == [("bot", "k"), ("you", "c" * 62)]
        await c.say("D" * 64)
        head, shown, _ = await seen(c)
        assert (head, shown) == ("The prompt alone, 64 of at most 64 tokens:", [("you", "d" * 64)])


B, OK = ("you", "b" * 32), ("bot", "ok")


@pytest.mark.parametrize(
    ("length", "said", "rows", "cut"),
    [
        (6, "The prompt and the 2 turns before it, 42 of", [B, OK, ("you", "c" * 6)], ""),
        (40, "The prompt and the 2 turns before it, the oldest cut, 64 of", [("you", "b" * 20), OK], "."),
        (60, "The prompt and the turn before it, 64 of", [OK], ", including 1 whole turn."),
        (
            62,
            "The prompt and the turn before it, the oldest cut, 64 of",
            [("bot", "k")],
            ", including 1 whole turn",
        ),
        (63, "The prompt alone, 64 of", [("you", "c" * 63)], ", including 2 whole turns."),
        (80, "The end of the prompt, 64 of", [("you", "c" * 64)], ", including 2 whole turns."),
    ],
)
async def test_cut_turns_are_not_counted_as_seen(chat, tmp_path, length, said, rows, cut):
    codec = byte_codec(turns=3)
    model = ChatModel(TableBackend(codec, {"ok": 1.0}), codec, DecodingOptions(beam=1), device="cpu")
    if rows[-1][1][0] != "c":
        rows = [*rows, ("you", "c" * length)]
    async with chat(model, store=tmp_path / "chats.db") as c:
        for prompt in ("a" * 60, "b" * 32, "c" * length):
            await c.say(prompt)
        head, shown, note = await seen(c)
        assert head.startswith(said)
        assert head.endswith(" of at most 64 tokens:")
        assert shown == rows
        told = "▲ The text was longer than the model reads, so its beginning was cut"
        assert note.startswith(told + cut) if cut else "▲" not in note
        mark = "▲ the prompt and its context are longer than the model reads, so the oldest text was cut"
        assert (mark in c.messages[-1]) == bool(cut)
        # The conversation is kept, but not what was left of it: that a replay shows.
        await c.wait_until_saved()
        await c.press("ctrl+l")
        await c.until(lambda: "3 exchanges" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.app.screen is c.chat and not c.chat.transcript.trace(3))
        head, shown, note = await seen(c)
        assert head == f"The prompt and the 2 turns before it{', the oldest cut' if cut else ''}:"
        assert shown == [B, OK, ("you", "c" * length)]
        assert note.startswith(f"{told}. It is shown in full here; replay") if cut else "▲" not in note


async def seen(c):
    """The contents of the view "seen": its first line, the turns by speaker, and the note."""
    await c.view("seen")
    head, *rows, note = (row.visual for row in c.chat.inspector.seen.query(Static))
    return head.plain, [(row.label.plain, row.text.plain) for row in rows], note.plain


async def test_a_row_of_attention_is_highlighted_by_key_and_mouse(chat):
    async with chat(table_model(TABLE), size=(140, 40)) as c:
        await c.say("hi")
        c.screen.show_view("attention")
        attention = c.screen.inspector.attention
        attention.focus()
        await c.press("down")
        assert attention.highlighted == 1
        await c.pilot.hover(attention, offset=(3, 3))
        assert attention.highlighted == 2
        await c.press("down", "down", "down")
        assert attention.highlighted == 2


async def test_attention_is_shown_by_numbers_and_shades_and_scrolls_both_ways(chat):
    weights = (0.62, 0.3, 0.15, 0.05, 0.049, 0.004, *[0.0] * 24)
    way = tuple(AttendedToken(f"says{n}", weights) for n in range(30))
    trace = Trace(tuple(f"word{n}" for n in range(30)), (), 64, (way,), ())
    async with chat(FakeModel()) as c:
        c.screen.show_view("attention")
        attention = c.screen.inspector.attention
        attention.show(trace, 0, "")
        attention.focus()
        await c.pilot.pause()
        (row,) = (row for row in c.drawn.splitlines() if "says0 " in row)
        # From 60 percent, 30, 15 and 5 on; what rounds to nothing is a dot.
        assert row.split("says0")[1].split()[:9] == ["█", "62", "▓", "30", "▒", "15", "░", "5", "5"]
        assert row.split("5")[-1].split()[0] == "·"
        assert "word29" not in c.drawn
        await c.press(*["right"] * 25, "end")
        for shown in ("word29", "says29"):  # the names stay in view
            assert shown in c.drawn
        assert "word0 " not in c.drawn
        assert "says0 " not in c.drawn
        await c.press(*["left"] * 25, "home")
        assert "word0 " in c.drawn
        assert "says0 " in c.drawn


async def test_steps_of_the_search_and_exchanges_are_browsed_both_ways(chat):
    async with chat(table_model(TABLE), size=(140, 40)) as c:
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
        c.screen.show_view("beam")
        c.screen.inspector.beam.focus()
        await c.press("right", "right", "left")
        assert "step 2 of" in c.drawn
        await c.press("left", "left", "left")
        assert "step 1 of" in c.drawn
        c.screen.conversation.focus()
        await c.press("up", "up", "down")
        assert c.screen.selected_number == 2
        await c.press("escape")
        assert c.screen.selected_number == 3
        assert c.screen.focused is c.screen.prompt


# --- Knobs


async def test_a_changed_setting_applies_to_the_next_reply_and_is_stored_with_it(chat):
    model = FakeModel(beam=3)
    async with chat(model, size=(140, 40)) as c:
        await c.press("f4", "down", "right", "right")
        assert "● knobs · int8 · cpu · beam 5" in c.drawn
        await c.say("hello")
        assert (model.options.beam, model.options.n_best) == (5, 5)
        c.screen.inspector.knobs.focus()
        await c.press("backspace")
        assert "● knobs" not in c.drawn
        await c.say("again")
        assert model.options.beam == 3
        await c.press("ctrl+up")
        assert "beam 5" in await c.view("meter")


async def test_a_click_on_an_arrow_changes_the_value_and_elsewhere_highlights_the_row(chat):
    async with chat(FakeModel(beam=3), size=(140, 40)) as c:
        await c.press("f4")
        knobs = c.screen.inspector.knobs
        head, normalize = 2, 2  # rows above, and the knob's among the others

        async def click(row, text):
            """Click without moving the mouse before."""
            drawn = c.drawn.splitlines()[knobs.region.y + head + row]
            await c.pilot.click(knobs, (drawn.index(text) - knobs.region.x, head + row))
            await c.pilot.pause()
            return knobs.highlighted, c.screen.knob_settings.changes

        assert await click(1, "beam") == (1, {})
        assert await click(0, "‹") == (0, {"sample": True, "temperature": 0.8, "top_p": 0.9})
        assert await click(0, "›") == (0, {})
        assert await click(1, "›") == (1, {"beam": 4})
        assert await click(1, "4") == (1, {"beam": 4})
        await click(1, "‹")
        assert await click(1, "‹") == (1, {"beam": 2})
        assert await click(normalize, "›") == (normalize, {"beam": 2, "normalize": "average"})
        await c.pilot.click(knobs, (2, 0))
        assert knobs.highlighted == normalize


async def test_a_value_can_be_typed_and_an_invalid_one_is_refused_with_the_reason(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.press("f4", "down", "enter")
        field = c.app.screen.query_one(Input)
        for typed, said in (("x", "'x' is not a whole number"), ("0", "beam must be a whole number from 1")):
            field.value = typed
            await c.press("enter")
            assert said in c.drawn
        field.value = "9"
        await c.press("enter")
        await c.until(lambda: "beam 9" in c.drawn)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefix", "– yes"),
        ("banned", ("a, b",)),
        ("banned", ('"', 'say "no"', '"so, to say"', " art", ",")),
        ("required", ("one", "two")),
    ],
)
async def test_accepting_a_text_without_a_change_keeps_it(chat, name, value):
    async with chat(FakeModel(), size=(140, 40)) as c:
        c.screen.use_preset({name: value})
        await c.press("f4")
        names = [state.knob.name for state in c.screen.knob_settings.states()]
        c.screen.inspector.knobs.highlight(1 + names.index(name))
        await c.press("enter", "enter")
        assert c.app.screen is c.screen
        assert c.screen.knob_settings.changes == {name: value}


async def test_an_empty_text_is_drawn_as_a_dash(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.press("f4")
        names = [state.knob.name for state in c.screen.knob_settings.states()]
        c.screen.inspector.knobs.highlight(1 + names.index("banned"))
        await c.pilot.pause()
        assert "‹ – ›" in c.drawn
        await c.press("enter")
        assert c.app.screen.query_one(Input).value == ""


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("x , y,, ", ("x", "y")),
        ('"a, b", c', ("a, b", "c")),
        ('"open, x', ('"open', "x")),  # a mark without another is one of the text
        ('""', ()),
    ],
)
def test_several_texts_are_separated_by_commas(typed, value):
    assert knobs.Words(several=True).parse(typed) == value


def test_an_option_sets_its_mode_and_leaving_a_mode_resets_its_options():
    engine = Engine(FakeModel(), "demo")
    changes = engine.with_change({}, "length_penalty", 1.5)
    assert changes == {"length_penalty": 1.5}
    changes = engine.with_change(changes, "normalize", "average")
    assert changes == {"normalize": "average"}
    changes = engine.with_change(changes, "length_penalty", 1.0)
    assert changes == {"length_penalty": 1.0}
    changes = engine.with_change({}, "temperature", 0.5)
    assert changes == {"temperature": 0.5, "sample": True}
    assert engine.with_change(changes, "sample", False) == {}
    with pytest.raises(UsageError, match="beam"):
        engine.with_change({}, "beam", 0)


def test_a_min_length_that_no_reply_can_have_is_refused_by_the_model():
    engine = Engine(FakeModel(), "demo")  # at most 64 tokens
    assert engine.options({"min_length": 63})["min_length"] == 63
    with pytest.raises(
        UsageError, match="min_length is 64, but replies of this model have at most 64 tokens"
    ):
        engine.options({"min_length": 64})
    assert engine.options({"min_length": 64, "max_length": 65})["min_length"] == 64


def test_every_knob_is_an_option_that_it_can_show_step_and_parse():
    options = DecodingOptions().to_json()
    shown = [knob for knob in knobs.KNOBS if knob.name in options]
    assert {"beam", "normalize", "length_penalty", "min_length", "max_length"} <= {k.name for k in shown}
    for knob in shown:
        value = options[knob.name]
        assert knob.kind.parse(knob.kind.show(value)) == value
        assert ("commas" in knob.help) == getattr(knob.kind, "several", False)  # which nobody would guess
        up = knob.kind.step(value, 1)
        if up != value:
            assert knob.kind.parse(knob.kind.show(up)) == up
            company = {"groups": 2} if knob.name == "diversity" else {}
            assert Engine(FakeModel(beam=4), "demo").with_change(company, knob.name, up)[knob.name] == up


@pytest.mark.parametrize(
    ("name", "shown", "more", "less"),
    [("length_penalty", "0.6", 0.7, 0.5), ("temperature", "1", 1.1, 0.9), ("diversity", "0.5", 0.6, 0.4)],
)
def test_a_number_steps_from_its_default_and_back(name, shown, more, less):
    (kind,) = (knob.kind for knob in knobs.KNOBS if knob.name == name)
    assert kind.show(None) == shown
    assert (kind.step(None, 1), kind.step(None, -1)) == (more, less)
    assert kind.step(more, -1) is kind.step(less, 1) is kind.parse(shown) is None
    assert kind.step(kind.minimum, -1) == kind.minimum  # there is no word below it
    own = Engine(FakeModel(), "demo")
    own.model.defaults = DecodingOptions(length_penalty=0.6)
    assert own.with_change({"length_penalty": 0.7}, "length_penalty", None) == {}  # as the bundle has it


def test_a_step_from_a_typed_value_outside_the_range_never_goes_the_other_way():
    kind = knobs.get_knob("beam").kind
    assert (kind.step(100, 1), kind.step(100, -1)) == (100, 99)
    kind = knobs.get_knob("temperature").kind
    assert (kind.step(0.05, -1), kind.step(0.05, 1)) == (0.05, 0.15)


def test_one_step_below_the_lowest_number_is_the_word():
    kinds = {knob.name: knob.kind for knob in knobs.KNOBS}
    for name, word, least in (("max_length", "learned", 1), ("top_k", "off", 1), ("seed", "new", 0)):
        assert kinds[name].show(kinds[name].step(least, -1)) == word
        assert kinds[name].step(None, -1) is None
        assert kinds[name].step(None, 1) == least


def test_an_unknown_word_is_refused_with_the_known_ones():
    kind = next(knob.kind for knob in knobs.KNOBS if knob.name == "normalize")
    with pytest.raises(ValueError, match=r"^'zzz' is not one of none, gnmt, average$"):
        kind.parse("zzz")


async def test_a_refused_step_or_value_gives_the_reason(chat):
    async with chat(FakeModel(beam=5), size=(140, 40)) as c:
        c.screen.use_preset({"groups": 5})
        await c.press("f4")
        names = [state.knob.name for state in c.screen.knob_settings.states()]
        why = "groups cannot be used with sample: each sample is drawn on its own, until it ends"
        for name, value in (("sample", "on"), ("temperature", "1.1")):
            assert c.screen.knob_settings.why_invalid(name, value) == why
            c.screen.inspector.knobs.highlight(1 + names.index(name))
            await c.press("up", "down", "right")
            beside = [line[78:].strip() for line in c.drawn.splitlines()]
            assert why in " ".join(beside)  # whole, though it is longer than a line
            assert c.screen.knob_settings.changes == {"groups": 5}


async def test_a_step_skips_incompatible_values(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        c.screen.use_preset({"beam": 6, "groups": 3})
        c.screen.post_message(KnobStepped("groups", 1))
        await c.until(lambda: c.screen.options["groups"] == 6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "normalize gnmt · length penalty 0.6 · max length learned · stop exact"),
        (
            {"normalize": "none", "groups": 3, "min_length": 2, "banned": ("x", "y")},
            "normalize none · min length 2 · max length learned · stop exact · groups 3 · diversity 0.5 · "
            "banned x, y",
        ),
        (
            {"sample": True, "top_p": 0.9, "seed": 7},
            "normalize gnmt · length penalty 0.6 · max length learned · sample on · temperature 1 · "
            "top p 0.9 · seed 7",
        ),
    ],
)
def test_the_settings_of_a_reply_include_defaults_but_nothing_without_effect(changes, said):
    options = Engine(FakeModel(beam=3), "demo").options(changes)
    for kept in (options, json.loads(json.dumps(options))):
        assert " · ".join(knobs.effective_settings(kept)) == f"beam 3 · {said}"


async def test_the_whole_meter_fits_into_a_small_terminal_with_every_default(chat):
    async with chat(table_model(TABLE)) as c:
        for prompt in ("one", "two"):
            await c.say(prompt)
        await c.view("meter")
        reply = replace(c.screen.selected_exchange.reply, confidence=0.83, first_ms=7.25, step_ms=(1.0,) * 60)
        c.screen.inspector.meter.show(reply, [100.0, 200.0])
        await c.pilot.pause()
        names = ("bundle", "settings", "reply", "confidence", "speed", "first words", "steps", "memory")
        rows = [line.strip() for line in c.drawn.splitlines()]
        for name in names:
            assert any(row.startswith(f"{name} ") for row in rows), name
        text = c.words
        assert "beam 3 · normalize gnmt · length penalty 0.6 · max length learned stop exact" in text


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [
        (0.0, "less than 1%"),
        (0.0099, "less than 1%"),
        (0.83, "83%"),
        (0.99, "99%"),
        (0.9951, "more than 99%"),
    ],
)
async def test_the_meter_calls_no_reply_certain(chat, confidence, shown):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.view("meter")
        reply = replace(c.screen.selected_exchange.reply, confidence=confidence)
        c.screen.inspector.meter.show(reply, [])
        await c.pilot.pause()
        assert f"confidence {shown} likely to be right" in c.words


async def test_a_preset_sets_several_knobs_and_reset_restores_them(chat):
    model = FakeModel(beam=3)
    async with chat(model, size=(140, 40)) as c:
        await c.press("f4")
        assert "‹ bundle's defaults ›" in c.drawn
        await c.press("right")
        assert "‹ greedy ›" in c.drawn
        await c.say("hello")
        assert model.options.beam == 1
        c.screen.inspector.knobs.focus()
        await c.press("backspace")
        assert "‹ bundle's defaults ›" in c.drawn


def test_a_draw_has_a_seed_so_that_it_can_be_repeated():
    options = {"sample": True, "seed": None}
    assert isinstance(with_seed(options)["seed"], int)
    assert with_seed({"sample": False, "seed": None})["seed"] is None
    assert with_seed({"sample": True, "seed": 7})["seed"] == 7


# --- Other ways to a reply


async def test_again_replies_to_the_last_prompt_with_the_current_settings(chat, tmp_path):
    model = FakeModel(Script(end=reply("one")), Script(end=reply("two")), Script(end=reply("three")))
    async with chat(model, store=tmp_path / "chats.db") as c:
        await c.say("first")
        await c.say("second")
        await c.press("ctrl+r")
        await c.until(lambda: c.messages == ["you: first", "bot: one", "you: second", "bot: three"])
        assert model.received_turns[-1] == model.received_turns[-2] == ["one", "second"]
        await c.wait_until_saved()
        summary = (await c.store_thread.run(lambda store: store.find()))[0]
        assert summary.exchanges == 2


async def test_the_last_prompt_can_be_edited_and_resent_or_left(chat):
    model = FakeModel(Script(end=reply("one")), Script(end=reply("two")))
    async with chat(model) as c:
        await c.say("first")
        await c.press("f6")
        assert c.prompt == "first"
        assert "editing the last prompt" in c.drawn
        await c.press("escape")
        assert c.prompt == ""
        await c.press("f6", "!", "enter")
        await c.until(lambda: c.messages == ["you: first!", "bot: two"])
        assert model.received_turns[-1] == ["first!"]


async def test_an_edited_prompt_stopped_before_any_text_returns_to_the_input(chat):
    async with chat(FakeModel(Script(end=reply("one")), Script(waits_for_cancel=True))) as c:
        await c.say("first")
        await c.press("f6", "!", "enter", "escape")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages == ["you: first", "bot: one"]
        assert c.prompt == "first!"
        await c.type_fast("", "ctrl+u", "ctrl+r", "escape")  # the same prompt: there is nothing to give back
        await c.until(lambda: c.screen.prompt.ready and not c.chat.reply_task)
        assert c.prompt == ""


@pytest.fixture
def replies():
    """A model whose replies are numbered."""
    return FakeModel(*(Script(end=reply(f"reply {n}")) for n in range(1, 10)))


async def said_in(c):
    """The stored exchanges and marks by title."""
    await c.wait_until_saved()
    found = await c.store_thread.run(lambda store: [store.load(summary.id) for summary in store.find()])
    return {title: [(e.prompt, e.bot_turn, e.mark) for e in exchanges] for title, exchanges in found}


async def test_an_earlier_prompt_is_edited_in_a_copy(chat, tmp_path, replies):
    async with chat(replies, store=tmp_path / "chats.db") as c:
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
        await c.press("ctrl+up", "ctrl+up", "ctrl+g", "ctrl+down", "f6")
        assert c.prompt == "two"
        assert "editing prompt 2 in a copy" in c.drawn
        await c.press("!", "enter")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages == ["you: one", "bot: reply 1\n✓ good", "you: two!", "bot: reply 4"]
        assert "in a copy" in c.notices[-1]
        assert replies.received_turns[-1] == ["reply 1", "two!"]
        await c.say("and on")
        await c.press("alt+d")
        one = ("one", "reply 1", "good")
        assert await said_in(c) == {
            "one (copy)": [one, ("two!", "reply 4", None), ("and on", "reply 5", "bad")],
            "one": [one, ("two", "reply 2", None), ("three", "reply 3", None)],
        }


async def test_again_at_an_earlier_exchange_continues_in_a_copy(chat, tmp_path, replies):
    async with chat(replies, store=tmp_path / "chats.db") as c:
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
        await c.press("ctrl+up", "ctrl+r")
        await c.until(lambda: c.messages[-1] == "bot: reply 4")
        await c.say("four")
        await c.press("ctrl+up", "ctrl+r")
        await c.until(lambda: c.messages[-1] == "bot: reply 6")
        await c.press("ctrl+up", "ctrl+r")
        await c.until(lambda: c.messages == ["you: one", "bot: reply 7"])
        titles = [s.title for s in await c.store_thread.run(lambda store: store.find())]
        assert titles == ["one", "one (copy)", "one (copy)", "one"]


async def test_training_data_is_not_replaced_by_another_reply(chat, tmp_path, replies):
    async with chat(replies, store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.press("ctrl+g", "ctrl+r")
        await c.until(lambda: c.messages == ["you: one", "bot: reply 2"])
        await c.press("alt+d", "ctrl+r")  # what is bad is of no use
        await c.until(lambda: c.messages == ["you: one", "bot: reply 3"])
        await c.wait_until_saved()
        found = await c.store_thread.run(lambda store: [store.load(s.id)[1] for s in store.find()])
        assert [[(e.bot_turn, e.mark) for e in exchanges] for exchanges in found] == [
            [("reply 3", None)],
            [("reply 1", "good")],
        ]


async def test_if_nothing_is_saved_only_the_last_prompt_can_be_repeated(chat, replies):
    async with chat(replies) as c:
        await c.say("one")
        await c.say("two")
        await c.press("ctrl+up", "ctrl+r", "f6")
        assert c.messages[-1] == "bot: reply 2"
        assert c.prompt == ""
        assert ["only the latest exchange can be replaced" in notice for notice in c.notices] == [True]
        await c.press("ctrl+down", "ctrl+r")
        await c.until(lambda: c.messages[-1] == "bot: reply 3")


async def test_a_title_given_during_the_first_reply_is_saved(chat, tmp_path):
    gate = threading.Event()
    async with chat(FakeModel(Script(gate=gate)), store=tmp_path / "chats.db") as c:
        await c.say("hello", wait=False)
        c.screen.transcript.rename("a greeting")
        gate.set()
        await c.until(lambda: c.screen.prompt.ready)
        assert await said_in(c) == {"a greeting": [("hello", "fine", None)]}


async def test_two_bundles_reply_side_by_side_with_their_difference(chat):
    first = FakeModel(Script(end=reply("good day to you")), turns=2)
    replies = [Script(end=reply(text)) for text in ("good evening", "good day to you")]
    second = FakeModel(*replies, precision="fp32")
    async with chat(first, second, size=(140, 40)) as c:
        await c.press("f8", "enter")
        await c.until(lambda: "demo | other1" in c.drawn)
        await c.say("hello")
        assert c.messages == [
            "you: hello",
            "bot: demo · int8 · cpu · 12 ms\ngood day to you",
            "bot: other1 · fp32 · cpu · 12 ms\ngood evening\n≠ differs from token 2 on",
        ]
        one, two = c.screen.query("ReplyMessage")
        assert two.region.x >= one.region.right
        await c.say("and?")
        assert c.messages[-1].endswith("= the same reply")
        assert second.received_turns[-1] == ["good day to you", "and?"]  # both see the one conversation
        await c.press("f8")
        await c.say("alone")
        assert len(second.received_turns) == 2


async def test_the_bundle_can_be_switched_and_replies_name_it(chat):
    other = FakeModel(Script(end=reply("from the other")), precision="fp32")
    async with chat(FakeModel(), other) as c:
        await c.say("hello")
        await c.press("ctrl+b", "down", "enter")
        await c.until(lambda: "other1 · not saved · fp32 · cpu" in c.drawn)
        await c.say("and you?")
        assert c.messages[-1] == "bot: other1 · fp32 · cpu\nfrom the other"
        assert other.received_turns == [["fine", "and you?"]]


async def test_a_bundle_that_cannot_be_opened_leaves_the_current_one(chat, tmp_path):
    bundle = a_bundle(tmp_path / "damaged")
    async with chat(FakeModel()) as c:
        await c.press("ctrl+b", *bundle, "enter")
        await c.until(lambda: c.notices)
        assert "KeyError" in c.notices[0]
        await c.say("hello")
        assert c.messages[-1] == "bot: fine"


def a_bundle(folder):
    """The path of a folder that looks like a bundle."""
    folder.mkdir()
    (folder / MANIFEST_FILE).touch()
    return str(folder)


async def test_each_reason_why_a_prompt_waits_is_shown_once(chat, tmp_path):
    bundle = a_bundle(tmp_path / "mine")
    gate = threading.Event()

    def load(path):
        gate.wait()
        return FakeModel()

    app = ChatApp(load, [])
    async with app.run_test() as pilot:
        await pilot.pause()
        c = Chat(app, pilot)
        await c.press("h", "i", "enter", "enter")
        await c.press("ctrl+b", *bundle, "enter", "enter", "enter")
        assert c.notices == ["No bundle is open: choose one first", "mine is loading"]
        gate.set()


async def test_without_a_bundle_the_welcome_explains_how_to_make_one(chat, tmp_path):
    bundle = a_bundle(tmp_path / "mine")
    app = ChatApp(lambda path: FakeModel(), [])
    async with app.run_test() as pilot:
        await pilot.pause()
        c = Chat(app, pilot)
        assert "No bundle is open" in c.drawn
        assert "edgechat train mine.jsonl --out runs/mine" in c.drawn
        assert c.drawn.count("^b Bundle") == 2  # in the welcome, and at the bottom
        await c.press("h", "i", "enter", "f4", "f3", "ctrl+r", "f12", "ctrl+g", "escape")
        assert c.notices == ["No bundle is open: choose one first"]
        await c.press("ctrl+b", *bundle, "enter")
        await c.until(lambda: c.chat.prompt.ready)
        assert c.prompt == "hi"


async def test_stopping_a_comparison_keeps_both_texts(chat):
    async with chat(
        FakeModel(), FakeModel(Script([("half", "")], waits_for_cancel=True)), size=(140, 40)
    ) as c:
        await c.press("f8", "enter")
        await c.say("hello", wait=False)
        await c.until(lambda: "half" in c.messages[-1])
        await c.press("escape")
        assert c.messages[-2].startswith("bot: demo · int8 · cpu · 12 ms\nfine")
        assert c.messages[-1].endswith("half\n■ stopped")
        assert c.screen.prompt.ready


# --- Drawing


@pytest.mark.parametrize(
    ("text", "width", "drawn"),
    [
        ("ab", 4, "ab  "),
        ("abcdef", 4, "abc…"),
        ("你好吗", 4, "你… "),
        ("你", 3, "你 "),
        ("a\nb", 4, "a⏎b "),
        ("", 2, "  "),
    ],
)
def test_a_text_fills_exactly_its_cells(text, width, drawn):
    assert fit_cells(text, width) == drawn


@pytest.mark.parametrize(
    ("text", "width", "drawn"),
    [
        ("abcd", 4, "abcd"),
        ("abcdef", 4, "…def"),
        ("你好吗", 4, "…吗"),
        ("你好吗", 5, "…好吗"),
        ("a\nbc", 3, "…bc"),
        ("", 2, ""),
    ],
)
def test_of_a_long_text_its_end_is_shown(text, width, drawn):
    assert last_cells(text, width) == drawn


async def test_the_end_of_a_hypothesis_is_in_the_beam_view_however_long_it_is(chat):
    text = "abcdefghijklmnopqrstuvwxyz" * 2
    async with chat(table_model({text: 0.9, "zyx": 0.1}), size=(50, 40)) as c:
        await c.say("hi")
        await c.view("beam")
        c.screen.inspector.beam.focus()
        await c.press(*["right"] * 51)
        assert "step 52 of" in c.drawn
        assert "klmnopqrstuvwxy  -0.11" in c.drawn  # before the last letter, z
        assert "● z" in c.drawn


def test_figures_as_bars():
    assert bar(1, 3) == "███"
    assert bar(0.5, 3) == "█▌ "
    assert bar(0, 3) == "   "
    assert sparkline([1, 4, 8], 10) == "▁▄█"
    assert sparkline([1, 1, 8, 1], 2) == "▁█"  # a cell shows the largest of its share
    assert sparkline([], 5) == ""
    assert [display_token(t) for t in ("", " ", " day", "\n", "\x1b")] == ["·", "␣", "day", "⏎", "␛"]
