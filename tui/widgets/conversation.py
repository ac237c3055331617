"""The conversation: messages below each other, following the newest until the user scrolls away."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from ..keys import CONVERSATION, bindings
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

    def on_mount(self) -> None:
        self.anchor()

    def begin(self, number: int, prompt: str, captions: Sequence[str]) -> list[ReplyMessage]:
        """Add what the user said, and a reply that is still to come for each of `captions`."""
        replies = [ReplyMessage(number, caption) for caption in captions]
        self._add(UserMessage(prompt, number), *self._beside(replies))
        return replies

    def show(self, said: Sequence[tuple[int, str, Sequence[ReplyMessage]]]) -> None:
        """Add many exchanges at once: number, prompt, replies."""
        widgets: list[Widget] = []
        for number, prompt, replies in said:
            widgets += [UserMessage(prompt, number), *self._beside(replies)]
        if widgets:
            self._add(*widgets)
            self.call_after_refresh(self.anchor)  # after what `clear` scrolls

    def report(self, error: str) -> None:
        """Add an error."""
        self._add(ErrorMessage(error))

    def pick(self, number: int | None) -> None:
        """Mark the messages of an exchange as those that are looked at, and have them in view."""
        for message in self.query(ChatMessage):
            picked = number is not None and message.number == number
            message.set_class(picked, "-picked")
            if picked and isinstance(message, ReplyMessage):
                self.scroll_to_widget(message, animate=False)

    def drop(self, number: int) -> None:
        """Take the messages of an exchange away."""
        for message in self.query(ChatMessage):
            if message.number == number:
                (message.parent if isinstance(message.parent, ReplyPair) else message).remove()

    def clear(self) -> None:
        """Forget all messages."""
        self.query_children("ChatMessage, ReplyPair").remove()
        self._welcome.display = True
        self.scroll_home(animate=False)

    def _beside(self, replies: Sequence[ReplyMessage]) -> list[Widget]:
        return [ReplyPair(*replies)] if len(replies) > 1 else list(replies)

    def _add(self, *messages: Widget) -> None:
        self._welcome.display = False
        self.mount(*messages)
        self.anchor()
