"""The conversation: messages below each other, following the newest until the user scrolls away."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from ..captions import caption, marks, voice
from ..keys import CONVERSATION, bindings
from ..values import Exchange, ReplyFacts
from .message import ChatMessage, ErrorMessage, ReplyMessage, ReplyPair, UserMessage


class Conversation(VerticalScroll, can_focus=True):
    """The log of a chat. While it is empty it shows a widget in its place: a welcome."""

    HELP = """
    ### Conversation

    **you** is what you said, **bot** the model's replies. Up and Down, or a click, pick the turn that the
    inspector shows, and that Copy, Good, Bad and Correct are about.

    Dim text and `▌`: the model has not settled on these words yet.

    `■ stopped`: you stopped this reply. The model does not remember it.
    """

    BINDING_GROUP_TITLE = "Conversation"
    BINDINGS: ClassVar[list[BindingType]] = bindings(CONVERSATION)

    def __init__(self, welcome: Widget) -> None:
        super().__init__(welcome)
        self._welcome = welcome
        self._replies: dict[int, list[ReplyMessage]] = {}

    def on_mount(self) -> None:
        self.anchor()

    def show(self, said: Sequence[tuple[int, Exchange]]) -> None:
        """Show these exchanges, by number, in place of all that was there."""
        self._clear()
        widgets: list[Widget] = []
        before: tuple[str, str] | None = None
        for number, exchange in said:
            replies = [reply for reply in exchange.sides if reply] or [ReplyFacts("")]
            speaker = voice(replies[0])
            changes = before is not None and speaker != before
            before = speaker
            widgets += self._new(
                number,
                exchange.prompt,
                [caption(reply) if changes else "" for reply in replies],
            )
        if widgets:
            self._add(*widgets)
            self.call_after_refresh(self.anchor)  # after what `_clear` scrolls
        for number, exchange in said:
            self.finish(number, exchange)

    def begin(self, number: int, prompt: str, captions: Sequence[str]) -> None:
        """Add what the user said, and a reply that is still to come for each of `captions`."""
        self._add(*self._new(number, prompt, captions))

    def advance(self, number: int, side: int, settled: str, tail: str) -> None:
        """Show how far a reply is."""
        self._replies[number][side].advance(settled, tail)

    def settle(self, number: int, side: int, text: str) -> None:
        """Show a reply that is complete, while another to the same is to come."""
        self._replies[number][side].finish(text)

    def finish(self, number: int, exchange: Exchange) -> None:
        """Show the replies of an exchange as they are now."""
        for side, (message, reply) in enumerate(zip(self._replies[number], exchange.sides, strict=False)):
            text = reply.text if reply else ""
            beside = exchange.sides[1 - side]
            above = caption(reply, beside) if reply and beside else None
            message.finish(text, marks(exchange, side), above)

    def break_off(self, number: int, first: int, mark: str) -> str:
        """Nothing more will come for the replies from the `first` on. What the first of all says so far."""
        for message in self._replies[number][first:]:
            message.break_off(mark)
        return self._replies[number][0].text

    def report(self, error: str) -> None:
        """Add an error."""
        self._add(ErrorMessage(error))

    def pick(self, number: int | None, side: int) -> None:
        """Mark the prompt and the reply that are looked at, and have them in view."""
        for message in self.query(ChatMessage):
            picked = number is not None and message.number == number
            if isinstance(message, ReplyMessage):
                picked = picked and message.side == side
            message.set_class(picked, "-picked")
            if picked and isinstance(message, ReplyMessage):
                self.scroll_to_widget(message, animate=False)

    def drop(self, number: int) -> None:
        """Take the messages of an exchange away."""
        self._replies.pop(number, None)
        for message in self.query(ChatMessage):
            if message.number == number:
                (message.parent if isinstance(message.parent, ReplyPair) else message).remove()

    def _clear(self) -> None:
        self._replies = {}
        self.query_children("ChatMessage, ReplyPair").remove()
        self._welcome.display = True
        self.scroll_home(animate=False)

    def _new(self, number: int, prompt: str, captions: Sequence[str]) -> list[Widget]:
        replies = self._replies[number] = [
            ReplyMessage(number, side, caption) for side, caption in enumerate(captions)
        ]
        return [UserMessage(prompt, number), *([ReplyPair(*replies)] if len(replies) > 1 else replies)]

    def _add(self, *messages: Widget) -> None:
        self._welcome.display = False
        self.mount(*messages)
        self.anchor()
