"""What the chat shows: the conversation, the selected exchange, the inspector, and the status line."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.screen import Screen

from ..bundles import Bundles
from ..dial import Dial
from ..keys import APP, CHAT, PROMPT, Action
from ..knobs import Changes, knob_named
from ..messages import KnobReset, KnobStepped, KnobTyped, PresetStepped, ReplyPicked, ViewPicked
from ..replytask import ReplyTask
from ..talk import Talk
from ..values import Exchange, Inspected, KeyHint, ReplyFacts, Status
from ..widgets import VIEWS, Conversation, Inspector, Prompt, StatusLine, Welcome
from ..widgets.footer import Keys, first_key
from ..widgets.hints import NOT_KEPT, NOT_TRACED, NOTHING
from .ask import Ask
from .dialog import IN_ORDER, answer_of, copy_selected_text


class Viewing(Screen[None]):
    """A screen with the state of the chat and the widgets that show it."""

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
        self.reply_task: ReplyTask | None = None  # the one that is running
        self.editing: int | None = None  # the exchange whose prompt is being edited
        self.why_not_kept = ""  # why nothing can be saved
        self._picked: int | None = None  # the selected exchange, None for the latest
        self._side = 0  # the selected reply of it

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield Conversation(Welcome())
            yield Inspector()
        yield Prompt()
        yield StatusLine(Status(self.bundles.title))
        yield Keys(compact=True)

    def greet(self) -> None:
        """Show the welcome text for the current bundle and the current keys."""
        if engine := self.bundles.engine:
            self.welcome.show_model(engine.facts, self.key_hints(), demo=self.bundles.current == "demo")
        else:
            self.welcome.show_nothing(self.key_hints())

    def on_descendant_focus(self) -> None:
        # The prompt's keys are only active while it has the focus, which a browser gives late.
        if send := self.key_of("prompt.send"):
            self.prompt.placeholder = f"Say something ({send.replace('⏎', 'Enter')} sends it)"
        if self.bundles.engine and self.welcome.display:
            self.greet()

    def hold(self, talk: Talk) -> None:
        """Show a conversation and continue with it."""
        self.talk, self.editing = talk, None
        self.conversation.show(talk)
        self.select(None)

    def put(self, number: int, exchange: Exchange) -> None:
        """Replace an exchange that has ended, and select it."""
        self.talk.change(number, exchange)
        self.conversation.finish(number, exchange)
        self.select(number)

    # --- The selection

    @property
    def selected(self) -> int | None:
        """The selected exchange, or else the latest. The inspector, Copy, Good and similar actions use it."""
        return self._picked if self.talk.has(self._picked) else self.talk.newest

    @property
    def exchange(self) -> Exchange | None:
        """The selected exchange, or else the latest."""
        return None if self.selected is None else self.talk[self.selected]

    @property
    def side(self) -> int:
        """The selected reply of the exchange: 0 for the first bundle's, 1 for the second's."""
        return self._side if self.exchange and self.exchange.other else 0

    @property
    def reply(self) -> ReplyFacts | None:
        """The selected reply."""
        return self.exchange.sides[self.side] if self.exchange else None

    def select(self, number: int | None, side: int = 0) -> None:
        """Select a reply of an exchange. With None, the selection follows the latest exchange."""
        self._picked = number if self.talk.has(number) else None
        self._side = side
        self.conversation.select(self._picked, self.side)
        self._fill_view()
        self.changed()

    def select_latest(self) -> None:
        """Select the latest exchange, now and as the conversation continues, and scroll to it."""
        self.select(None)
        self.conversation.follow()

    def _fill_view(self) -> None:
        if self.inspector.view == "knobs":
            self._show_knobs()
            return
        number, side, reply = self.selected, self.side, self.reply
        engine = self.bundles.maker(reply.made) if side and reply else self.bundles.engine
        self.inspector.show(
            Inspected(
                reply,
                None if number is None else self.talk.trace(number, side),
                engine.facts if engine else None,
                self.talk.speeds(side),
                self._hint(reply),
            )
        )

    def _hint(self, reply: ReplyFacts | None) -> str:
        """The hint for a reply without a trace."""
        if reply is None or not reply.made.seen:
            return NOTHING
        maker = self.bundles.maker(reply.made)
        if maker and not maker.traces(reply.made.seen, reply.made.options):
            return NOT_TRACED
        return NOT_KEPT.format(key=self.key_of("chat.replay") or "Replay")

    def on_reply_picked(self, message: ReplyPicked) -> None:
        self.select(message.number, message.side)

    def action_other(self) -> None:
        self.select(self.selected, 1 - self.side)

    def action_select(self, by: int) -> None:
        numbers = self.talk.numbers
        if numbers and self.selected is not None:
            at = max(0, min(numbers.index(self.selected) + by, len(numbers) - 1))
            self.select(numbers[at])

    def action_scroll_conversation(self, pages: int) -> None:
        if pages < 0:
            self.conversation.action_page_up()
        else:
            self.conversation.action_page_down()

    def action_copy_text(self) -> None:
        copy_selected_text(self)

    # --- The inspector

    def on_view_picked(self, message: ViewPicked) -> None:
        self.show_view(message.name)

    def show_view(self, name: str) -> None:
        """Show a view of the inspector."""
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
        """The current options, empty if no bundle is loaded."""
        return self.dial.values

    def use_preset(self, changes: Changes) -> None:
        """Set the knobs to these changes of the bundle's defaults."""
        self.dial.use(changes)
        self._show_dial()

    def on_knob_stepped(self, message: KnobStepped) -> None:
        self.dial.step(message.name, message.by)
        self._show_dial()

    def on_knob_reset(self, message: KnobReset) -> None:
        self.dial.reset(message.name)
        self._show_dial()

    def on_preset_stepped(self, message: PresetStepped) -> None:
        self.dial.next_preset(message.by)
        self._show_dial()

    @work(group=IN_ORDER)
    async def on_knob_typed(self, message: KnobTyped) -> None:
        name = message.name
        if self.bundles.engine is None:
            return
        check = partial(self.dial.wrong_with, name)
        ask = Ask(name.replace("_", " "), self.dial.shown(name), note=knob_named(name).does, check=check)
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

    # --- The status line

    def changed(self) -> None:
        """Update the status line and the available keys after a change of state."""
        self.show_status()
        self.refresh_bindings()

    def state(self) -> str:
        """What the chat is doing, in a few words; "" if it waits for a prompt."""
        if self.reply_task is not None:
            return "replaying" if self.reply_task.purpose == "replay" else "replying"
        if self.bundles.waiting:
            return "loading"
        if self.bundles.engine is None:
            return "not loaded"
        if self.editing is None:
            return ""
        if self.talk.gives_way(self.editing):
            return "editing the last prompt"
        return f"editing prompt {self.talk.numbers.index(self.editing) + 1} in a copy"

    def show_status(self) -> None:
        engine = self.bundles.engine
        idle = self.reply_task is None and self.editing is None
        reply = self.exchange.reply if self.exchange and idle else None
        self.status_line.status = Status(
            self.bundles.title,
            kept=self.talk.kept is not None and self.talk.kept.lasts,
            why_not_kept=self.why_not_kept,
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
        """The most important actions for a new user, with their current keys."""
        if self.bundles.engine is None:
            ids: tuple[str, ...] = ("chat.bundles", "app.help", "app.quit")
        else:
            ids = (
                "prompt.send",
                "prompt.newline",
                "chat.regenerate",
                "chat.why",
                "chat.next_view",
                "chat.compare",
            )
        actions: dict[str, Action] = {action.id: action for action in (*PROMPT, *CHAT, *APP)}
        return [KeyHint(key, actions[id].label) for id in ids if (key := self.key_of(id))]

    def key_of(self, id: str) -> str:
        """The first key of an action as it is shown, "" if it has none now."""
        return first_key(self, id)
