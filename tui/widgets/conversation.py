"""The conversation: messages below each other, following the newest until the user scrolls away."""

from textual.containers import VerticalScroll
from textual.widget import Widget

from .message import ChatMessage, ErrorMessage, ReplyMessage, UserMessage


class Conversation(VerticalScroll):
    """The log of a chat. While it is empty it shows a widget in its place: a welcome."""

    HELP = """
    ### Conversation

    `you` marks what you said, `bot` the model's replies, `error` what went wrong.

    **Dim text** and `▌`: the model has not settled on these words yet.

    **■ stopped**: you stopped this reply. The model does not remember it.
    """

    BINDING_GROUP_TITLE = "Conversation"

    def __init__(self, welcome: Widget) -> None:
        super().__init__(welcome)
        self._welcome = welcome

    def on_mount(self) -> None:
        self.anchor()

    def say(self, text: str) -> None:
        """Add what the user said."""
        self._add(UserMessage(text))

    def begin_reply(self) -> ReplyMessage:
        """Add a reply that is still to come."""
        reply = ReplyMessage()
        self._add(reply)
        return reply

    def report(self, error: str) -> None:
        """Add an error."""
        self._add(ErrorMessage(error))

    def clear(self) -> None:
        """Forget all messages."""
        self.query_children(ChatMessage).remove()
        self._welcome.display = True
        self.scroll_home(animate=False)

    def _add(self, message: Widget) -> None:
        self._welcome.display = False
        self.mount(message)
        self.anchor()
