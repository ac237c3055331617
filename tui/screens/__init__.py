"""The screens of the terminal chat. Of all its parts, only the chat screen talks to the runtime."""

from .chat import ChatScreen
from .help import Help, KeySection
from .palette import Palette

__all__ = ["ChatScreen", "Help", "KeySection", "Palette"]
