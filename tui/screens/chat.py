"""The chat screen: the actions on a conversation. `viewing.py` shows the conversation, and `talking.py` turns
prompts into replies."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import work
from textual.binding import BindingType

from ..engine import Engine
from ..formats import FORMATS, NOTHING_TO_LEARN, export, file_of, free_name, to_jsonl, to_markdown
from ..keeper import Keeper, Kept
from ..keys import CHAT, bindings
from ..knobs import Changes
from ..messages import CandidateChosen, Written
from ..plain import plain
from ..store import BusyError, DamagedError, Store, StoreError, UnwritableError, title_of
from ..talk import Talk
from ..values import Exchange, Made, Mark
from .ask import Ask, Write
from .dialog import IN_ORDER, answer_of
from .exchanges import ExchangeList
from .library import RENAMES, Library
from .talking import Load, Talking


class ChatScreen(Talking):
    """The chat with one bundle, or with two in a comparison.

    `load` and `bundles` are those of `Talking`, and `changes` the initial settings of the knobs. Without a
    keeper, nothing is saved.
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
        """Disable the actions that have nothing to act on. Help lists them, but footer and palette do not."""
        if action == "stop":
            busy = self.reply_task is not None or self.editing is not None
            return True if busy or self.selected != self.talk.newest else None
        if action == "other":
            return True if self.exchange and self.exchange.other else None
        if action == "regenerate" and (self.editing is not None or not self.bundles.ready):
            return None
        if action in ("regenerate", "edit"):
            # An exchange that is not replaced must be saved: the conversation continues in a copy.
            number = None if self.reply_task else self.selected
            return True if number and (self.talk.kept or self.talk.gives_way(number)) else None
        if action in ("replay", "mark", "answer", "copy_reply", "copy_prompt"):
            return True if self.exchange and self.reply_task is None else None
        if action in ("export", "copy_conversation", "rename", "select", "find"):
            return True if len(self.talk) else None
        if action == "library":
            return True if self._keeper else None
        if action == "export_all":
            return True if self._keeper and self.bundles.engine else None
        return True

    @property
    def labels(self) -> dict[str, str]:
        """What Escape does now, for the footer."""
        if self.reply_task is not None:
            return {}
        return {"stop": "Latest" if self.editing is None else "Cancel"}

    def action_back(self) -> None:
        """Return from a widget to the prompt, and from the conversation to its latest exchange."""
        if self.reply_task is not None:
            self.stop()
        else:
            if self.focused is self.conversation:
                self.select_latest()
            self.prompt.focus()

    # --- The selected exchange

    @work(group=IN_ORDER)
    async def action_find(self) -> None:
        numbers = self.talk.numbers
        at = await answer_of(ExchangeList(self.talk), self)
        if at and self.talk.has(numbers[at - 1]):
            self.select(numbers[at - 1])
            self.prompt.focus()

    def on_candidate_chosen(self, message: CandidateChosen) -> None:
        number, exchange = self.selected, self.exchange
        reply = exchange.reply if exchange else None
        if number is None or exchange is None or reply is None or self.reply_task is not None:
            return
        if not self._refuses_second() and message.index < len(reply.candidates):
            judged = message.index == reply.chosen or exchange.answer is not None
            mark = exchange.mark if judged else None
            self.put(number, replace(exchange, reply=reply.with_chosen(message.index), mark=mark))

    def _refuses_second(self) -> bool:
        """Whether the second bundle's reply, which is only for comparison, is selected. Notifies the user."""
        if self.side:
            other = self.key_of("chat.other") or "Other reply"
            why = f"The conversation continues with the first bundle's reply: select it with {other}"
            self.notify(why, severity="warning", markup=False)
        return bool(self.side)

    def action_mark(self, mark: Mark) -> None:
        number, exchange = self.selected, self.exchange
        if number is None or exchange is None or self._refuses_second():
            return
        if exchange.reply is None or (mark == "good" and exchange.said is None):
            self.notify("The reply is not complete: correct it instead of marking it", severity="warning")
        else:
            self.put(number, replace(exchange, mark=None if exchange.mark == mark else mark))

    @work(group=IN_ORDER)
    async def action_answer(self) -> None:
        number, exchange = self.selected, self.exchange
        if number is None or exchange is None or self._refuses_second():
            return
        text = exchange.answer or (exchange.reply.text if exchange.reply else "")
        note = (
            "Write what the bot should have said. The conversation continues with your text; an empty text "
            "removes the correction."
        )
        answer = await answer_of(Write("correct the reply", text, note=note), self)
        if answer is not None and self.talk.has(number):
            self.put(number, self.talk[number].corrected(answer))

    def action_copy_reply(self) -> None:
        answer = self.exchange.answer if self.exchange and not self.side else None
        text = answer or (self.reply.text if self.reply else "")
        if not text:
            self.notify("There is no reply to copy yet", severity="warning")
        else:
            self.app.copy_to_clipboard(plain(text))
            self.notify("The reply is copied")

    def action_copy_prompt(self) -> None:
        if self.exchange is not None:
            self.app.copy_to_clipboard(plain(self.exchange.prompt))
            self.notify("The prompt is copied")

    # --- The conversation

    def action_new_conversation(self) -> None:
        self.stop()
        self.hold(Talk(kept=self._kept()))
        self.prompt.focus()

    def action_copy_conversation(self) -> None:
        self.app.copy_to_clipboard(to_markdown(self.talk.title, list(self.talk)))
        self.notify("The conversation is copied as Markdown")

    @work(group=IN_ORDER)
    async def action_rename(self) -> None:
        title = await answer_of(Ask("rename", self.talk.title, note=RENAMES), self)
        if title and title.strip():
            self.talk.rename(title_of(title))

    @work(group=IN_ORDER)
    async def action_export(self) -> None:
        def text(form: Callable[[str, Sequence[Exchange]], str]) -> str:
            return form(self.talk.title, list(self.talk))

        note = "The extension sets the format: .md to read, .json for programs, .jsonl for training."
        await self._export("chat.md", note, {ending: partial(text, form) for ending, form in FORMATS.items()})

    @work(group=IN_ORDER)
    async def action_export_all(self) -> None:
        engine = self.bundles.engine
        if self._keeper is None or engine is None:
            return

        def every(store: Store) -> tuple[str, list[DamagedError]]:
            texts, damaged = [], []
            for summary in store.find():
                try:
                    texts.append(to_jsonl(*store.load(summary.id), partial(_is_of, engine, summary.bundle)))
                except DamagedError as error:
                    damaged.append(error)
            return "".join(texts), damaged

        try:
            text, damaged = await self._keeper.do(every)
        except StoreError as error:
            self.notify(plain(str(error)), severity="error", markup=False)
            return
        for why in damaged:
            self.notify(plain(f"{why}. It is not exported"), severity="warning", markup=False)
        if not text:
            self.notify(NOTHING_TO_LEARN, severity="warning")
            return
        bundle = engine.facts.path or engine.facts.name
        note = f"Saves the good and corrected replies of the bundle {plain(bundle)} for edgechat train."
        await self._export("chats.jsonl", note, {".jsonl": lambda: text})

    async def _export(self, proposed: str, note: str, texts: Mapping[str, Callable[[], str]]) -> None:
        """Ask for a file name until one of `texts`, which are by extension, is written."""
        check = partial(export, texts=texts)
        name = await answer_of(Ask("export to a file", free_name(proposed), note=note, check=check), self)
        if name:
            self.notify(plain(f"Saved to {file_of(name).absolute()}"), markup=False)

    # --- Saving

    def _kept(self, id: int | None = None, rows: dict[int, int] | None = None) -> Kept | None:
        """For a new conversation, or the stored one with this id. None if nothing is saved."""
        return Kept(self._keeper, self._report_written, id=id, rows=rows) if self._keeper else None

    def _report_written(self, error: str) -> None:
        """Called in the keeper's thread."""
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
                if isinstance(error, UnwritableError):
                    self.why_not_kept = error.why
                else:
                    why = f"{error}. This conversation is not saved."
                    self.notify(plain(why), severity="error", markup=False)
                self.changed()

    async def _prompts(self, keeper: Keeper) -> list[str]:
        """The prompts of earlier conversations. Waits while another program has locked the file."""
        while True:
            try:
                return await keeper.do(lambda store: store.prompts())
            except BusyError as error:
                self.notify(plain(f"{error}. Trying again"), severity="warning", markup=False)
                await asyncio.sleep(1)

    async def _kept_title(self, keeper: Keeper) -> str | None:
        """The stored title of this conversation, None if it is not stored."""
        id = self.talk.kept.id if self.talk.kept else None
        return None if id is None else await keeper.do(lambda store: store.title(id))

    @work(group=IN_ORDER)
    async def action_library(self) -> None:
        if self._keeper is None:
            return
        before = None
        with contextlib.suppress(StoreError):  # the list shows the error
            before = await self._kept_title(self._keeper)
        chosen = await answer_of(Library(self._keeper), self)
        try:
            deleted = await self._keeper.do(lambda store: store.deleted())
            here = self.talk.kept.id if self.talk.kept else None
            if here in deleted:
                self.action_new_conversation()
            elif before and (named := await self._kept_title(self._keeper)) and named != before:
                self.talk.rename(named)
            if chosen is None:
                return
            self.stop()  # first, since the reply may belong to the conversation that is loaded
            title, exchanges = await self._keeper.do(lambda store: store.load(chosen.id))
        except StoreError as error:
            self.notify(plain(str(error)), severity="error", markup=False)
            return
        self.stop()  # a reply may have started while the conversation was loaded
        rows = {n: e.id for n, e in enumerate(exchanges, start=1) if e.id is not None}
        self.hold(Talk(exchanges, title, self._kept(chosen.id, rows)))
        self.select(chosen.found_in)
        self.prompt.focus()


def _is_of(engine: Engine, started_with: str, exchange: Exchange) -> bool:
    """Whether a bundle made the reply of an exchange. Without a reply, the bundle that the conversation was
    started with counts, which is known by name."""
    made = exchange.reply.made if exchange.reply else Made()
    return engine.has_made(made if made.bundle else Made(started_with))
