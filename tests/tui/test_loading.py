"""The bundle is loaded off the UI thread; where it cannot be, the chat says so and can be left."""

import threading

import pytest

from edgechat.runtime import BundleError
from edgechat.tui import ChatApp, run_chat

from .conftest import Chat
from .fakes import FakeModel


async def test_the_chat_can_be_written_in_while_the_bundle_loads():
    gate, ui, loaded_in = threading.Event(), threading.get_ident(), []

    def load():
        loaded_in.append(threading.get_ident())
        gate.wait(5)
        return FakeModel()

    app = ChatApp(load, bundle="demo")
    async with app.run_test() as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: "Loading demo …" in c.drawn)
        await pilot.press("h", "i", "enter")
        assert c.prompt == "hi"
        assert c.notices == ["demo is loading"]
        gate.set()
        await c.until(lambda: "A small LSTM chat model of 2 layers with 256 units" in c.drawn)
        assert loaded_in != [ui]
        await pilot.press("enter")
        await c.until(lambda: c.messages == ["you: hi", "bot: fine"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BundleError("demo has no [bold]edgechat.json\x1b[2J"), "demo has no [bold]edgechat.json␛[2J"),
        (MemoryError("no room"), "unexpected MemoryError: no room"),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_is_a_message_and_the_chat_can_be_left(error, said):
    def load():
        raise error

    app = ChatApp(load, bundle="demo")
    async with app.run_test() as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: c.messages)
        assert c.messages == [f"error: {said}. There is nobody to talk to."]
        assert "demo · not loaded" in c.drawn
        await pilot.press("h", "i", "enter", "ctrl+n", "ctrl+y", "escape")
        assert c.prompt == "hi"
        await pilot.press("ctrl+q")
    assert app.return_code == 0


def test_run_chat_names_the_bundle_by_its_folder_and_hands_the_options_on(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(ChatApp, "run", lambda app: opened.append(app))
    run_chat(str(tmp_path / "runs" / "mine"), device="cpu", threads=2, require_signature=tmp_path / "me.pub")
    (app,) = opened
    assert app._bundle == "mine"
    assert app._load.keywords == {
        "device": "cpu",
        "threads": 2,
        "require_signature": tmp_path / "me.pub",
    }
