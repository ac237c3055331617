"""How replies end: with an error, stopped, or while another exchange is selected."""

import threading
from dataclasses import replace

import pytest
from textual.widgets import TextArea

from edgechat.runtime import UsageError
from edgechat.runtime.bundle import MANIFEST_FILE
from edgechat.tui import ChatApp
from edgechat.tui.titles import title_of

from .conftest import TIMEOUT_SECONDS, Chat
from .fakes import FakeModel, Script, reply, table_model


async def test_an_error_of_a_second_attempt_is_shown_below_the_earlier_reply(chat):
    async with chat(FakeModel(Script(), Script(end=UsageError("this went wrong")))) as c:
        await c.say("hello")
        await c.press("ctrl+r")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages == ["you: hello", "bot: fine", "error: this went wrong"]
        assert c.prompt == ""  # it stands above
        await c.press("f6", "!", "enter")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages == ["you: hello", "bot: fine", "error: this went wrong"]
        assert c.prompt == "hello!"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_complete_first_reply_counts_if_the_second_one_does_not_end(chat, tmp_path, fails):
    end = Script([("half", "")], UsageError("no")) if fails else Script([("half", "")], waits_for_cancel=True)
    whole = Script(end=reply("one", "two", finished=False, truncated=True))
    first = FakeModel(whole)
    async with chat(first, FakeModel(end), size=(140, 40), store=tmp_path / "chats.db") as c:
        await c.press("f8", "enter")
        await c.say("hello", wait=False)
        await c.until(lambda: "half" in c.drawn)
        if not fails:
            await c.press("escape")
        await c.until(lambda: c.screen.prompt.ready)
        marks = "… cut at the maximum length\n▲ the prompt is longer than the model reads"
        assert c.messages[1].startswith(f"bot: demo · int8 · cpu · 12 ms\none\n{marks}")
        ended = "✗ failed" if fails else "■ stopped"
        assert c.messages[2].endswith(f"half\n{ended}")
        assert c.prompt == ""
        assert c.messages[3:] == (["error: other1: no"] if fails else [])
        await c.press("ctrl+g")
        assert "✓ good" in c.messages[1]
        assert c.messages[2].endswith(f"half\n{ended}")
        await c.press("f8")
        await c.say("and?")
        assert first.received_turns[-1] == ["one", "and?"]
        await c.wait_until_saved()
        _, (exchange, _) = await c.store_thread.run(lambda store: store.load(1))
        assert (exchange.state, exchange.bot_turn, exchange.other) == ("done", "one", None)
        assert len(exchange.reply.candidates) == 2


async def test_a_complete_first_reply_has_its_trace_if_the_second_one_is_stopped(chat):
    async with chat(table_model({"ab": 1.0}), FakeModel(Script([("half", "")], waits_for_cancel=True))) as c:
        await c.press("f8", "enter")
        await c.say("hello", wait=False)
        await c.until(lambda: "half" in c.messages[-1])
        await c.press("escape")
        assert "step 1 of" in await c.view("beam")


async def test_a_mark_is_removed_when_another_candidate_is_chosen(chat):
    async with chat(FakeModel(Script(end=reply("one", "two"))), size=(140, 40)) as c:
        await c.say("hello")
        await c.press("ctrl+g")
        c.screen.inspector.candidates.focus()
        await c.press("enter")
        assert c.messages[-1] == "bot: one\n✓ good"  # it is the same
        await c.press("down", "enter")
        assert c.messages[-1] == "bot: two\n⇅ candidate 2, chosen by you"
        assert c.screen.selected_exchange.mark is None
        await c.press("f10")
        c.app.screen.query_one(TextArea).text = "three"
        await c.press("ctrl+s")
        assert c.screen.selected_exchange.mark == "bad"
        c.screen.inspector.candidates.focus()
        await c.press("up", "enter")
        assert (c.screen.selected_exchange.reply.chosen, c.screen.selected_exchange.mark) == (
            0,
            "bad",
        )  # as its correction stays


async def test_the_status_line_shows_the_speed_of_the_selected_exchange(chat):
    slow, fast = (replace(reply("fine"), ms=ms) for ms in (400.0, 100.0))
    async with chat(FakeModel(Script(end=slow), Script(end=fast)), size=(140, 40)) as c:
        await c.say("one")
        await c.say("two")
        assert "100 ms" in c.drawn.splitlines()[-2]
        await c.press("ctrl+up")
        assert "400 ms" in c.drawn.splitlines()[-2]


async def test_a_reply_that_ends_keeps_the_selection(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(), Script(), Script(gate=gate))) as c:
        await c.say("one")
        await c.say("two")
        await c.say("three", wait=False)
        await c.press("ctrl+up", "ctrl+up")
        gate.set()
        await c.until(lambda: c.screen.prompt.ready)
        await c.press("ctrl+g")
        assert [exchange.mark for exchange in c.screen.transcript] == ["good", None, None]
        await c.say("four")
        assert c.screen.selected_number == 4


async def test_returning_from_a_view_keeps_the_selection(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.say("one")
        await c.say("two")
        await c.press("ctrl+up", "shift+tab")
        assert c.screen.inspector.shown.has_focus
        await c.press("escape")
        assert c.screen.prompt.has_focus
        assert c.screen.selected_number == 1
        c.screen.conversation.focus()
        await c.press("escape")
        assert c.screen.prompt.has_focus
        assert c.screen.selected_number == 2


@pytest.mark.parametrize("second", [True, False])
async def test_if_the_first_bundle_fails_the_next_one_becomes_current(second):
    gate = threading.Event()

    def load(path):
        if path == "mine":
            raise UsageError("mine is damaged")
        gate.wait(TIMEOUT_SECONDS)
        if not second:
            raise UsageError(f"{path} is damaged too")
        return FakeModel()

    app = ChatApp(load, ["mine", "other"])
    async with app.run_test() as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: c.notices)
        assert c.notices == ["mine is damaged"]
        await c.until(lambda: "Loading other" in c.drawn)
        assert "other · not saved · loading" in c.drawn
        gate.set()
        if second:
            await c.until(lambda: c.screen.prompt.ready)
            await c.say("hello")
            assert c.messages == ["you: hello", "bot: fine"]
        else:
            await c.until(lambda: c.messages)
            assert c.messages == ["error: other is damaged too. No bundle is open."]


async def test_the_title_of_a_copy_of_a_copy_says_so_once(chat):
    async with chat(FakeModel()) as c:
        title = "a title of fifty characters, which is nearly all .."
        c.screen.transcript.rename(title)
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
        assert c.screen.transcript.copy_before(3).title == f"{title} (copy)"
        assert c.screen.transcript.copy_before(3).copy_before(2).title == f"{title} (copy)"


async def test_the_title_of_a_copy_is_not_longer_than_other_titles(chat):
    async with chat(FakeModel()) as c:
        c.screen.transcript.rename("x" * 60)
        for prompt in ("one", "two"):
            await c.say(prompt)
        copy = c.screen.transcript.copy_before(2)
        assert copy.title == "x" * 52 + "… (copy)"  # 52 + 1 + 7 characters are 60
        assert title_of(copy.title) == copy.title  # accepting it in the dialog does not cut it


async def test_again_is_not_offered_while_editing(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        assert c.screen.active_bindings["ctrl+r"].enabled
        await c.press("f6", "ctrl+r")
        assert c.screen.activity() == "editing the last prompt"
        assert c.prompt == "one"
        await c.press("enter")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages == ["you: one", "bot: fine"]


async def test_actions_that_need_a_bundle_are_not_offered_without_one(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("one")
        assert c.screen.check_action("export_all", ())
    async with chat(FakeModel(), store=path) as c:
        store_thread = c.store_thread
        app = ChatApp(lambda path: FakeModel(), [], store_thread=store_thread)
        async with app.run_test(size=(200, 40)) as pilot:
            c = Chat(app, pilot, store_thread)
            await c.press("ctrl+l")
            await c.until(lambda: "1 exchange" in c.drawn)
            await c.press("enter")
            await c.until(lambda: c.messages)
            await c.until(lambda: "Edit" in c.drawn)
            assert "Again" not in c.drawn
            assert not c.screen.check_action("export_all", ())
            bundle = tmp_path / "mine"
            bundle.mkdir()
            (bundle / MANIFEST_FILE).touch()
            await c.press("ctrl+b", *str(bundle), "enter")
            await c.until(lambda: "Again" in c.drawn)


async def test_the_correction_of_a_failed_reply_is_copied(chat):
    async with chat(FakeModel(Script(end=UsageError("no")))) as c:
        await c.say("one")
        await c.press("f10")
        c.app.screen.query_one(TextArea).text = "ONE"
        await c.press("ctrl+s", "ctrl+y")
        assert c.app.clipboard == "ONE"


async def test_a_prompt_cannot_be_sent_until_both_bundles_are_loaded(chat, tmp_path):
    gate = threading.Event()

    def load(path):
        if path != "mine":
            gate.wait(TIMEOUT_SECONDS)
        return FakeModel()

    app = ChatApp(load, ["mine"])
    async with app.run_test(size=(140, 40)) as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: c.screen.prompt.ready)
        bundle = tmp_path / "other"
        bundle.mkdir()
        (bundle / MANIFEST_FILE).touch()
        await c.press("f8", *str(bundle), "enter")
        await c.until(lambda: "mine | other · not saved · loading" in c.drawn)
        await c.say("hello", wait=False)
        assert c.notices == ["mine | other is loading"]
        gate.set()
        await c.until(lambda: c.screen.prompt.ready)
        await c.press("enter")
        await c.until(lambda: len(c.messages) == 3 and c.screen.prompt.ready)


async def test_an_error_of_one_of_two_bundles_names_the_bundle(chat):
    async with chat(FakeModel(), FakeModel(closed=True), size=(140, 40)) as c:
        c.screen.use_preset({"prefix": "so"})
        await c.press("f8", "enter")
        await c.say("hello")
        assert c.messages[0].startswith("error: other1: ")
        await c.press("f8", "enter")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages[-1] == "bot: fine"
