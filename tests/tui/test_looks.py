"""Snapshots of every screen, narrow and wide, in the dark and the light theme. Look at the pictures after
`pytest --snapshot-update`."""

import asyncio
import itertools
from dataclasses import replace
from functools import partial

import pytest
from textual.app import App
from textual.widgets import Input, TextArea

from edgechat.tui import ChatApp, knobs
from edgechat.tui.store import Store
from edgechat.tui.store_thread import StoreThread
from edgechat.tui.values import Exchange, ReplyFacts

from .conftest import Chat
from .fakes import FakeModel, Script, reply, table_model

THEMES = ("dark", "light")
SIZES = {"narrow": (80, 24), "wide": (140, 40)}
REPLIES = {"good day to you": 0.5, "good morning": 0.2, "hello there, 你好 🙂": 0.2, "go": 0.1}


def traced():
    """A real model whose replies all report the same time."""
    model = table_model(REPLIES)
    timed = model.maker.reply
    model.maker.reply = lambda *args: replace(timed(*args), ms=12.5)
    return model


def streamed():
    return FakeModel(
        Script([("I am ", "not sure")], waits_for_cancel=True),
        Script(end=reply("Hello there!", "Hello yourself, my friend.", "你好，世界！🙂")),
    )


async def stopped_and_said(c):
    await c.press("f2")
    await c.say("how are you?", wait=False)
    await c.until(lambda: "not sure" in c.messages[-1])
    await c.press("escape")
    await c.say("hello")
    await c.press("d", "r", "a", "f", "t")


def shows(view):
    async def show(c):
        await c.say("hello\nthere")
        c.screen.show_view(view)
        await c.pilot.pause()  # until it is laid out: what has the focus is scrolled to
        c.screen.inspector.shown.focus()
        await c.pilot.pause()
        if view == "beam":
            await c.press("right", "right")
        if view == "knobs":
            await c.press("down", "right")

    return show


async def metered(c):
    """Show times and memory that are the same on every machine."""
    await c.say("hello")
    c.screen.show_view("meter")
    await c.pilot.pause()
    steps = (4.0, 1.0, 1.5, 2.0, 1.0, 3.0)
    [exchange] = c.screen.transcript
    facts = replace(exchange.reply, ms=12.5, first_ms=7.25, step_ms=steps, memory=92_800_000)
    c.screen.inspector.meter.show(facts, [180.0, 240.0, 200.0])


async def compared(c):
    await c.press("f8", "down", "enter")
    await c.until(lambda: c.screen.bundles.second)
    await c.say("hello")


async def judged(c):
    await c.say("hello")
    await c.press("ctrl+g")


async def correct(c):
    await c.say("hello")
    await c.press("f10")
    c.app.screen.query_one(TextArea).cursor_blink = False


async def library(c):
    await c.press("ctrl+l")
    await c.until(lambda: "about the weather" in c.drawn)
    await c.press("r", "a", "i", "n")
    await c.until(lambda: "it will rain" in c.drawn)
    c.app.screen.query_one(Input).cursor_blink = False


async def presses(c, *keys):
    await c.press(*keys)
    for field in c.app.screen.query(Input):
        field.cursor_blink = False


SCREENS = {
    "chat": (streamed, stopped_and_said),
    "welcome": (FakeModel, presses),
    "attention": (traced, shows("attention")),
    "tokens": (traced, shows("tokens")),
    "beam": (traced, shows("beam")),
    "seen": (traced, shows("seen")),
    "meter": (traced, metered),
    "knobs": (traced, shows("knobs")),
    "compare": (FakeModel, compared),
    "judged": (FakeModel, judged),
    "library": (FakeModel, library),
    "bundles": (FakeModel, lambda c: presses(c, "ctrl+b")),
    "help": (FakeModel, lambda c: presses(c, "f1")),
    "correct": (FakeModel, correct),
}


class Taken(App):
    """An application that gives `snap_compare` a picture that was taken before."""

    def __init__(self, svg):
        super().__init__()
        self._svg = svg

    def run(self, **_):
        return self._svg


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A function that takes the pictures of a screen, one for each size and theme. The application is only
    started once for each screen: its terminal is resized and its theme changed."""
    taken = {}

    def take(screen):
        if screen not in taken:
            folder = tmp_path_factory.mktemp("looks")
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(knobs, "KNOBS", knobs.KNOBS[:7])  # more come with the runtime
                patched.chdir(folder)  # no bundle is near
                taken[screen] = asyncio.run(photograph(*SCREENS[screen], folder))
        return taken[screen]

    return take


async def photograph(make, act, folder):
    store = Store(folder / "chats.db")
    store.create("about the weather", "demo", [Exchange("tomorrow?", reply=ReplyFacts("it will rain"))])
    store.create("a joke", "demo", [Exchange("tell one", reply=ReplyFacts("no"))])
    store_thread = StoreThread(partial(Store, folder / "chats.db"))
    models = {"demo": make(), "other": FakeModel(Script(end=reply("something else")), precision="fp32")}
    app = ChatApp(models.__getitem__, list(models), store_thread=store_thread)
    taken = {}
    async with app.run_test(size=SIZES["narrow"]) as pilot:
        c = Chat(app, pilot, store_thread)
        c.screen.prompt.cursor_blink = False
        await c.until(lambda: c.screen.prompt.ready and not c.screen.bundles.loading)
        await act(c)
        for size, theme in itertools.product(SIZES, THEMES):
            app.theme = f"edgechat-{theme}"
            await pilot.resize_terminal(*SIZES[size])
            await pilot.pause()
            await pilot.wait_for_scheduled_animations()
            taken[size, theme] = app.export_screenshot(title=app.title, simplify=True)
    store_thread.close()
    return taken


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_looks_as_it_did(snap_compare, pictures, screen, size, theme):
    assert snap_compare(Taken(pictures(screen)[size, theme]), terminal_size=SIZES[size])
