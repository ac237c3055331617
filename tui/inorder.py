"""Keys take effect in the order in which they arrive, even if many arrive at once from a slow connection, a
macro or a fast typist.

Textual sends each key to the widget that has the focus at that moment, and runs its binding only after the
key has bubbled up. Text typed right after a key that opens a dialog would go to the prompt, and Enter would
send it.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.events import Event, Key, Paste

from .screens.dialog import FILLING, IN_ORDER, Dialog
from .widgets.editor import Writable, writes

#: Actions that end something. If the user waits and then presses such a key, the waiting keys are dropped.
_ENDS = ("app.quit", "chat.stop", "over.close")

#: Seconds that a key waits at most for the keys before it, and seconds between checks.
PATIENCE, _INTERVAL = 1.0, 0.005


class KeysInOrder(App[None]):
    """An application that handles a key only when the actions of earlier keys are done."""

    def __init__(self, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._keys: deque[Key | Paste] = deque()  # waiting
        self._arrived = asyncio.Event()
        self._exiting = False

    def on_mount(self) -> None:
        self.run_worker(self._give_keys(), group="keys")

    def exit(self, *arguments: Any, **options: Any) -> None:
        self._exiting = True
        super().exit(*arguments, **options)

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, (Key, Paste)) or event.is_forwarded:
            await super().on_event(event)
            return
        if self._keys and event.time - self._keys[0].time > PATIENCE and self._ends(event):
            self._keys.clear()
        self._keys.append(event)
        self._arrived.set()

    def before_key(self, event: Key | Paste) -> None:
        """Called before a key is handled. A subclass may move the focus here."""

    def _ends(self, event: Key | Paste) -> bool:
        active = self.screen.active_bindings.get(event.key) if isinstance(event, Key) else None
        return active is not None and active.binding.id in _ENDS

    async def _give_keys(self) -> None:
        settled = True
        while not self._exiting:
            if not self._keys:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            event = self._keys.popleft()
            self.before_key(event)
            # Typed text needs no waiting: it stays in order in the message queue of its text field.
            written = isinstance(event, Paste) or writes(event)
            if isinstance(self.focused, Writable) and written:
                settled = False
            elif not settled:
                await self._settle()
                settled = True
            await super().on_event(event)
            if settled:
                await self._settle()

    async def _settle(self) -> None:
        """Wait until the last key has bubbled up, its messages are handled, and its action is done or shows a
        dialog that has the focus."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for _ in range(2):
                    if not self._exiting:
                        await _handled(self.focused or self.screen)
                while self._acts and not self._exiting:
                    await asyncio.sleep(_INTERVAL)

    @property
    def _acts(self) -> bool:
        """Whether an action is running that does not wait for the user's answer in a dialog."""
        dialogs = [screen for screen in self.screen_stack if isinstance(screen, Dialog)]
        asking = {dialog.asked_by for dialog in dialogs if dialog.focused}
        groups = (IN_ORDER, FILLING)
        running = {worker for worker in self.workers if worker.group in groups and not worker.is_finished}
        return bool(running - asking)


async def _handled(node: DOMNode) -> None:
    """Wait until the messages now in the queue of a node are handled, then those of its parent, and so on."""
    for place in node.ancestors_with_self:
        handled = asyncio.Event()
        if not place.call_later(handled.set):
            continue
        while place.is_running and not handled.is_set():  # a node that is removed does not handle it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(handled.wait(), _INTERVAL)
