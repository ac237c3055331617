"""A chat under test: `chat` opens one with a fake model, ready for the first prompt."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable

from edgechat.tui import ChatApp
from edgechat.tui.screens import ChatScreen
from edgechat.tui.widgets.message import ChatMessage


class Chat:
    """The chat of a running application, as the tests look at it and act on it."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def screen(self) -> ChatScreen:
        screen = self.app.screen
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def prompt(self) -> str:
        return self.screen.prompt.text

    @property
    def messages(self) -> list[str]:
        """Who said what, oldest first."""
        return [f"{m.WHO}: {m.visual.text.plain}" for m in self.screen.query(ChatMessage)]

    @property
    def drawn(self) -> str:
        """What is on the terminal, row by row."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    @property
    def candidates(self) -> list[list[str]]:
        table = self.screen.query_one(DataTable)
        return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    @property
    def notices(self) -> list[str]:
        return [notice.message for notice in self.app._notifications]

    async def say(self, text: str, *, wait: bool = True) -> None:
        """Type and send; with `wait`, until the reply is there."""
        self.screen.prompt.insert(text)
        await self.pilot.press("enter")
        if wait:
            await self.until(lambda: self.screen.prompt.ready)

    async def until(self, condition: Callable[[], object], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come to pass; on the screen:\n{self.drawn}"
            await asyncio.sleep(0.005)
        await self.pilot.pause()


OpenChat = Callable[..., AbstractAsyncContextManager[Chat]]


@pytest.fixture
def chat() -> OpenChat:
    @asynccontextmanager
    async def open_chat(model: Any, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Chat]:
        app = ChatApp(lambda: model, bundle="demo")
        async with app.run_test(size=size) as pilot:
            opened = Chat(app, pilot)
            await opened.until(lambda: opened.screen.prompt.ready)
            yield opened

    return open_chat
