"""The command tree. Each group of related commands has its own module.

torch, onnx and textual are imported inside the commands that need them, so that `edgechat --help` and
`edgechat reply` start without loading them.
"""

from typing import Annotated

import typer

from .. import __version__
from . import bench, chat, evaluate, export, inspect, pack, reply, sign, train, tui
from .console import print_stdout
from .errors import Command, CommandGroup

app = typer.Typer(
    cls=CommandGroup,
    name="edgechat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Train a tiny private chat or command model on your own dialogue data, prove the export, "
        "run it anywhere.\n\n"
        "  edgechat train data.jsonl --out runs/mine\n\n"
        "  edgechat export runs/mine --out bundles/mine\n\n"
        "  edgechat reply bundles/mine 'hello there'\n\n"
        "  edgechat tui bundles/mine\n\n"
        "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."
    ),
)


def _print_version(requested: bool) -> None:
    if requested:
        print_stdout(f"edgechat {__version__}")
        raise typer.Exit()


@app.callback()
def edgechat(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the whole program."""


for module in (train, export, reply, tui, chat, evaluate, bench, inspect, pack, sign):
    module.register(app)
for command in app.registered_commands:
    command.cls = Command
