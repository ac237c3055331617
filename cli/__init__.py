"""The command line: `edgechat train`, `export`, `reply`, `tui` and the rest. Nothing imports it."""


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    from .app import app

    app(prog_name="edgechat")
