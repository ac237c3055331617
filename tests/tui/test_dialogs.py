"""Dialogs, and input that arrives together with the input that closes them."""

from itertools import combinations

import pytest
from textual.command import CommandList, CommandPalette
from textual.events import Click, Key, MouseDown, MouseUp
from textual.selection import SELECT_ALL as ALL
from textual.widgets import OptionList, Static
from textual.widgets._toast import Toast

from edgechat.tui import ChatApp
from edgechat.tui.settings import KEYS_FILE
from edgechat.tui.widgets.footer import FittingFooter

from .fakes import FakeModel


def enter():
    return (Key("enter", "\r"),)


def mouse(kind, x, y):
    return kind(None, x, y, delta_x=0, delta_y=0, button=1, shift=False, meta=False, ctrl=False)


def click(x, y):
    return mouse(MouseDown, x, y), mouse(MouseUp, x, y)


async def at_once(c, *events):
    for event in events:
        c.app.post_message(event)
    await c.until(lambda: c.app.screen is c.chat)


async def palette(c):
    await c.press("ctrl+p")
    await c.until(lambda: c.app.screen.query(CommandList) and c.app.screen.query_one(CommandList).options)
    assert isinstance(c.app.screen, CommandPalette)
    await c.pilot.pause()


@pytest.mark.parametrize("second", ["click", "enter"])
async def test_a_click_beside_the_palette_closes_only_the_palette(chat, second):
    async with chat(FakeModel()) as c:
        await palette(c)
        await at_once(c, *click(1, 1), *(click(1, 1) if second == "click" else enter()))
        assert c.app.screen_stack == [c.chat]


@pytest.mark.parametrize("second", ["click", "enter", "enter first"])
async def test_a_row_of_the_palette_runs_once(chat, second):
    async with chat(FakeModel()) as c:
        await c.say("hello")
        await palette(c)
        await c.press(*"good", "down")
        rows = c.app.screen.query_one(CommandList)
        await c.until(lambda: rows.option_count == 1 and rows.highlighted == 0)
        on_row = click(rows.region.x + 4, rows.region.y + 1)
        events = {
            "click": (*on_row, *on_row),
            "enter": (*on_row, *enter()),
            "enter first": (*enter(), *on_row),
        }
        await at_once(c, *events[second])
        await c.until(lambda: "✓ good" in c.messages[-1])
        await c.pilot.pause()
        assert "✓ good" in c.messages[-1]


@pytest.mark.parametrize("second", ["click", "enter", "enter first"])
@pytest.mark.parametrize("key", ["ctrl+b", "f8", "ctrl+l"])
async def test_a_row_of_a_list_is_chosen_once(chat, tmp_path, key, second):
    async with chat(FakeModel(), FakeModel(), store=tmp_path / "chats.db") as c:
        await c.say("hello")
        await c.wait_until_saved()
        await c.press(key)
        rows = c.app.screen.query_one(OptionList)
        await c.until(lambda: rows.option_count and rows.region.height)
        on_row = click(rows.region.x + 4, rows.region.y)
        events = {
            "click": (*on_row, *on_row),
            "enter": (*on_row, *enter()),
            "enter first": (*enter(), *on_row),
        }
        await at_once(c, *events[second])
        assert c.app.screen_stack == [c.chat]


async def test_a_click_on_a_row_that_was_removed_after_drawing_is_ignored(chat):
    async with chat(FakeModel(), FakeModel()) as c:
        await c.press("ctrl+b")
        rows = c.app.screen.query_one(OptionList)
        await c.until(lambda: rows.option_count == 2 and rows.region.height)
        c.app.screen._forward_event(mouse(Click, rows.region.x + 4, rows.region.y + 2))
        c.app.screen.fill([])
        await c.pilot.pause()
        assert c.app.screen is not c.chat


async def test_text_selected_in_help_is_copied(chat):
    async with chat(FakeModel()) as c:
        await c.press("f1")
        row = next(row for row in c.app.screen.query(Static) if "Send: send" in str(row.get_selection(ALL)))
        row.text_select_all()
        await c.press("ctrl+c")
        assert c.app.clipboard == "Send: send the prompt to the model  prompt.send"
        assert c.notices == ["The selected text is copied"]


async def test_ctrl_c_copies_the_latest_selection(chat):
    async with chat(FakeModel()) as c:
        await c.say("hello")
        await c.press("ctrl+s", "ctrl+c")
        assert c.app.clipboard == "chat.md"
        c.app.screen.query_one("#note", Static).text_select_all()
        await c.press("ctrl+c")
        assert c.app.clipboard.startswith("The extension sets")
        await c.press("shift+left", "ctrl+c")
        assert c.app.clipboard != ""
        assert not c.app.clipboard.startswith("The extension")


@pytest.mark.parametrize("key", ["ctrl+b", "ctrl+l", "ctrl+s", "f10", "f1"])
@pytest.mark.parametrize("size", [(80, 24), (80, 10), (20, 5), (140, 40)])
async def test_notices_and_dialogs_do_not_cover_each_other(chat, tmp_path, key, size):
    async with chat(FakeModel(), store=tmp_path / "chats.db", size=size, draw_notices=True) as c:
        await c.say("hello")
        c.app.notify("said before")
        await c.press(key)
        await c.until(lambda: c.app.screen is not c.chat)
        c.app.notify("said over the dialog")
        await c.until(lambda: len(c.app.screen.query(Toast)) == 2 and "said before" in c.words)
        assert "said over the dialog" in c.words or size[1] < 10
        drawn = {
            widget: region.intersection(clip)
            for widget, (region, clip) in c.app.screen._compositor.visible_widgets.items()
            if (widget.id == "dialog" or isinstance(widget, FittingFooter | Toast)) and region.overlaps(clip)
        }
        assert {"Vertical", "Toast"} <= {type(widget).__name__ for widget in drawn}
        assert not any(one.overlaps(other) for one, other in combinations(drawn.values(), 2))
        assert all(region.height >= 4 for widget, region in drawn.items() if widget.id == "dialog")
        assert c.words.count("said before") == 1  # not also by the chat, of which a part is visible
        await c.press("escape")
        await c.until(lambda: c.app.screen is c.chat)
        await c.until(lambda: size[0] < 80 or all(said in c.words for said in c.notices))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "Enter inserts a line break, ^j accepts the text."),
        ('"write.done" = "f5,ctrl+s"', "Enter inserts a line break, f5 accepts the text."),
        ('"write.done" = ""', "Enter inserts a line break. "),
    ],
)
@pytest.mark.parametrize("height", [10, 24])  # with 10 rows, there is no footer
async def test_the_dialog_for_a_correction_says_which_key_accepts_it(chat, tmp_path, line, said, height):
    (tmp_path / KEYS_FILE).write_text(line)
    async with chat(FakeModel(), config=tmp_path, size=(80, height)) as c:
        await c.say("hello")
        await c.press("f10")
        await c.until(lambda: f"removes the correction. {said}" in c.words)


@pytest.mark.parametrize("height", [10, 24])
async def test_inline_only_the_dialog_has_a_border(chat, monkeypatch, height):
    monkeypatch.setattr(ChatApp, "is_inline", True)
    async with chat(FakeModel(), size=(80, height)) as c:
        await c.press("ctrl+b")
        assert c.app.screen is not c.chat
        assert c.app.screen.styles.border_top[0] == ""
