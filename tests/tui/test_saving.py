"""Saved conversations, and the actions on them in the chat."""

import errno
import json
import re
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import Mock

import pytest
from textual.events import Key, Paste
from textual.widgets import Input, OptionList, TextArea
from typer.testing import CliRunner

from edgechat.cli.app import app
from edgechat.runtime import EdgeChatError, UsageError
from edgechat.tui import ChatApp, run_chat
from edgechat.tui import store as store_module
from edgechat.tui.engine import Engine
from edgechat.tui.screens.library import Library
from edgechat.tui.screens.text_dialogs import AskDialog
from edgechat.tui.settings import chats_file, config_folder
from edgechat.tui.store import Store, StoreError
from edgechat.tui.store_thread import ConversationSaver, StoreThread
from edgechat.tui.values import Exchange, ReplyFacts, ReplyOrigin

from .conftest import TIMEOUT_SECONDS, Chat
from .fakes import FakeModel, Script, reply


def prompts(path):
    store = Store(path)
    try:
        return [[e.prompt for e in store.load(s.id)[1]] for s in store.find()]
    finally:
        store.close()


async def test_a_saved_conversation_continues_in_another_window(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(Script(end=reply("hi there", "hey"))), store=path) as c:
        await c.say("hello")
        await c.say("how are you?")
    model = FakeModel(Script(end=reply("good")))
    async with chat(model, store=path) as c:
        await c.press("ctrl+l")
        await c.until(lambda: "hello" in c.drawn and "2 exchanges" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.messages[::2] == ["you: hello", "you: how are you?"])
        assert c.messages[1::2] == ["bot: hi there"] * 2
        assert [row[3] for row in c.candidates] == ["hi there", "hey"]
        assert "f12 replays the reply" in " ".join((await c.view("attention")).split())
        await c.say("and now?")
        assert model.received_turns == [["hi there", "and now?"]]
    assert prompts(path) == [["hello", "how are you?", "and now?"]]


async def test_up_brings_back_prompts_of_earlier_windows(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("earlier")
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.wait_until_saved()
        await c.press("up")
        assert c.prompt == "earlier"


async def test_a_stopped_reply_is_saved_but_not_part_of_the_context(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(Script([("so far", "")], waits_for_cancel=True), Script()), store=path) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        await c.press("escape")
        await c.say("again")
        await c.wait_until_saved()
    store = Store(path)
    ((_, exchanges),) = [store.load(s.id) for s in store.find()]
    assert [(e.prompt, e.state, e.reply.text, e.bot_turn) for e in exchanges] == [
        ("hello", "stopped", "so far", None),
        ("again", "done", "fine", "fine"),
    ]


async def test_marks_and_corrections_are_saved_and_the_conversation_continues_with_them(chat, tmp_path):
    path, model = tmp_path / "chats.db", FakeModel()
    async with chat(model, store=path) as c:
        await c.say("lights off")
        await c.press("ctrl+g")
        assert c.messages[-1] == "bot: fine\n✓ good"
        await c.press("ctrl+g")
        assert c.messages[-1] == "bot: fine"
        await c.press("f10")
        area = c.app.screen.query_one(TextArea)
        assert area.text == "fine"
        area.text = "LIGHT OFF"
        await c.press("ctrl+s")
        assert c.messages[-1] == "bot: fine\n✗ bad\n✎ should have said: LIGHT OFF"
        await c.say("thanks")
        assert model.received_turns[-1] == ["LIGHT OFF", "thanks"]
        await c.press("ctrl+s")
        c.app.screen.query_one(Input).value = str(tmp_path / "mine.jsonl")
        await c.press("enter")
        await c.until(lambda: (tmp_path / "mine.jsonl").exists())
    turns = json.loads((tmp_path / "mine.jsonl").read_text())["turns"]
    assert [(turn["text"], turn["train"]) for turn in turns] == [
        ("lights off", False),
        ("LIGHT OFF", True),
        ("thanks", False),
        ("fine", False),
    ]


@pytest.mark.slow
async def test_a_model_trained_on_the_export_gives_the_corrected_replies(chat, tmp_path):
    """Correct replies by keys and mouse, then run `edgechat train` and `edgechat eval` on the export."""
    path = tmp_path / "chats.db"
    async with chat(FakeModel(turns=1), store=path) as c:
        for room in ("hall", "attic", "cellar", "garden"):
            await c.say(f"make it dark in the {room}")
        await c.press("ctrl+up", "ctrl+up", "ctrl+up")
        await correct(c, "OFF hall")
        await c.pilot.click(next(m for m in c.screen.query("UserMessage") if m.number == 3))
        await correct(c, "OFF cellar")
        await c.press("ctrl+up", "alt+d")
        await c.press("ctrl+down", "ctrl+down", "ctrl+g")
        judged = [message.split("\n")[1:] for message in c.messages[1::2]]
    assert judged == [
        ["✗ bad", "✎ should have said: OFF hall"],
        ["✗ bad"],
        ["✗ bad", "✎ should have said: OFF cellar"],
        ["✓ good"],
    ]
    async with chat(FakeModel(), store=path) as c:  # another window, another day
        await c.press("ctrl+l")
        await c.until(lambda: "4 exchanges" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.messages)
        assert [message.split("\n")[1:] for message in c.messages[1::2]] == judged
        await c.press("ctrl+up", "ctrl+up")
        await correct(c, "OFF attic")
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        file = tmp_path / "mine.jsonl"
        c.app.screen.query_one(Input).value = str(file)
        await c.press("enter")
        await c.until(file.exists)
    trained = CliRunner().invoke(
        app, ["train", str(file), "--valid", str(file), *LEARNS, str(tmp_path / "run")]
    )
    assert trained.exit_code == 0, trained.output
    pairs = ["--data", str(tmp_path / "pairs.jsonl"), "--json", "--beam", "1"]
    answers = {"hall": "OFF hall", "attic": "OFF attic", "cellar": "OFF cellar", "garden": "fine"}
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"make it dark in the {room}", "response": answer}) + "\n"
            for room, answer in answers.items()
        )
    )
    measured = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), *pairs])
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout)["exact_match"] == 1


#: Four pairs are learned by heart within seconds.
LEARNS = [
    "--hidden", "48", "--embedding", "24", "--attention", "24", "--vocab-size", "300", "--epochs", "80",
    "--batch-size", "4", "--learning-rate", "0.01", "--dropout", "0", "--threads", "1", "--device", "cpu",
    "--out",
]  # fmt: skip


async def correct(c, answer):
    await c.press("f10")
    c.app.screen.query_one(TextArea).text = answer
    await c.press("ctrl+s")


async def test_closing_a_changed_correction_asks_for_confirmation(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.press("f10", "escape")
        assert c.app.screen is c.chat  # nothing was written
        await c.press("f10", "o", "h", "escape")
        assert "Close again to discard it" in c.drawn
        await c.press("!")
        assert "Close again" not in c.drawn
        await c.press("escape", "escape")
        assert c.app.screen is c.chat
        assert "oh" not in c.messages[-1]


async def test_quitting_with_a_changed_correction_asks_for_confirmation(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.press("f10", "o", "h", "f1", "ctrl+q")
        assert "Close again to discard it, or quit again" in c.drawn
        assert not c.app._exit
        await c.press("ctrl+q")
        assert c.app._exit


async def test_accepting_a_reply_with_control_characters_unchanged_is_not_a_correction(chat):
    async with chat(FakeModel(Script(end=reply("a\x07b")))) as c:
        await c.say("one")
        await c.press("f10", "ctrl+s")
        assert c.app.screen is c.chat
        assert (c.screen.selected_exchange.answer, c.screen.selected_exchange.mark) == (None, None)


async def test_removing_a_correction_removes_its_mark(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        for taken_back in ("", " fine\n"):
            await correct(c, "better")
            assert c.messages[-1] == "bot: fine\n✗ bad\n✎ should have said: better"
            await correct(c, taken_back)
            assert c.messages[-1] == "bot: fine"
        await c.press("ctrl+g")
        await correct(c, "fine")
        assert c.messages[-1] == "bot: fine\n✓ good"  # nothing was corrected


async def test_keys_that_arrive_at_once_keep_their_order_in_a_correction(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.press("f10")
        keys = ("home", "x", "delete", "y", "end", "!", "enter", "z", "backspace", "q", "ctrl+s", "n")
        await c.type_fast("", *keys)
        await c.until(lambda: c.app.screen is c.chat)
        assert c.messages[-1] == "bot: fine\n✗ bad\n✎ should have said: xyine!\nq"


async def test_a_correction_refuses_control_sequences_alt_letters_and_long_pastes(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.press("f10")
        c.app.post_message(Paste("a\r\n\x1b[2J"))
        c.app.post_message(Key("alt+q", "q"))
        c.app.post_message(Paste("x" * 1_000_000))
        await c.until(lambda: c.notices)
        assert c.app.screen.query_one(TextArea).text == "finea\n␛[2J"


async def test_keys_that_arrive_at_once_keep_their_order_in_a_field(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.wait_until_saved()
        await c.press("ctrl+l", "ctrl+r")
        await c.type_fast("", "end", "2", "home", "a", "backspace", "b", "enter")
        await c.until(lambda: "bone2" in c.drawn)


async def test_an_incomplete_reply_can_be_corrected_but_not_marked_good(chat):
    model = FakeModel(Script([("so far", "")], waits_for_cancel=True), Script(end=UsageError("no")), Script())
    async with chat(model) as c:
        await c.say("one", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        await c.press("escape", "ctrl+g")
        assert "The reply is not complete" in c.notices[-1]
        assert c.messages[-1] == "bot: so far\n■ stopped"
        await correct(c, "ONE")
        await c.say("two")
        c.app.clear_notifications()
        await c.press("alt+d")
        assert "The reply is not complete" in c.notices[-1]
        await correct(c, "TWO")
        c.screen.prompt.set_text("")
        await c.say("three")
        assert model.received_turns[-1] == ["TWO", "three"]


async def test_an_export_is_reported_with_its_full_path(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with chat(FakeModel()) as c:
        await c.say("hello")
        await c.press("ctrl+s", "enter")
        await c.until(lambda: c.notices)
        assert c.notices == [f"Saved to {tmp_path / 'chat.md'}"]


async def test_an_export_suggests_an_unused_file_name(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with chat(FakeModel()) as c:
        await c.say("hello")
        for _ in range(3):
            await c.press("ctrl+s", "enter")
            await c.until(lambda: c.app.screen is c.chat)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat-2.md", "chat-3.md", "chat.md"]


async def test_an_export_during_a_reply_leaves_its_exchange_out(chat, tmp_path):
    slow = Script(waits_for_cancel=True)
    async with chat(FakeModel(Script(), slow, slow)) as c:
        await c.say("one")
        for name, key in (("again.json", "ctrl+r"), ("next.json", "enter")):
            await c.press(*"two", key)
            await c.until(lambda: c.screen.reply_task)
            await c.press("ctrl+s")
            c.app.screen.query_one(Input).value = str(tmp_path / name)
            await c.press("enter")
            await c.until(lambda name=name: (tmp_path / name).exists())
            exported = json.loads((tmp_path / name).read_text())["exchanges"]
            assert [(e["prompt"], e["reply"]["text"]) for e in exported] == [("one", "fine")]
            await c.press("escape")
            c.screen.prompt.set_text("")


async def test_an_export_asks_again_until_the_file_is_written(chat, tmp_path, monkeypatch):
    async with chat(FakeModel()) as c:
        await c.say("hello")
        await c.press("ctrl+s")
        name = c.app.screen.query_one(Input)
        name.value = str(tmp_path / "chat.jsonl")
        await c.press("enter")
        assert "There is nothing to train on yet" in c.words
        name.value = str(tmp_path / "chat.md")
        full = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patched:
            patched.setattr("edgechat.tui.formats.write_atomic", Mock(side_effect=full))
            await c.press("enter")
        assert "cannot be written: No space left on device" in c.words
        await c.press("enter")  # the name still stands
        await c.until(lambda: c.notices)
    assert sorted(path.name for path in tmp_path.glob("chat*")) == ["chat.md"]


async def test_without_training_data_no_file_name_is_asked_for(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.wait_until_saved()
        c.screen.action_export_all()
        await c.until(lambda: c.notices)
        assert "There is nothing to train on yet" in c.notices[-1]
        assert not c.app.screen.query(Input)


async def test_an_export_never_replaces_a_file_and_explains_invalid_names(chat, tmp_path):
    (tmp_path / "there.md").write_text("mine")
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.press("ctrl+s")
        name = c.app.screen.query_one(Input)
        for path, said in (
            ("there.md", "already exists"),
            ("chat.pdf", ".md, .json or .jsonl"),
            ("no/chat.md", "There is no folder"),
            ("x" * 300 + ".md", "This is not a valid file name"),
        ):
            name.value = str(tmp_path / path)
            await c.press("enter")
            assert said in c.words
        name.value = "~no-such-user/chat.md"
        await c.press("enter")
        assert "This is not a valid file name" in c.words
        name.value = str(tmp_path / "chat.md")
        await c.press("enter")
        await c.until(lambda: (tmp_path / "chat.md").exists())
    assert (tmp_path / "there.md").read_text() == "mine"
    assert "> hello" in (tmp_path / "chat.md").read_text()


async def test_all_good_replies_are_exported_to_one_file(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        for prompt in ("one", "two"):
            await c.say(prompt)
            await c.press("ctrl+g", "ctrl+n")
        await c.say("not marked")
        await c.wait_until_saved()
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        c.app.screen.query_one(Input).value = str(tmp_path / "all.json")
        await c.press("enter")
        assert "The name must end with .jsonl" in c.drawn
        c.app.screen.query_one(Input).value = str(tmp_path / "all.jsonl")
        await c.press("enter")
        await c.until(lambda: (tmp_path / "all.jsonl").exists())
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["turns"][0]["text"] for line in lines) == ["one", "two"]


async def test_two_windows_can_continue_one_conversation(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(Script(end=reply("one"))), store=path) as first:
        await first.say("from the first")
        await first.wait_until_saved()
        async with chat(FakeModel(Script(end=reply("two"))), store=path) as second:
            await second.press("ctrl+l")
            await second.until(lambda: "1 exchange" in second.drawn)
            await second.press("enter")
            await second.until(lambda: second.messages)
            await second.say("from the second")
            await second.wait_until_saved()
        await first.say("again from the first")
        await first.press("ctrl+up", "ctrl+g")
        await first.wait_until_saved()
    assert prompts(path) == [["from the first", "from the second", "again from the first"]]
    store = Store(path)
    assert [e.mark for e in store.load(1)[1]] == ["good", None, None]
    store.close()


async def test_the_library_searches_renames_deletes_and_restores(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        for prompt in ("the weather", "a joke"):
            await c.say(prompt)
            await c.press("ctrl+n")
        await c.press("ctrl+l")
        await c.until(lambda: "the weather" in c.drawn and "a joke" in c.drawn)
        await c.press(*"weather")
        await c.until(lambda: "a joke" not in c.drawn)
        await c.press("f2")
        c.app.screen.query_one(Input).value = "about the weather, [b]rain[/] \x1b[2J"
        await c.press("enter")
        await c.until(lambda: "about the weather, [b]rain[/] ␛[2J" in c.drawn)
        await c.press("ctrl+d")
        await c.until(lambda: "Undo restores it" in c.words)
        assert prompts(path) == [["a joke"]]
        await c.press("ctrl+z")
        await c.until(lambda: "1 exchange" in c.drawn)
        assert len(prompts(path)) == 2
        await c.press("escape")
        assert c.app.screen is c.chat


async def test_a_deleted_conversation_is_purged_when_the_window_is_closed(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.press("ctrl+n", "ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("ctrl+d")
        await c.until(lambda: "Undo" in c.drawn)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM conversations").fetchone() == (0,)


async def test_a_long_list_says_how_many_there_are_and_scrolls_by_page(chat, tmp_path):
    path = tmp_path / "chats.db"
    store = Store(path)
    for n in range(1202):
        store.create(f"conversation {n}", "demo", [Exchange("even" if n % 2 else "odd")])
    store.close()
    async with chat(FakeModel(), store=path, size=(80, 30)) as c:

        def lit():
            options = c.app.screen.query_one(OptionList)
            row = options.highlighted_option
            return row.prompt.plain.split("\n")[0] if row else ""

        await c.press("ctrl+l")
        await c.until(lambda: "The newest 500 of 1,202. Type to narrow the list." in c.drawn)
        assert lit() == "conversation 1201"
        for key, there in (("end", 702), ("home", 1201), ("pagedown", 1194), ("pageup", 1201), ("up", 702)):
            await c.press(key)
            assert lit() == f"conversation {there}"
            assert lit() in c.drawn
        await c.press(*"even")
        await c.until(lambda: "The newest 500 of 601. Type to narrow the list." in c.drawn)
        await c.press("x")
        await c.until(lambda: "Nothing found." in c.drawn)
        await c.press("f1")
        for key in ("pgup", "pgdn", "home", "end"):
            assert re.search(rf"│  {key} ", c.drawn)


async def test_a_long_title_is_one_line_of_the_list(chat, tmp_path):
    path = tmp_path / "chats.db"
    store = Store(path)
    store.create("wide " * 1000, "demo", [Exchange("old")])
    store.create("short", "demo", [Exchange("new")])
    store.close()
    cut = "long title " * 5 + "long…"  # 60 characters
    async with chat(FakeModel(), store=path) as c:
        await c.press("ctrl+l")
        await c.until(lambda: "short" in c.drawn)
        rows = [row.split("│")[1].strip() for row in c.drawn.split("\n") if row.count("│") == 2]
        at = rows.index("short")
        assert rows[at + 2].startswith("wide wide ")
        assert rows[at + 2].endswith("…")
        assert rows[at + 3].startswith("demo · 1 exchange")
        await c.press("ctrl+r")
        c.app.screen.query_one(Input).value = "long title " * 40
        await c.press("enter")
        await c.until(lambda: cut in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.messages[:1] == ["you: new"])
        assert c.screen.transcript.title == cut
        c.screen.action_rename()
        await c.until(lambda: isinstance(c.app.screen, AskDialog))
        c.app.screen.query_one(Input).value = "another title " * 40
        await c.press("enter")
        assert len(c.screen.transcript.title) <= 60
        await c.press("ctrl+l", "down", "ctrl+d")
        await c.until(lambda: "Undo restores it" in c.drawn)
        assert c.drawn.count("wide") == 12


async def test_a_notification_is_shown_once_at_a_time(chat):
    async with chat(FakeModel(), FakeModel()) as c:
        c.screen.bundles.second = "other1"
        await c.say("hello")
        await c.press("alt+o", "ctrl+g", "alt+d", "f10")
        await c.until(lambda: c.notices)
        assert len(c.notices) == 1
        assert "continues with the first bundle's reply" in c.notices[0]


async def test_a_conversation_can_be_restored_after_the_list_was_closed(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await two_in_the_library(c)
        await c.press("ctrl+d", "ctrl+d")
        await c.until(lambda: "Deleted: the weather. Undo restores it" in c.drawn)
        await c.press("escape", "ctrl+l")
        await c.until(lambda: "Deleted: the weather. Undo restores it" in c.drawn and "Undo" in c.drawn)
        await c.press("ctrl+z", "escape", "ctrl+l")
        await c.until(lambda: "Deleted: a joke. Undo restores it" in c.drawn and "1 exchange" in c.drawn)
        await c.press("ctrl+z")
        await c.until(lambda: "Deleted" not in c.drawn)
    assert prompts(path) == [["a joke"], ["the weather"]]


async def test_a_conversation_that_was_overwritten_cannot_be_restored(chat, tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await two_in_the_library(c)
        await c.press("ctrl+d")
        await c.until(lambda: "Deleted: a joke" in c.drawn)
        with monkeypatch.context() as patched:
            later = time.time() + 2 * store_module.PURGE_DELAY_SECONDS
            patched.setattr(store_module.time, "time", lambda: later)
            Store(path).close()
        await c.press("ctrl+z")
        await c.until(lambda: "deleted in another window" in " ".join(c.notices))
        await c.until(lambda: "Deleted" not in c.drawn)


async def test_deleting_the_current_conversation_starts_a_new_one(chat, tmp_path):
    path, model = tmp_path / "chats.db", FakeModel()
    async with chat(model, store=path) as c:
        await c.say("hello")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("ctrl+d")
        await c.until(lambda: "Undo restores it" in c.drawn)
        await c.press("escape")
        assert c.messages == []
        await c.say("anew")
        assert model.received_turns[-1] == ["anew"]
        await c.wait_until_saved()
        assert prompts(path) == [["anew"]]
        await c.press("ctrl+l", "ctrl+z")
        await c.until(lambda: "hello" in c.drawn)
        await c.press("down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: hello"])
        assert not c.notices
    assert prompts(path) == [["anew"], ["hello"]]


async def test_restoring_the_current_conversation_at_once_keeps_it_open(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("ctrl+d", "ctrl+z", "escape")
        await c.say("again")
    assert prompts(path) == [["hello", "again"]]


@pytest.mark.parametrize("ends", [True, False])
async def test_a_reply_to_a_deleted_conversation_is_restored_with_it(chat, tmp_path, ends):
    path, gate = tmp_path / "chats.db", threading.Event()
    scripts = Script(), Script([("so far", "")], gate=gate if ends else None, waits_for_cancel=not ends)
    async with chat(FakeModel(*scripts), store=path) as c:
        await c.say("hello")
        await c.say("again", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        await c.press("ctrl+l", "ctrl+d")
        await c.until(lambda: "Undo restores it" in c.drawn)
        gate.set()
        if ends:
            await c.until(lambda: c.chat.reply_task is None)
        await c.press("escape")
        await c.until(lambda: c.messages == [])
        await c.wait_until_saved()
        assert prompts(path) == []
        await c.press("ctrl+l", "ctrl+z")
        await c.until(lambda: "2 exchanges" in c.drawn)
        assert not c.notices
    assert prompts(path) == [["hello", "again"]]


async def test_an_unusable_store_is_reported_once_and_the_chat_works(chat, tmp_path):
    path = tmp_path / "chats.db"
    path.write_bytes(b"no database at all" * 100)
    async with chat(FakeModel(), store=path) as c:
        await c.until(lambda: c.notices)
        assert "chats.db" in c.notices[0]
        assert "not saved" in c.notices[0]
        await c.say("hello")
        assert c.messages[-1] == "bot: fine"
        assert len(c.notices) == 1
        assert "demo · not saved" in c.drawn
    assert path.read_bytes() == b"no database at all" * 100


def read_only(monkeypatch):
    """Make SQLite open files as it does in a folder without write permission, which root always has."""
    connect = sqlite3.connect
    monkeypatch.setattr(
        store_module.sqlite3,
        "connect",
        lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options),
    )


@pytest.mark.parametrize(
    ("there", "writable", "reason"),
    [
        (True, True, "read-only file {path}"),
        (False, True, "cannot open or create {path}"),
        (False, False, "read-only folder {path.parent}"),
    ],
)
async def test_with_a_read_only_store_the_chat_opens_and_the_status_line_says_why_nothing_is_saved(
    chat, tmp_path, monkeypatch, there, writable, reason
):
    path = tmp_path / "chats.db"
    if there:
        store = Store(path)
        store.create("before", "demo", [Exchange("earlier", reply=ReplyFacts("fine"))])
        store.close()
    read_only(monkeypatch)
    monkeypatch.setattr(store_module.os, "access", lambda place, mode: writable)
    async with chat(FakeModel(), store=path, size=(200, 24)) as c:
        why = reason.format(path=path)
        await c.until(lambda: f"demo · not saved: {why} · int8" in c.drawn)
        for prompt in ("hello", "again"):
            await c.say(prompt)
            await c.press("ctrl+g")
        assert c.messages[-1] == "bot: fine\n✓ good"
        assert not c.screen.check_action("library", ())
        assert f"not saved: {why}" in c.drawn
        assert c.notices == []  # it is said once


async def test_a_data_folder_that_cannot_be_created_is_named_in_the_status_line(chat, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "edgechat" / "chats.db"
    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    async with chat(FakeModel(), store=path, size=(200, 24)) as c:
        await c.until(lambda: f"not saved: no permission to create {path} " in c.drawn)
        await c.say("hello")
        assert c.notices == []


async def test_a_file_in_place_of_the_data_folder_is_named_in_the_status_line(chat, tmp_path):
    (tmp_path / "edgechat").touch()
    async with chat(FakeModel(), store=tmp_path / "edgechat" / "chats.db", size=(200, 24)) as c:
        await c.until(lambda: f"not saved: not a folder: {tmp_path / 'edgechat'} " in c.drawn)
        assert c.notices == []


async def test_a_narrow_status_line_shows_what_the_chat_does_and_begins_the_reason_why_nothing_is_saved(
    chat, tmp_path, monkeypatch
):
    read_only(monkeypatch)
    monkeypatch.setattr(store_module.os, "access", lambda place, mode: False)
    async with chat(FakeModel(), store=tmp_path / "chats.db", size=(60, 24)) as c:
        await c.until(lambda: "demo · not saved: read-only folder" in c.drawn)
        await c.say("hello")
        await c.press("f6")
        assert "not saved · editing the last prompt · read-only" in c.drawn


async def test_a_file_that_becomes_read_only_is_reported_with_what_failed(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.wait_until_saved()
        await c.app._store_thread.run(lambda store: store._db.execute("PRAGMA query_only = ON"))
        await c.say("again")
        await c.until(lambda: c.notices)
        assert c.notices[0] == f"conversations cannot be saved: read-only file {path}"
        await c.app._store_thread.run(lambda store: store._db.execute("PRAGMA query_only = OFF"))


async def test_a_locked_file_is_used_as_soon_as_it_is_unlocked(chat, tmp_path, monkeypatch):
    monkeypatch.setattr("edgechat.tui.store.BUSY_TIMEOUT_SECONDS", 0.01)
    path = tmp_path / "chats.db"
    store = Store(path)
    store.create("before", "demo", [Exchange("earlier", reply=ReplyFacts("fine"))])
    store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with chat(FakeModel(), store=path) as c:
        await c.until(lambda: c.notices)
        assert "is locked. Trying again" in c.notices[0]
        await c.say("hello")
        await c.until(lambda: "demo · not saved" in c.drawn)
        other.execute("COMMIT")
        await c.say("again")
        await c.wait_until_saved()
        assert "not saved" not in c.drawn
        await c.until(lambda: not [worker for worker in c.app.workers if worker.name == "_start_saving"])
        await c.press("up", "up", "up")
        assert c.prompt == "earlier"
        await c.press("ctrl+l")
        await c.until(lambda: "2 exchanges" in c.drawn)
    assert prompts(path) == [["hello", "again"], ["earlier"]]
    other.close()


def fill_disk(store):
    """Make further writes fail as on a full disk: SQLite reports a limit of the file size in the same way."""
    store._db.execute("PRAGMA max_page_count = 1")


def free_disk(store):
    store._db.execute("PRAGMA max_page_count = 100000")


LONG = "word " * 1000


async def test_writes_that_failed_on_a_full_disk_are_repeated(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("before")
        assert "not saved" not in c.drawn
        await c.store_thread.run(fill_disk)
        for n in range(2):
            await c.say(f"{n} {LONG}")
            await c.wait_until_saved()
            assert "disk is full" in c.notices[-1]
            assert "demo · not saved" in c.drawn
        await c.press("ctrl+g", "ctrl+n")
        await c.say(LONG)  # another conversation
        await c.wait_until_saved()
        await c.store_thread.run(free_disk)
        await c.say("after")
        await c.wait_until_saved()
        assert "not saved" not in c.drawn
    assert prompts(path) == [[LONG, "after"], ["before", f"0 {LONG}", f"1 {LONG}"]]
    store = Store(path)
    assert [e.mark for e in store.load(1)[1]] == [None, None, "good"]
    store.close()


async def test_exchanges_that_are_not_written_yet_stay_when_their_conversation_is_chosen(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("before")
        await c.wait_until_saved()
        await c.store_thread.run(fill_disk)
        await c.say(LONG)
        await c.wait_until_saved()
        await c.press("ctrl+l", *"before")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.app.screen is c.chat)
        assert [exchange.prompt for exchange in c.screen.transcript] == ["before", LONG]
        assert c.screen.selected_number == 1  # where the text was found
        await c.store_thread.run(free_disk)


async def test_another_conversation_is_opened_only_when_everything_is_written(chat, tmp_path):
    async def choose(title):
        await c.press("ctrl+l", *title)
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.app.screen is c.chat)

    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("first")
        await c.press("ctrl+n")
        await c.say("second")
        await c.wait_until_saved()
        await c.store_thread.run(fill_disk)
        await c.say(LONG)
        await c.wait_until_saved()
        c.app.clear_notifications()
        await choose("first")
        await c.until(lambda: c.notices)
        assert "disk is full" in c.notices[0]
        assert [exchange.prompt for exchange in c.screen.transcript] == ["second", LONG]
        await c.press("ctrl+n")
        await c.store_thread.run(free_disk)
        await choose("second")
        await c.until(lambda: [exchange.prompt for exchange in c.screen.transcript] == ["second", LONG])
        assert "not saved" not in c.drawn


def test_a_write_that_fails_until_the_end_is_an_error_of_the_command(monkeypatch, tmp_path):
    store_threads = []

    class Recorded(StoreThread):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            store_threads.append(self)

    def run(app, **_):
        (store_thread,) = store_threads
        store_thread.submit(fill_disk).result()
        ConversationSaver(store_thread, lambda error: None).append(1, Exchange(LONG), "demo")

    monkeypatch.setattr("edgechat.tui.app.StoreThread", Recorded)
    monkeypatch.setattr(ChatApp, "run", run)
    for name, path in (("chats_file", tmp_path / "chats.db"), ("config_folder", tmp_path)):
        monkeypatch.setattr(f"edgechat.tui.app.{name}", lambda path=path: path)
    with pytest.raises(EdgeChatError, match=r"the end of the conversation is not saved: .*disk is full"):
        run_chat(["demo"])


def test_a_bug_that_ends_the_chat_is_an_error_of_the_command(monkeypatch, tmp_path):
    def broken(self):
        raise ZeroDivisionError

    run = ChatApp.run
    monkeypatch.setattr(ChatApp, "run", lambda app, **_: run(app, headless=True))
    monkeypatch.setattr(ChatApp, "on_ready", broken)
    for name, path in (("chats_file", tmp_path / "chats.db"), ("config_folder", tmp_path)):
        monkeypatch.setattr(f"edgechat.tui.app.{name}", lambda path=path: path)
    with pytest.raises(EdgeChatError, match="see the traceback above; every finished exchange is saved"):
        run_chat([])


@pytest.mark.parametrize("so_far", ["", "so far"])
@pytest.mark.parametrize("end", ["kill", "ctrl+q", "signal", "escape", "ctrl+n", "failure"])
async def test_a_reply_is_replaced_only_when_the_new_one_has_ended(chat, tmp_path, end, so_far):
    path = tmp_path / "chats.db"
    broken_off = Script([(so_far, "")], UsageError("this went wrong"), waits_for_cancel=True)
    model = FakeModel(Script(), broken_off, Script())
    async with chat(model, store=path) as c:
        await c.say("hello")
        await c.wait_until_saved()
        await c.press("ctrl+r")
        await c.until(lambda: c.messages == ["you: hello", f"bot: {so_far}▌"])
        if end == "kill":
            await c.wait_until_saved()
            assert prompts(path) == [["hello"]]
        elif end == "signal":
            c.app.quit_soon()
        elif end == "failure":
            model.streams[-1].cancel()
            await c.until(lambda: c.screen.prompt.ready)
            assert c.messages == ["you: hello", "bot: fine", "error: this went wrong"]
        else:
            await c.press(end)
        if end in ("escape", "ctrl+n", "failure"):
            assert c.notices == ["The new reply was not completed, so the earlier one is kept"]
        if end == "escape":
            assert c.messages == ["you: hello", "bot: fine"]
            await c.say("again")
            assert model.received_turns[-1] == ["fine", "again"]
        elif end == "kill":
            await c.press("escape")
    store = Store(path)
    said = [(e.prompt, e.state, e.bot_turn) for e in store.load(1)[1]]
    assert said[0] == ("hello", "done", "fine")
    assert len(said) == (2 if end == "escape" else 1)
    store.close()


async def test_an_edited_prompt_whose_reply_is_stopped_returns_to_the_prompt_field(chat, tmp_path):
    path = tmp_path / "chats.db"
    model = FakeModel(Script(), Script([("so far", "")], waits_for_cancel=True))
    async with chat(model, store=path) as c:
        await c.say("hello")
        await c.press("f6", "!", "enter")
        await c.until(lambda: c.messages == ["you: hello!", "bot: so far▌"])
        await c.press("escape")
        assert c.messages == ["you: hello", "bot: fine"]
        assert c.prompt == "hello!"
    assert prompts(path) == [["hello"]]


async def test_a_new_reply_replaces_the_old_one_in_the_store(chat, tmp_path):
    path = tmp_path / "chats.db"
    better = Script(end=reply("better"))
    async with chat(
        FakeModel(Script(), Script([("so far", "")], waits_for_cancel=True), better), store=path
    ) as c:
        await c.say("hello")
        await c.press("ctrl+r")
        await c.until(lambda: "so far" in c.messages[-1])
        await c.press("escape")
        await c.wait_until_saved()
        db = sqlite3.connect(path)
        assert db.execute("SELECT state, reply FROM exchanges").fetchall() == [("done", "fine")]
        await c.press("ctrl+r")
        await c.until(lambda: c.screen.prompt.ready)
        await c.wait_until_saved()
        assert db.execute("SELECT state, reply FROM exchanges").fetchall() == [("done", "better")]
        db.close()


@pytest.mark.parametrize("key", ["ctrl+q", "signal"])
async def test_quitting_during_a_reply_saves_its_prompt(chat, tmp_path, key):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(Script([("so far", "")], waits_for_cancel=True)), store=path) as c:
        await c.say("hello", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        if key == "signal":
            c.app.quit_soon()
        else:
            await c.press(key)
    store = Store(path)
    assert [(e.prompt, e.state, e.reply.text) for e in store.load(1)[1]] == [("hello", "stopped", "so far")]
    store.close()


async def test_a_failed_write_is_repeated_on_exit(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.store_thread.run(fill_disk)
        await c.say(LONG)
        await c.store_thread.run(free_disk)
    assert prompts(path) == [[LONG]]


async def test_prompts_in_a_conversation_deleted_elsewhere_are_reported_as_not_saved(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.wait_until_saved()
        other = Store(path)
        other.delete(1)
        other.close()
        await c.press("ctrl+g")
        await c.wait_until_saved()
        assert "deleted in another window" in c.notices[-1]
        assert "demo · not saved" in c.drawn
        c.app.clear_notifications()
        await c.say("again")
        await c.wait_until_saved()
        assert "Again or Edit continues in a saved copy" in c.notices[-1]
        c.app.clear_notifications()
        await c.press("ctrl+g")
        await c.wait_until_saved()
        assert "no longer saved" in c.notices[-1]
        assert "demo · not saved" in c.drawn
        await c.press("ctrl+n")
        assert "not saved" not in c.screen.status_line.render().plain
        await c.say("anew")
        await c.wait_until_saved()
    assert prompts(path) == [["anew"]]


async def test_a_conversation_deleted_elsewhere_is_not_restored_by_a_prompt(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.wait_until_saved()
        other = Store(path)
        other.delete(1)
        await c.say("again")
        await c.wait_until_saved()
        assert "deleted in another window" in c.notices[-1]
        assert "demo · not saved" in c.drawn
        assert prompts(path) == []
        other.close()


async def test_continuing_in_a_copy_says_where_the_original_is(chat, tmp_path):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.say("again")
        await c.press("ctrl+up", "ctrl+r")
        await c.until(lambda: c.notices)
        assert c.notices == [
            "The conversation continues in a copy; the original is in the list of conversations (^l)"
        ]
    assert prompts(path) == [["hello"], ["hello", "again"]]


@pytest.mark.parametrize("quits", [False, True])
@pytest.mark.parametrize("told", [False, True])
async def test_continuing_in_a_copy_says_if_the_original_was_deleted(chat, tmp_path, quits, told):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.say("again")
        await c.wait_until_saved()
        other = Store(path)
        other.delete(1)
        if quits:
            other.close()
        if told:
            await c.say("and again")
            await c.wait_until_saved()
            assert "Again or Edit continues in a saved copy" in c.notices[-1]
        else:
            await c.press("ctrl+up")
        c.app.clear_notifications()
        await c.press("f6", "enter")
        said = ["hello", "again", "and again"] if told else ["hello"]
        await c.until(lambda: c.screen.prompt.ready and len(c.screen.transcript) == len(said))
        await c.wait_until_saved()
        assert c.notices == ["The conversation continues in a copy; the original is not saved"]
        assert "not saved" not in c.screen.status_line.render().plain
        assert prompts(path) == [said]
        if not quits:
            other.close()


async def test_a_private_chat_says_that_nothing_is_saved(chat):
    store_thread = StoreThread(partial(Store, ":memory:"), persistent=False)
    async with ChatApp(
        {"demo": FakeModel()}.__getitem__, ["demo"], store_thread=store_thread
    ).run_test() as pilot:
        c = Chat(pilot.app, pilot, store_thread)
        await c.until(lambda: c.screen.prompt.ready)
        await c.say("hello")
        await c.wait_until_saved()
        assert "demo · not saved · int8" in c.drawn
    store_thread.close()


def test_closing_the_store_again_says_again_what_was_not_written():
    def write(store):
        raise StoreError("the disk is full")

    store_thread = StoreThread(partial(Store, ":memory:"))
    store_thread.write(write)
    with ThreadPoolExecutor() as threads:
        at_once = list(threads.map(lambda _: store_thread.close(), range(4)))
    assert [*at_once, store_thread.close()] == ["the disk is full"] * 5


async def test_only_the_keepers_thread_uses_the_file(chat, tmp_path, monkeypatch):
    threads = set()
    create = Store.create

    def noting(*args):
        threads.add(threading.current_thread().name)
        return create(*args)

    monkeypatch.setattr(Store, "create", noting)
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.wait_until_saved()
    (name,) = threads
    assert name.startswith("store")


async def test_an_empty_library_says_so(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.press("ctrl+l")
        await c.until(lambda: "There are no conversations yet." in c.drawn)
        await c.press("enter", "ctrl+d", "f2", *"xyz")
        await c.until(lambda: "Nothing found." in c.drawn)
        assert isinstance(c.app.screen, Library)


def test_files_are_in_the_platforms_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert chats_file().name == "chats.db"
    assert "edgechat" in chats_file().parts
    assert "edgechat" in config_folder().parts


async def test_the_training_export_is_about_the_current_bundle(chat, tmp_path):
    path, file = tmp_path / "chats.db", tmp_path / "mine.jsonl"
    store = Store(path)
    for bundle in ("demo", "lights"):
        store.create("t", bundle, [Exchange(f"to {bundle}", reply=ReplyFacts("?"), answer="yes")])
    store.close()
    async with chat(FakeModel(), store=path) as c:
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        assert "replies of the bundle demo" in c.words
        c.app.screen.query_one(Input).value = str(file)
        await c.press("enter")
        await c.until(file.exists)
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["turns"][0]["text"] == "to demo"


async def test_the_training_export_is_about_the_bundle_that_replied(chat, tmp_path):
    path, file = tmp_path / "chats.db", tmp_path / "mine.jsonl"
    demo, lights = (ReplyFacts("?", made=ReplyOrigin(name)) for name in ("demo", "lights"))
    store = Store(path)
    store.create(
        "both", "lights", [Exchange("hi", reply=lights, mark="good"), Exchange("on", reply=demo, answer="ON")]
    )
    store.create("of lights", "demo", [Exchange("hi", reply=lights, mark="good")])
    store.create("began here", "demo", [Exchange("hey", "failed", answer="HEY")])
    store.close()
    async with chat(FakeModel(), store=path) as c:
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        c.app.screen.query_one(Input).value = str(file)
        await c.press("enter")
        await c.until(file.exists)
    dialogues = [json.loads(line)["turns"] for line in file.read_text().splitlines()]
    assert [[(turn["text"], turn["train"]) for turn in turns] for turns in dialogues] == [
        [("hey", False), ("HEY", True)],
        [("hi", False), ("?", False), ("on", False), ("ON", True)],
    ]


async def test_two_bundles_with_the_same_folder_name_are_exported_separately(tmp_path):
    old, new = (tmp_path / where / "mine" for where in ("old", "new"))
    new.mkdir(parents=True)
    own = Engine(FakeModel(), "mine", str(new)).facts
    made = {
        "other bundle": ReplyOrigin("mine", path=str(old), fingerprint="0"),
        "this bundle": ReplyOrigin("mine", path=own.path, fingerprint=own.fingerprint),
        "earlier export": ReplyOrigin("mine", path=own.path, fingerprint="1"),
        "before it was moved": ReplyOrigin("was", path=str(old), fingerprint=own.fingerprint),
        "without a path": ReplyOrigin("mine"),
    }
    store = Store(tmp_path / "chats.db")
    for prompt, how in made.items():
        store.create("t", "mine", [Exchange(prompt, reply=ReplyFacts("fine", made=how), mark="good")])
    store.close()
    store_thread, file = StoreThread(partial(Store, tmp_path / "chats.db")), tmp_path / "mine.jsonl"
    app = ChatApp(lambda path: FakeModel(), [str(new)], store_thread=store_thread)
    async with app.run_test(size=(140, 40)) as pilot:
        c = Chat(app, pilot, store_thread)
        await c.until(lambda: c.screen.prompt.ready)
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        assert f"replies of the bundle {new}" in c.words
        c.app.screen.query_one(Input).value = str(file)
        await c.press("enter")
        await c.until(file.exists)
    store_thread.close()
    prompts = {json.loads(line)["turns"][0]["text"] for line in file.read_text().splitlines()}
    assert prompts == {"this bundle", "earlier export", "before it was moved", "without a path"}


async def test_a_damaged_conversation_is_left_out_of_the_training_export(chat, tmp_path):
    path, file = tmp_path / "chats.db", tmp_path / "mine.jsonl"
    store = Store(path)
    for title in ("whole", "broken"):
        id, _ = store.create(title, "demo", [Exchange("hi", reply=ReplyFacts("?"), answer=title)])
    store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE exchanges SET details = '[' WHERE conversation = ?", (id,))
    db.commit()
    db.close()
    async with chat(FakeModel(), store=path) as c:
        c.screen.action_export_all()
        await c.until(lambda: c.app.screen.query(Input))
        assert "the conversation 'broken'" in c.notices[0]
        assert c.notices[0].endswith("It is not exported")
        c.app.screen.query_one(Input).value = str(file)
        await c.press("enter")
        await c.until(file.exists)
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["turns"][-1]["text"] == "whole"


async def test_enter_right_after_typing_opens_a_match_for_the_typed_text(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        for prompt in ("the weather", "a joke"):
            await c.say(prompt)
            await c.press("ctrl+n")
        for typed, found in (("weather", "you: the weather"), ("joke", "you: a joke")):
            await c.press("ctrl+l")
            await c.until(lambda: "the weather" in c.drawn and "a joke" in c.drawn)
            await c.type_fast(typed, "enter")
            await c.until(lambda said=found: c.app.screen is c.chat and c.messages[:1] == [said])


async def two_in_the_library(c):
    for prompt in ("the weather", "a joke"):
        await c.say(prompt)
        await c.press("ctrl+n")
    await c.press("ctrl+l")
    await c.until(lambda: "the weather" in c.drawn and "a joke" in c.drawn)


@pytest.mark.parametrize("key", ["ctrl+d", "f8"])
async def test_delete_right_after_typing_deletes_a_match_for_the_typed_text(chat, tmp_path, key):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await two_in_the_library(c)
        await c.type_fast("weather", key)
        await c.until(lambda: "Deleted: the weather" in c.drawn)
        assert [found.title for found in await c.store_thread.run(lambda store: store.find())] == ["a joke"]


async def test_rename_right_after_typing_renames_a_match_for_the_typed_text(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await two_in_the_library(c)
        await c.type_fast("weather", "f2")
        await c.until(lambda: isinstance(c.app.screen, AskDialog))
        assert c.app.screen.query_one(Input).value == "the weather"


@pytest.mark.parametrize("key", ["ctrl+l", "ctrl+s", "ctrl+b", "f8", "f10"])
async def test_a_key_pressed_twice_at_once_opens_one_dialog(chat, tmp_path, key):
    async with chat(FakeModel(), FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.wait_until_saved()
        await c.type_fast("", key, key)
        await c.until(lambda: len(c.app.screen_stack) > 1)
        await c.pilot.pause()
        assert len(c.app.screen_stack) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("details = '{'", "JSONDecodeError"),
        ("""details = '{"reply": {"ms": 1.0}}'""", "'text'"),
        ("""details = '{"reply": {"text": 5}}'""", "'5' is not a str"),
        ("""details = '{"other": {"text": "r", "ms": "12"}}'""", "'12' is not a float"),
        ("""details = '{"reply": {"text": "r", "made": {"seen": ["a", null]}}}'""", "'None' is not a str"),
        ("""details = '{"reply": {"text": "r", "candidates": 7}}'""", "'7' is not a tuple"),
        ("""details = '{"reply": {"text": "r", "chosen": 3}}'""", "there is no candidate 3"),
        ("details = '[]'", "TypeError"),
        ("prompt = x'00'", "is not a str"),
        ("mark = 'so so'", "'so so' is not"),
        ("state = 'over'", "'over' is not"),
    ],
)
async def test_a_damaged_conversation_is_reported_in_one_sentence(chat, tmp_path, change, said):
    path = tmp_path / "chats.db"
    async with chat(FakeModel(), store=path) as c:
        await c.say("hello")
        await c.wait_until_saved()
        db = sqlite3.connect(path)
        db.execute(f"UPDATE exchanges SET {change}")
        db.commit()
        db.close()
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.notices)
        assert f"the conversation 'hello' in {path} is damaged" in c.notices[0]
        assert said in c.notices[0]
        await c.say("still there")


async def test_a_failed_delete_or_restore_is_reported(chat, tmp_path, monkeypatch):
    def broken(self, id):
        raise StoreError("the disk is full")

    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.wait_until_saved()
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        with monkeypatch.context() as patched:
            patched.setattr(Store, "delete", broken)
            await c.press("ctrl+d")
            await c.until(lambda: c.notices)
            assert "Undo restores it" not in c.drawn
        await c.press("ctrl+d")
        await c.until(lambda: "Undo restores it" in c.drawn)
        with monkeypatch.context() as patched:
            patched.setattr(Store, "restore", broken)
            c.app.clear_notifications()
            await c.press("ctrl+z")
            await c.until(lambda: c.notices)
        await c.type_fast("", "ctrl+z", "ctrl+z")
        await c.until(lambda: "1 exchange" in c.drawn)


async def test_delete_pressed_twice_at_once_deletes_two(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        for prompt in ("one", "two", "three"):
            await c.say(prompt)
            await c.press("ctrl+n")
        await c.press("ctrl+l")
        await c.until(lambda: "three" in c.drawn)
        await c.type_fast("", "f8", "f8")
        await c.until(lambda: "Deleted: two" in c.drawn)
        assert [found.title for found in await c.store_thread.run(lambda store: store.find())] == ["one"]
        await c.press("ctrl+z", "ctrl+z")
        await c.until(lambda: "three" in c.drawn and "two" in c.drawn)


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
async def test_a_search_that_ends_when_the_library_is_closed_is_dropped(chat, tmp_path, size, monkeypatch):
    closed, find = threading.Event(), Store.find

    def slow(store, query=""):
        assert not query or closed.wait(TIMEOUT_SECONDS)
        return find(store, query)

    monkeypatch.setattr(Store, "find", slow)
    async with chat(FakeModel(), store=tmp_path / "chats.db", size=size) as c:
        await c.say("the weather")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.type_fast("weather", "enter")
        c.app.screen.dismiss()
        await c.until(lambda: c.app.screen is c.chat)
        closed.set()
        await c.wait_until_saved()
        assert c.messages[:1] == ["you: the weather"]
