"""Prompts and replies. Only this module loads bundles and asks them for replies.

From a prompt to its exchange: `PromptSubmitted` -> a `ReplyTask` with a job for each bundle -> the decode
worker, a thread -> `ReplyAdvanced` and `ReplyFinished`, with the number of the task -> an `Exchange` of the
`Talk`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from textual import work
from textual.events import Key, Paste
from textual.message import Message

from ..captions import FAILED, STOPPED, alike, replayed, speaker
from ..engine import Engine, Model, name_of, sentence, with_seed
from ..keeper import Kept
from ..knobs import Changes
from ..messages import (
    LoadFailed,
    PromptRefused,
    PromptSubmitted,
    ReplyAdvanced,
    ReplyFailed,
    ReplyFinished,
)
from ..plain import plain
from ..replytask import Job, Purpose, ReplyTask, decode
from ..values import Exchange, Made, ReplyFacts, State, Trace
from ..widgets.editor import writes
from .bundles import BundleList
from .dialog import IN_ORDER, answer_of
from .viewing import Viewing

Load = Callable[[str], Model]


class Talking(Viewing):
    """A screen that sends prompts to bundles. `load` is called in a thread with the path of a bundle. All of
    `bundles` are loaded at the start, and the first is the current one."""

    @dataclass
    class ModelLoaded(Message):
        """The bundle at `path` was loaded."""

        path: str
        model: Model

    def __init__(self, load: Load, bundles: Sequence[str], changes: Changes | None = None) -> None:
        super().__init__(bundles, changes)
        self._load, self._first = load, tuple(bundles)
        self._tasks = 0
        self._draft = ""  # the text in the prompt before an earlier prompt was edited
        # The reply to replay when its bundle is loaded: its exchange, its side, and how it was made.
        self._awaited: tuple[int, int, Made] | None = None

    def on_mount(self) -> None:
        if not self._first:
            self.greet()
        for path in self._first:
            self._open(path)
        self._bundles_changed()

    def on_unmount(self) -> None:
        # The process cannot end before its threads.
        if self.reply_task:
            self.reply_task.stop()

    # --- Bundles

    def _open(self, path: str) -> None:
        """Load a bundle, unless it is loading or open. A bundle that changed on disk is loaded again."""
        known = path in self.bundles
        if self.bundles.begin_loading(path):
            self._load_model(path)
            if known:
                self.notify(plain(f"{name_of(path)} has changed and is loaded again"), markup=False)

    @work(thread=True, group="load", exit_on_error=False)
    def _load_model(self, path: str) -> None:
        try:
            self.post_message(self.ModelLoaded(path, self._load(path)))
        except Exception as error:
            self.log.error(error)
            self.post_message(LoadFailed(path, sentence(error)))

    def on_talking_model_loaded(self, message: ModelLoaded) -> None:
        self.bundles.loaded(message.path, message.model)
        self._bundles_changed()
        if awaited := self._take_awaited(message.path):
            self._replay(*awaited)

    def on_load_failed(self, message: LoadFailed) -> None:
        self.bundles.failed(message.path)
        awaited = self._take_awaited(message.path)
        if awaited:
            self._refuse_replay(message.error)
        current, fallback = message.path == self.bundles.current, self.bundles.fallback
        if current and not fallback:
            self.greet()
            self.conversation.report(f"{message.error}. No bundle is open.")
        else:
            if not awaited:
                kept = ". The bundle that was open stays in use" if message.path in self.bundles else ""
                self.notify(plain(message.error + kept), severity="error", markup=False)
            if current:
                self.bundles.switch(fallback)
        self._bundles_changed()

    def talk_to(self, path: str) -> None:
        """Make this bundle the current one, and load it if necessary."""
        self.bundles.switch(self.bundles.known_path(path))
        self._open(self.bundles.current)
        self._bundles_changed()

    def _bundles_changed(self) -> None:
        """Update the screen after a change of the bundles that prompts go to."""
        if self.bundles.current in self.bundles.loading and not self.bundles:
            self.welcome.show_loading(name_of(self.bundles.current))
        elif self.bundles.engine:
            if wrong := self.dial.fit():
                self.notify(plain(wrong), severity="warning", markup=False)
            self.greet()
        self.prompt.ready = self.bundles.ready and self.reply_task is None
        self._show_knobs()
        self.changed()

    @work(group=IN_ORDER)
    async def action_bundles(self) -> None:
        note = "The conversation continues with the bundle that you choose."
        choices = await self.bundles.choices()
        path = await answer_of(BundleList("choose a bundle", choices, note), self)
        if path and self.reply_task is None:
            self.talk_to(path)
        elif path:
            self.notify(
                "Wait for the reply or stop it before you switch to another bundle", severity="warning"
            )

    @work(group=IN_ORDER)
    async def action_compare(self) -> None:
        bundles = self.bundles
        if bundles.second is not None:
            bundles.second = None
            self.notify("The comparison has ended")
        else:
            others = [choice for choice in await bundles.choices() if choice.path != bundles.current]
            note = "Each prompt goes to both bundles; the conversation continues with the first one's reply."
            chosen = await answer_of(BundleList("compare with a bundle", others, note), self)
            chosen = bundles.known_path(chosen) if chosen else ""
            if chosen == bundles.current:
                self.notify(
                    "This is the current bundle: choose another one to compare with", severity="warning"
                )
            elif chosen:
                bundles.second = chosen
                self._open(chosen)
        self._bundles_changed()

    # --- Replies

    def lead_to_prompt(self, event: Key | Paste) -> None:
        """Focus the prompt if the user types or pastes while another widget has the focus.

        This happens before any widget handles the event. If the focused widget passed the key on instead, the
        next key could overtake it.
        """
        if not self.is_mounted or self.focused is self.prompt:
            return
        if isinstance(event, Key) and (event.key in self.active_bindings or not writes(event)):
            return
        self.set_focus(self.prompt)

    def on_prompt_refused(self, _: PromptRefused) -> None:
        if self.reply_task is not None:
            why = "Wait for the reply or stop it before you send the next prompt"
        elif not self.bundles.current:
            why = "No bundle is open: choose one first"
        else:
            why = f"{self.bundles.title} is {self.state()}"
        self.notify(plain(why), severity="warning", markup=False)

    def on_prompt_submitted(self, message: PromptSubmitted) -> None:
        self.ask(message.text, instead_of=self.editing)

    def ask(self, prompt: str, *, instead_of: int | None = None) -> None:
        """Send a prompt to the current bundle, and to the second one in a comparison.

        The exchange `instead_of` is replaced, or a copy of the conversation before it is continued. It stays
        as it is if a bundle refuses the settings.
        """
        turns, jobs = self.talk.turns(prompt, before=instead_of), []
        for engine in self.bundles.asked:
            try:
                options = with_seed(engine.options(self.dial.changes))
                jobs.append(Job(engine, engine.seen(turns), options))
            except Exception as error:
                self._report(sentence(error), engine)
                self.prompt.give_back(prompt)
                self.prompt.ready = True
                return
        self.editing = None
        if instead_of is not None and not self._gives_way(instead_of):
            instead_of = None
        number = self.talk.begin(prompt, instead_of=instead_of)
        captioned = len(jobs) > 1 or self._speaker_changes(jobs[0])
        self.conversation.begin(number, prompt, [job.engine.facts.label if captioned else "" for job in jobs])
        self._begin(number, jobs)

    def _report(self, error: str, engine: Engine) -> None:
        """Show an error in the conversation, with the name of the bundle in a comparison."""
        name = f"{engine.facts.name}: " if self.bundles.second else ""
        self.conversation.report(name + error)

    def _gives_way(self, number: int) -> bool:
        """Remove this exchange if another reply to its prompt replaces it. Otherwise continue in a copy of
        the conversation before it, and return False."""
        if self.talk.gives_way(number):
            self.conversation.drop(number)
            return True
        kept = self.talk.kept
        self.hold(self.talk.until(number))
        self._tell_of_copy(kept)
        return False

    @work
    async def _tell_of_copy(self, kept: Kept | None) -> None:
        """Say that the conversation continues in a copy. Another window may have deleted the original."""
        there = kept is not None and await kept.is_there()
        library = self.key_of("chat.library") or "Chats"
        where = (
            f"the original is in the list of conversations ({library})"
            if there
            else "the original is not saved"
        )
        self.notify(f"The conversation continues in a copy; {where}")

    def _speaker_changes(self, job: Job) -> bool:
        """Whether another bundle made the last reply."""
        last = [exchange.reply for exchange in self.talk if exchange.reply]
        return bool(last) and speaker(last[-1]) != (job.engine.facts.name, job.engine.facts.precision)

    def _begin(self, exchange: int, jobs: Sequence[Job], purpose: Purpose = "reply", side: int = 0) -> None:
        """Start a task in a worker thread."""
        self._tasks += 1
        self.reply_task = task = ReplyTask(self._tasks, exchange, jobs, purpose, side)
        self.prompt.ready = False
        self.select(None if purpose == "reply" else exchange, side)
        self.changed()
        work = partial(decode, task, self.post_message)
        self.run_worker(work, thread=True, group="decode", exit_on_error=False)

    def on_reply_advanced(self, message: ReplyAdvanced) -> None:
        if (task := self._task_of(message)) is not None:
            if task.purpose == "reply":
                self.conversation.advance(task.exchange, message.side, message.settled, message.tail)
            self.call_after_refresh(task.drawn)

    def on_reply_finished(self, message: ReplyFinished) -> None:
        if (task := self._task_of(message)) is None:
            return
        task.done.append((message.reply, message.trace))
        if len(task.done) < len(task.jobs):
            self.conversation.settle(task.exchange, replace(self.talk[task.exchange], reply=message.reply))
        elif task.purpose == "replay":
            self._end_replay(task, *task.done[0])
        else:
            reply, other = [*(facts for facts, _ in task.done), None][:2]
            exchange = replace(self.talk[task.exchange], reply=reply, other=other)
            self.conversation.finish(task.exchange, exchange)
            for side, (_, trace) in enumerate(task.done):
                self.talk.remember(task.exchange, trace, side)
            self._end(task, exchange)

    def on_reply_failed(self, message: ReplyFailed) -> None:
        if (task := self._task_of(message)) is None:
            return
        if task.purpose == "replay":
            self._end_task(task.exchange, task.side)
        else:
            self._break_off(task, "failed", FAILED)
        self._report(message.error, task.jobs[message.side].engine)

    def _task_of(self, message: ReplyAdvanced | ReplyFinished | ReplyFailed) -> ReplyTask | None:
        """The task of a message, None if it has ended."""
        return self.reply_task if self.reply_task and self.reply_task.number == message.task else None

    def _break_off(self, task: ReplyTask, state: State, mark: str) -> None:
        """End a task that failed or was stopped.

        The text so far stays visible, but models do not read it later. A complete reply of the first bundle
        counts, even if the second bundle's reply is cut off.
        """
        text = self.conversation.break_off(task.exchange, len(task.done), mark)
        exchange, job = self.talk[task.exchange], task.jobs[0]
        if task.done:
            reply, trace = task.done[0]
            self.talk.remember(task.exchange, trace)
            self._end(task, replace(exchange, reply=reply))
        elif not text and self.talk.take_back(task.exchange):
            self.hold(self.talk)  # there is no text that could replace the earlier reply
            self._end_task(None)
            if exchange.prompt not in {other.prompt for other in self.talk}:
                self.prompt.give_back(exchange.prompt)
        else:
            made = job.engine.made(job.options, job.turns)
            partial_reply = ReplyFacts(text, finished=False, made=made) if text else None
            self._end(task, replace(exchange, state=state, reply=partial_reply))
            if state == "failed":
                self.prompt.give_back(exchange.prompt)

    def _end(self, task: ReplyTask, exchange: Exchange) -> None:
        """Save the result of a task, and keep the selection."""
        self.talk.end(task.exchange, exchange, task.jobs[0].engine.facts.name)
        self._end_task(self._picked, self._side)

    def _end_task(self, selected: int | None, side: int = 0) -> None:
        """Note that no task is running, and select this exchange."""
        if self.reply_task:
            self.reply_task.done.clear()  # the talk keeps the results
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
                self._end_task(self.reply_task.exchange, self.reply_task.side)
            else:
                self._break_off(self.reply_task, "stopped", STOPPED)
        elif self.editing is not None:
            self.editing = None
            self.prompt.set_aside()
            self.prompt.write(self._draft)
            self.changed()

    # --- Again, Edit and Replay

    def action_regenerate(self) -> None:
        """Reply to the selected prompt again with the current settings."""
        if self.exchange is not None and self.bundles.engine is not None:
            self.ask(self.exchange.prompt, instead_of=self.selected)

    def action_edit(self) -> None:
        """Put the selected prompt into the prompt field. `action_stop` restores the draft that was there."""
        if self.exchange is not None:
            if self.editing is None:
                self._draft = self.prompt.text
            self.prompt.set_aside()
            self.editing = self.selected
            self.prompt.write(self.exchange.prompt)
            self.prompt.focus()
            self.changed()

    def action_replay(self) -> None:
        """Repeat the selected reply with the same bundle, which is opened if necessary, and settings."""
        number, side = self.selected, self.side
        made = self.reply.made if self.reply else None
        if number is None or made is None or not made.seen:
            self.notify("There is no reply to replay", severity="warning")
        elif made.path and not self.bundles.maker(made) and self.bundles.stale(made.path):
            self._awaited = number, side, made
            self.notify(plain(f"Opening {made.path} to replay the reply"), markup=False)
            self._open(self.bundles.known_path(made.path))
            self.show_status()
        else:
            self._replay(number, side, made)

    def _replay(self, number: int, side: int, made: Made) -> None:
        if engine := self.bundles.maker(made):
            self._begin(number, [Job(engine, made.seen, made.options)], "replay", side)
        elif made.path:
            self._refuse_replay(f"the bundle at {made.path} has changed since it made the reply")
        else:
            self._refuse_replay(f"the bundle that made it, {made.bundle or 'unknown'}, is not open")

    def _refuse_replay(self, why: str) -> None:
        self.notify(plain(f"The reply cannot be replayed: {why}"), severity="warning", markup=False)

    def _take_awaited(self, path: str) -> tuple[int, int, Made] | None:
        """The reply that waits for the bundle at `path` to be replayed, if it is still there."""
        if self._awaited is None or self.bundles.known_path(self._awaited[2].path) != path:
            return None
        (number, side, made), self._awaited = self._awaited, None
        reply = self.talk[number].sides[side] if self.talk.has(number) else None
        return (number, side, made) if reply and reply.made is made and self.reply_task is None else None

    def _end_replay(self, task: ReplyTask, reply: ReplyFacts, trace: Trace | None) -> None:
        """Report the result of a replay. Its trace is shown if it has the same candidates."""
        made = self.talk[task.exchange].sides[task.side]
        if made:
            if alike(made, reply):
                self.talk.remember(task.exchange, trace, task.side)
            self.notify(plain(replayed(made, reply)), markup=False)
        self._end_task(task.exchange, task.side)
