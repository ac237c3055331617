"""`edgechat tui`: the chat on the full screen of a terminal, or in a browser."""

import codecs
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.bundle import find_bundle, read_bundle
from ..runtime.errors import EdgeChatError, UsageError
from .console import print_stderr
from .options import DeviceOption, RequireSignatureOption, ThreadsOption
from .search_options import BeamOption, LengthPenaltyOption, NormalizeOption, decoding_options

_HOST, _PORT = "localhost", 8000  # defaults of --host and --port


def register(app: typer.Typer) -> None:
    app.command()(tui)


def tui(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundles: folders, .edgechat files, or `demo`; the chat starts with the first.  "
            "[default: demo]",
            show_default=False,
        ),
    ] = None,
    beam: BeamOption = None,
    normalize: NormalizeOption = None,
    length_penalty: LengthPenaltyOption = None,
    private: Annotated[bool, typer.Option("--private", help="Do not save conversations.")] = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="Use only the lower part of the terminal.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the chat to a browser; Ctrl-C ends it.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --serve: the address to listen on.")] = _HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --serve: the port to listen on.")] = _PORT,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Chat with bundles in the terminal, see why they reply as they do, and change the search while you talk.

    Conversations are saved on this machine. F1 in the chat explains the keys. For pipes and screen readers,
    use `edgechat chat`.
    """
    if serve and inline:
        raise UsageError(
            "--inline cannot be used with --serve: one is for the terminal, the other for a browser"
        )
    changes = {"beam": beam, "normalize": normalize, "length_penalty": length_penalty}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = bundles if bundles else _default_bundles()
    # An unusable bundle is reported here, before the chat takes over the terminal.
    for bundle in chosen:
        _check_bundle(bundle, given, require_signature)
    if serve:
        _serve_in_browser(host, port)
        return
    is_served = "TEXTUAL_DRIVER" in os.environ  # textual-serve runs this command with its own driver
    if not is_served and (host, port) != (_HOST, _PORT):
        raise UsageError("--host and --port need --serve")
    # Textual reads stdin and draws on stderr.
    if not is_served and not all(
        stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)
    ):
        raise UsageError(
            "the chat needs a terminal: for pipes and files, use edgechat chat or edgechat reply"
        )
    if not is_served and codecs.lookup(sys.stderr.encoding).name != "utf-8":
        raise UsageError(
            f"the chat needs UTF-8, but the encoding of stderr is {sys.stderr.encoding}: set "
            "PYTHONUTF8=1 if the terminal supports UTF-8, or use edgechat chat"
        )
    if not is_served and os.environ.get("TERM") == "dumb":
        raise UsageError("the chat cannot draw its screen on this terminal (TERM=dumb): use edgechat chat")
    from ..tui import run_chat

    run_chat(
        chosen,
        device=device,
        threads=threads,
        require_signature=require_signature,
        changes=given,
        private=private,
        inline=inline,
    )


def _default_bundles() -> list[str]:
    """The demo bundle, if this installation has one."""
    try:
        find_bundle("demo")
    except UsageError:
        return []
    return ["demo"]


def _check_bundle(bundle: str, given: dict[str, Any], require_signature: Path | None) -> None:
    """Raise an error where the bundle cannot be used, or not with these options."""
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    decoding_options(checked.manifest.decoding, **given)


def _serve_in_browser(host: str, port: int) -> None:
    """Serve this command, without --serve, to a browser."""
    try:
        from ..tui.serve import is_loopback, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual_serve", "aiohttp"):
            raise
        raise EdgeChatError("--serve needs textual-serve: pip install textual-serve") from None
    if not is_loopback(host):
        print_stderr(
            f"warning: anyone who can reach port {port} of {host} can read your conversations, and write "
            "files as your user"
        )
    arguments = [argument for argument in sys.argv[1:] if argument != "--serve"]
    try:
        serve(_quote_for_shell([sys.executable, "-m", "edgechat", *arguments]), host, port)
    except socket.gaierror as error:
        raise UsageError(
            f"--host is {host}, which is not an address of this machine: {error.strerror}"
        ) from None
    except OSError as error:
        raise EdgeChatError(
            f"the chat cannot be served at {host}, port {port}: {error.strerror}; choose another --port"
        ) from None


def _quote_for_shell(command: list[str]) -> str:
    """`command` quoted for the shell of the system, in which textual-serve runs it. The shell of Windows does
    not know single quotes."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
