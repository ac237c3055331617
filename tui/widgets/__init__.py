"""The parts of the screens. They take plain values, post messages, and know nothing of models."""

from .candidates import Candidates
from .conversation import Conversation
from .message import ReplyMessage
from .prompt import Prompt
from .status import StatusLine
from .welcome import Welcome

__all__ = ["Candidates", "Conversation", "Prompt", "ReplyMessage", "StatusLine", "Welcome"]
