"""The terminal chat: a Textual application over `edgechat.runtime`, opened by `edgechat tui`."""

import os

# Textual draws at the ticks of a clock whose pace it reads as it is imported, and lets one tick pass after
# a drawing that took longer than one: at its own 60 a second, a key that comes during such a drawing waits
# for up to 33 ms. It does not draw more often for a quicker clock, which stands while nothing changes.
os.environ.setdefault("TEXTUAL_FPS", "120")

from .app import ChatApp, run_chat

__all__ = ["ChatApp", "run_chat"]
