"""The list of conversations, while the conversations change."""

import sqlite3
import threading
from functools import partial

import pytest
from textual.widgets import Input

from edgechat.tui import ChatApp
from edgechat.tui.screens.text_dialogs import AskDialog
from edgechat.tui.store import GONE_MESSAGE, Store, StoreError
from edgechat.tui.store_thread import StoreThread
from edgechat.tui.values import Exchange, ReplyFacts

from .conftest import TIMEOUT_SECONDS, Chat
from .fakes import FakeModel, Script


def make_store(path, *titles):
    """A file with a conversation of each title, the newest first."""
    store = Store(path)
    for title in reversed(titles):
        store.create(title, "demo", [Exchange(f"about {title}", reply=ReplyFacts("fine"))])
    store.close()
    return path


def titles(path):
    db = sqlite3.connect(path)
    found = db.execute("SELECT title FROM conversations WHERE deleted IS NULL ORDER BY updated DESC")
    rows = [title for (title,) in found]
    db.close()
    return rows


async def open_library(c, last="C"):
    await c.press("ctrl+l")
    await c.until(lambda: f"{last}\n" in c.drawn.replace("│", "").replace(" ", ""))


@pytest.mark.parametrize("key", ["ctrl+d", "f2", "enter"])
async def test_the_highlighted_conversation_is_used_even_if_the_order_changed(chat, tmp_path, key):
    path, gate = make_store(tmp_path / "chats.db", "A", "B", "C"), threading.Event()
    async with chat(FakeModel(Script(gate=gate)), store=path) as c:
        await open_library(c)
        await c.press("down", "down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: about C"])
        await c.say("more", wait=False)
        await open_library(c)  # A is lit
        gate.set()
        await c.until(lambda: c.chat.prompt.ready)
        await c.wait_until_saved()
        await c.press(key)
        if key == "ctrl+d":
            await c.until(lambda: "Deleted: A." in c.drawn)
            assert titles(path) == ["C", "B"]
        elif key == "f2":
            await c.until(lambda: c.app.screen.query_one(Input).value == "A")
        else:
            await c.until(lambda: c.messages[:1] == ["you: about A"])


async def test_if_the_highlighted_conversation_was_deleted_elsewhere_nothing_is_done(chat, tmp_path):
    path = make_store(tmp_path / "chats.db", "A", "B", "C")
    async with chat(FakeModel(), store=path) as c:
        await open_library(c)
        await c.press("down")
        other = Store(path)
        other.delete(2)
        other.close()
        await c.press("ctrl+d")
        await c.until(lambda: c.notices)
        assert c.notices[0] == GONE_MESSAGE
        assert titles(path) == ["A", "C"]
        await c.press("ctrl+d")
        await c.until(lambda: "Deleted: C." in c.drawn)


async def test_a_new_search_highlights_its_first_match(chat, tmp_path):
    path = make_store(tmp_path / "chats.db", "A", "B", "C")
    async with chat(FakeModel(), store=path) as c:
        await open_library(c)
        await c.press("down", "down", *"about")
        await c.until(lambda: "about A" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.messages[:1] == ["you: about A"])


async def test_an_error_of_the_search_is_shown(chat, tmp_path, monkeypatch):
    path = make_store(tmp_path / "chats.db", "A", "B", "C")
    async with chat(FakeModel(), store=path) as c:
        await open_library(c)

        def broken(store, query=""):
            raise StoreError("the disk is gone")

        with monkeypatch.context() as patched:
            patched.setattr(Store, "find", broken)
            await c.press("x")
            await c.until(lambda: "the disk is gone" in c.drawn)
        await c.press("backspace")
        await c.until(lambda: "the disk is gone" not in c.drawn)


async def test_renaming_the_current_conversation_in_the_list_changes_its_title(chat, tmp_path):
    path = make_store(tmp_path / "chats.db", "A", "B", "C")
    async with chat(FakeModel(), store=path) as c:
        await open_library(c)
        await c.press("enter")
        await c.until(lambda: c.messages)
        await open_library(c)
        await c.press("ctrl+r")
        c.app.screen.query_one(Input).value = "another"
        await c.press("enter")
        await c.until(lambda: "another" in c.drawn)
        await c.press("escape")
        await c.until(lambda: c.chat.transcript.title == "another")
        assert titles(path) == ["another", "B", "C"]


async def test_closing_the_list_does_not_change_the_title(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.press("f6", "!", "enter")
        await c.until(lambda: c.chat.prompt.ready and c.messages[:1] == ["you: hello!"])
        await open_library(c, "hello")
        await c.press("escape")
        await c.until(lambda: c.app.screen is c.chat)
        assert c.chat.transcript.title == "hello!"


async def test_a_prompt_sent_while_a_conversation_loads_belongs_to_the_old_one(chat, tmp_path, monkeypatch):
    path, gate, load = make_store(tmp_path / "chats.db", "A", "B", "C"), threading.Event(), Store.load

    def slow(store, id):
        gate.wait(TIMEOUT_SECONDS)
        return load(store, id)

    monkeypatch.setattr(Store, "load", slow)
    async with chat(FakeModel(Script([("so far", "")], waits_for_cancel=True)), store=path) as c:
        await open_library(c)
        await c.press("enter")
        await c.until(lambda: c.app.screen is c.chat)
        c.chat.send_prompt("sent meanwhile")
        await c.until(lambda: "so far" in c.drawn)
        gate.set()
        await c.until(lambda: c.messages[:1] == ["you: about A"])
        assert c.chat.reply_task is None
        assert len(c.messages) == 2
        await c.wait_until_saved()
    assert titles(path) == ["sent meanwhile", "A", "B", "C"]


async def test_reopening_the_current_conversation_stops_and_shows_the_reply(chat, tmp_path):
    path = make_store(tmp_path / "chats.db", "A", "B", "C")
    async with chat(FakeModel(Script([("so far", "")], waits_for_cancel=True)), store=path) as c:
        await open_library(c)
        await c.press("enter")
        await c.until(lambda: c.messages)
        await c.say("more", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        await open_library(c)
        await c.press("enter")
        await c.until(lambda: c.app.screen is c.chat and c.chat.reply_task is None)
        assert c.messages[-2] == "you: more"
        assert c.messages[-1].endswith("so far\n■ stopped")
        await c.wait_until_saved()
        assert len(await c.store_thread.run(lambda store: store.load(3)[1])) == 2


async def test_names_and_titles_with_lone_surrogates_are_saved(tmp_path):
    """Such as the name in `edgechat tui $'caf\\xe9'`."""
    path, name = tmp_path / "chats.db", b"caf\xe9".decode("utf-8", "surrogateescape")
    store_thread = StoreThread(partial(Store, path))
    app = ChatApp(lambda path: FakeModel(), [name], store_thread=store_thread)
    async with app.run_test() as pilot:
        c = Chat(app, pilot, store_thread)
        await c.until(lambda: c.screen.prompt.ready)
        await c.say("hello")
        await c.wait_until_saved()
        c.screen.transcript.rename("half \ud83d")
        await c.wait_until_saved()
        assert c.notices == []
        assert titles(path) == ["half ?"]
        await c.press("ctrl+l")
        await c.until(lambda: "half ?" in c.drawn)
        c.app.screen.query_one(Input).value = "\ud83d"
        await c.until(lambda: "1 exchange" in c.drawn)  # it is sought as it is kept
        await c.press("escape")
        await c.press("ctrl+g")
        c.screen.action_export_all()
        await c.until(lambda: isinstance(c.app.screen, AskDialog))
    assert store_thread.close() == ""
