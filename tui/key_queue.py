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

from textual import work
from textual.app import App
from textual.dom import DOMNode
from textual.events import Event, Key, Paste

from .screens.dialog import ACTION_GROUP, SEARCH_GROUP, Dialog
from .widgets.editor import TextFieldMixin, types_text

#: Actions that end something. If the user waits and then presses such a key, the waiting keys are dropped.
_CANCELING_ACTION_IDS = ("app.quit", "chat.stop", "over.close")

#: How long a key waits at most for the keys before it, and the time between checks.
KEY_TIMEOUT_SECONDS, _POLL_SECONDS = 1.0, 0.005


class KeyQueueApp(App[None]):
    """An application that handles a key only when the actions of earlier keys are done."""

    def __init__(self, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._keys: deque[Key | Paste] = deque()  # waiting
        self._arrived = asyncio.Event()
        self._exiting = False

    def on_ready(self) -> None:
        """Called when the first screen is ready. A key that comes earlier waits."""
        self._deliver_keys()

    def exit(self, *arguments: Any, **options: Any) -> None:
        self._exiting = True
        super().exit(*arguments, **options)

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, (Key, Paste)) or event.is_forwarded:
            await super().on_event(event)
            return
        if self._keys and event.time - self._keys[0].time > KEY_TIMEOUT_SECONDS and self._is_canceling(event):
            self._keys.clear()
        self._keys.append(event)
        self._arrived.set()

    def before_key(self, event: Key | Paste) -> None:
        """Called before a key is handled. A subclass may move the focus here."""

    def _is_canceling(self, event: Key | Paste) -> bool:
        active = self.screen.active_bindings.get(event.key) if isinstance(event, Key) else None
        return active is not None and active.binding.id in _CANCELING_ACTION_IDS

    @work(group="keys")
    async def _deliver_keys(self) -> None:
        all_handled = True
        while not self._exiting:
            if not self._keys:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            event = self._keys.popleft()
            self.before_key(event)
            # Typed text needs no waiting: it stays in order in the message queue of its text field.
            is_text = isinstance(event, Paste) or types_text(event)
            if isinstance(self.focused, TextFieldMixin) and is_text:
                all_handled = False
            elif not all_handled:
                await self._wait_until_handled()
                all_handled = True
            await super().on_event(event)
            if all_handled:
                await self._wait_until_handled()

    async def _wait_until_handled(self) -> None:
        """Wait until the last key has bubbled up, its messages are handled, and its action is done or shows a
        dialog that has the focus."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEY_TIMEOUT_SECONDS):
                for _ in range(2):
                    if not self._exiting:
                        await _wait_for_messages(self.focused or self.screen)
                while self._action_is_running and not self._exiting:
                    await asyncio.sleep(_POLL_SECONDS)

    @property
    def _action_is_running(self) -> bool:
        """Whether an action is running that does not wait for the user's answer in a dialog."""
        dialogs = [screen for screen in self.screen_stack if isinstance(screen, Dialog)]
        waiting_for_user = {dialog.opened_by for dialog in dialogs if dialog.focused}
        groups = (ACTION_GROUP, SEARCH_GROUP)
        running = {worker for worker in self.workers if worker.group in groups and not worker.is_finished}
        return bool(running - waiting_for_user)


async def _wait_for_messages(node: DOMNode) -> None:
    """Wait until the messages now in the queue of a node are handled, then those of its parent, and so on."""
    for place in node.ancestors_with_self:
        handled = asyncio.Event()
        if not place.call_later(handled.set):
            continue
        while place.is_running and not handled.is_set():  # a node that is removed does not handle it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(handled.wait(), _POLL_SECONDS)
