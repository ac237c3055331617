"""What the chat shows: the conversation, the selected exchange, the inspector, and the status line."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import DescendantBlur
from textual.screen import Screen

from ..bundles import Bundles
from ..keys import APP_ACTIONS, CHAT_ACTIONS, PROMPT_ACTIONS, Action
from ..knob_settings import KnobSettings
from ..knobs import Changes, get_knob
from ..messages import KnobReset, KnobStepped, KnobTyped, PresetStepped, ReplySelected, ViewSelected
from ..reply_task import ReplyTask
from ..transcript import Transcript
from ..values import Exchange, InspectorData, KeyHint, ReplyFacts, Status
from ..widgets import VIEWS, Conversation, Inspector, Prompt, StatusLine, Welcome
from ..widgets.footer import FittingFooter, first_key
from ..widgets.hints import NO_REPLY, NOT_TRACED, TRACE_NOT_STORED
from .dialog import ACTION_GROUP, copy_selected_text, show_dialog
from .text_dialogs import AskDialog


class ChatScreenBase(Screen[None]):
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
        self.knob_settings = KnobSettings(self.bundles, changes)
        self.transcript = Transcript()
        self.reply_task: ReplyTask | None = None  # the one that is running
        self.editing: int | None = None  # the exchange whose prompt is being edited
        self.why_not_saved = ""  # why nothing can be saved
        self._selected_number: int | None = None  # the selected exchange, None for the latest
        self._selected_side = 0  # the selected reply of it

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield Conversation(Welcome())
            yield Inspector()
        yield Prompt()
        yield StatusLine(Status(self.bundles.title))
        yield FittingFooter()

    def show_welcome(self) -> None:
        """Show the welcome text for the current bundle and the current keys."""
        if engine := self.bundles.engine:
            self.welcome.show_model(engine.facts, self.key_hints(), demo=self.bundles.current == "demo")
        else:
            self.welcome.show_nothing(self.key_hints())

    def on_screen_suspend(self) -> None:
        """Hide the notices, since the dialog shows them too. Textual shows them again when it is closed."""
        self.query("#textual-toastrack").set(display=False)

    def on_descendant_focus(self) -> None:
        # The prompt's keys are only active while it has the focus, which a browser gives late.
        if send := self.key_of("prompt.send"):
            self.prompt.placeholder = f"Say something ({send.replace('⏎', 'Enter')} sends it)"
        if self.bundles.engine and self.welcome.display:
            self.show_welcome()

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Focus the prompt if the focused widget is hidden, as when the terminal becomes narrow."""
        if self.focused is None and not event.widget.is_on_screen:
            self.prompt.focus()

    def show_transcript(self, transcript: Transcript) -> None:
        """Show a conversation and continue with it."""
        self.transcript, self.editing = transcript, None
        self.conversation.show(transcript)
        self.select(None)

    def update_exchange(self, number: int, exchange: Exchange) -> None:
        """Replace an exchange that has ended, and select it."""
        self.transcript.update_exchange(number, exchange)
        self.conversation.finish(number, exchange)
        self.select(number)

    # --- The selection

    @property
    def selected_number(self) -> int | None:
        """The selected exchange, or else the latest. The inspector, Copy, Good and similar actions use it."""
        return self._selected_number if self.transcript.has(self._selected_number) else self.transcript.newest

    @property
    def selected_exchange(self) -> Exchange | None:
        """The selected exchange, or else the latest."""
        return None if self.selected_number is None else self.transcript[self.selected_number]

    @property
    def selected_side(self) -> int:
        """The selected reply of the exchange: 0 for the first bundle's, 1 for the second's."""
        return self._selected_side if self.selected_exchange and self.selected_exchange.other else 0

    @property
    def selected_reply(self) -> ReplyFacts | None:
        """The selected reply."""
        return self.selected_exchange.replies[self.selected_side] if self.selected_exchange else None

    def select(self, number: int | None, side: int = 0) -> None:
        """Select a reply of an exchange. With None, the selection follows the latest exchange."""
        self._selected_number = number if self.transcript.has(number) else None
        self._selected_side = side
        self.conversation.select(self._selected_number, self.selected_side)
        self._fill_view()
        self.refresh_status_and_keys()

    def select_latest(self) -> None:
        """Select the latest exchange, now and as the conversation continues, and scroll to it."""
        self.select(None)
        self.conversation.scroll_to_latest()

    def _fill_view(self) -> None:
        if self.inspector.view == "knobs":
            self._show_knobs()
            return
        number, side, reply = self.selected_number, self.selected_side, self.selected_reply
        engine = self.bundles.engine_for(reply.made) if side and reply else self.bundles.engine
        self.inspector.show(
            InspectorData(
                reply,
                None if number is None else self.transcript.trace(number, side),
                engine.facts if engine else None,
                self.transcript.speeds(side),
                self._hint(reply),
            )
        )

    def _hint(self, reply: ReplyFacts | None) -> str:
        """The hint for a reply without a trace."""
        if reply is None or not reply.made.seen:
            return NO_REPLY
        engine = self.bundles.engine_for(reply.made)
        if engine and not engine.can_trace(reply.made.seen, reply.made.options):
            return NOT_TRACED
        return TRACE_NOT_STORED.format(key=self.key_of("chat.replay") or "Replay")

    def on_reply_selected(self, message: ReplySelected) -> None:
        self.select(message.number, message.side)

    def action_other(self) -> None:
        self.select(self.selected_number, 1 - self.selected_side)

    def action_select(self, by: int) -> None:
        numbers = self.transcript.numbers
        if numbers and self.selected_number is not None:
            at = max(0, min(numbers.index(self.selected_number) + by, len(numbers) - 1))
            self.select(numbers[at])

    def action_scroll_conversation(self, pages: int) -> None:
        if pages < 0:
            self.conversation.action_page_up()
        else:
            self.conversation.action_page_down()

    def action_copy_text(self) -> None:
        copy_selected_text(self)

    # --- The inspector

    def on_view_selected(self, message: ViewSelected) -> None:
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
        self.refresh_bindings()

    def action_knobs(self) -> None:
        if self.inspector.display and self.focused is self.inspector.knobs:
            self.prompt.focus()
        else:
            self.show_view("knobs")
            self.inspector.knobs.focus()

    # --- Knobs

    @property
    def options(self) -> dict[str, Any]:
        """The current options, empty if no bundle is loaded."""
        return self.knob_settings.options

    def use_preset(self, changes: Changes) -> None:
        """Set the knobs to these changes of the bundle's defaults."""
        self.knob_settings.replace_all(changes)
        self._show_knobs_and_status()

    def on_knob_stepped(self, message: KnobStepped) -> None:
        self.knob_settings.step(message.name, message.by)
        self._show_knobs_and_status()

    def on_knob_reset(self, message: KnobReset) -> None:
        self.knob_settings.reset(message.name)
        self._show_knobs_and_status()

    def on_preset_stepped(self, message: PresetStepped) -> None:
        self.knob_settings.next_preset(message.by)
        self._show_knobs_and_status()

    @work(group=ACTION_GROUP)
    async def on_knob_typed(self, message: KnobTyped) -> None:
        name = message.name
        if self.bundles.engine is None:
            return
        check = partial(self.knob_settings.why_invalid, name)
        ask = AskDialog(
            name.replace("_", " "), self.knob_settings.value_text(name), note=get_knob(name).help, check=check
        )
        text = await show_dialog(ask, self)
        if text is not None:
            self.knob_settings.set_from_text(name, text)
            self._show_knobs_and_status()

    def _show_knobs_and_status(self) -> None:
        self._show_knobs()
        self.show_status()

    def _show_knobs(self) -> None:
        if self.bundles.engine:
            self.inspector.knobs.show(
                self.knob_settings.states(), self.knob_settings.preset, self.knob_settings.error
            )

    # --- The status line

    def refresh_status_and_keys(self) -> None:
        """Update the status line and the available keys after a change of state."""
        self.show_status()
        self.refresh_bindings()

    def activity(self) -> str:
        """What the chat is doing, in a few words; "" if it waits for a prompt."""
        if self.reply_task is not None:
            return "replaying" if self.reply_task.purpose == "replay" else "replying"
        if self.bundles.is_waiting:
            return "loading"
        if self.bundles.engine is None:
            return "not loaded"
        if self.editing is None:
            return ""
        if self.transcript.is_replaceable(self.editing):
            return "editing the last prompt"
        return f"editing prompt {self.transcript.numbers.index(self.editing) + 1} in a copy"

    def show_status(self) -> None:
        engine = self.bundles.engine
        idle = self.reply_task is None and self.editing is None
        reply = self.selected_exchange.reply if self.selected_exchange and idle else None
        self.status_line.status = Status(
            self.bundles.title,
            saved=self.transcript.saver is not None and self.transcript.saver.is_saved,
            why_not_saved=self.why_not_saved,
            activity=self.activity(),
            precision=engine.facts.precision if engine else "",
            device=engine.facts.device if engine else "",
            has_closed_set=engine.facts.has_closed_set if engine else False,
            beam=self.options["beam"] if engine else None,
            knobs_changed=bool(self.knob_settings.changes),
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
        actions: dict[str, Action] = {
            action.id: action for action in (*PROMPT_ACTIONS, *CHAT_ACTIONS, *APP_ACTIONS)
        }
        return [KeyHint(key, actions[id].label) for id in ids if (key := self.key_of(id))]

    def key_of(self, id: str) -> str:
        """The first key of an action as it is shown, "" if it has none now."""
        return first_key(self, id)
