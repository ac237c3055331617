"""The screens of the terminal chat. Of all its parts, only the chat screen talks to the runtime."""

from .chat import ChatScreen
from .help import Help, KeySection

__all__ = ["ChatScreen", "Help", "KeySection"]
