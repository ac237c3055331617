"""The chat: the one screen that knows the runtime. Widgets get plain values from it and post messages.

The way of a prompt: `PromptSubmitted` -> a `Turn` -> the decode worker, a thread -> `ReplyAdvanced` and
`ReplyFinished`, with the turn's number -> the `ReplyMessage` of that turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import getters, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Key
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer

from edgechat.runtime import ChatModel, ChatSession, DecodingOptions, EdgeChatError, Reply

from ..messages import LoadFailed, PromptRefused, PromptSubmitted, ReplyAdvanced, ReplyFailed, ReplyFinished
from ..plain import plain
from ..turn import Turn
from ..values import BundleFacts, CandidateRow, KeyHint, ReplyFacts, Status
from ..widgets import Candidates, Conversation, Prompt, ReplyMessage, StatusLine, Welcome


class ChatScreen(Screen[None]):
    """Talk to one bundle. `load` is called once, in a thread; `options` None are the bundle's own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", tooltip="End the reply, keep what is there", id="chat.stop"),
        Binding("ctrl+n", "new_conversation", "New chat", tooltip="Forget this conversation", id="chat.new"),
        Binding(
            "ctrl+y", "copy_reply", "Copy", tooltip="Put the last reply into the clipboard", id="chat.copy"
        ),
        Binding(
            "f2,ctrl+t",
            "toggle_candidates",
            "Candidates",
            tooltip="Show or hide what else the model might have said",
            id="chat.candidates",
        ),
    ]
    BINDING_GROUP_TITLE = "Chat"
    AUTO_FOCUS = "Prompt"

    @dataclass
    class ModelLoaded(Message):
        """The model is there."""

        model: ChatModel

    conversation = getters.query_one(Conversation)
    candidates = getters.query_one(Candidates)
    prompt = getters.query_one(Prompt)
    status_line = getters.query_one(StatusLine)
    welcome = getters.query_one(Welcome)

    def __init__(self, load: Callable[[], ChatModel], bundle: str, options: DecodingOptions | None) -> None:
        super().__init__()
        self._load, self._bundle, self._options = load, bundle, options
        self._model: ChatModel | None = None
        self._session: ChatSession | None = None
        self._turns = 0
        self._turn: Turn | None = None  # the one being decoded
        self._reply: ReplyMessage | None = None  # the newest

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield Conversation(Welcome())
            yield Candidates()
        yield Prompt(placeholder="Say something, Enter sends it")
        yield StatusLine(Status(self._bundle, state="loading"))
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self.welcome.show_loading(self._bundle)
        self._load_model()

    def on_unmount(self) -> None:
        # The process does not end before its threads do.
        if self._turn:
            self._turn.stop()

    # --- Loading

    @work(thread=True, group="load", exit_on_error=False)
    def _load_model(self) -> None:
        try:
            self.post_message(self.ModelLoaded(self._load()))
        except Exception as error:
            self.log.error(error)
            self.post_message(LoadFailed(_sentence(error)))

    def on_chat_screen_model_loaded(self, message: ModelLoaded) -> None:
        model = self._model = message.model
        options = self._options or model.defaults
        self._options = replace(options, n_best=options.beam)  # the candidates there are to show
        self._session = model.session()
        self.prompt.ready = True
        facts = _bundle_facts(model, self._bundle)
        self.welcome.show_model(facts, list(self._key_hints()))
        self.status_line.status = replace(
            self.status_line.status,
            state="",
            precision=facts.precision,
            device=facts.device,
            beam=options.beam,
        )

    def on_load_failed(self, message: LoadFailed) -> None:
        self.welcome.show_nothing()
        self.conversation.report(f"{message.error}. There is nobody to talk to.")
        self.status_line.status = replace(self.status_line.status, state="not loaded")

    # --- A turn

    def on_key(self, event: Key) -> None:
        """Who types wants to write, wherever a click or Tab has put the focus."""
        if event.is_printable and event.character and self.focused is not self.prompt:
            self.prompt.focus()
            self.prompt.insert(event.character)
            event.stop()

    def on_prompt_refused(self, _: PromptRefused) -> None:
        if self._session is None:
            state = self.status_line.status.state
            self.notify(plain(f"{self._bundle} is {state}"), severity="warning", markup=False)
        else:
            self.notify("Wait for the reply, or stop it, to send the next prompt", severity="warning")

    def on_prompt_submitted(self, message: PromptSubmitted) -> None:
        assert self._session is not None  # the prompt is not ready before it is there
        assert self._options is not None
        self._turns += 1
        self._turn = Turn(self._turns, message.text)
        self.conversation.say(message.text)
        self._reply = self.conversation.begin_reply()
        self.candidates.show(())
        self.status_line.status = replace(self.status_line.status, state="replying")
        self.refresh_bindings()
        self._decode(self._turn, self._session, self._options)

    @work(thread=True, group="decode", exit_on_error=False)
    def _decode(self, turn: Turn, session: ChatSession, options: DecodingOptions) -> None:
        try:
            stream = session.stream(turn.prompt, options)
            turn.attach(stream)
            settled = ""
            for piece, tail in stream.updates():
                if turn.stopped:
                    return
                settled += piece
                if turn.due():
                    self.post_message(ReplyAdvanced(turn.number, settled, tail))
            self.post_message(ReplyFinished(turn.number, _reply_facts(stream.reply)))
        except Exception as error:
            self.log.error(error)
            self.post_message(ReplyFailed(turn.number, _sentence(error)))

    def on_reply_advanced(self, message: ReplyAdvanced) -> None:
        if self._turn and self._reply and self._turn.number == message.turn:
            self._reply.advance(message.settled, message.tail)
            self._turn.drawn()

    def on_reply_finished(self, message: ReplyFinished) -> None:
        if self._turn and self._reply and self._turn.number == message.turn:
            reply = message.reply
            self._reply.finish(reply.text, list(_marks(reply)))
            self.candidates.show(reply.candidates)
            self._end(ms=reply.ms, tokens_per_second=reply.tokens_per_second)

    def on_reply_failed(self, message: ReplyFailed) -> None:
        if self._turn and self._reply and self._turn.number == message.turn:
            self._reply.break_off("✗ failed")
            self.conversation.report(message.error)
            self.prompt.give_back(self._turn.prompt)
            self._end()

    def _end(self, *, ms: float | None = None, tokens_per_second: float | None = None) -> None:
        self._turn = None
        self.prompt.ready = True
        self.status_line.status = replace(
            self.status_line.status, state="", ms=ms, tokens_per_second=tokens_per_second
        )
        self.refresh_bindings()

    # --- Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop is greyed out where nothing runs."""
        if action == "stop" and self._turn is None:
            return None
        return True

    def action_stop(self) -> None:
        if self._turn and self._reply:
            self._turn.stop()
            self._reply.break_off("■ stopped")
            self._end()

    def action_new_conversation(self) -> None:
        if self._model is None:
            return
        self.action_stop()
        self._session = self._model.session()
        self._reply = None
        self.conversation.clear()
        self.candidates.show(())
        self.status_line.status = replace(self.status_line.status, ms=None, tokens_per_second=None)
        self.prompt.focus()

    def action_copy_reply(self) -> None:
        if self._reply is None or not self._reply.text:
            self.notify("There is no reply to copy yet", severity="warning")
        else:
            self.app.copy_to_clipboard(plain(self._reply.text))
            self.notify("The last reply is in the clipboard")

    def action_toggle_candidates(self) -> None:
        shown = self.candidates.display
        self.set_class(shown, "-candidates-hidden").set_class(not shown, "-candidates-shown")

    def action_scroll_conversation(self, pages: int) -> None:
        if pages < 0:
            self.conversation.action_page_up()
        else:
            self.conversation.action_page_down()

    def _key_hints(self) -> Iterator[KeyHint]:
        """The keys of this application, each action once, of whatever has the focus."""
        seen = set()
        for active in self.active_bindings.values():
            binding = active.binding
            if binding.id and binding.action not in seen:
                seen.add(binding.action)
                yield KeyHint(self.app.get_key_display(binding), binding.description)


def _sentence(error: Exception) -> str:
    """An error as the user reads it; what nobody foresaw says its kind too."""
    if isinstance(error, EdgeChatError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _bundle_facts(model: ChatModel, name: str) -> BundleFacts:
    manifest = model.manifest
    if manifest is None:
        return BundleFacts(name, model.device)
    return BundleFacts(
        name,
        model.device,
        precision=manifest.precision,
        layers=manifest.model.layers,
        hidden=manifest.model.hidden,
        vocabulary=manifest.model.vocab_size,
        size=sum(entry.size for entry in manifest.files.values()),
        turns=manifest.text.turns,
    )


def _reply_facts(reply: Reply) -> ReplyFacts:
    rows = tuple(
        CandidateRow(rank, candidate.score, candidate.logp, candidate.text, candidate.finished)
        for rank, candidate in enumerate(reply.candidates, start=1)
    )
    finished = all(row.finished for row in rows[:1])
    return ReplyFacts(reply.text, rows, len(reply.tokens), reply.ms, reply.truncated, finished)


def _marks(reply: ReplyFacts) -> Iterator[str]:
    if not reply.text:
        yield "∅ an empty reply"
    if not reply.finished:
        yield "… cut at the maximum length"
    if reply.truncated:
        yield "▲ the prompt is longer than the model reads: its beginning was cut"
