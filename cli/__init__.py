"""The command line: `edgechat train`, `export`, `reply`, `tui` and others. No other package imports it."""

from .entry import main

__all__ = ["main"]
