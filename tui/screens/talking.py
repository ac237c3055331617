"""Prompts and replies: the one place where bundles are loaded and asked. Widgets get plain values and post
messages.

The way of a prompt: `PromptSubmitted` -> a `Turn` with a job for each bundle that shall reply -> the
decode worker, a thread -> `ReplyAdvanced` and `ReplyFinished`, with the turn's number -> an `Exchange` of
the `Talk`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from textual import work
from textual.events import Key, Paste
from textual.message import Message

from ..captions import FAILED, STOPPED, alike, replayed, voice
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
from ..turn import Job, Turn, decode
from ..values import Exchange, Insight, Made, ReplyFacts, State
from ..widgets.editor import writes
from .bundles import BundleList
from .over import IN_ORDER, answer_of
from .viewing import Viewing

Load = Callable[[str], Model]


class Talking(Viewing):
    """Prompts and replies. `load` is called in a thread with a bundle's path; the first of `bundles` is the
    one to talk to, and the others are loaded with it."""

    @dataclass
    class ModelLoaded(Message):
        """A model is there."""

        path: str
        model: Model

    def __init__(self, load: Load, bundles: Sequence[str], changes: Changes | None = None) -> None:
        super().__init__(bundles, changes)
        self._load, self._first = load, tuple(bundles)
        self._turns = 0
        self._draft = ""  # what was being written when a prompt was put back
        # A reply to be replayed when its bundle is there: its exchange and side, and how it was made.
        self._awaited: tuple[int, int, Made] | None = None

    def on_mount(self) -> None:
        if not self._first:
            self.greet()
        for path in self._first:
            self._open(path)
        self._meet()

    def on_unmount(self) -> None:
        # The process does not end before its threads do.
        if self.turn:
            self.turn.stop()

    # --- Bundles

    def _open(self, path: str) -> None:
        """Load a bundle, unless it is there or on its way; anew, where another lies there by now."""
        known = path in self.bundles
        if self.bundles.wants(path):
            self._load_model(path)
            if known:
                self.notify(
                    plain(f"{name_of(path)} is another bundle by now, and is loaded anew"), markup=False
                )

    @work(thread=True, group="load", exit_on_error=False)
    def _load_model(self, path: str) -> None:
        try:
            self.post_message(self.ModelLoaded(path, self._load(path)))
        except Exception as error:
            self.log.error(error)
            self.post_message(LoadFailed(path, sentence(error)))

    def on_talking_model_loaded(self, message: ModelLoaded) -> None:
        self.bundles.loaded(message.path, message.model)
        self._meet()
        if awaited := self._take_awaited(message.path):
            self._replay(*awaited)

    def on_load_failed(self, message: LoadFailed) -> None:
        self.bundles.failed(message.path)
        awaited = self._take_awaited(message.path)
        if awaited:
            self._refuse_replay(message.error)
        wanted, fallback = message.path == self.bundles.current, self.bundles.fallback
        if wanted and not fallback:
            self.greet()
            self.conversation.report(f"{message.error}. There is nobody to talk to.")
        else:
            if not awaited:
                kept = ". The one that was open goes on" if message.path in self.bundles else ""
                self.notify(plain(message.error + kept), severity="error", markup=False)
            if wanted:
                self.bundles.switch(fallback)
        self._meet()

    def _talk_to(self, path: str) -> None:
        """From now on the prompts go to this bundle, which is there or on its way."""
        self.bundles.switch(self.bundles.spelled(path))
        self._open(self.bundles.current)
        self._meet()

    def _meet(self) -> None:
        """The bundles that one talks to are others, or have come."""
        if self.bundles.current in self.bundles.loading and not self.bundles:
            self.welcome.show_loading(name_of(self.bundles.current))
        elif self.bundles.engine:
            if wrong := self.dial.fit():
                self.notify(plain(wrong), severity="warning", markup=False)
            self.greet()
        self.prompt.ready = self.bundles.ready and self.turn is None
        self._show_knobs()
        self.changed()

    @work(group=IN_ORDER)
    async def action_bundles(self) -> None:
        note = "The conversation goes on with the one you choose."
        choices = await self.bundles.choices()
        path = await answer_of(BundleList("talk to a bundle", choices, note), self)
        if path and self.turn is None:
            self._talk_to(path)
        elif path:
            self.notify("Wait for the reply, or stop it, to talk to another bundle", severity="warning")

    @work(group=IN_ORDER)
    async def action_compare(self) -> None:
        bundles = self.bundles
        if bundles.beside is not None:
            bundles.beside = None
            self.notify("Prompts go to one bundle again")
        else:
            others = [choice for choice in await bundles.choices() if choice.path != bundles.current]
            note = "Each prompt goes to both; the conversation goes on with the first one's reply."
            chosen = await answer_of(BundleList("compare with a bundle", others, note), self)
            chosen = bundles.spelled(chosen) if chosen else ""
            if chosen == bundles.current:
                self.notify("You talk to this one already: there is nothing to compare", severity="warning")
            elif chosen:
                bundles.beside = chosen
                self._open(chosen)
        self._meet()

    # --- A turn

    def lead_to_prompt(self, event: Key | Paste) -> None:
        """Who types or pastes wants to write, wherever a click or Tab has put the focus. This is asked before
        anything is given the event: a key that came back from elsewhere could be overtaken by the next."""
        if not self.is_mounted or self.focused is self.prompt:
            return
        if isinstance(event, Key) and (event.key in self.active_bindings or not writes(event)):
            return
        self.set_focus(self.prompt)

    def on_prompt_refused(self, _: PromptRefused) -> None:
        if self.turn is not None:
            said = "Wait for the reply, or stop it, to send the next prompt"
        elif not self.bundles.current:
            said = "There is nobody to talk to: open a bundle"
        else:
            said = f"{self.bundles.title} is {self.state()}"
        self.notify(plain(said), severity="warning", markup=False)

    def on_prompt_submitted(self, message: PromptSubmitted) -> None:
        self.ask(message.text, instead_of=self.editing)

    def ask(self, prompt: str, *, instead_of: int | None = None) -> None:
        """Send a prompt to the bundle, and to the one that is compared with it. The exchange that it shall
        replace goes only when nothing can be refused any more."""
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
        self._begin(Turn(self._turns + 1, number, jobs))

    def _report(self, error: str, engine: Engine) -> None:
        """Tell an error, and where two bundles are asked, of which."""
        whose = f"{engine.facts.name}: " if self.bundles.beside else ""
        self.conversation.report(whose + error)

    def _gives_way(self, number: int) -> bool:
        """Whether this exchange goes for another reply to its prompt. What does not stays where it is, and a
        copy of what was said before goes on."""
        if self.talk.gives_way(number):
            self.conversation.drop(number)
            return True
        kept = self.talk.kept
        self.hold(self.talk.until(number))
        self._tell_of_copy(kept)
        return False

    @work
    async def _tell_of_copy(self, kept: Kept | None) -> None:
        """Another window may have deleted what it is a copy of."""
        there = kept is not None and await kept.is_there()
        library = self._keys().get("chat.library", "Chats")
        where = f"{library} has the conversation" if there else "the conversation is not kept"
        self.notify(f"This goes on in a copy: {where} as it was")

    def _speaker_changes(self, job: Job) -> bool:
        """Whether the last reply was another bundle's."""
        last = [exchange.reply for exchange in self.talk if exchange.reply]
        return bool(last) and voice(last[-1]) != (job.engine.facts.name, job.engine.facts.precision)

    def _begin(self, turn: Turn) -> None:
        self._turns = turn.number
        self.turn = turn
        self.prompt.ready = False
        self.look(None if turn.purpose == "reply" else turn.exchange, turn.side)
        self.changed()
        work = partial(decode, turn, self.post_message)
        self.run_worker(work, thread=True, group="decode", exit_on_error=False)

    def on_reply_advanced(self, message: ReplyAdvanced) -> None:
        if (turn := self._turn_of(message)) is not None:
            if turn.purpose == "reply":
                self.conversation.advance(turn.exchange, message.side, message.settled, message.tail)
            self.call_after_refresh(turn.drawn)

    def on_reply_finished(self, message: ReplyFinished) -> None:
        if (turn := self._turn_of(message)) is None:
            return
        turn.done.append((message.reply, message.insight))
        if len(turn.done) < len(turn.jobs):
            self.conversation.settle(turn.exchange, replace(self.talk[turn.exchange], reply=message.reply))
        elif turn.purpose == "replay":
            self._end_replay(turn, *turn.done[0])
        else:
            reply, other = [*(facts for facts, _ in turn.done), None][:2]
            exchange = replace(self.talk[turn.exchange], reply=reply, other=other)
            self.conversation.finish(turn.exchange, exchange)
            for side, (_, insight) in enumerate(turn.done):
                self.talk.remember(turn.exchange, insight, side)
            self._end(turn, exchange)

    def on_reply_failed(self, message: ReplyFailed) -> None:
        if (turn := self._turn_of(message)) is None:
            return
        if turn.purpose == "replay":
            self._over(turn.exchange, turn.side)
        else:
            self._break_off(turn, "failed", FAILED)
        self._report(message.error, turn.jobs[message.side].engine)

    def _turn_of(self, message: ReplyAdvanced | ReplyFinished | ReplyFailed) -> Turn | None:
        """The turn that a message is of; None where that is over."""
        return self.turn if self.turn and self.turn.number == message.turn else None

    def _break_off(self, turn: Turn, state: State, mark: str) -> None:
        """End a turn before its time. What came of the reply stays to be read; the model never said it,
        unless it is whole, and only that of the second bundle is not."""
        text = self.conversation.break_off(turn.exchange, len(turn.done), mark)
        exchange, job = self.talk[turn.exchange], turn.jobs[0]
        if turn.done:
            reply, insight = turn.done[0]
            self.talk.remember(turn.exchange, insight)
            self._end(turn, replace(exchange, reply=reply))
        elif not text and self.talk.take_back(turn.exchange):
            self.hold(self.talk)  # nothing came that could take the place of what was said before
            self._over(None)
            if exchange.prompt not in {said.prompt for said in self.talk}:
                self.prompt.give_back(exchange.prompt)
        else:
            made = job.engine.made(job.options, job.turns)
            partly = ReplyFacts(text, finished=False, made=made) if text else None
            self._end(turn, replace(exchange, state=state, reply=partly))
            if state == "failed":
                self.prompt.give_back(exchange.prompt)

    def _end(self, turn: Turn, exchange: Exchange) -> None:
        """What came of a turn is kept, and looked at unless one looks elsewhere by now."""
        self.talk.end(turn.exchange, exchange, turn.jobs[0].engine.facts.name)
        self._over(self._picked, self._side)

    def _over(self, looked_at: int | None, side: int = 0) -> None:
        """There is no turn any more: one can write again, and looks at this exchange."""
        if self.turn:
            self.turn.done.clear()  # the talk has what came, as long as it is worth it
        self.turn = None
        self.prompt.ready = self.bundles.ready
        self.look(looked_at, side)

    def action_stop(self) -> None:
        if self.turn:
            self.turn.stop()
            if self.turn.purpose == "replay":
                self._over(self.turn.exchange, self.turn.side)
            else:
                self._break_off(self.turn, "stopped", STOPPED)
        elif self.editing is not None:
            self.editing = None
            self.prompt.set_aside()
            self.prompt.write(self._draft)
            self.changed()

    # --- Once more

    def action_regenerate(self) -> None:
        """Reply to the prompt anew, with the knobs as they are now."""
        if self.exchange is not None and self.bundles.engine is not None:
            self.ask(self.exchange.prompt, instead_of=self.looked_at)

    def action_edit(self) -> None:
        """Put the prompt back, to be changed, until `action_stop` in place of what is being written."""
        if self.exchange is not None:
            if self.editing is None:
                self._draft = self.prompt.text
            self.prompt.set_aside()
            self.editing = self.looked_at
            self.prompt.write(self.exchange.prompt)
            self.prompt.focus()
            self.changed()

    def action_replay(self) -> None:
        """Make the reply again, with the settings and the context it was made with, by the same bundle:
        where that is not open, it is opened."""
        number, side = self.looked_at, self.side
        made = self.reply.made if self.reply else None
        if number is None or made is None or not made.seen:
            self.notify("There is no reply to replay", severity="warning")
        elif made.path and not self.bundles.maker(made) and self.bundles.stale(made.path):
            self._awaited = number, side, made
            self.notify(plain(f"Opening {made.path}, to replay the reply"), markup=False)
            self._open(self.bundles.spelled(made.path))
            self.show_status()
        else:
            self._replay(number, side, made)

    def _replay(self, number: int, side: int, made: Made) -> None:
        if engine := self.bundles.maker(made):
            job = Job(engine, made.seen, made.options)
            self._begin(Turn(self._turns + 1, number, [job], "replay", side))
        elif made.path:
            self._refuse_replay(f"{made.path} is another bundle now than the one that made the reply")
        else:
            self._refuse_replay(f"the bundle that made it, {made.bundle or 'unknown'}, is not open")

    def _refuse_replay(self, why: str) -> None:
        self.notify(plain(f"This cannot be replayed: {why}"), severity="warning", markup=False)

    def _take_awaited(self, path: str) -> tuple[int, int, Made] | None:
        """The reply that was to be replayed when the bundle at `path` has been loaded, if it still can be."""
        if self._awaited is None or self.bundles.spelled(self._awaited[2].path) != path:
            return None
        (number, side, made), self._awaited = self._awaited, None
        reply = self.talk[number].sides[side] if self.talk.has(number) else None
        return (number, side, made) if reply and reply.made is made and self.turn is None else None

    def _end_replay(self, turn: Turn, reply: ReplyFacts, insight: Insight | None) -> None:
        """The views show the way of the replay where the same replies came: else it is not this reply's."""
        made = self.talk[turn.exchange].sides[turn.side]
        if made:
            if alike(made, reply):
                self.talk.remember(turn.exchange, insight, turn.side)
            self.notify(plain(replayed(made, reply)), markup=False)
        self._over(turn.exchange, turn.side)
