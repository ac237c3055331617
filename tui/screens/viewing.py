"""How the chat is shown: the conversation, the turn that is looked at, the inspector with its views and
knobs, the status line."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.screen import Screen

from ..bundles import Bundles
from ..dial import Dial
from ..keys import APP, CHAT, PROMPT, Action, is_key
from ..knobs import KNOBS, Changes
from ..messages import KnobReset, KnobTurned, KnobTyped, PresetTurned, TurnPicked, ViewPicked
from ..talk import Talk
from ..turn import Turn
from ..values import Exchange, KeyHint, Looked, ReplyFacts, Status
from ..widgets import VIEWS, Conversation, Inspector, Prompt, StatusLine, Welcome
from ..widgets.footer import Keys
from ..widgets.hints import NOT_FOLLOWED, NOT_KEPT, NOTHING
from .ask import Ask
from .over import IN_ORDER, answer_of, copy_marked


class Viewing(Screen[None]):
    """The state of the chat, and all that shows it."""

    AUTO_FOCUS = "Prompt"

    conversation = getters.query_one(Conversation)
    inspector = getters.query_one(Inspector)
    prompt = getters.query_one(Prompt)
    status_line = getters.query_one(StatusLine)
    welcome = getters.query_one(Welcome)

    def __init__(self, bundles: Sequence[str], changes: Changes | None = None) -> None:
        super().__init__()
        self.bundles = Bundles(bundles)
        self.dial = Dial(self.bundles, changes)
        self.talk = Talk()
        self.turn: Turn | None = None  # the one being decoded
        self.editing: int | None = None  # the exchange whose prompt is being changed
        self._picked: int | None = None  # the exchange that is looked at
        self._side = 0  # of its replies

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield Conversation(Welcome())
            yield Inspector()
        yield Prompt()
        yield StatusLine(Status(self.bundles.title))
        yield Keys(compact=True)

    def greet(self) -> None:
        """The welcome tells which bundle there is, and which keys there are now."""
        if engine := self.bundles.engine:
            self.welcome.show_model(engine.facts, self.key_hints(), demo=self.bundles.current == "demo")
        else:
            self.welcome.show_nothing(self.key_hints())

    def on_descendant_focus(self) -> None:
        # The prompt's keys are there while it has the focus: a browser gives it late.
        if send := self._keys().get("prompt.send"):
            self.prompt.placeholder = f"Say something, {send.replace('⏎', 'Enter')} sends it"
        if self.bundles.engine and self.welcome.display:
            self.greet()

    def hold(self, talk: Talk) -> None:
        """Go on with a conversation: a new one, or one that was kept."""
        self.talk, self.editing = talk, None
        self.conversation.show(talk)
        self.look(None)

    def put(self, number: int, exchange: Exchange) -> None:
        """Change an exchange that is over."""
        self.talk.change(number, exchange)
        self.conversation.finish(number, exchange)
        self.look(number)

    # --- What is looked at

    @property
    def looked_at(self) -> int | None:
        """The exchange that the inspector shows, and that Copy, Good and the like are about."""
        return self._picked if self.talk.has(self._picked) else self.talk.newest

    @property
    def exchange(self) -> Exchange | None:
        """The one that is looked at."""
        return None if self.looked_at is None else self.talk[self.looked_at]

    @property
    def side(self) -> int:
        """Which of its replies is looked at: 1 is that of the bundle that is compared."""
        return self._side if self.exchange and self.exchange.other else 0

    @property
    def reply(self) -> ReplyFacts | None:
        """The reply that is looked at."""
        return self.exchange.sides[self.side] if self.exchange else None

    def look(self, number: int | None, side: int = 0) -> None:
        """Look at a reply of an exchange; None is the newest, whichever that is."""
        self._picked = number if self.talk.has(number) else None
        self._side = side
        self.conversation.pick(self._picked, self.side)
        self._fill_view()
        self.changed()

    def _fill_view(self) -> None:
        if self.inspector.view == "knobs":
            self._show_knobs()
            return
        number, side, reply = self.looked_at, self.side, self.reply
        engine = self.bundles.maker(reply.made) if side and reply else self.bundles.engine
        speeds = (each.tokens_per_second for e in self.talk if (each := e.sides[side]))
        looked = Looked(
            reply,
            None if number is None else self.talk.insight(number, side),
            engine.facts if engine else None,
            tuple(speed for speed in speeds if speed),
            self._hint(reply),
        )
        self.inspector.show(looked)

    def _hint(self, reply: ReplyFacts | None) -> str:
        """What to do where the way of a reply is not known."""
        if reply is None or not reply.made.seen:
            return NOTHING
        maker = self.bundles.maker(reply.made)
        if maker and not maker.traces(reply.made.seen, reply.made.options):
            return NOT_FOLLOWED
        return NOT_KEPT.format(key=self._keys().get("chat.replay", "Replay"))

    def on_turn_picked(self, message: TurnPicked) -> None:
        self.look(message.number, message.side)

    def action_other(self) -> None:
        self.look(self.looked_at, 1 - self.side)

    def action_select(self, by: int) -> None:
        numbers = self.talk.numbers
        if numbers and self.looked_at is not None:
            at = max(0, min(numbers.index(self.looked_at) + by, len(numbers) - 1))
            self.look(numbers[at])

    def action_scroll_conversation(self, pages: int) -> None:
        if pages < 0:
            self.conversation.action_page_up()
        else:
            self.conversation.action_page_down()

    def action_copy_text(self) -> None:
        copy_marked(self)

    # --- The inspector

    def on_view_picked(self, message: ViewPicked) -> None:
        self.show_view(message.name)

    def show_view(self, name: str) -> None:
        """Have the inspector show a view."""
        if not self.inspector.display:
            self.action_toggle_inspector()
        had_focus = self._inspector_has_focus
        self.inspector.view = name
        self._fill_view()
        if had_focus:
            self.inspector.shown.focus()
        self.refresh_bindings()

    @property
    def _inspector_has_focus(self) -> bool:
        return self.focused is not None and self.inspector in self.focused.ancestors

    def action_next_view(self) -> None:
        names = list(VIEWS)
        shown = self.inspector.display
        self.show_view(names[(names.index(self.inspector.view) + shown) % len(names)])

    def action_toggle_inspector(self) -> None:
        shown = self.inspector.display
        if shown and self._inspector_has_focus:
            self.prompt.focus()
        self.set_class(shown, "-inspector-hidden").set_class(not shown, "-inspector-shown")
        if not shown:
            self._fill_view()

    def action_knobs(self) -> None:
        if self.inspector.display and self.focused is self.inspector.knobs:
            self.prompt.focus()
        else:
            self.show_view("knobs")
            self.inspector.knobs.focus()

    # --- Knobs

    @property
    def values(self) -> dict[str, Any]:
        """The options as the knobs are turned now; none while there is no model."""
        return self.dial.values

    def use_preset(self, changes: Changes) -> None:
        """Turn the knobs to these, and all others to the bundle's own."""
        self.dial.use(changes)
        self._show_dial()

    def on_knob_turned(self, message: KnobTurned) -> None:
        self.dial.step(message.name, message.by)
        self._show_dial()

    def on_knob_reset(self, message: KnobReset) -> None:
        self.dial.reset(message.name)
        self._show_dial()

    def on_preset_turned(self, message: PresetTurned) -> None:
        self.dial.next_preset(message.by)
        self._show_dial()

    @work(group=IN_ORDER)
    async def on_knob_typed(self, message: KnobTyped) -> None:
        name = message.name
        if self.bundles.engine is None:
            return
        does = next(knob.does for knob in KNOBS if knob.name == name)
        check = partial(self.dial.wrong_with, name)
        ask = Ask(name.replace("_", " "), self.dial.shown(name), note=does, check=check)
        text = await answer_of(ask, self)
        if text is not None:
            self.dial.write(name, text)
            self._show_dial()

    def _show_dial(self) -> None:
        self._show_knobs()
        self.show_status()

    def _show_knobs(self) -> None:
        if self.bundles.engine:
            self.inspector.knobs.show(self.dial.states(), self.dial.preset, self.dial.wrong)

    # --- What is going on

    def changed(self) -> None:
        """Something began or ended: the status line and the keys say what can be done now."""
        self.show_status()
        self.refresh_bindings()

    def state(self) -> str:
        """What is going on, in a word; "" where one can write."""
        if self.turn is not None:
            return "replaying" if self.turn.purpose == "replay" else "replying"
        if self.bundles.coming:
            return "loading"
        if self.bundles.engine is None:
            return "not loaded"
        if self.editing is None:
            return ""
        if self.talk.gives_way(self.editing):
            return "editing the last prompt"
        return f"editing turn {self.talk.numbers.index(self.editing) + 1}, in a copy"

    def show_status(self) -> None:
        engine = self.bundles.engine
        idle = self.turn is None and self.editing is None
        reply = self.exchange.reply if self.exchange and idle else None
        self.status_line.status = Status(
            self.bundles.title,
            kept=self.talk.kept is not None and self.talk.kept.lasts,
            state=self.state(),
            precision=engine.facts.precision if engine else "",
            device=engine.facts.device if engine else "",
            closed=engine.facts.closed if engine else False,
            beam=self.values["beam"] if engine else None,
            changed=bool(self.dial.changes),
            ms=reply.ms if reply and reply.ms else None,
            tokens_per_second=reply.tokens_per_second if reply else None,
        )

    def key_hints(self) -> list[KeyHint]:
        """The actions that a newcomer needs, with the keys they have now."""
        if self.bundles.engine is None:
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
        actions: dict[str, Action] = {action.id: action for action in (*PROMPT, *CHAT, *APP)}
        keys = self._keys()
        return [KeyHint(keys[id], actions[id].label) for id in wanted if id in keys]

    def _keys(self) -> dict[str, str]:
        """The first key of each action that has one now, as it is shown."""
        active = reversed(self.active_bindings.values())
        bound = (a.binding for a in active if is_key(a.binding.key))
        return {binding.id: self.app.get_key_display(binding) for binding in bound if binding.id}
