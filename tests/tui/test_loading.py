"""Bundles are loaded in another thread, and failures are reported in the chat."""

import asyncio
import os
import signal
import threading

import pytest

from edgechat.runtime import BundleError
from edgechat.runtime.bundle import find_bundle
from edgechat.tui import ChatApp, run_chat
from edgechat.tui.engine import Engine, bundle_name, load_model
from edgechat.tui.screens.chat_base import ChatScreenBase
from edgechat.tui.screens.chat_replies import ReplyingChatScreen
from edgechat.tui.signals import quit_on_signals

from .conftest import TIMEOUT_SECONDS, Chat
from .fakes import FakeModel


async def test_the_prompt_can_be_edited_while_the_bundle_loads():
    gate, ui, loaded_in = threading.Event(), threading.get_ident(), []

    def load(path):
        loaded_in.append(threading.get_ident())
        gate.wait(TIMEOUT_SECONDS)
        return FakeModel()

    app = ChatApp(load, ["demo"])
    async with app.run_test() as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: "Loading demo …" in c.drawn)
        await pilot.press("h", "i", "enter")
        assert c.prompt == "hi"
        assert c.notices == ["demo is loading"]
        gate.set()
        await c.until(lambda: "2 layers of 256 units" in c.drawn)
        assert len(loaded_in) == 1
        assert ui not in loaded_in
        await pilot.press("enter")
        await c.until(lambda: c.messages == ["you: hi", "bot: fine"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BundleError("demo has no [bold]edgechat.json\x1b[2J"), "demo has no [bold]edgechat.json␛[2J"),
        (MemoryError("no room"), "unexpected MemoryError: no room"),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_is_reported_in_the_chat(error, said):
    def load(path):
        raise error

    app = ChatApp(load, ["demo"])
    async with app.run_test() as pilot:
        c = Chat(app, pilot)
        await c.until(lambda: c.messages)
        assert c.messages == [f"error: {said}. No bundle is open."]
        assert "demo · not saved · not loaded" in c.drawn
        await pilot.press("h", "i", "enter", "ctrl+n", "ctrl+y", "escape")
        assert c.prompt == "hi"
        await pilot.press("ctrl+q")
    assert app.return_code == 0


def test_run_chat_passes_its_options_on(monkeypatch, tmp_path):
    opened = []

    class Recorder(ChatApp):
        def __init__(self, load, bundles, **options):
            super().__init__(load, bundles, **options)
            opened.append((load, bundles, options))

        def run(self, *, inline):
            opened.append(inline)

    monkeypatch.setattr("edgechat.tui.app.ChatApp", Recorder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    bundle = str(tmp_path / "runs" / "mine")
    key = tmp_path / "me.pub"
    run_chat([bundle], device="cpu", threads=2, require_signature=key, changes={"beam": 2}, inline=True)
    (load, bundles, options), inline = opened
    assert inline
    assert bundles == [bundle]
    assert load.keywords == {"device": "cpu", "threads": 2, "require_signature": key}
    assert options["changes"] == {"beam": 2}
    assert bundle_name(bundle) == "mine"
    assert bundle_name("two\nlines") == "two lines"
    assert list(tmp_path.iterdir()) == []  # nothing was said or chosen, so nothing is kept


def test_the_size_of_a_bundle_is_that_of_all_its_files():
    files = [file.stat().st_size for file in find_bundle("demo").iterdir()]
    assert Engine(load_model("demo"), "demo").facts.size == sum(files)


@pytest.mark.parametrize(
    ("owner", "moment"),
    [
        (ChatApp, "get_default_screen"),
        (ChatApp, "on_mount"),
        (ChatScreenBase, "compose"),
        (ReplyingChatScreen, "on_mount"),
        (ChatApp, "on_ready"),
    ],
)
async def test_a_signal_during_startup_quits(owner, moment, monkeypatch):
    app = ChatApp({"demo": FakeModel()}.__getitem__, ["demo"])
    usual = getattr(owner, moment)

    def interrupted(self):
        app.quit_soon()
        return usual(self)

    monkeypatch.setattr(owner, moment, interrupted)
    await asyncio.wait_for(app.run_async(headless=True), TIMEOUT_SECONDS)
    assert app.return_code == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_signals_quit_only_while_the_chat_is_open():
    quits = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with quit_on_signals(lambda: quits.append("quit")):
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
                os.kill(os.getpid(), number)
        assert quits == ["quit", "quit", "quit"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
