"""A chat under test: `chat` opens one with a fake model, ready for the first prompt."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import DataTable

from edgechat.tui import ChatApp
from edgechat.tui.keeper import Keeper
from edgechat.tui.screens import ChatScreen
from edgechat.tui.store import Store
from edgechat.tui.widgets.message import ChatMessage


class Chat:
    """The chat of a running application, as the tests look at it and act on it."""

    def __init__(self, app: ChatApp, pilot: Pilot[None], keeper: Keeper | None = None) -> None:
        self.app, self.pilot, self.keeper = app, pilot, keeper

    @property
    def screen(self) -> ChatScreen:
        """The chat screen, which is on top."""
        screen = self.app.screen
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def chat(self) -> ChatScreen:
        """The chat screen, whatever lies over it."""
        (screen,) = (screen for screen in self.app.screen_stack if isinstance(screen, ChatScreen))
        return screen

    @property
    def prompt(self) -> str:
        return self.chat.prompt.text

    @property
    def messages(self) -> list[str]:
        """Who said what, oldest first."""
        return [f"{m.WHO}: {m.visual.text.plain}" for m in self.chat.query(ChatMessage)]

    @property
    def drawn(self) -> str:
        """What is on the terminal, row by row, of the screen on top."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    @property
    def words(self) -> str:
        """What is on the terminal as one line of words, without the frames of dialogs."""
        return " ".join(self.drawn.replace("│", "").split())

    @property
    def candidates(self) -> list[list[str]]:
        table = self.screen.query_one(DataTable)
        return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    @property
    def notices(self) -> list[str]:
        return [notice.message for notice in self.app._notifications]

    async def say(self, text: str, *, wait: bool = True) -> None:
        """Type and send; with `wait`, until the reply is there."""
        self.screen.prompt.focus()
        self.screen.prompt.insert(text)
        await self.pilot.press("enter")
        if wait:
            await self.until(lambda: self.screen.prompt.ready)

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until all came of it."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type_fast(self, text: str, *keys: str) -> None:
        """All of it at once, as a terminal gives what is pasted or typed while the chat was busy."""
        for key in (*text, *keys):
            written = key.removeprefix("alt+")  # comes with its letter
            self.app.post_message(Key(key, written if len(written) == 1 else None))
        await self.pilot.pause()

    async def view(self, name: str) -> str:
        """What a view of the inspector shows."""
        self.chat.show_view(name)
        await self.pilot.pause()
        return self.drawn

    async def kept(self) -> None:
        """Until all that was said is in the store."""
        assert self.keeper is not None
        await self.keeper.do(lambda store: None)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come to pass; on the screen:\n{self.drawn}"
            await asyncio.sleep(0.005)
        await self.pilot.pause()


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two keys Textual waits twice until the process has idled for a fiftieth of a second. A tenth of
    that will do; after the last key `Chat.press` waits for all that comes of it."""

    async def idle(min_sleep: float = 0) -> None:
        for _ in range(50):
            used = time.process_time()
            await asyncio.sleep(0.002)
            if time.process_time() - used < 0.0005:
                return

    monkeypatch.setattr("textual.app.wait_for_idle", idle)


OpenChat = Callable[..., AbstractAsyncContextManager[Chat]]


@pytest.fixture
def chat() -> OpenChat:
    @asynccontextmanager
    async def open_chat(
        model: Any,
        *others: Any,
        size: tuple[int, int] = (80, 24),
        store: Path | None = None,
        config: Path | None = None,
    ) -> AsyncIterator[Chat]:
        """With the model as the bundle `demo`, and others as `other1` and so on; kept in `store`."""
        models = {"demo": model} | {f"other{n}": other for n, other in enumerate(others, start=1)}
        keeper = Keeper(partial(Store, store)) if store else None
        app = ChatApp(models.__getitem__, list(models), keeper=keeper, config=config)
        async with app.run_test(size=size) as pilot:
            opened = Chat(app, pilot, keeper)
            await opened.until(lambda: opened.screen.prompt.ready and not opened.screen.bundles.loading)
            yield opened
        if keeper:
            keeper.close()

    return open_chat
