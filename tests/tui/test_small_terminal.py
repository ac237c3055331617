"""Terminals with few columns or few rows."""

import pytest

from edgechat.tui.widgets import VIEWS

from .fakes import FakeModel

SIZES = [(6, 24), (4, 24), (2, 2), (1, 1), (80, 1)]


async def resized(c):
    for size in SIZES:
        await c.pilot.resize_terminal(*size)
        await c.pilot.pause()
    await c.pilot.resize_terminal(80, 24)
    await c.pilot.pause()


@pytest.mark.slow
async def test_every_view_survives_a_terminal_of_one_character(chat):
    async with chat(FakeModel()) as c:
        await resized(c)
        await c.say("hello")
        for view in VIEWS:
            await c.view(view)
            await resized(c)
            assert "Say something" in c.drawn


@pytest.mark.parametrize("key", ["ctrl+p", "f1", "ctrl+b", "ctrl+l", "ctrl+s", "f10"])
async def test_every_dialog_survives_a_terminal_of_one_character(chat, tmp_path, key):
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.press(key)
        await c.until(lambda: c.app.screen is not c.chat)
        await resized(c)
        assert c.app.screen is not c.chat


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        ("", "bot   fine"),
        ("f2", "score"),
        ("f10", "fine"),
        ("ctrl+s", "chat.md"),
        ("ctrl+l", "hello"),
        ("ctrl+p", "Search for"),
        ("ctrl+b", "demo"),
    ],
)
async def test_in_twenty_columns_and_five_rows_the_essentials_are_visible(chat, tmp_path, key, seen):
    async with chat(FakeModel(), store=tmp_path / "chats.db", size=(20, 5)) as c:
        await c.say("hello")
        await c.press(*filter(None, [key]))
        await c.until(lambda: seen in c.drawn)


async def test_in_twenty_columns_and_six_rows_a_wrong_path_of_a_bundle_is_refused_visibly(chat):
    async with chat(FakeModel(), size=(20, 6)) as c:
        await c.press("ctrl+b")
        await c.type_fast("x/", "enter")
        await c.until(lambda: "there is no" in c.drawn)


@pytest.mark.parametrize(
    ("name", "idle"), [("x" * 200, "xxxxxxx…"), ("two\nlines", "two lines")], ids=["long", "lines"]
)
async def test_a_long_bundle_name_leaves_room_for_warnings(chat, name, idle):
    async with chat(FakeModel(), size=(40, 12)) as c:
        await c.say("hello")
        c.screen.bundles.finish_loading(f"/{name}", FakeModel(precision="fp32"))
        c.screen.switch_to_bundle(f"/{name}")
        await c.press("f6")
        shown = " ".join(name.split())[:7]
        assert f"{shown}… · not saved · editing the" in c.drawn.splitlines()[-1]
        await c.press("escape")
        await c.say("again")
        assert f"{idle} · not saved ·" in c.drawn.splitlines()[-1]
        caption, said = c.messages[-1].splitlines()
        assert (caption[:12], said) == (f"bot: {shown}", "fine")
