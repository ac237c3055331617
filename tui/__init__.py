"""The terminal chat: a Textual application over `edgechat.runtime`, opened by `edgechat tui`."""

from .app import ChatApp, run_chat

__all__ = ["ChatApp", "run_chat"]
