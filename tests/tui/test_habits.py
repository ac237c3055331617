"""Keys, help, palette, layouts, and texts that would harm a terminal."""

import pytest
from textual.command import CommandPalette
from textual.widgets import HelpPanel

from edgechat.tui.plain import LONGEST_DRAWN, content, plain

from .fakes import FakeModel, Script, reply, table_model

HOSTILE = "[bold]x[/] [/ [@click=app.quit]y[/] \x1b[31mred\x07 \x9b2J end"
HARMLESS = "[bold]x[/] [/ [@click=app.quit]y[/] ␛[31mred␇ \ufffd2J end"


async def test_control_characters_and_markup_are_shown_as_they_are(chat):
    async with chat(
        FakeModel(Script([("", HOSTILE)], reply(HOSTILE, "[b]x[/b] [/ \x9b"))), size=(140, 40)
    ) as c:
        await c.say(HOSTILE)
        assert c.messages == [f"you: {HARMLESS}", f"bot: {HARMLESS}"]
        assert "[b]x[/b] [/ \ufffd" in c.drawn
        assert f"bot    {HARMLESS}" in c.drawn
        assert not any(ord(character) in {0x07, 0x1B, 0x9B} for character in c.drawn)


def test_no_text_can_reorder_the_columns_beside_it():
    assert plain("a\u202eb\u2066c\u2028d") == "a\ufffdb\ufffdc\nd"
    assert plain("שלום") == "שלום"


def test_what_is_very_long_is_drawn_in_part():
    drawn = content("x" * 100_000).plain
    assert drawn == "x" * LONGEST_DRAWN + f" … ({100_000 - LONGEST_DRAWN:,} more characters)"


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
async def test_wide_and_right_to_left_characters_leave_every_row_as_wide_as_the_terminal(chat, size):
    text = "你好，世界！很高兴见到你 🙂 שלום עולם e\u0301 👩‍👩‍👧 " * 3
    async with chat(table_model({text[:40]: 0.7, "ok": 0.3}), size=size) as c:
        await c.pilot.press("f2")
        await c.say(text)
        widths = {strip.cell_length for strip in c.screen._compositor.render_strips()}
        assert widths == {size[0]}


async def test_the_last_reply_is_copied_without_what_a_terminal_would_obey(chat):
    async with chat(FakeModel(Script(end=reply("copy \x1b[0m me")))) as c:
        await c.pilot.press("ctrl+y")
        assert c.app.clipboard == ""
        await c.say("hello")
        await c.pilot.press("ctrl+y")
        assert c.app.clipboard == "copy ␛[0m me"


async def test_ctrl_c_with_nothing_selected_loses_nothing_and_tells_how_to_quit(chat):
    async with chat(FakeModel()) as c:
        c.screen.prompt.insert("draft")
        await c.pilot.press("ctrl+c")
        assert c.prompt == "draft"
        assert c.app.is_running
        assert "ctrl+q" in c.notices[0]


async def test_the_text_of_a_message_is_selected_without_who_said_it(chat):
    async with chat(FakeModel(Script(end=reply("select me")))) as c:
        await c.say("hello")
        c.screen.query("ReplyMessage").last().text_select_all()
        await c.pilot.press("ctrl+c")
        assert c.app.clipboard == "select me"


async def test_stop_is_offered_only_while_there_is_something_to_stop(chat):
    async with chat(FakeModel(Script(stalls=True))) as c:
        assert not c.screen.active_bindings["escape"].enabled
        await c.say("hello", wait=False)
        assert c.screen.active_bindings["escape"].enabled
        await c.pilot.press("escape")
        assert not c.screen.active_bindings["escape"].enabled


async def test_every_key_of_ours_is_in_the_palette_and_does_the_same_there(chat):
    async with chat(FakeModel()) as c:
        await c.say("hello")
        commands = {command.title: command for command in c.app.get_system_commands(c.screen)}
        ours = {a.binding.description for a in c.screen.active_bindings.values() if a.binding.id}
        assert ours - {"Stop"} <= commands.keys()  # nothing to stop now
        assert "Stop" not in commands
        await commands["New chat"].callback()
        await c.until(lambda: c.messages == [])
        await c.pilot.press("ctrl+p")
        await c.until(lambda: isinstance(c.app.screen, CommandPalette))


async def test_f1_opens_and_closes_help_for_what_has_the_focus(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        await c.pilot.press("f1")
        await c.until(lambda: "Up on the first line" in c.drawn)
        assert "Give the model" in c.drawn
        await c.pilot.press("f1")
        await c.until(lambda: not c.screen.query(HelpPanel))


async def test_the_welcome_says_what_the_model_remembers_and_lists_the_keys(chat):
    async with chat(FakeModel(turns=1)) as c:
        text = " ".join(c.drawn.split())
        assert "2 layers with 256 units, a vocabulary of 4,096 pieces, int8, 4.2 MB" in text
        assert "remembers nothing said before" in text
        assert "^o New line" in text
    async with chat(FakeModel(turns=3)) as c:
        assert "the last 3 turns" in " ".join(c.drawn.split())


async def test_candidates_are_at_the_side_when_wide_and_asked_for_when_narrow(chat):
    async with chat(FakeModel(), size=(80, 24)) as c:
        candidates, conversation = c.screen.candidates, c.screen.conversation
        assert not candidates.display
        await c.pilot.press("f2")
        assert candidates.display
        assert candidates.region.y >= conversation.region.bottom
        await c.pilot.resize_terminal(140, 40)
        await c.pilot.pause()
        assert candidates.region.x >= conversation.region.right
        await c.pilot.press("ctrl+t")
        assert not candidates.display
        await c.pilot.resize_terminal(80, 24)
        await c.pilot.pause()
        assert not candidates.display


async def test_resizing_keeps_all_there_is(chat):
    async with chat(FakeModel(Script(end=reply("one", "two " * 20)))) as c:
        await c.say("hello " * 30)
        messages = c.messages
        c.screen.prompt.insert("draft")
        for size in [(140, 40), (80, 24), (40, 12), (140, 40)]:
            await c.pilot.resize_terminal(*size)
            await c.pilot.pause()
            assert c.messages == messages
            assert c.prompt == "draft"
            assert [row[0] for row in c.candidates] == ["1", "2"]
        assert "bot    one" in c.drawn
