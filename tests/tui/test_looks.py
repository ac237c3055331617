"""Pictures of the chat, narrow and wide. `pytest --snapshot-update` takes them anew: look at them then."""

import pytest

from edgechat.tui import ChatApp

from .conftest import Chat
from .fakes import FakeModel, Script, reply

SCRIPTS = (
    Script([("I am ", "not sure")], stalls=True),
    Script(end=reply("Hello there!", "Hello yourself, my friend.", "你好，世界！🙂")),
)


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
@pytest.mark.parametrize("theme", ["textual-dark", "textual-light"])
def test_the_chat_looks_as_it_did(snap_compare, size, theme):
    app = ChatApp(lambda: FakeModel(*SCRIPTS), bundle="demo")

    async def talk(pilot):
        await pilot.pause()
        app.theme = theme
        c = Chat(app, pilot)
        c.screen.prompt.cursor_blink = False
        await c.until(lambda: c.screen.prompt.ready)
        if size[0] < 100:
            await pilot.press("f2")  # the candidates, which are hidden at first
        await c.say("how are you?", wait=False)
        await c.until(lambda: "not sure" in c.messages[-1])
        await pilot.press("escape")
        await c.say("hello")
        await pilot.press("d", "r", "a", "f", "t")

    assert snap_compare(app, terminal_size=size, run_before=talk)


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
def test_the_welcome_looks_as_it_did(snap_compare, size):
    app = ChatApp(FakeModel, bundle="demo")

    async def wait(pilot):
        await pilot.pause()
        c = Chat(app, pilot)
        c.screen.prompt.cursor_blink = False
        await c.until(lambda: c.screen.prompt.ready)

    assert snap_compare(app, terminal_size=size, run_before=wait)
