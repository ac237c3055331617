"""The chat screen: the actions on a conversation. `chat_base.py` shows the conversation, and
`chat_replies.py` turns prompts into replies."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import work
from textual.binding import BindingType

from ..engine import Engine
from ..formats import FORMATS, NOTHING_TO_LEARN, expand_path, to_jsonl, to_markdown, unused_name, write_export
from ..keys import CHAT_ACTIONS, bindings
from ..knobs import Changes
from ..messages import CandidateChosen, WriteEnded
from ..safe_text import safe_text
from ..store import BusyError, DamagedError, Store, StoreError, UnwritableError
from ..store_thread import ConversationSaver, StoreThread
from ..titles import title_of
from ..transcript import Transcript
from ..values import Exchange, Mark, ReplyOrigin
from .chat_replies import ModelLoader, ReplyingChatScreen
from .dialog import ACTION_GROUP, show_dialog
from .exchanges import ExchangeList
from .library import TITLE_NOTE, Library
from .text_dialogs import AskDialog, WriteDialog


class ChatScreen(ReplyingChatScreen):
    """The chat with one bundle, or with two in a comparison.

    `load` and `bundles` are those of `ReplyingChatScreen`, and `changes` the initial settings of the knobs.
    Without a store thread, nothing is saved.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(CHAT_ACTIONS)
    BINDING_GROUP_TITLE = "Chat"

    def __init__(
        self,
        load: ModelLoader,
        bundles: Sequence[str],
        changes: Changes | None = None,
        store_thread: StoreThread | None = None,
    ) -> None:
        super().__init__(load, bundles, changes)
        self._store_thread = store_thread
        self.transcript = Transcript(saver=self._make_saver())

    def on_mount(self) -> None:
        self._start_saving()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the actions that have nothing to act on. Help lists them, but footer and palette do not."""
        if action == "stop":
            busy = self.reply_task is not None or self.editing is not None
            return True if busy or self.selected_number != self.transcript.newest else None
        if action == "other":
            return True if self.selected_exchange and self.selected_exchange.other else None
        if action == "regenerate" and (self.editing is not None or not self.bundles.ready):
            return None
        if action in ("regenerate", "edit", "replay", "mark", "answer", "copy_reply", "copy_prompt"):
            return True if self.selected_exchange and self.reply_task is None else None
        if action in ("export", "copy_conversation"):
            return True if self.transcript.ended else None
        if action in ("rename", "select", "find"):
            return True if len(self.transcript) else None
        if action == "library":
            return True if self._store_thread else None
        if action == "export_all":
            return True if self._store_thread and self.bundles.engine else None
        return True

    @property
    def labels(self) -> dict[str, str]:
        """What keys do now, for the footer."""
        labels = {"toggle_inspector": "Hide"} if self.inspector.display else {}
        if self.reply_task is not None:
            return labels | {"screen.back": "Stop"}
        return labels | {"stop": "Latest" if self.editing is None else "Cancel"}

    def action_back(self) -> None:
        """Return from a widget to the prompt, and from the conversation to its latest exchange."""
        if self.reply_task is not None:
            self.stop()
        else:
            if self.focused is self.conversation:
                self.select_latest()
            self.prompt.focus()

    # --- The selected exchange

    @work(group=ACTION_GROUP)
    async def action_find(self) -> None:
        numbers = self.transcript.numbers
        at = await show_dialog(ExchangeList(self.transcript), self)
        if at and self.transcript.has(numbers[at - 1]):
            self.select(numbers[at - 1])
            self.prompt.focus()

    def on_candidate_chosen(self, message: CandidateChosen) -> None:
        number, exchange = self.selected_number, self.selected_exchange
        reply = exchange.reply if exchange else None
        if number is None or exchange is None or reply is None or self.reply_task is not None:
            return
        if not self._refuses_second_reply() and message.index < len(reply.candidates):
            judged = message.index == reply.chosen or exchange.answer is not None
            mark = exchange.mark if judged else None
            self.update_exchange(number, replace(exchange, reply=reply.with_chosen(message.index), mark=mark))

    def _refuses_second_reply(self) -> bool:
        """Whether the second bundle's reply, which is only for comparison, is selected. Notifies the user."""
        if self.selected_side:
            other = self.key_of("chat.other") or "Other reply"
            why = f"The conversation continues with the first bundle's reply: select it with {other}"
            self.notify(why, severity="warning", markup=False)
        return bool(self.selected_side)

    def action_mark(self, mark: Mark) -> None:
        number, exchange = self.selected_number, self.selected_exchange
        if number is None or exchange is None or self._refuses_second_reply():
            return
        if exchange.reply is None or (mark == "good" and exchange.bot_turn is None):
            self.notify("The reply is not complete: correct it instead of marking it", severity="warning")
        else:
            self.update_exchange(number, replace(exchange, mark=None if exchange.mark == mark else mark))

    @work(group=ACTION_GROUP)
    async def action_answer(self) -> None:
        number, exchange = self.selected_number, self.selected_exchange
        if number is None or exchange is None or self._refuses_second_reply():
            return
        text = exchange.answer or (exchange.reply.text if exchange.reply else "")
        note = (
            "Write what the bot should have said. The conversation continues with your text; an empty text "
            "removes the correction."
        )
        answer = await show_dialog(WriteDialog("correct the reply", text, note=note), self)
        if answer == safe_text(text):  # unchanged: control characters were only shown as others
            answer = text
        if answer is not None and self.transcript.has(number):
            self.update_exchange(number, self.transcript[number].with_correction(answer))

    def action_copy_reply(self) -> None:
        answer = self.selected_exchange.answer if self.selected_exchange and not self.selected_side else None
        text = answer or (self.selected_reply.text if self.selected_reply else "")
        if not text:
            self.notify("There is no reply to copy yet", severity="warning")
        else:
            self.app.copy_to_clipboard(safe_text(text))
            self.notify("The reply is copied")

    def action_copy_prompt(self) -> None:
        if self.selected_exchange is not None:
            self.app.copy_to_clipboard(safe_text(self.selected_exchange.prompt))
            self.notify("The prompt is copied")

    # --- The conversation

    def action_new_conversation(self) -> None:
        self.stop()
        self.show_transcript(Transcript(saver=self._make_saver()))
        self.prompt.focus()

    def action_copy_conversation(self) -> None:
        self.app.copy_to_clipboard(to_markdown(self.transcript.title, self.transcript.ended))
        self.notify("The conversation is copied as Markdown")

    @work(group=ACTION_GROUP)
    async def action_rename(self) -> None:
        title = await show_dialog(AskDialog("rename", self.transcript.title, note=TITLE_NOTE), self)
        if title and title.strip():
            self.transcript.rename(title_of(title))

    @work(group=ACTION_GROUP)
    async def action_export(self) -> None:
        def text(form: Callable[[str, Sequence[Exchange]], str]) -> str:
            return form(self.transcript.title, self.transcript.ended)

        note = "The extension sets the format: .md to read, .json for programs, .jsonl for training."
        await self._export("chat.md", note, {ending: partial(text, form) for ending, form in FORMATS.items()})

    @work(group=ACTION_GROUP)
    async def action_export_all(self) -> None:
        engine = self.bundles.engine
        if self._store_thread is None or engine is None:
            return

        def every(store: Store) -> tuple[str, list[DamagedError]]:
            texts, damaged = [], []
            for summary in store.find():
                try:
                    texts.append(
                        to_jsonl(*store.load(summary.id), partial(_was_made_by, engine, summary.bundle))
                    )
                except DamagedError as error:
                    damaged.append(error)
            return "".join(texts), damaged

        try:
            text, damaged = await self._store_thread.run(every)
        except StoreError as error:
            self.notify(safe_text(str(error)), severity="error", markup=False)
            return
        for why in damaged:
            self.notify(safe_text(f"{why}. It is not exported"), severity="warning", markup=False)
        if not text:
            self.notify(NOTHING_TO_LEARN, severity="warning")
            return
        bundle = engine.facts.path or engine.facts.name
        note = f"Saves the good and corrected replies of the bundle {safe_text(bundle)} for edgechat train."
        await self._export("chats.jsonl", note, {".jsonl": lambda: text})

    async def _export(self, proposed: str, note: str, texts: Mapping[str, Callable[[], str]]) -> None:
        """Ask for a file name until one of `texts`, which are by extension, is written."""
        check = partial(write_export, texts=texts)
        name = await show_dialog(
            AskDialog("export to a file", unused_name(proposed), note=note, check=check), self
        )
        if name:
            self.notify(safe_text(f"Saved to {expand_path(name).absolute()}"), markup=False)

    # --- Saving

    def _make_saver(
        self, id: int | None = None, rows: dict[int, int] | None = None
    ) -> ConversationSaver | None:
        """For a new conversation, or the stored one with this id. None if nothing is saved."""
        return (
            ConversationSaver(self._store_thread, self._post_write_ended, id=id, rows=rows)
            if self._store_thread
            else None
        )

    def _post_write_ended(self, error: str) -> None:
        """Called in the store's thread."""
        self.post_message(WriteEnded(error))

    def on_write_ended(self, message: WriteEnded) -> None:
        if message.error:
            self.notify(safe_text(message.error), severity="error", markup=False)
        self.show_status()

    @work
    async def _start_saving(self) -> None:
        self.show_transcript(self.transcript)
        if self._store_thread:
            try:
                self.prompt.add_earlier_prompts(await self._prompts(self._store_thread))
            except StoreError as error:
                self._store_thread = self.transcript.saver = None
                if isinstance(error, UnwritableError):
                    self.why_not_saved = error.why
                else:
                    why = f"{error}. This conversation is not saved."
                    self.notify(safe_text(why), severity="error", markup=False)
                self.refresh_status_and_keys()

    async def _prompts(self, store_thread: StoreThread) -> list[str]:
        """The prompts of earlier conversations. Waits while another program has locked the file."""
        while True:
            try:
                return await store_thread.run(lambda store: store.latest_prompts())
            except BusyError as error:
                self.notify(safe_text(f"{error}. Trying again"), severity="warning", markup=False)
                await asyncio.sleep(1)

    async def _stored_title(self, store_thread: StoreThread) -> str | None:
        """The stored title of this conversation, None if it is not stored."""
        id = self.transcript.saver.id if self.transcript.saver else None
        return None if id is None else await store_thread.run(lambda store: store.title(id))

    @work(group=ACTION_GROUP)
    async def action_library(self) -> None:
        if self._store_thread is None:
            return
        before = None
        with contextlib.suppress(StoreError):  # the list shows the error
            before = await self._stored_title(self._store_thread)
        chosen = await show_dialog(Library(self._store_thread), self)
        try:
            deleted = await self._store_thread.run(lambda store: store.deleted_titles())
            here = self.transcript.saver.id if self.transcript.saver else None
            if here in deleted:
                self.action_new_conversation()
            elif before and (named := await self._stored_title(self._store_thread)) and named != before:
                self.transcript.rename(named)
            if chosen is None:
                return
            if chosen.id == here and self._store_thread.has_unwritten:  # the file does not have all of it
                self._select_nth(chosen.found_in)
                return
            self.stop()  # first, since the reply may belong to the conversation that is loaded
            await self._store_thread.finish_writes()  # some may be of the conversation that is loaded
            title, exchanges = await self._store_thread.run(lambda store: store.load(chosen.id))
        except StoreError as error:
            self.notify(safe_text(str(error)), severity="error", markup=False)
            return
        self.stop()  # a reply may have started while the conversation was loaded
        rows = {n: e.id for n, e in enumerate(exchanges, start=1) if e.id is not None}
        self.show_transcript(Transcript(exchanges, title, self._make_saver(chosen.id, rows)))
        self._select_nth(chosen.found_in)

    def _select_nth(self, at: int | None) -> None:
        """Select an exchange, counted from 1, or else the latest one, and return to the prompt."""
        numbers = self.transcript.numbers
        self.select(numbers[at - 1] if at and at <= len(numbers) else None)
        self.prompt.focus()


def _was_made_by(engine: Engine, started_with: str, exchange: Exchange) -> bool:
    """Whether a bundle made the reply of an exchange. Without a reply, the bundle that the conversation was
    started with counts, which is known by name."""
    made = exchange.reply.made if exchange.reply else ReplyOrigin()
    return engine.has_made(made if made.bundle else ReplyOrigin(started_with))
