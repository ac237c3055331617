"""Finding an exchange of the conversation."""

from edgechat.tui.screens.exchanges import ExchangeList
from edgechat.tui.transcript import Transcript
from edgechat.tui.values import Exchange, ReplyFacts

from .fakes import FakeModel, Script, reply


async def test_exchanges_are_listed_searched_and_selected(chat):
    said = [
        Exchange("where is my kettle?", reply=ReplyFacts("on the stove")),
        Exchange("and the cup?", reply=ReplyFacts("gone")),
        Exchange("what boils?", reply=ReplyFacts("?"), mark="bad", answer="the KETTLE\nboils"),
        Exchange("so", "failed"),
    ]
    async with chat(FakeModel(), size=(100, 40)) as c:
        assert not c.screen.active_bindings["ctrl+f"].enabled
        c.screen.show_transcript(Transcript(said))
        await c.press("ctrl+f")
        assert isinstance(c.app.screen, ExchangeList)
        for turn in range(1, 5):
            assert f"exchange {turn}" in c.drawn
        assert c.drawn.index("exchange 4") < c.drawn.index("exchange 1")
        await c.press(*"kettle")
        assert ["exchange 3 · the KETTLE" in c.drawn, "exchange 1 · where is my kettle?" in c.drawn] == [
            True,
            True,
        ]
        assert "exchange 2" not in c.drawn
        await c.type_fast("", "down", "enter")
        await c.until(lambda: c.app.screen is c.chat)
        assert c.screen.selected_number == 1
        await c.until(lambda: "▌ bot   on the stove" in c.drawn)
        await c.press("ctrl+g")
        assert c.screen.transcript[1].mark == "good"
        await c.press("ctrl+f", *"kettlex")
        assert "Nothing found." in c.drawn
        await c.press("enter", "escape")
        assert c.screen.selected_number == 1
        assert c.screen.prompt.has_focus
        await c.press("escape")  # in the prompt
        assert c.screen.selected_number == 4
        assert not c.screen.active_bindings["escape"].enabled


async def test_the_latest_of_many_exchanges_are_listed_with_their_number(chat):
    async with chat(FakeModel(Script(end=reply("so")))) as c:
        c.screen.show_transcript(
            Transcript([Exchange(f"prompt {n}", reply=ReplyFacts("fine")) for n in range(1, 1203)])
        )
        await c.press("ctrl+f")
        assert "The newest 500 of 1,202. Type to narrow the list." in c.words
        await c.type_fast("prompt 7", "end", "enter")
        await c.until(lambda: c.app.screen is c.chat)
        assert c.screen.selected_number == 7
