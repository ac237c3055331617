"""The screens of the terminal chat. The chat screen uses models, through `tui/engine.py`."""

from .chat import ChatScreen
from .help import Help, KeySection
from .palette import Palette

__all__ = ["ChatScreen", "Help", "KeySection", "Palette"]
