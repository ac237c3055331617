"""The widgets of the chat. They show plain values, post messages, and do not depend on models."""

from .candidates import Candidates
from .chat_messages import ReplyMessage
from .conversation import Conversation
from .inspector import VIEWS, Inspector
from .prompt import Prompt
from .status import StatusLine
from .welcome import Welcome

__all__ = [
    "VIEWS",
    "Candidates",
    "Conversation",
    "Inspector",
    "Prompt",
    "ReplyMessage",
    "StatusLine",
    "Welcome",
]
