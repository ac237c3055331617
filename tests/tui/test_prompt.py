"""The prompt: lines, history, pastes, and the order of keys."""

import asyncio

import pytest
from textual import events

from edgechat.tui.prompt_history import PromptHistory
from edgechat.tui.store import Store
from edgechat.tui.values import Exchange, ReplyFacts
from edgechat.tui.widgets.editor import MAX_TEXT_CHARACTERS

from .fakes import FakeModel, Script


async def test_ctrl_o_inserts_a_line_break_and_ctrl_j_sends(chat):
    async with chat(FakeModel()) as c:
        await c.pilot.press("a", "ctrl+o", "b", "ctrl+j")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages[0] == "you: a\nb"


async def test_a_key_with_alt_types_no_letter(chat):
    async with chat(FakeModel()) as c:
        await c.say("hello")
        for key in ("alt+v", "alt+q", "alt+g"):  # as terminals deliver them: with the letter
            c.app.post_message(events.Key(key, key[-1]))
        await c.until(lambda: "✓ good" in c.messages[-1])
        assert c.prompt == ""
        assert c.screen.inspector.display


async def test_keys_that_arrive_at_once_keep_their_order(chat):
    model = FakeModel(Script(waits_for_cancel=True))
    async with chat(model) as c:
        for key in ("h", "x", "backspace", "i", "enter", "y", "o"):
            c.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await c.until(lambda: c.prompt == "yo")
        assert c.messages[0] == "you: hi"


async def test_up_and_down_recall_prompts_and_return_to_the_draft(chat):
    async with chat(FakeModel()) as c:
        await c.say("first")
        await c.say("second\nline")
        await c.pilot.press("d", "up")
        assert c.prompt == "second\nline"
        # The cursor is at the end, in the second line: one up goes to the first.
        await c.pilot.press("up", "up")
        assert c.prompt == "first"
        await c.pilot.press("up")
        assert c.prompt == "first"
        await c.pilot.press("down", "down")
        assert c.prompt == "d"


def test_an_edit_to_a_past_prompt_is_remembered_until_something_is_sent():
    history = PromptHistory()
    history.add("one")
    history.add("two")
    assert history.previous("draft") == "two"
    assert history.previous("two, edited") == "one"
    assert history.previous("one") is None
    assert history.next("one") == "two, edited"
    assert history.next("two, edited") == "draft"
    assert history.next("draft") is None
    history.add("three")
    assert history.previous("") == "three"
    assert history.previous("three") == "two"


def test_a_prompt_sent_twice_in_a_row_is_remembered_once():
    history = PromptHistory()
    history.add("one")
    history.add("one")
    assert history.previous("") == "one"
    assert history.previous("one") is None


async def test_cancelling_an_edit_restores_the_draft_and_remembers_the_edit(chat):
    async with chat(FakeModel()) as c:
        await c.say("first")
        await c.press(*"draft", "f6")
        assert c.prompt == "first"
        await c.press("!", "escape")
        assert c.prompt == "draft"
        await c.press("up")
        assert c.prompt == "first!"
        await c.press("down")
        assert c.prompt == "draft"


async def test_the_draft_is_in_the_history_after_the_edit_was_sent(chat):
    async with chat(FakeModel()) as c:
        await c.say("first")
        await c.press(*"draft", "f6", "!", "f6", "?", "enter")
        await c.until(lambda: c.screen.prompt.ready)
        assert c.messages[0] == "you: first?"
        found = []
        for _ in range(4):
            await c.press("up")
            found.append(c.prompt)
        assert found == ["first?", "first!", "draft", "first"]


async def test_a_paste_loses_its_control_sequences_and_keeps_its_lines(chat):
    async with chat(FakeModel()) as c:
        c.app.post_message(events.Paste("a\r\nb\rc\x1b]0;title\x07"))
        await c.until(lambda: c.prompt)
        assert c.prompt == "a\nb\nc␛]0;title␇"


async def test_a_stored_prompt_is_recalled_without_control_sequences(chat, tmp_path):
    path = tmp_path / "chats.db"
    store = Store(path)
    store.create("t", "demo", [Exchange("a\x1b]52;c;aGFjaw==\x07b\x9b", reply=ReplyFacts("r"))])
    store.close()
    async with chat(FakeModel(), store=path) as c:
        await c.pilot.press("up")
        assert c.prompt == "a␛]52;c;aGFjaw==␇b�"
        await c.press("ctrl+l")
        await c.until(lambda: "1 exchange" in c.drawn)
        await c.press("enter")
        await c.until(lambda: len(c.messages) == 2)
        await c.press("f6")
        assert c.prompt == "a␛]52;c;aGFjaw==␇b�"


async def test_a_paste_of_a_megabyte_is_refused(chat):
    async with chat(FakeModel()) as c:
        c.screen.prompt.insert("mine")
        c.app.post_message(events.Paste("x" * 1_000_000))
        await c.until(lambda: c.notices)
        assert c.prompt == "mine"
        assert f"{MAX_TEXT_CHARACTERS:,} characters" in c.notices[0]


async def test_page_up_and_down_scroll_the_conversation_from_the_prompt(chat):
    async with chat(FakeModel()) as c:
        for n in range(4):
            await c.say(f"prompt {n}\n\n\n\n\n\n.")
        assert "prompt 3" in c.drawn
        await c.pilot.press("pageup", "pageup", "pageup")
        await c.until(lambda: "prompt 0" in c.drawn)
        await c.say("back to the end")
        await c.until(lambda: "back to the end" in c.drawn)


async def test_typing_goes_to_the_prompt_wherever_the_focus_is(chat):
    async with chat(FakeModel(), size=(140, 40)) as c:
        for widget in (c.screen.conversation, c.screen.inspector.candidates):
            widget.focus()
            await c.pilot.press("a", "b")
        assert c.prompt == "abab"
        assert c.screen.focused is c.screen.prompt


@pytest.mark.parametrize("pause", [None, 0.0])
async def test_fast_typing_after_a_click_elsewhere_keeps_every_letter_and_its_order(chat, pause):
    async with chat(FakeModel(Script(waits_for_cancel=True))) as c:
        await c.pilot.click(c.screen.conversation)
        assert c.screen.focused is c.screen.conversation
        for key in (*"webdeleted", "enter", *"and"):
            c.app.post_message(events.Key(key, key if len(key) == 1 else None))
            if pause is not None:
                await asyncio.sleep(pause)
        await c.until(lambda: c.prompt == "and")
        assert c.messages[0] == "you: webdeleted"


async def test_a_paste_goes_to_the_prompt_wherever_the_focus_is_in_order_with_what_is_typed(chat):
    async with chat(FakeModel()) as c:
        await c.pilot.click(c.screen.conversation)
        c.app.post_message(events.Paste("pasted"))
        for key in "xy":
            c.app.post_message(events.Key(key, key))
        await c.until(lambda: c.prompt == "pastedxy")


async def test_joiners_can_be_typed(chat):
    async with chat(FakeModel()) as c:
        c.screen.conversation.focus()
        await c.pilot.pause()
        family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH NON-JOINER}x"
        for character in family:
            name = {"\u200d": "zero_width_joiner", "\u200c": "zero_width_non_joiner"}.get(
                character, character
            )
            c.app.post_message(events.Key(name, character))
        await c.until(lambda: c.prompt == family)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("", "Say something (Enter sends it)"),
        ('"prompt.send" = "ctrl+g"', "Say something (^g sends it)"),
        ('"prompt.send" = ""', "Say something"),
    ],
)
async def test_an_empty_prompt_tells_how_to_send(chat, tmp_path, chosen, said):
    (tmp_path / "keys.toml").write_text(chosen)
    async with chat(FakeModel(), config=tmp_path) as c:
        await c.until(lambda: f"{said}  " in c.drawn)
