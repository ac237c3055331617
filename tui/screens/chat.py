"""The chat screen: what one does with a conversation that is there. How it is shown is in `viewing.py`, how a
prompt becomes a reply in `talking.py`."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import work
from textual.binding import BindingType

from ..engine import name_of
from ..formats import FORMATS, NOTHING_TO_LEARN, export, file_of, free_name, to_jsonl, to_markdown
from ..keeper import Keeper, Kept
from ..keys import CHAT, bindings
from ..knobs import Changes
from ..messages import CandidateChosen, Written
from ..plain import plain
from ..store import BusyError, DamagedError, Store, StoreError, title_of
from ..talk import Talk
from ..values import Exchange, Mark
from .ask import Ask, Write
from .library import RENAMES, Library
from .over import IN_ORDER, answer_of
from .talking import Load, Talking
from .turns import Turns


class ChatScreen(Talking):
    """Talk to a bundle, or to two at once.

    `load` and `bundles` are those of `Talking`; `changes` are the knobs as they are turned at first. Without
    a keeper nothing is kept.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(CHAT)
    BINDING_GROUP_TITLE = "Chat"

    def __init__(
        self, load: Load, bundles: Sequence[str], changes: Changes | None = None, keeper: Keeper | None = None
    ) -> None:
        super().__init__(load, bundles, changes)
        self._keeper = keeper
        self.talk = Talk(kept=self._kept())

    def on_mount(self) -> None:
        self._begin_keeping()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """An action that has nothing to act on is not offered, and is listed in help alone."""
        if action == "stop":
            return True if self.turn is not None or self.editing is not None else None
        if action == "other":
            return True if self.exchange and self.exchange.other else None
        if action == "regenerate" and (self.editing is not None or not self.bundles.ready):
            return None
        if action in ("regenerate", "edit"):
            # What does not give way must be kept.
            number = None if self.turn else self.looked_at
            return True if number and (self.talk.kept or self.talk.gives_way(number)) else None
        if action in ("replay", "mark", "answer", "copy_reply", "copy_prompt"):
            return True if self.exchange and self.turn is None else None
        if action in ("export", "copy_conversation", "rename", "select", "find"):
            return True if len(self.talk) else None
        if action == "library":
            return True if self._keeper else None
        if action == "export_all":
            return True if self._keeper and self.bundles.current else None
        return True

    def action_back(self) -> None:
        """Out of a widget, and out of the conversation to its end."""
        if self.turn is not None:
            self.action_stop()
        else:
            if self.focused is self.conversation:
                self.look(None)
            self.prompt.focus()

    # --- The turn that is looked at

    @work(group=IN_ORDER)
    async def action_find(self) -> None:
        numbers = self.talk.numbers
        turn = await answer_of(Turns(self.talk), self)
        if turn and self.talk.has(numbers[turn - 1]):
            self.look(numbers[turn - 1])
            self.prompt.focus()

    def on_candidate_chosen(self, message: CandidateChosen) -> None:
        number, exchange = self.looked_at, self.exchange
        reply = exchange.reply if exchange else None
        if number is None or exchange is None or reply is None or self.turn is not None:
            return
        if not self._refuses_second() and message.index < len(reply.candidates):
            judged = message.index == reply.chosen or exchange.answer is not None
            mark = exchange.mark if judged else None
            self.put(number, replace(exchange, reply=reply.with_chosen(message.index), mark=mark))

    def _refuses_second(self) -> bool:
        """Whether the second bundle's reply is looked at, which is compared and no more: said where it is."""
        if self.side:
            other = self._keys().get("chat.other", "Other reply")
            first = f"The conversation goes on with the first bundle's reply: {other} looks at that"
            self.notify(first, severity="warning", markup=False)
        return bool(self.side)

    def action_mark(self, mark: Mark) -> None:
        number, exchange = self.looked_at, self.exchange
        if number is None or exchange is None or self._refuses_second():
            return
        if exchange.reply is None or (mark == "good" and exchange.said is None):
            self.notify("This is no whole reply: write what it should have said", severity="warning")
        else:
            self.put(number, replace(exchange, mark=None if exchange.mark == mark else mark))

    @work(group=IN_ORDER)
    async def action_answer(self) -> None:
        number, exchange = self.looked_at, self.exchange
        if number is None or exchange is None or self._refuses_second():
            return
        text = exchange.answer or (exchange.reply.text if exchange.reply else "")
        note = "What it should have said. The conversation goes on with that; empty takes it back."
        answer = await answer_of(Write("correct", text, note=note), self)
        if answer is not None and self.talk.has(number):
            self.put(number, self.talk[number].corrected(answer))

    def action_copy_reply(self) -> None:
        answer = self.exchange.answer if self.exchange and not self.side else None
        text = answer or (self.reply.text if self.reply else "")
        if not text:
            self.notify("There is no reply to copy yet", severity="warning")
        else:
            self.app.copy_to_clipboard(plain(text))
            self.notify("The reply is in the clipboard")

    def action_copy_prompt(self) -> None:
        if self.exchange is not None:
            self.app.copy_to_clipboard(plain(self.exchange.prompt))
            self.notify("The prompt is in the clipboard")

    # --- The conversation

    def action_new_conversation(self) -> None:
        self.action_stop()
        self.hold(Talk(kept=self._kept()))
        self.prompt.focus()

    def action_copy_conversation(self) -> None:
        self.app.copy_to_clipboard(to_markdown(self.talk.title, list(self.talk)))
        self.notify("The conversation is in the clipboard, as Markdown")

    @work(group=IN_ORDER)
    async def action_rename(self) -> None:
        title = await answer_of(Ask("rename", self.talk.title, note=RENAMES), self)
        if title and title.strip():
            self.talk.rename(title_of(title))

    @work(group=IN_ORDER)
    async def action_export(self) -> None:
        def text(form: Callable[[str, Sequence[Exchange]], str]) -> str:
            return form(self.talk.title, list(self.talk))

        note = "The ending says how: .md to read, .json for programs, .jsonl to train with."
        await self._export("chat.md", note, {ending: partial(text, form) for ending, form in FORMATS.items()})

    @work(group=IN_ORDER)
    async def action_export_all(self) -> None:
        if self._keeper is None or not self.bundles.current:
            return
        name = name_of(self.bundles.current)

        def every(store: Store) -> tuple[str, list[DamagedError]]:
            texts, damaged = [], []
            for summary in store.find():
                try:
                    texts.append(to_jsonl(*store.load(summary.id), partial(_is_of, name, summary.bundle)))
                except DamagedError as error:
                    damaged.append(error)
            return "".join(texts), damaged

        try:
            text, damaged = await self._keeper.do(every)
        except StoreError as error:
            self.notify(plain(str(error)), severity="error", markup=False)
            return
        for why in damaged:
            self.notify(plain(f"{why}. It is left out"), severity="warning", markup=False)
        if not text:
            self.notify(NOTHING_TO_LEARN, severity="warning")
            return
        note = f"What was marked good or corrected of the replies of {plain(name)}, for edgechat train."
        await self._export("chats.jsonl", note, {".jsonl": lambda: text})

    async def _export(self, proposed: str, note: str, texts: Mapping[str, Callable[[], str]]) -> None:
        """Ask for a file until one of `texts`, which are by ending, is written to it."""
        check = partial(export, texts=texts)
        name = await answer_of(Ask("export to a file", free_name(proposed), note=note, check=check), self)
        if name:
            self.notify(plain(f"Written to {file_of(name).absolute()}"), markup=False)

    # --- Keeping

    def _kept(self, id: int | None = None, rows: dict[int, int] | None = None) -> Kept | None:
        """How a conversation is kept: one that is new, or that of `id`."""
        return Kept(self._keeper, self._report_written, id=id, rows=rows) if self._keeper else None

    def _report_written(self, error: str) -> None:
        """From the keeper's thread."""
        self.post_message(Written(error))

    def on_written(self, message: Written) -> None:
        if message.error:
            self.notify(plain(message.error), severity="error", markup=False)
        self.show_status()

    @work
    async def _begin_keeping(self) -> None:
        self.hold(self.talk)
        if self._keeper:
            try:
                self.prompt.remember(await self._prompts(self._keeper))
            except StoreError as error:
                self._keeper = self.talk.kept = None
                self.notify(plain(f"{error}. What is said now is not kept."), severity="error", markup=False)
                self.changed()

    async def _prompts(self, keeper: Keeper) -> list[str]:
        """Those of earlier conversations, as soon as no other program has the file for itself."""
        while True:
            try:
                return await keeper.do(lambda store: store.prompts())
            except BusyError as error:
                self.notify(plain(f"{error}. It is tried again"), severity="warning", markup=False)
                await asyncio.sleep(1)

    async def _kept_title(self, keeper: Keeper) -> str | None:
        """Of this conversation, as the store has it."""
        id = self.talk.kept.id if self.talk.kept else None
        return None if id is None else await keeper.do(lambda store: store.title(id))

    @work(group=IN_ORDER)
    async def action_library(self) -> None:
        if self._keeper is None:
            return
        before = None
        with contextlib.suppress(StoreError):  # which the list tells
            before = await self._kept_title(self._keeper)
        chosen = await answer_of(Library(self._keeper), self)
        try:
            deleted = await self._keeper.do(lambda store: store.deleted())
            here = self.talk.kept.id if self.talk.kept else None
            if here in deleted:
                self.action_new_conversation()  # nobody goes on in what was deleted
            elif before and (named := await self._kept_title(self._keeper)) and named != before:
                self.talk.rename(named)
            if chosen is None:
                return
            self.action_stop()  # what came of a reply may belong to the one that is read now
            title, exchanges = await self._keeper.do(lambda store: store.load(chosen.id))
        except StoreError as error:
            self.notify(plain(str(error)), severity="error", markup=False)
            return
        self.action_stop()  # one that began while it was read
        rows = {n: e.id for n, e in enumerate(exchanges, start=1) if e.id is not None}
        self.hold(Talk(exchanges, title, self._kept(chosen.id, rows)))
        self.look(chosen.turn)
        self.prompt.focus()


def _is_of(name: str, began: str, exchange: Exchange) -> bool:
    """Whether the reply is that of the bundle of this name: where there is none, of who `began`."""
    return ((exchange.reply and exchange.reply.made.bundle) or began) == name
