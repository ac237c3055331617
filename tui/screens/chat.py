"""The chat: the one screen that knows the runtime, through `engine.py`. Widgets get plain values from it and
post messages.

The way of a prompt: `PromptSubmitted` -> a `Turn` with a job for each bundle that shall reply -> the decode
worker, a thread -> `ReplyAdvanced` and `ReplyFinished`, with the turn's number -> an `Exchange` of the
`Talk`, which is kept in the store and shown by the conversation and the inspector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from textual import getters, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.events import Key
from textual.message import Message
from textual.screen import Screen

from ..captions import FAILED, STOPPED, caption, marks, same
from ..engine import Engine, Model, bundles_near, name_of, sentence, with_seed
from ..formats import FORMATS, to_markdown
from ..keeper import Keeper, Kept
from ..keys import APP, CHAT, PROMPT, Action, bindings
from ..knobs import KNOBS, Changes, preset_of, presets, states
from ..messages import (
    CandidateChosen,
    KnobReset,
    KnobTurned,
    KnobTyped,
    LoadFailed,
    NotKept,
    PresetTurned,
    PromptRefused,
    PromptSubmitted,
    ReplyAdvanced,
    ReplyFailed,
    ReplyFinished,
    TurnPicked,
    ViewPicked,
)
from ..plain import plain
from ..store import Store, StoreError
from ..talk import Talk
from ..turn import Job, Turn
from ..values import Exchange, Insight, KeyHint, Mark, ReplyFacts, State, Status
from ..widgets import VIEWS, Conversation, Inspector, Prompt, ReplyMessage, StatusLine, Welcome
from ..widgets.footer import Keys
from ..widgets.why import NOT_KEPT, NOTHING
from .ask import Ask, Write
from .bundles import BundleChoice, Bundles
from .library import Library

#: Values of a knob that are tried where one is refused.
TRIES = 16
#: Replies whose way is remembered, to be looked at.
REMEMBERED = 100

Load = Callable[[str], Model]


class ChatScreen(Screen[None]):
    """Talk to a bundle, or to two at once.

    `load` is called in a thread with a bundle's path; the first of `bundles` is the one to talk to, and
    the others are loaded with it. `changes` are the knobs as they are turned at first. Without a keeper
    nothing is kept.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(CHAT)
    BINDING_GROUP_TITLE = "Chat"
    AUTO_FOCUS = "Prompt"

    @dataclass
    class ModelLoaded(Message):
        """A model is there."""

        path: str
        model: Model

    conversation = getters.query_one(Conversation)
    inspector = getters.query_one(Inspector)
    prompt = getters.query_one(Prompt)
    status_line = getters.query_one(StatusLine)
    welcome = getters.query_one(Welcome)

    def __init__(
        self, load: Load, bundles: Sequence[str], changes: Changes | None = None, keeper: Keeper | None = None
    ) -> None:
        super().__init__()
        self._load, self._bundles, self._keeper = load, tuple(bundles), keeper
        self._changes: Changes = dict(changes or {})
        self._engines: dict[str, Engine] = {}
        self._loading: set[str] = set()
        self._current = self._bundles[0] if self._bundles else ""
        self._before = ""  # the bundle that one talked to before
        self._beside: str | None = None  # the bundle that is compared with
        self._talk = Talk()
        self._kept: Kept | None = None
        self._insights: dict[int, Insight] = {}
        self._replies: dict[int, list[ReplyMessage]] = {}
        self._turns = 0
        self._turn: Turn | None = None  # the one being decoded
        self._done: list[tuple[ReplyFacts, Insight | None]] = []  # its replies so far
        self._picked: int | None = None  # the exchange that is looked at
        self._editing: int | None = None  # the exchange whose prompt is being changed
        self._wrong = ""  # with the knob that was turned last

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield Conversation(Welcome())
            yield Inspector()
        yield Prompt(placeholder="Say something, Enter sends it")
        yield StatusLine(Status(name_of(self._current) if self._current else "no bundle"))
        yield Keys(compact=True)

    def on_mount(self) -> None:
        self._begin_keeping()
        self._look(None)
        if not self._current:
            self.welcome.show_nothing(self._key_hints())
        else:
            self.welcome.show_loading(name_of(self._current))
        for path in self._bundles:
            self._open(path)

    def on_unmount(self) -> None:
        # The process does not end before its threads do.
        if self._turn:
            self._turn.stop()

    # --- Bundles

    @property
    def _engine(self) -> Engine | None:
        """The bundle that one talks to, None until it is loaded."""
        return self._engines.get(self._current)

    def _open(self, path: str) -> None:
        """Load a bundle, unless it is there or on its way."""
        if path not in self._engines and path not in self._loading:
            self._loading.add(path)
            self._load_model(path)
        self._show_status()

    @work(thread=True, group="load", exit_on_error=False)
    def _load_model(self, path: str) -> None:
        try:
            self.post_message(self.ModelLoaded(path, self._load(path)))
        except Exception as error:
            self.log.error(error)
            self.post_message(LoadFailed(path, sentence(error)))

    def on_chat_screen_model_loaded(self, message: ModelLoaded) -> None:
        self._loading.discard(message.path)
        self._engines[message.path] = Engine(message.model, name_of(message.path), message.path)
        if message.path == self._current:
            self._talk_to(message.path)
        self._show_status()

    def on_load_failed(self, message: LoadFailed) -> None:
        self._loading.discard(message.path)
        if message.path == self._beside:
            self._beside = None
        if message.path != self._current or self._engines:
            self.notify(plain(message.error), severity="error", markup=False)
            if message.path == self._current:
                self._talk_to(self._before if self._before in self._engines else next(iter(self._engines)))
        else:
            self.welcome.show_nothing(self._key_hints())
            self.conversation.report(f"{message.error}. There is nobody to talk to.")
        self._show_status()

    def _talk_to(self, path: str) -> None:
        """From now on the prompts go to this bundle, which is there or on its way."""
        self._before, self._current = self._current, path
        if self._beside == path:
            self._beside = None
        engine = self._engine
        if engine is None:
            self._open(path)
        else:
            try:
                engine.options(self._changes)
            except Exception as error:  # what was right for another bundle
                self._changes = {}
                self.notify(plain(sentence(error)), severity="warning", markup=False)
            self.welcome.show_model(engine.facts, self._key_hints(), demo=path == "demo")
        self.prompt.ready = engine is not None and self._turn is None
        self._show_knobs()
        self._show_status()

    def _choices(self) -> list[BundleChoice]:
        """Bundles to choose from: those that are open, then those nearby."""
        near = [path for path in bundles_near(Path()) if not _same(path, self._engines)]
        return [
            *(
                BundleChoice(path, engine.facts.name, engine.facts.label)
                for path, engine in self._engines.items()
            ),
            *(BundleChoice(path, name_of(path), "") for path in near),
        ]

    @work
    async def action_bundles(self) -> None:
        path = await self.app.push_screen_wait(
            Bundles("talk to a bundle", self._choices(), "The conversation goes on with the one you choose.")
        )
        if path and self._turn is None:
            self._talk_to(path)
        elif path:
            self.notify("Wait for the reply, or stop it, to talk to another bundle", severity="warning")

    @work
    async def action_compare(self) -> None:
        if self._beside is not None:
            self._beside = None
            self.notify("Prompts go to one bundle again")
        else:
            others = [choice for choice in self._choices() if choice.path != self._current]
            note = "Each prompt goes to both; the conversation goes on with the first one's reply."
            self._beside = await self.app.push_screen_wait(Bundles("compare with a bundle", others, note))
            if self._beside == self._current:
                self._beside = None
            elif self._beside:
                self._open(self._beside)
        self._show_status()

    # --- A turn

    def on_key(self, event: Key) -> None:
        """Who types wants to write, wherever a click or Tab has put the focus."""
        bound = self.active_bindings.get(event.key) or event.key.startswith("alt+")
        if event.is_printable and event.character and self.focused is not self.prompt and not bound:
            self.prompt.focus()
            self.prompt.insert(event.character)
            event.stop()

    def on_prompt_refused(self, _: PromptRefused) -> None:
        if self._turn is not None:
            self.notify("Wait for the reply, or stop it, to send the next prompt", severity="warning")
        elif not self._current:
            self.notify("There is nobody to talk to: open a bundle", severity="warning")
        else:
            self.notify(
                plain(f"{self.status_line.status.bundle} is {self._state()}"),
                severity="warning",
                markup=False,
            )

    def on_prompt_submitted(self, message: PromptSubmitted) -> None:
        self._ask(message.text, instead_of=self._editing)

    def _ask(self, prompt: str, *, instead_of: int | None = None) -> None:
        """Send a prompt to the bundle, and to the one that is compared with it. The exchange that it shall
        replace goes only when nothing can be refused any more."""
        engines = [self._engines.get(path) for path in (self._current, self._beside) if path]
        jobs = []
        try:
            for engine in engines:
                if engine is not None:
                    seen = engine.seen(self._talk.turns(prompt, before=instead_of))
                    jobs.append(Job(engine, seen, with_seed(engine.options(self._changes))))
        except Exception as error:
            self.conversation.report(sentence(error))
            self.prompt.give_back(prompt)
            self.prompt.ready = True
            return
        self._editing = None
        if instead_of is not None:
            self._forget(instead_of)
        number = self._talk.add(Exchange(prompt))
        captions = [
            job.engine.facts.label if len(jobs) > 1 or self._speaker_changes(job) else "" for job in jobs
        ]
        self._replies[number] = self.conversation.begin(number, prompt, captions)
        self._begin(Turn(self._turns + 1, number, jobs))

    def _speaker_changes(self, job: Job) -> bool:
        """Whether the last reply was another bundle's."""
        last = [exchange.reply for exchange in self._talk if exchange.reply]
        return bool(last) and _voice(last[-1]) != (job.engine.facts.name, job.engine.facts.precision)

    def _begin(self, turn: Turn) -> None:
        self._turns = turn.number
        self._turn, self._done = turn, []
        self.prompt.ready = False
        self._look(None if turn.purpose == "reply" else turn.exchange)
        self._show_status()
        self.refresh_bindings()
        self._decode(turn)

    @work(thread=True, group="decode", exit_on_error=False)
    def _decode(self, turn: Turn) -> None:
        for side, job in enumerate(turn.jobs):
            try:
                decoding = job.engine.decode(job.turns, job.options)
                turn.attach(decoding)
                for settled, tail in decoding.updates():
                    if turn.stopped:
                        return
                    if turn.due():
                        self.post_message(ReplyAdvanced(turn.number, side, settled, tail))
                self.post_message(ReplyFinished(turn.number, side, *decoding.result()))
            except Exception as error:
                self.log.error(error)
                self.post_message(ReplyFailed(turn.number, side, sentence(error)))
                return

    def on_reply_advanced(self, message: ReplyAdvanced) -> None:
        if self._turn and self._turn.number == message.turn:
            if self._turn.purpose == "reply":
                self._replies[self._turn.exchange][message.side].advance(message.settled, message.tail)
            self._turn.drawn()

    def on_reply_finished(self, message: ReplyFinished) -> None:
        turn = self._turn
        if turn is None or turn.number != message.turn:
            return
        self._done.append((message.reply, message.insight))
        if len(self._done) < len(turn.jobs):
            self._replies[turn.exchange][message.side].finish(message.reply.text)
        elif turn.purpose == "replay":
            self._end_replay(turn, *self._done[0])
        else:
            (reply, insight), *rest = self._done
            other = rest[0][0] if rest else None
            self._remember(turn.exchange, insight)
            self._end(turn, replace(self._talk[turn.exchange], reply=reply, other=other))

    def _end_replay(self, turn: Turn, reply: ReplyFacts, insight: Insight | None) -> None:
        made = self._talk[turn.exchange].reply
        self._remember(turn.exchange, insight)
        self._turn = None
        self.prompt.ready = self._engine is not None
        if made:
            self.notify(same(made, reply))
        self._look(turn.exchange)
        self._show_status()
        self.refresh_bindings()

    def on_reply_failed(self, message: ReplyFailed) -> None:
        turn = self._turn
        if turn is None or turn.number != message.turn:
            return
        self.conversation.report(message.error)
        if turn.purpose == "replay":
            self._turn = None
            self.prompt.ready = self._engine is not None
            self._show_status()
            self.refresh_bindings()
            return
        self.prompt.give_back(self._talk[turn.exchange].prompt)
        self._break_off(turn, "failed", FAILED)

    def _break_off(self, turn: Turn, state: State, mark: str) -> None:
        """End a turn before its time. What came of the reply stays to be read; the model never said it."""
        messages = self._replies[turn.exchange]
        for message in messages[len(self._done) :]:
            message.break_off(mark)
        job = turn.jobs[0]
        made = replace(self._done[0][0], finished=False) if self._done else None
        if made is None and messages[0].text:
            made = ReplyFacts(messages[0].text, finished=False, made=job.engine.made(job.options, job.turns))
        self._end(turn, replace(self._talk[turn.exchange], state=state, reply=made), draw=False)

    def _end(self, turn: Turn, exchange: Exchange, *, draw: bool = True) -> None:
        """The turn is over: what came of it is kept and shown."""
        self._turn = None
        self.prompt.ready = self._engine is not None
        self._talk.put(turn.exchange, exchange)
        if self._kept:
            self._kept.append(turn.exchange, exchange, turn.jobs[0].engine.facts.name)
        if draw:
            self._redraw(turn.exchange)
        self._look(None)
        self._show_status()
        self.refresh_bindings()

    def _remember(self, number: int, insight: Insight | None) -> None:
        if insight is not None:
            self._insights[number] = insight
            while len(self._insights) > REMEMBERED:
                del self._insights[next(iter(self._insights))]

    def _forget(self, number: int) -> None:
        """Take an exchange out of the conversation."""
        self._talk.remove(number)
        self._insights.pop(number, None)
        self._replies.pop(number, None)
        self.conversation.drop(number)
        if self._kept:
            self._kept.remove(number)

    def _put(self, number: int, exchange: Exchange) -> None:
        """Change an exchange that is over."""
        self._talk.put(number, exchange)
        if self._kept:
            self._kept.update(number, exchange)
        self._redraw(number)
        self._look(number)

    def _redraw(self, number: int) -> None:
        """Show the replies of an exchange as they are now."""
        exchange = self._talk[number]
        for side, (message, reply) in enumerate(
            zip(self._replies[number], (exchange.reply, exchange.other), strict=False)
        ):
            text = reply.text if reply else ""
            above = caption(reply, compared=True) if reply and exchange.other else None
            message.finish(text, marks(exchange, side), above)

    # --- What is looked at

    @property
    def _looked_at(self) -> int | None:
        """The exchange that the inspector shows, and that Copy, Good and the like are about."""
        numbers = self._talk.numbers
        if self._picked in numbers:
            return self._picked
        return numbers[-1] if numbers else None

    def _look(self, number: int | None) -> None:
        """Look at an exchange; None is the newest, whichever that is."""
        self._picked = number if number in self._talk.numbers else None
        self.conversation.pick(self._picked)
        self._show_view()

    def _show_view(self) -> None:
        """Fill the view that is shown; the others are filled when they are."""
        number, inspector = self._looked_at, self.inspector
        exchange = self._talk[number] if number is not None else None
        reply = exchange.reply if exchange else None
        insight = self._insights.get(number) if number is not None else None
        hint = NOT_KEPT if reply and reply.made.seen else NOTHING
        chosen = reply.chosen if reply else 0
        view = inspector.view
        if view == "candidates":
            inspector.candidates.show(reply.candidates if reply else (), chosen)
        elif view == "attention":
            inspector.attention.show(insight, chosen, hint)
        elif view == "tokens":
            row = reply.candidates[chosen] if reply and reply.candidates else None
            inspector.tokens.show(row, insight, chosen, hint)
        elif view == "beam":
            inspector.beam.show(insight, hint)
        elif view == "seen":
            inspector.seen.show(reply, insight, self._engine.facts if self._engine else None)
        elif view == "meter":
            speeds = [e.reply.tokens_per_second for e in self._talk if e.reply and e.reply.tokens_per_second]
            inspector.meter.show(reply, [speed for speed in speeds if speed])
        else:
            self._show_knobs()

    def _show_knobs(self) -> None:
        if self._engine is not None:
            values = self._engine.options(self._changes)
            shown = states(values, self._engine.defaults)
            self.inspector.knobs.show(shown, preset_of(self._changes, values), self._wrong)

    def _state(self) -> str:
        if self._turn is not None:
            return "replaying" if self._turn.purpose == "replay" else "replying"
        if self._current in self._loading:
            return "loading"
        if self._engine is None:
            return "not loaded"
        return "editing the last prompt" if self._editing is not None else ""

    def _show_status(self) -> None:
        number, engine = self._looked_at, self._engine
        reply = self._talk[number].reply if number is not None and self._turn is None else None
        beside = f" | {name_of(self._beside)}" if self._beside else ""
        self.status_line.status = Status(
            (name_of(self._current) if self._current else "no bundle") + beside,
            state=self._state(),
            precision=engine.facts.precision if engine else "",
            device=engine.facts.device if engine else "",
            beam=engine.options(self._changes)["beam"] if engine else None,
            changed=bool(self._changes),
            ms=reply.ms if reply and reply.ms else None,
            tokens_per_second=reply.tokens_per_second if reply else None,
        )

    def on_turn_picked(self, message: TurnPicked) -> None:
        self._look(message.number)

    def action_select(self, by: int) -> None:
        numbers = self._talk.numbers
        if numbers and self._looked_at is not None:
            at = max(0, min(numbers.index(self._looked_at) + by, len(numbers) - 1))
            self._look(numbers[at])

    def on_view_picked(self, message: ViewPicked) -> None:
        self.show_view(message.name)

    def show_view(self, name: str) -> None:
        """Have the inspector show a view."""
        if not self.inspector.display:
            self.action_toggle_inspector()
        had_focus = self.focused is not None and self.inspector in self.focused.ancestors
        self.inspector.view = name
        self._show_view()
        if had_focus:
            self.inspector.shown.focus()
        self.refresh_bindings()

    def action_next_view(self) -> None:
        names = list(VIEWS)
        shown = self.inspector.display
        self.show_view(names[(names.index(self.inspector.view) + shown) % len(names)])

    def action_toggle_inspector(self) -> None:
        shown = self.inspector.display
        if shown and self.focused is not None and self.inspector in self.focused.ancestors:
            self.prompt.focus()
        self.set_class(shown, "-inspector-hidden").set_class(not shown, "-inspector-shown")
        if not shown:
            self._show_view()

    def action_knobs(self) -> None:
        if self.inspector.display and self.inspector.view == "knobs" and self.focused is self.inspector.knobs:
            self.prompt.focus()
        else:
            self.show_view("knobs")
            self.inspector.knobs.focus()

    def action_back(self) -> None:
        if self._turn is not None:
            self.action_stop()
        else:
            self._look(None)
            self.prompt.focus()

    def on_candidate_chosen(self, message: CandidateChosen) -> None:
        number = self._looked_at
        reply = self._talk[number].reply if number is not None else None
        if number is not None and reply and message.index < len(reply.candidates) and self._turn is None:
            self._put(number, replace(self._talk[number], reply=reply.with_chosen(message.index)))

    # --- Knobs

    @property
    def values(self) -> dict[str, Any]:
        """The options as the knobs are turned now; none while there is no model."""
        return self._engine.options(self._changes) if self._engine else {}

    def _turn_knob(self, name: str, value: Any) -> None:
        if self._engine is None:
            return
        try:
            self._changes, self._wrong = self._engine.turned(self._changes, name, value), ""
        except Exception as error:
            self._wrong = sentence(error)
        self._show_knobs()
        self._show_status()

    def on_knob_turned(self, message: KnobTurned) -> None:
        """To the next value that goes together with the other knobs: groups that share a beam of 6 are 1, 2,
        3 and 6. Where there is none near, what is wrong with the first is told."""
        kind = next(knob.kind for knob in KNOBS if knob.name == message.name)
        value, wrong = self.values.get(message.name), ""
        for _ in range(TRIES):
            value = kind.step(value, message.by)
            self._turn_knob(message.name, value)
            if not self._wrong:
                return
            wrong = wrong or self._wrong
        self._wrong = wrong
        self._show_knobs()

    def on_knob_reset(self, message: KnobReset) -> None:
        if message.name is None:
            self.use_preset({})
        elif self._engine is not None:
            self._turn_knob(message.name, self._engine.defaults[message.name])

    def on_preset_turned(self, message: PresetTurned) -> None:
        if self._engine is not None:
            values = self._engine.options(self._changes)
            names = list(presets(values))
            now = preset_of(self._changes, values)
            at = names.index(now) + message.by if now else 0
            self.use_preset(presets(values)[names[at % len(names)]])

    def use_preset(self, changes: Changes) -> None:
        """Turn the knobs to these, and all others to the bundle's own."""
        if self._engine is not None:
            try:
                self._engine.options(changes)
                self._changes, self._wrong = dict(changes), ""
            except Exception as error:
                self._wrong = sentence(error)
            self._show_knobs()
            self._show_status()

    @work
    async def on_knob_typed(self, message: KnobTyped) -> None:
        knob = next(knob for knob in KNOBS if knob.name == message.name)
        engine = self._engine
        if engine is None:
            return

        def check(text: str) -> str:
            try:
                engine.turned(self._changes, knob.name, knob.kind.parse(text))
            except ValueError as error:
                return str(error)
            except Exception as error:
                return sentence(error)
            return ""

        value = knob.kind.show(engine.options(self._changes)[knob.name]).strip("–")
        text = await self.app.push_screen_wait(
            Ask(knob.name.replace("_", " "), value, note=knob.does, check=check)
        )
        if text is not None:
            self._turn_knob(knob.name, knob.kind.parse(text))

    # --- Actions on the conversation

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """An action that has nothing to act on is greyed out."""
        if action == "stop":
            return True if self._turn is not None or self._editing is not None else None
        number = self._looked_at
        exchange = self._talk[number] if number is not None else None
        if action in ("regenerate", "edit_last", "replay", "mark", "answer", "copy_reply", "copy_prompt"):
            return True if exchange and self._turn is None else None
        if action in ("export", "copy_conversation", "rename", "select"):
            return True if len(self._talk) else None
        if action in ("library", "export_all"):
            return True if self._keeper else None
        return True

    def action_stop(self) -> None:
        if self._turn and self._turn.purpose == "replay":
            self._turn.stop()
            self._turn = None
            self.prompt.ready = self._engine is not None
            self._show_status()
            self.refresh_bindings()
        elif self._turn:
            self._turn.stop()
            self._break_off(self._turn, "stopped", STOPPED)
        elif self._editing is not None:
            self._editing = None
            self.prompt.write("")
            self._show_status()
            self.refresh_bindings()

    def action_new_conversation(self) -> None:
        self.action_stop()
        self._hold(Talk(), None, {})
        self.prompt.focus()

    def action_regenerate(self) -> None:
        """Reply to the last prompt anew, with the knobs as they are now."""
        number = self._talk.numbers[-1]
        prompt = self._talk[number].prompt
        if self._engine is not None:
            self._ask(prompt, instead_of=number)

    def action_edit_last(self) -> None:
        number = self._talk.numbers[-1]
        self._editing = number
        self.prompt.write(self._talk[number].prompt)
        self.prompt.focus()
        self._show_status()
        self.refresh_bindings()

    def action_replay(self) -> None:
        """Make the reply again, with the settings and the context it was made with."""
        number = self._looked_at
        reply = self._talk[number].reply if number is not None else None
        if number is None or reply is None or not reply.made.seen:
            self.notify("There is no reply to replay", severity="warning")
            return
        made = reply.made
        engine = next(
            (
                e
                for e in self._engines.values()
                if e.facts.fingerprint == made.fingerprint and e.facts.name == made.bundle
            ),
            None,
        ) or next((e for e in self._engines.values() if e.facts.fingerprint == made.fingerprint), None)
        if engine is None:
            where = f" ({made.path})" if made.path else ""
            self.notify(
                plain(f"Open the bundle {made.bundle}{where}, with which it was made, to replay it"),
                severity="warning",
                markup=False,
            )
            return
        self._begin(Turn(self._turns + 1, number, [Job(engine, made.seen, made.options)], "replay"))

    def action_mark(self, mark: Mark) -> None:
        number = self._looked_at
        if number is not None and self._talk[number].reply:
            exchange = self._talk[number]
            self._put(number, replace(exchange, mark=None if exchange.mark == mark else mark))

    @work
    async def action_answer(self) -> None:
        number = self._looked_at
        if number is None:
            return
        exchange = self._talk[number]
        text = exchange.answer or (exchange.reply.text if exchange.reply else "")
        answer = await self.app.push_screen_wait(
            Write(
                "correct",
                text,
                note="What it should have said. The conversation goes on with that; empty takes it back.",
            )
        )
        if answer is not None and number in self._talk.numbers:
            corrected = answer.strip() or None
            mark: Mark | None = "bad" if corrected else self._talk[number].mark
            self._put(number, replace(self._talk[number], answer=corrected, mark=mark))

    def action_copy_reply(self) -> None:
        number = self._looked_at
        exchange = self._talk[number] if number is not None else None
        if exchange is None or exchange.reply is None or not exchange.reply.text:
            self.notify("There is no reply to copy yet", severity="warning")
        else:
            self.app.copy_to_clipboard(plain(exchange.answer or exchange.reply.text))
            self.notify("The reply is in the clipboard")

    def action_copy_prompt(self) -> None:
        if self._looked_at is not None:
            self.app.copy_to_clipboard(plain(self._talk[self._looked_at].prompt))
            self.notify("The prompt is in the clipboard")

    def action_copy_conversation(self) -> None:
        self.app.copy_to_clipboard(plain(to_markdown(self._title(), list(self._talk))))
        self.notify("The conversation is in the clipboard, as Markdown")

    def action_scroll_conversation(self, pages: int) -> None:
        if pages < 0:
            self.conversation.action_page_up()
        else:
            self.conversation.action_page_down()

    # --- Keeping

    def _report_not_kept(self, error: str) -> None:
        """From the keeper's thread."""
        self.post_message(NotKept(error))

    def on_not_kept(self, message: NotKept) -> None:
        self.notify(plain(message.error), severity="error", markup=False)

    @work
    async def _begin_keeping(self) -> None:
        self._hold(Talk(), None, {})
        if self._keeper:
            try:
                self.prompt.remember(await self._keeper.do(lambda store: store.prompts()))
            except StoreError as error:
                self._keeper = self._kept = None
                self.notify(plain(f"{error}. What is said now is not kept."), severity="error", markup=False)
                self.refresh_bindings()

    def _hold(self, talk: Talk, id: int | None, rows: dict[int, int]) -> None:
        """Go on with a conversation: a new one, or one that was kept."""
        self._talk, self._picked, self._editing = talk, None, None
        self._kept = Kept(self._keeper, self._report_not_kept, id=id, rows=rows) if self._keeper else None
        self._insights.clear()
        self.conversation.clear()
        self._replies = {}
        said = []
        speaker: tuple[str, str] | None = None
        for number in talk.numbers:
            exchange = talk[number]
            replies = [reply for reply in (exchange.reply, exchange.other) if reply] or [ReplyFacts("")]
            changes = speaker is not None and _voice(replies[0]) != speaker
            speaker = _voice(replies[0])
            self._replies[number] = [
                ReplyMessage(number, caption(reply, compared=False) if changes else "") for reply in replies
            ]
            said.append((number, exchange.prompt, self._replies[number]))
        self.conversation.show(said)
        for number in talk.numbers:
            self._redraw(number)
        self._look(None)
        self._show_status()
        self.refresh_bindings()

    @work
    async def action_library(self) -> None:
        if self._keeper is None:
            return
        id = await self.app.push_screen_wait(Library(self._keeper))
        if id is not None:
            try:
                title, exchanges = await self._keeper.do(lambda store: store.load(id))
            except StoreError as error:
                self.notify(plain(str(error)), severity="error", markup=False)
                return
            self.action_stop()
            talk = Talk(exchanges, title)
            rows = {n: talk[n].id for n in talk.numbers}
            self._hold(talk, id, {n: row for n, row in rows.items() if row is not None})
            self.prompt.focus()

    @work
    async def action_rename(self) -> None:
        title = await self.app.push_screen_wait(Ask("rename", self._title(), note="The conversation's title"))
        if title and title.strip():
            self._talk.title = " ".join(title.split())
            if self._kept:
                self._kept.rename(self._talk.title)

    def _title(self) -> str:
        first = next(iter(self._talk), None)
        return self._talk.title or (first.prompt if first else "conversation")

    @work
    async def action_export(self) -> None:
        file = await self._ask_for_file(
            "chat.md", "The ending says how: .md to read, .json for programs, .jsonl to train with."
        )
        if file is not None:
            await self._write(file, FORMATS[file.suffix](self._title(), list(self._talk)))

    @work
    async def action_export_all(self) -> None:
        if self._keeper is None:
            return
        note = "What was marked good or corrected in all conversations, for edgechat train."
        file = await self._ask_for_file("chats.jsonl", note)
        if file is not None:

            def every(store: Store) -> str:
                loaded = (store.load(summary.id) for summary in store.find(limit=1_000_000))
                return "".join(FORMATS[file.suffix](title, exchanges) for title, exchanges in loaded)

            try:
                await self._write(file, await self._keeper.do(every))
            except StoreError as error:
                self.notify(plain(str(error)), severity="error", markup=False)

    async def _ask_for_file(self, proposed: str, note: str) -> Path | None:
        text = await self.app.push_screen_wait(
            Ask("export to a file", proposed, note=note, check=_check_file)
        )
        return Path(text.strip()).expanduser() if text else None

    async def _write(self, file: Path, text: str) -> None:
        if not text:
            self.notify(
                "There is nothing to learn yet: mark a reply as good, or correct it", severity="warning"
            )
            return
        try:
            with file.open("x", encoding="utf-8", errors="replace") as opened:
                opened.write(text)
        except OSError as error:
            self.notify(plain(f"{file} cannot be written: {error.strerror}"), severity="error", markup=False)
        else:
            self.notify(plain(f"Written to {file}"), markup=False)

    # --- Keys

    def _key_hints(self) -> list[KeyHint]:
        """The actions that a newcomer needs, with the keys they have now."""
        if self._engine is None:
            wanted: tuple[str, ...] = ("chat.bundles", "app.help", "app.quit")
        else:
            wanted = (
                "prompt.send",
                "prompt.newline",
                "chat.regenerate",
                "chat.why",
                "chat.next_view",
                "chat.compare",
            )
        keys = {
            a.binding.id: self.app.get_key_display(a.binding) for a in reversed(self.active_bindings.values())
        }
        actions: dict[str, Action] = {action.id: action for action in (*PROMPT, *CHAT, *APP)}
        return [KeyHint(keys[id], actions[id].label) for id in wanted if id in keys]


def _voice(reply: ReplyFacts) -> tuple[str, str]:
    """Who speaks."""
    return reply.made.bundle, reply.made.precision


def _same(path: str, others: Sequence[str] | dict[str, Engine]) -> bool:
    return any(Path(path).resolve() == Path(other).resolve() for other in others)


def _check_file(text: str) -> str:
    file = Path(text.strip()).expanduser()
    if file.suffix not in FORMATS:
        return f"The name must end with one of {', '.join(FORMATS)}"
    if file.exists():
        return f"{file} is there already: choose another name"
    if not file.absolute().parent.is_dir():
        return f"There is no folder {file.absolute().parent}"
    return ""
