"""Long conversations, of which only a window is mounted."""

import re
import threading

import pytest

from edgechat.tui.store import Store
from edgechat.tui.transcript import Transcript
from edgechat.tui.values import Exchange, ReplyFacts
from edgechat.tui.widgets.chat_messages import ChatMessage
from edgechat.tui.widgets.conversation import PAGE_SIZE, WINDOW_SIZE

from .fakes import FakeModel, Script, reply

TURNS = 300


def make_exchanges(turns=TURNS):
    return [Exchange(f"prompt {n}", reply=ReplyFacts(f"reply {n}")) for n in range(1, turns + 1)]


def mounted(c):
    """The first and last number of the mounted exchanges."""
    numbers = [message.number for message in c.chat.query("UserMessage")]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert [m.number for m in c.chat.query("ReplyMessage")] == numbers
    return numbers[0], numbers[-1]


def numbers_in_view(c):
    return [int(n) for n in re.findall(r"(?:prompt|reply) (\d+)", c.drawn)]


def beyond(c):
    """The lines that say what is not in the window."""
    return " ".join(line.visual.plain for line in c.chat.query(".beyond") if line.display)


async def show_exchanges(c, turns=TURNS):
    c.screen.show_transcript(Transcript(make_exchanges(turns)))
    await c.pilot.pause()
    await c.until(lambda: f"reply {turns}" in c.drawn)


async def wait_for_layout(c):
    """Wait until the window is laid out after a move."""
    await c.pilot.pause()
    await c.until(lambda: not c.chat.conversation._pending_moves)
    await c.pilot.pause()


async def until_mounted(c, first, last):
    await c.until(lambda: mounted(c) == (first, last))


async def test_a_long_conversation_shows_its_latest_exchanges_and_how_many_came_before(chat):
    async with chat(FakeModel()) as c:
        for _ in range(2):
            await show_exchanges(c)
            assert mounted(c) == (TURNS - WINDOW_SIZE + 1, TURNS)
            assert "200 earlier exchanges: scroll to see them" in beyond(c)
            await wait_for_layout(c)
            assert mounted(c) == (TURNS - WINDOW_SIZE + 1, TURNS)
        await c.say("hello")
        assert mounted(c) == (TURNS - WINDOW_SIZE + 2, TURNS + 1)
        assert "later exchange" not in c.drawn
        assert c.messages[-1].endswith("fine")
        await show_exchanges(c, 3)
        assert len(c.messages) == 6
        assert "earlier exchange" not in c.drawn


@pytest.mark.slow
async def test_scrolling_to_the_edge_moves_the_window(chat):
    async with chat(FakeModel()) as c:
        await show_exchanges(c)
        c.screen.conversation.focus()
        seen_all = set(numbers_in_view(c))
        for _ in range(400):
            c.screen.conversation.scroll_page_up(animate=False)
            await wait_for_layout(c)
            assert len(c.chat.query(ChatMessage)) <= 2 * WINDOW_SIZE
            seen_all |= set(numbers_in_view(c))
            if 1 in seen_all:
                break
        assert seen_all == set(range(1, TURNS + 1))
        assert mounted(c) == (1, WINDOW_SIZE)
        assert "earlier exchange" not in c.drawn
        seen_all = set(numbers_in_view(c))
        for _ in range(400):
            c.screen.conversation.scroll_page_down(animate=False)
            await wait_for_layout(c)
            assert len(c.chat.query(ChatMessage)) <= 2 * WINDOW_SIZE
            seen_all |= set(numbers_in_view(c))
            if TURNS in seen_all:
                break
        assert seen_all == set(range(1, TURNS + 1))
        assert mounted(c) == (TURNS - WINDOW_SIZE + 1, TURNS)


@pytest.mark.slow
async def test_the_text_in_view_stays_when_earlier_exchanges_are_mounted(chat):
    async with chat(FakeModel()) as c:
        await show_exchanges(c)
        await c.press("ctrl+up")
        conversation = c.screen.conversation
        conversation.scroll_to(y=1, animate=False)
        await c.pilot.pause()
        assert numbers_in_view(c)[0] == TURNS - WINDOW_SIZE + 1
        conversation.scroll_to(y=0, animate=False)
        await until_mounted(c, TURNS - WINDOW_SIZE + 1 - PAGE_SIZE, TURNS - PAGE_SIZE)
        await wait_for_layout(c)
        assert (
            numbers_in_view(c)[-1]
            >= TURNS - WINDOW_SIZE + 1
            >= numbers_in_view(c)[0]
            >= TURNS - WINDOW_SIZE - 1
        )
        assert f"{PAGE_SIZE} later exchanges" in beyond(c)


@pytest.mark.slow
async def test_selecting_beyond_the_window_moves_it(chat, tmp_path):
    store = Store(tmp_path / "chats.db")
    id = store.create("long", "demo", make_exchanges(2 * WINDOW_SIZE))
    store.close()
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.press("ctrl+l")
        await c.until(lambda: "200 exchanges" in c.drawn)
        await c.press("enter")
        await c.until(lambda: "reply 200" in c.drawn)
        for _ in range(WINDOW_SIZE):
            c.screen.action_select(-1)
        await wait_for_layout(c)
        assert c.screen.selected_number == WINDOW_SIZE
        assert mounted(c)[0] <= WINDOW_SIZE <= mounted(c)[1]
        assert "▌ bot   reply 100" in c.drawn
        await c.press("ctrl+g")
        await c.until(lambda: "✓ good" in c.drawn)
        await c.press("ctrl+y")
        assert c.app.clipboard == "reply 100"
        # One that is marked out of view is marked, and looked at again.
        c.screen.conversation.show_latest()
        await wait_for_layout(c)
        await c.press("f11")
        await wait_for_layout(c)
        assert c.screen.transcript[WINDOW_SIZE].mark == "bad"
        assert "▌ bot   reply 100" in c.drawn
        await c.press("escape")
        await c.say("hello")
        assert mounted(c)[1] == 2 * WINDOW_SIZE + 1
        assert c.messages[-2] == "you: hello"
        await c.wait_until_saved()
        title, exchanges = await c.store_thread.run(lambda store: store.load(id[0]))
        assert [len(exchanges), exchanges[WINDOW_SIZE - 1].mark, title] == [
            2 * WINDOW_SIZE + 1,
            "bad",
            "long",
        ]


@pytest.mark.parametrize("focus", ["prompt", "conversation"])
@pytest.mark.parametrize("turns", [WINDOW_SIZE // 2, TURNS])
async def test_escape_returns_to_the_latest_exchange_and_scrolls_to_it(chat, turns, focus):
    async with chat(FakeModel()) as c:
        await show_exchanges(c, turns)
        c.screen.select(2)
        await wait_for_layout(c)
        await c.until(lambda: "▌ bot   reply 2" in c.drawn)
        getattr(c.screen, focus).focus()
        await c.press("escape")
        await wait_for_layout(c)
        await c.until(lambda: f"bot   reply {turns}" in c.drawn)
        assert c.screen.selected_number == turns
        assert "▌ bot" not in c.drawn
        await c.say("hello")
        await c.until(lambda: "fine" in c.drawn)


@pytest.mark.parametrize("turn", [2, TURNS - WINDOW_SIZE + 2, TURNS - 1])
async def test_a_conversation_opens_at_the_exchange_that_was_found(chat, tmp_path, turn):
    store = Store(tmp_path / "chats.db")
    exchanges = make_exchanges()
    exchanges[turn - 1] = Exchange("where is my kettle?", reply=ReplyFacts(f"reply {turn}"))
    store.create("long", "demo", exchanges)
    store.close()
    async with chat(FakeModel(), store=tmp_path / "chats.db") as c:
        await c.press("ctrl+l", *"kettle")
        await c.until(lambda: "where is my kettle?" in c.drawn)
        await c.press("enter")
        await c.until(lambda: c.chat.conversation._replies)
        await wait_for_layout(c)
        await c.until(lambda: f"▌ bot   reply {turn}" in c.drawn)
        assert "▌ you   where is my kettle?" in c.drawn
        assert c.screen.selected_number == turn
        await c.say("and the cup?")
        await c.press("ctrl+l", *"long")
        await c.until(lambda: f"{TURNS + 1} exchanges" in c.drawn)
        await c.press("enter")
        await c.until(lambda: "and the cup?" in c.drawn)
        assert c.screen.selected_number == TURNS + 1


async def test_the_selected_prompt_is_visible_above_a_tall_reply(chat):
    async with chat(FakeModel()) as c:
        tall = ReplyFacts("\n".join(f"line {n}" for n in range(40)))
        c.screen.show_transcript(Transcript([Exchange("where?", reply=tall), *make_exchanges(9)]))
        await wait_for_layout(c)
        c.screen.select(1)
        await wait_for_layout(c)
        assert "▌ you   where?" in c.drawn
        assert "line 3" in c.drawn


@pytest.mark.slow
async def test_a_pending_reply_stays_mounted_while_scrolling_back(chat):
    gate = threading.Event()
    async with chat(FakeModel(Script([("so ", "far")], reply("so good"), gate))) as c:
        await show_exchanges(c)
        await c.say("hello", wait=False)
        await c.until(lambda: "so far" in c.messages[-1])
        c.screen.conversation.focus()
        await c.press("home")
        await c.until(lambda: mounted(c)[0] < TURNS - WINDOW_SIZE)
        await wait_for_layout(c)
        await c.press("home")
        await c.until(lambda: mounted(c)[0] < TURNS - WINDOW_SIZE - PAGE_SIZE)
        assert mounted(c)[1] == TURNS + 1
        gate.set()
        await c.until(lambda: c.messages[-1].endswith("so good"))


async def test_an_error_is_reported_at_the_latest_exchange(chat):
    async with chat(FakeModel()) as c:
        await show_exchanges(c)
        c.screen.conversation.focus()
        await c.press("home")
        await c.until(lambda: mounted(c)[1] < TURNS)
        await wait_for_layout(c)
        c.screen.conversation.show_error("this went wrong")
        await c.until(lambda: "this went wrong" in c.drawn)
        assert mounted(c)[1] == TURNS
