"""Prompts and replies. Only this module loads bundles and asks them for replies.

From a prompt to its exchange: `PromptSubmitted` -> a `ReplyTask` with a job for each bundle -> the decode
worker, a thread -> `ReplyAdvanced` and `ReplyFinished`, with the number of the task -> an `Exchange` of the
`Transcript`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from textual import work
from textual.events import Key, Paste
from textual.message import Message

from ..captions import FAILED, STOPPED, bundle_and_precision, describe_replay, has_same_candidates
from ..engine import Engine, Model, bundle_name, error_message, with_seed
from ..knobs import Changes
from ..messages import (
    LoadFailed,
    PromptRefused,
    PromptSubmitted,
    ReplyAdvanced,
    ReplyFailed,
    ReplyFinished,
)
from ..reply_task import Job, Purpose, ReplyTask, run_task
from ..safe_text import safe_text
from ..store_thread import ConversationSaver
from ..values import Exchange, ReplyFacts, ReplyOrigin, State, Trace
from ..widgets.editor import types_text
from .bundles import BundleList
from .chat_base import ChatScreenBase
from .dialog import ACTION_GROUP, show_dialog

ModelLoader = Callable[[str], Model]


class ReplyingChatScreen(ChatScreenBase):
    """A screen that sends prompts to bundles. `load` is called in a thread with the path of a bundle. All of
    `bundles` are loaded at the start, and the first is the current one."""

    @dataclass
    class ModelLoaded(Message):
        """The bundle at `path` was loaded."""

        path: str
        model: Model

    def __init__(self, load: ModelLoader, bundles: Sequence[str], changes: Changes | None = None) -> None:
        super().__init__(bundles, changes)
        self._load, self._initial_bundles = load, tuple(bundles)
        self._task_count = 0
        self._draft = ""  # the text in the prompt before an earlier prompt was edited
        # The reply to replay when its bundle is loaded: its exchange, its side, and how it was made.
        self._pending_replay: tuple[int, int, ReplyOrigin] | None = None

    def on_mount(self) -> None:
        if not self._initial_bundles:
            self.show_welcome()
        for path in self._initial_bundles:
            self._ensure_loaded(path)
        self._show_bundle_change()

    def on_unmount(self) -> None:
        # The process cannot end before its threads.
        if self.reply_task:
            self.reply_task.stop()

    # --- Bundles

    def _ensure_loaded(self, path: str) -> None:
        """Load a bundle, unless it is loading or open. A bundle that changed on disk is loaded again."""
        known = path in self.bundles
        if self.bundles.begin_loading(path):
            self._load_model(path)
            if known:
                self.notify(safe_text(f"{bundle_name(path)} has changed and is loaded again"), markup=False)

    @work(thread=True, group="load", exit_on_error=False)
    def _load_model(self, path: str) -> None:
        try:
            self.post_message(self.ModelLoaded(path, self._load(path)))
        except Exception as error:
            self.log.error(error)
            self.post_message(LoadFailed(path, error_message(error)))

    def on_replying_chat_screen_model_loaded(self, message: ModelLoaded) -> None:
        self.bundles.finish_loading(message.path, message.model)
        self._show_bundle_change()
        if pending := self._take_pending_replay(message.path):
            self._replay(*pending)

    def on_load_failed(self, message: LoadFailed) -> None:
        self.bundles.fail_loading(message.path)
        pending = self._take_pending_replay(message.path)
        if pending:
            self._refuse_replay(message.error)
        current, fallback = message.path == self.bundles.current, self.bundles.fallback
        if current and not fallback:
            self.show_welcome()
            self.conversation.show_error(f"{message.error}. No bundle is open.")
        else:
            if not pending:
                kept = ". The bundle that was open stays in use" if message.path in self.bundles else ""
                self.notify(safe_text(message.error + kept), severity="error", markup=False)
            if current:
                self.bundles.switch(fallback)
        self._show_bundle_change()

    def switch_to_bundle(self, path: str) -> None:
        """Make this bundle the current one, and load it if necessary."""
        self.bundles.switch(self.bundles.known_path(path))
        self._ensure_loaded(self.bundles.current)
        self._show_bundle_change()

    def _show_bundle_change(self) -> None:
        """Update the screen after a change of the bundles that prompts go to."""
        if self.bundles.current in self.bundles.loading and not self.bundles:
            self.welcome.show_loading(bundle_name(self.bundles.current))
        elif self.bundles.engine:
            if wrong := self.knob_settings.reset_if_refused():
                self.notify(safe_text(wrong), severity="warning", markup=False)
            self.show_welcome()
        self.prompt.ready = self.bundles.ready and self.reply_task is None
        self._show_knobs()
        self.refresh_status_and_keys()

    @work(group=ACTION_GROUP)
    async def action_bundles(self) -> None:
        note = "The conversation continues with the bundle that you choose."
        choices = await self.bundles.choices()
        path = await show_dialog(BundleList("choose a bundle", choices, note), self)
        if path and self.reply_task is None:
            self.switch_to_bundle(path)
        elif path:
            self.notify(
                "Wait for the reply or stop it before you switch to another bundle", severity="warning"
            )

    @work(group=ACTION_GROUP)
    async def action_compare(self) -> None:
        bundles = self.bundles
        if bundles.second is not None:
            bundles.second = None
            self.notify("The comparison has ended")
        else:
            others = [choice for choice in await bundles.choices() if choice.path != bundles.current]
            note = "Each prompt goes to both bundles; the conversation continues with the first one's reply."
            chosen = await show_dialog(BundleList("compare with a bundle", others, note), self)
            chosen = bundles.known_path(chosen) if chosen else ""
            if chosen == bundles.current:
                self.notify(
                    "This is the current bundle: choose another one to compare with", severity="warning"
                )
            elif chosen:
                bundles.second = chosen
                self._ensure_loaded(chosen)
        self._show_bundle_change()

    # --- Replies

    def focus_prompt_for_text(self, event: Key | Paste) -> None:
        """Focus the prompt if the user types or pastes while another widget has the focus.

        This happens before any widget handles the event. If the focused widget passed the key on instead, the
        next key could overtake it.
        """
        if not self.is_mounted or self.focused is self.prompt:
            return
        if isinstance(event, Key) and (event.key in self.active_bindings or not types_text(event)):
            return
        self.set_focus(self.prompt)

    def on_prompt_refused(self, _: PromptRefused) -> None:
        if self.reply_task is not None:
            why = "Wait for the reply or stop it before you send the next prompt"
        elif not self.bundles.current:
            why = "No bundle is open: choose one first"
        else:
            why = f"{self.bundles.title} is {self.activity()}"
        self.notify(safe_text(why), severity="warning", markup=False)

    def on_prompt_submitted(self, message: PromptSubmitted) -> None:
        self.send_prompt(message.text, instead_of=self.editing)

    def send_prompt(self, prompt: str, *, instead_of: int | None = None) -> None:
        """Send a prompt to the current bundle, and to the second one in a comparison.

        The exchange `instead_of` is replaced, or a copy of the conversation before it is continued. It stays
        as it is if a bundle refuses the settings.
        """
        turns, jobs = self.transcript.turns(prompt, before=instead_of), []
        for engine in self.bundles.active_engines:
            try:
                options = with_seed(engine.options(self.knob_settings.changes))
                jobs.append(Job(engine, engine.last_turns(turns), options))
            except Exception as error:
                self._show_error(error_message(error), engine)
                self.prompt.restore_sent(prompt)
                self.prompt.ready = True
                return
        self.editing = None
        if instead_of is not None and not self._remove_or_copy(instead_of):
            instead_of = None
        number = self.transcript.begin_exchange(prompt, instead_of=instead_of)
        captioned = len(jobs) > 1 or self._bundle_changes(jobs[0])
        self.conversation.begin_exchange(
            number, prompt, [job.engine.facts.label if captioned else "" for job in jobs]
        )
        self._start_task(number, jobs)

    def _show_error(self, error: str, engine: Engine) -> None:
        """Show an error in the conversation, with the name of the bundle in a comparison."""
        name = f"{engine.facts.name}: " if self.bundles.second else ""
        self.conversation.show_error(name + error)

    def _remove_or_copy(self, number: int) -> bool:
        """Remove this exchange if another reply to its prompt replaces it. Otherwise continue in a copy of
        the conversation before it, and return False."""
        if self.transcript.is_replaceable(number):
            self.conversation.remove_exchange(number)
            return True
        saver = self.transcript.saver
        self.show_transcript(self.transcript.copy_before(number))
        self._notify_of_copy(saver)
        return False

    @work
    async def _notify_of_copy(self, saver: ConversationSaver | None) -> None:
        """Say that the conversation continues in a copy. Another window may have deleted the original."""
        there = saver is not None and await saver.still_exists()
        library = self.key_of("chat.library") or "Chats"
        where = (
            f"the original is in the list of conversations ({library})"
            if there
            else "the original is not saved"
        )
        self.notify(f"The conversation continues in a copy; {where}")

    def _bundle_changes(self, job: Job) -> bool:
        """Whether another bundle made the last reply."""
        last = [exchange.reply for exchange in self.transcript if exchange.reply]
        return bool(last) and bundle_and_precision(last[-1]) != (
            job.engine.facts.name,
            job.engine.facts.precision,
        )

    def _start_task(
        self, exchange: int, jobs: Sequence[Job], purpose: Purpose = "reply", side: int = 0
    ) -> None:
        """Start a task in a worker thread."""
        self._task_count += 1
        self.reply_task = task = ReplyTask(self._task_count, exchange, jobs, purpose, side)
        self.prompt.ready = False
        self.select(None if purpose == "reply" else exchange, side)
        self.refresh_status_and_keys()
        work = partial(run_task, task, self.post_message)
        self.run_worker(work, thread=True, group="decode", exit_on_error=False)

    def on_reply_advanced(self, message: ReplyAdvanced) -> None:
        if (task := self._task_of(message)) is not None:
            if task.purpose == "reply":
                self.conversation.advance(task.exchange_number, message.side, message.settled, message.tail)
            self.call_after_refresh(task.on_progress_drawn)

    def on_reply_finished(self, message: ReplyFinished) -> None:
        if (task := self._task_of(message)) is None:
            return
        task.results.append((message.reply, message.trace))
        if len(task.results) < len(task.jobs):
            self.conversation.show_replies(
                task.exchange_number, replace(self.transcript[task.exchange_number], reply=message.reply)
            )
        elif task.purpose == "replay":
            self._end_replay(task, *task.results[0])
        else:
            reply, other = [*(facts for facts, _ in task.results), None][:2]
            exchange = replace(self.transcript[task.exchange_number], reply=reply, other=other)
            self.conversation.finish(task.exchange_number, exchange)
            for side, (_, trace) in enumerate(task.results):
                self.transcript.keep_trace(task.exchange_number, trace, side)
            self._save_result(task, exchange)

    def on_reply_failed(self, message: ReplyFailed) -> None:
        if (task := self._task_of(message)) is None:
            return
        if task.purpose == "replay":
            self._end_task(task.exchange_number, task.side)
        else:
            self._break_off_task(task, "failed", FAILED)
        self._show_error(message.error, task.jobs[message.side].engine)

    def _task_of(self, message: ReplyAdvanced | ReplyFinished | ReplyFailed) -> ReplyTask | None:
        """The task of a message, None if it has ended."""
        return self.reply_task if self.reply_task and self.reply_task.number == message.task else None

    def _break_off_task(self, task: ReplyTask, state: State, note: str) -> None:
        """End a task that failed or was stopped.

        A complete reply of the first bundle counts, even if the second bundle's reply is cut off. Otherwise,
        an exchange that was to be replaced comes back. If there is none, the text so far stays visible, but
        models do not read it later.
        """
        text = self.conversation.break_off(task.exchange_number, len(task.results), note)
        exchange, job = self.transcript[task.exchange_number], task.jobs[0]
        if task.results:
            reply, trace = task.results[0]
            self.transcript.keep_trace(task.exchange_number, trace)
            self._save_result(task, replace(exchange, reply=reply))
        elif self.transcript.undo_replacement(task.exchange_number):
            self.show_transcript(self.transcript)
            self._end_task(None)
            self.notify("The new reply was not completed, so the earlier one is kept")
            if exchange.prompt not in {other.prompt for other in self.transcript}:
                self.prompt.restore_sent(exchange.prompt)
        else:
            made = job.engine.make_origin(job.options, job.turns)
            partial_reply = ReplyFacts(text, finished=False, made=made) if text else None
            self._save_result(task, replace(exchange, state=state, reply=partial_reply))
            if state == "failed":
                self.prompt.restore_sent(exchange.prompt)

    def _save_result(self, task: ReplyTask, exchange: Exchange) -> None:
        """Save the result of a task, and keep the selection."""
        self.transcript.end_exchange(task.exchange_number, exchange, task.jobs[0].engine.facts.name)
        self._end_task(self._selected_number, self._selected_side)

    def _end_task(self, selected: int | None, side: int = 0) -> None:
        """Note that no task is running, and select this exchange."""
        if self.reply_task:
            self.reply_task.results.clear()  # the transcript keeps the results
        self.reply_task = None
        self.prompt.ready = self.bundles.ready
        self.select(selected, side)

    def action_stop(self) -> None:
        """Stop the reply, else cancel editing, else return to the latest exchange."""
        if self.reply_task or self.editing is not None:
            self.stop()
        else:
            self.select_latest()

    def stop(self) -> None:
        """Stop the reply, else cancel editing."""
        if self.reply_task:
            self.reply_task.stop()
            if self.reply_task.purpose == "replay":
                self._end_task(self.reply_task.exchange_number, self.reply_task.side)
            else:
                self._break_off_task(self.reply_task, "stopped", STOPPED)
        elif self.editing is not None:
            self.editing = None
            self.prompt.add_to_history()
            self.prompt.set_text(self._draft)
            self.refresh_status_and_keys()

    # --- Again, Edit and Replay

    def action_regenerate(self) -> None:
        """Reply to the selected prompt again with the current settings."""
        if self.selected_exchange and self.bundles.engine and not self._refuses_copy():
            self.send_prompt(self.selected_exchange.prompt, instead_of=self.selected_number)

    def action_edit(self) -> None:
        """Put the selected prompt into the prompt field. `action_stop` restores the draft that was there."""
        if self.selected_exchange and not self._refuses_copy():
            if self.editing is None:
                self._draft = self.prompt.text
            self.prompt.add_to_history()
            self.editing = self.selected_number
            self.prompt.set_text(self.selected_exchange.prompt)
            self.prompt.focus()
            self.refresh_status_and_keys()

    def _refuses_copy(self) -> bool:
        """Whether the conversation would continue in a copy while conversations are not saved, so that the
        original would be lost. Notifies the user."""
        number = self.selected_number
        if number is None or self.transcript.saver or self.transcript.is_replaceable(number):
            return False
        self.notify(
            "Conversations are not saved, so only the latest exchange can be replaced, unless you marked it "
            "as good or corrected it",
            severity="warning",
        )
        return True

    def action_replay(self) -> None:
        """Repeat the selected reply with the same bundle, which is opened if necessary, and settings."""
        number, side = self.selected_number, self.selected_side
        made = self.selected_reply.made if self.selected_reply else None
        if number is None or made is None or not made.seen:
            self.notify("There is no reply to replay", severity="warning")
        elif made.path and not self.bundles.engine_for(made) and self.bundles.is_stale(made.path):
            self._pending_replay = number, side, made
            self.notify(safe_text(f"Opening {made.path} to replay the reply"), markup=False)
            self._ensure_loaded(self.bundles.known_path(made.path))
            self.show_status()
        else:
            self._replay(number, side, made)

    def _replay(self, number: int, side: int, made: ReplyOrigin) -> None:
        if engine := self.bundles.engine_for(made):
            self._start_task(number, [Job(engine, made.seen, made.options)], "replay", side)
        elif made.path:
            self._refuse_replay(f"the bundle at {made.path} has changed since it made the reply")
        else:
            self._refuse_replay(f"the bundle that made it, {made.bundle or 'unknown'}, is not open")

    def _refuse_replay(self, why: str) -> None:
        self.notify(safe_text(f"The reply cannot be replayed: {why}"), severity="warning", markup=False)

    def _take_pending_replay(self, path: str) -> tuple[int, int, ReplyOrigin] | None:
        """The reply that waits for the bundle at `path` to be replayed, if it is still there."""
        if self._pending_replay is None or self.bundles.known_path(self._pending_replay[2].path) != path:
            return None
        (number, side, made), self._pending_replay = self._pending_replay, None
        reply = self.transcript[number].replies[side] if self.transcript.has(number) else None
        return (number, side, made) if reply and reply.made is made and self.reply_task is None else None

    def _end_replay(self, task: ReplyTask, reply: ReplyFacts, trace: Trace | None) -> None:
        """Report the result of a replay. Its trace is shown if it has the same candidates."""
        made = self.transcript[task.exchange_number].replies[task.side]
        if made:
            if has_same_candidates(made, reply):
                self.transcript.keep_trace(task.exchange_number, trace, task.side)
            self.notify(safe_text(describe_replay(made, reply)), markup=False)
        self._end_task(task.exchange_number, task.side)
