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
from textual.strip import Strip
from textual.widgets import DataTable

from edgechat.tui import ChatApp
from edgechat.tui.screens import ChatScreen
from edgechat.tui.store import Store
from edgechat.tui.store_thread import StoreThread
from edgechat.tui.widgets.chat_messages import ChatMessage

TIMEOUT_SECONDS = 60


@pytest.fixture(autouse=True)
def _lasting_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notice disappears before the test has seen it, however slow the machine is."""
    monkeypatch.setattr(ChatApp, "NOTIFICATION_TIMEOUT", 10 * TIMEOUT_SECONDS)


@pytest.fixture(autouse=True)
def _empty_current_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat lists the bundles of the current folder: not those that `make demo` left in the repository."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


class Chat:
    """The chat of a running application, as tests observe and control it. `models` are those that can be
    loaded, by path: a model, an error to raise, or a function that returns the model."""

    def __init__(self, app: ChatApp, pilot: Pilot[None], store_thread: StoreThread | None = None) -> None:
        self.app, self.pilot, self.store_thread = app, pilot, store_thread
        self.models: dict[str, Any] = {}

    @property
    def screen(self) -> ChatScreen:
        """The chat screen, which is on top."""
        screen = self.app.screen
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def chat(self) -> ChatScreen:
        """The chat screen, even if a dialog is open."""
        (screen,) = (screen for screen in self.app.screen_stack if isinstance(screen, ChatScreen))
        return screen

    @property
    def prompt(self) -> str:
        return self.chat.prompt.text

    @property
    def messages(self) -> list[str]:
        """Who said what, oldest first."""
        return [f"{m.SPEAKER}: {m.visual.text.plain}" for m in self.chat.query(ChatMessage)]

    @property
    def drawn(self) -> str:
        """The rows of the top screen, as they are drawn."""
        return "\n".join(strip.text.rstrip() for strip in self.strips)

    @property
    def strips(self) -> list[Strip]:
        """The rows of the top screen with their styles."""
        return self.app.screen._compositor.render_strips()

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
        """Type and send a prompt; with `wait`, wait for the reply."""
        self.screen.prompt.focus()
        self.screen.prompt.insert(text)
        await self.pilot.press("enter")
        if wait:
            await self.until(lambda: self.screen.prompt.ready)

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until they are handled."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type_fast(self, text: str, *keys: str) -> None:
        """Send all keys at once, as a terminal does after the chat was busy."""
        for key in (*text, *keys):
            written = key.removeprefix("alt+")  # comes with its letter
            self.app.post_message(Key(key, written if len(written) == 1 else None))
        await self.pilot.pause()

    async def view(self, name: str) -> str:
        """Show a view of the inspector, and return what is drawn."""
        self.chat.show_view(name)
        await self.pilot.pause()
        return self.drawn

    async def wait_until_saved(self) -> None:
        """Wait until everything is saved."""
        assert self.store_thread is not None
        await self.store_thread.run(lambda store: None)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition. The limit only ends a test that fails."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"the condition never holds; on the screen:\n{self.drawn}"
            await asyncio.sleep(0.005)
        await self.pilot.pause()


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten a wait of Textual's pilot: between two keys, it waits twice until the process was idle for a
    fiftieth of a second. A tenth of that is enough, since `Chat.press` waits until the last key is
    handled."""

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
        draw_notices: bool = False,
    ) -> AsyncIterator[Chat]:
        """The model is the bundle `demo`, and `others` are `other1` and so on. Saves to `store`."""
        models = {"demo": model} | {f"other{n}": other for n, other in enumerate(others, start=1)}
        store_thread = StoreThread(partial(Store, store)) if store else None

        def load(path: str) -> Any:
            found = models[path]
            if isinstance(found, Exception):
                raise found
            return found() if callable(found) else found

        app = ChatApp(load, list(models), store_thread=store_thread, config=config)
        async with app.run_test(size=size, notifications=draw_notices) as pilot:
            opened = Chat(app, pilot, store_thread)
            opened.models = models
            await opened.until(lambda: opened.screen.prompt.ready and not opened.screen.bundles.loading)
            yield opened
        if store_thread:
            store_thread.close()

    return open_chat
