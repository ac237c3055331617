"""Keys that arrive at once take effect in order, even if one of them opens or closes a dialog."""

import threading

import pytest
from textual.events import Key, Paste
from textual.widgets import Input

from edgechat.tui import key_queue
from edgechat.tui.screens.text_dialogs import AskDialog, WriteDialog
from edgechat.tui.screens.text_fields import AnswerEditor
from edgechat.tui.store import Store

from .conftest import TIMEOUT_SECONDS
from .fakes import FakeModel, Script


@pytest.mark.parametrize("key", ["f10", "alt+w"])
async def test_text_typed_right_after_the_key_goes_into_the_correction(chat, key):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", key, *"er", "enter", "x", "ctrl+s", *"next")
        await c.until(lambda: c.prompt == "next")
        assert c.messages == ["you: one", "bot: fine\n✗ bad\n✎ should have said: fineer\nx"]


async def test_a_macro_through_several_dialogs_works(chat, tmp_path, monkeypatch):
    monkeypatch.setattr(key_queue, "KEY_TIMEOUT_SECONDS", TIMEOUT_SECONDS)  # however slow the machine is
    file = tmp_path / "out.md"
    async with chat(FakeModel(Script()), FakeModel(Script()), store=tmp_path / "chats.db") as c:
        await c.say("the weather")
        await c.wait_until_saved()
        # A new title, a file, another conversation, the first one found again and renamed where it is listed.
        await c.type_fast("", "ctrl+s", *str(file), "enter", "ctrl+n", "ctrl+l", *"weather")
        await c.type_fast("", "f2", *"clouds", "enter", "escape", "ctrl+l", *"clo", "enter", *"and then?")
        await c.until(lambda: c.prompt == "and then?")
        assert c.messages[:1] == ["you: the weather"]
        assert c.chat.transcript.title == "clouds"
        assert "the weather" in file.read_text()


async def test_text_typed_right_after_the_key_goes_into_the_palette(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", "ctrl+p", *"correct", "enter")
        await c.until(lambda: isinstance(c.app.screen, WriteDialog))
        assert c.prompt == ""


async def test_a_value_typed_right_after_the_key_sets_the_knob(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.type_fast("", "f4", "down", "enter", "4", "enter", "escape", *"hi", "enter")
        await c.until(lambda: c.messages[:1] == ["you: hi"])
        assert c.chat.knob_settings.changes == {"beam": 4}


async def test_a_paste_waits_for_the_dialog_too(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", "f10", "ctrl+a")
        c.app.post_message(Key("f2", None))
        c.app.post_message(Key("f10", None))
        c.app.post_message(Paste(" or not"))
        await c.until(lambda: any("or not" in area.text for area in c.app.screen.query(AnswerEditor)))
        assert c.prompt == ""


async def test_a_dialog_opened_and_closed_at_once_returns_to_the_prompt(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.type_fast("", "ctrl+l", "escape", *"two", "enter")
        await c.until(lambda: "you: two" in c.messages)


async def test_a_slow_action_delays_keys_for_a_limited_time(chat, tmp_path, monkeypatch):
    found, find = threading.Event(), Store.find

    def slow(store, query=""):
        assert not query or found.wait(TIMEOUT_SECONDS)
        return find(store, query)

    monkeypatch.setattr(Store, "find", slow)
    monkeypatch.setattr(key_queue, "KEY_TIMEOUT_SECONDS", 0.05)
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("the weather")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.type_fast("weather", "f2", *"xyz")
        await c.until(lambda: c.app.screen.query_one(Input).value == "weatherxyz")
        found.set()
        await c.until(lambda: isinstance(c.app.screen, AskDialog))


async def test_a_late_stop_key_drops_the_keys_waiting_before_it(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(gate=gate), Script())) as c:
        await c.type_fast("one", "enter")
        lines = [Key(key, key if len(key) == 1 else None) for _ in range(200) for key in ("x", "enter")]
        for key in (*lines, Key("escape", None), Key("y", "y"), Key("z", "z")):
            c.app.post_message(key)
        late = Key("escape", None)
        late.time += 2 * key_queue.KEY_TIMEOUT_SECONDS
        c.app.post_message(late)
        c.app.post_message(Key("q", "q"))
        await c.until(lambda: c.prompt.endswith("q"))
        assert "y" not in c.prompt
        assert c.messages[-1].endswith("■ stopped")
        gate.set()


async def test_keys_after_quit_are_ignored(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.type_fast("", "ctrl+q", *"after", "enter", "ctrl+l", *"x", "ctrl+d", "f1")
        await c.until(lambda: not c.app.is_running)
    assert c.app.return_code == 0


async def test_an_arrow_waits_until_the_list_is_filled(chat, tmp_path, monkeypatch):
    typed, find = threading.Event(), Store.find

    def slow(store, query=""):
        assert typed.wait(TIMEOUT_SECONDS)
        return find(store, query)

    async def at_once(*keys):
        """Send keys at once; the search for the list ends only after they have arrived."""
        typed.clear()
        await c.type_fast("", *keys)
        typed.set()

    monkeypatch.setattr(Store, "find", slow)
    monkeypatch.setattr(key_queue, "KEY_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        for prompt in ("weather one", "a joke", "weather two", "weather three"):
            await c.say(prompt)
            await c.press("ctrl+n")
        await at_once("ctrl+l", "down", "down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: a joke"])
        await at_once("ctrl+l", "down", *"weather", "down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: weather two"])


async def test_holding_enter_during_a_reply_notifies_once(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(gate=gate))) as c:
        await c.type_fast("one", "enter", *"two", *["enter"] * 20, "!")
        await c.until(lambda: c.prompt == "two!")
        assert c.notices == ["Wait for the reply or stop it before you send the next prompt"]
        gate.set()
