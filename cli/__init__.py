"""The command line: `edgechat train`, `export`, `reply`, `tui` and the rest. Nothing imports it."""


import sys


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    try:
        from .app import app
        from .console import speak_utf8

        speak_utf8()
        app(prog_name="edgechat")
    except KeyboardInterrupt:  # before there is a command to interrupt
        sys.exit(130)
