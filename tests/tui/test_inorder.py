"""Keys that come at once count in order, also where one of them opens a box or closes it."""

import threading
import time

import pytest
from textual.events import Key, Paste
from textual.widgets import Input

from edgechat.tui import inorder
from edgechat.tui.screens.ask import Ask, Write
from edgechat.tui.screens.field import Draft
from edgechat.tui.store import Store

from .fakes import FakeModel, Script


@pytest.mark.parametrize("key", ["f10", "alt+w"])
async def test_a_correction_takes_what_comes_at_once_with_its_key(chat, key):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", key, *"er", "enter", "x", "ctrl+s", *"next")
        await c.until(lambda: c.prompt == "next")
        assert c.messages == ["you: one", "bot: fine\n✗ bad\n✎ should have said: fineer\nx"]


async def test_a_whole_macro_over_several_boxes(chat, tmp_path):
    file = tmp_path / "out.md"
    async with chat(FakeModel(Script()), FakeModel(Script()), store=tmp_path / "chats.db") as c:
        await c.say("the weather")
        await c.kept()
        # A new title, a file, another conversation, the first one found again and renamed where it is listed.
        await c.type_fast("", "ctrl+s", *str(file), "enter", "ctrl+n", "ctrl+l", *"weather")
        await c.type_fast("", "f2", *"clouds", "enter", "escape", "ctrl+l", *"clo", "enter", *"and then?")
        await c.until(lambda: c.prompt == "and then?")
        assert c.messages[:1] == ["you: the weather"]
        assert c.chat.talk.title == "clouds"
        assert "the weather" in file.read_text()


async def test_what_comes_with_the_key_of_the_palette_is_searched_there(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", "ctrl+p", *"correct", "enter")
        await c.until(lambda: isinstance(c.app.screen, Write))
        assert c.prompt == ""


async def test_the_value_of_a_knob_that_comes_with_its_key(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.type_fast("", "f4", "down", "enter", "4", "enter", "escape", *"hi", "enter")
        await c.until(lambda: c.messages[:1] == ["you: hi"])
        assert c.chat.dial.changes == {"beam": 4}


async def test_a_paste_waits_for_the_box_too(chat):
    async with chat(FakeModel()) as c:
        await c.say("one")
        await c.type_fast("", "f10", "ctrl+a")
        c.app.post_message(Key("f2", None))
        c.app.post_message(Key("f10", None))
        c.app.post_message(Paste(" or not"))
        await c.until(lambda: any("or not" in area.text for area in c.app.screen.query(Draft)))
        assert c.prompt == ""


async def test_a_title_that_is_opened_and_closed_at_once_leaves_the_prompt(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.type_fast("", "ctrl+l", "escape", *"two", "enter")
        await c.until(lambda: "you: two" in c.messages)


async def test_an_action_that_does_not_end_holds_keys_for_a_while_only(chat, tmp_path, monkeypatch):
    found, find = threading.Event(), Store.find

    def slow(store, query=""):
        assert not query or found.wait(10)
        return find(store, query)

    monkeypatch.setattr(Store, "find", slow)
    monkeypatch.setattr(inorder, "_PATIENCE", 0.05)
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("the weather")
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.type_fast("weather", "f2", *"xyz")
        await c.until(lambda: c.app.screen.query_one(Input).value == "weatherxyz")
        found.set()
        await c.until(lambda: isinstance(c.app.screen, Ask))


async def test_who_waits_and_then_quits_does_not_wait_for_what_is_typed_before(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(gate=gate), Script())) as c:
        await c.type_fast("one", "enter")
        lines = [Key(key, key if len(key) == 1 else None) for _ in range(200) for key in ("x", "enter")]
        for key in (*lines, Key("escape", None), Key("y", "y"), Key("z", "z")):
            c.app.post_message(key)
        late = Key("escape", None)
        late.time += 2 * inorder._PATIENCE
        c.app.post_message(late)
        c.app.post_message(Key("q", "q"))
        await c.until(lambda: c.prompt.endswith("q"))
        assert "y" not in c.prompt
        assert c.messages[-1].endswith("■ stopped")
        gate.set()


async def test_keys_that_come_after_the_one_that_quits_are_nobodys(chat, tmp_path):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("one")
        await c.type_fast("", "ctrl+q", *"after", "enter", "ctrl+l", *"x", "ctrl+d", "f1")
        await c.until(lambda: not c.app.is_running)
    assert c.app.return_code == 0


async def test_the_list_is_there_before_an_arrow_moves_in_it(chat, tmp_path, monkeypatch):
    def slow(store, query=""):
        time.sleep(0.1)
        return find(store, query)

    find = Store.find
    monkeypatch.setattr(Store, "find", slow)
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        for prompt in ("weather one", "a joke", "weather two", "weather three"):
            await c.say(prompt)
            await c.press("ctrl+n")
        await c.type_fast("", "ctrl+l", "down", "down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: a joke"])
        await c.type_fast("", "ctrl+l", "down", *"weather", "down", "enter")
        await c.until(lambda: c.messages[:1] == ["you: weather two"])


async def test_who_holds_enter_while_a_reply_is_made_is_told_once(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script(gate=gate))) as c:
        await c.type_fast("one", "enter", *"two", *["enter"] * 20, "!")
        await c.until(lambda: c.prompt == "two!")
        assert c.notices == ["Wait for the reply or stop it before you send the next prompt"]
        gate.set()
