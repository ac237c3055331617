"""The terminal chat: a Textual application over `edgechat.runtime`, opened by `edgechat tui`."""

import os

# Textual reads its frame rate when it is imported, and skips a frame after a drawing that took longer than
# one. At its default of 60 frames per second, a key that arrives during such a drawing waits up to 33 ms. A
# higher rate does not draw more often, since nothing is drawn while nothing changes.
os.environ.setdefault("TEXTUAL_FPS", "120")

from .app import ChatApp, run_chat

__all__ = ["ChatApp", "run_chat"]
