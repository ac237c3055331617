"""Keys count in the order in which they come, however fast: a slow line, a macro or a quick hand delivers
many at once. Textual gives each to what has the focus then, and looks for its binding when it has bubbled up:
what is typed after a key that opens a box would go to the prompt, and Enter would send it."""

import asyncio
import contextlib
from collections import deque
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.events import Event, Key, Paste

from .screens.over import FILLING, IN_ORDER, Over
from .widgets.editor import Writable, writes

#: What ends something. Who presses its key after a wait wants no more of what waits before it.
_ENDS = ("app.quit", "chat.stop", "over.close")

#: Seconds for which a key waits at most, and between two looks at what it waits for.
_PATIENCE, _LOOK = 1.0, 0.005


class KeysInOrder(App[None]):
    """An application that gives a key on when all is done that came of those before."""

    def __init__(self, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._keys: deque[Key | Paste] = deque()  # that wait
        self._come = asyncio.Event()
        self._leaves = False

    def on_mount(self) -> None:
        self.run_worker(self._give_keys(), group="keys")

    def exit(self, *arguments: Any, **options: Any) -> None:
        self._leaves = True
        super().exit(*arguments, **options)

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, (Key, Paste)) or event.is_forwarded:
            await super().on_event(event)
            return
        if self._keys and event.time - self._keys[0].time > _PATIENCE and self._ends(event):
            self._keys.clear()
        self._keys.append(event)
        self._come.set()

    def before_key(self, event: Key | Paste) -> None:
        """For what may give the focus to another widget first."""

    def _ends(self, event: Key | Paste) -> bool:
        active = self.screen.active_bindings.get(event.key) if isinstance(event, Key) else None
        return active is not None and active.binding.id in _ENDS

    async def _give_keys(self) -> None:
        settled = True
        while not self._leaves:
            if not self._keys:
                self._come.clear()
                await self._come.wait()
                continue
            event = self._keys.popleft()
            self.before_key(event)
            # What is written stays in order in the queue of what it is written in.
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
        """Wait until what was given has gone its way, up to where bindings are looked for, and so has the
        message that came of it; until an action is done, or its box there to be written in."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                for _ in range(2):
                    if not self._leaves:
                        await _passed(self.focused or self.screen)
                while self._acts and not self._leaves:
                    await asyncio.sleep(_LOOK)

    @property
    def _acts(self) -> bool:
        """Whether an action is under way that does not wait for an answer."""
        boxes = [screen for screen in self.screen_stack if isinstance(screen, Over)]
        asking = {box.asked_by for box in boxes if box.focused}
        groups = (IN_ORDER, FILLING)
        at_work = {worker for worker in self.workers if worker.group in groups and not worker.is_finished}
        return bool(at_work - asking)


async def _passed(node: DOMNode) -> None:
    """Wait until all is handled that is now in the queue of a node, then in that of its parent, and so on."""
    for place in node.ancestors_with_self:
        passed = asyncio.Event()
        if not place.call_later(passed.set):
            continue
        while place.is_running and not passed.is_set():  # one that is removed does not get to it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(passed.wait(), _LOOK)
