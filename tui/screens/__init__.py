"""The screens of the terminal chat. Of all its parts, only the chat screen talks to the runtime."""

from .chat import ChatScreen

__all__ = ["ChatScreen"]
