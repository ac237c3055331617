"""`edgechat tui` and `edgechat chat`: hold a conversation, on a whole screen or line by line."""

import codecs
import contextlib
import dataclasses
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime import ChatModel, ChatSession, DecodingOptions
from ..runtime.bundle import find_bundle, read_bundle
from ..runtime.errors import EdgeChatError, UsageError
from .console import lines_of, one_line, put, say
from .options import (
    BeamOption,
    BundleArgument,
    DeviceOption,
    LengthPenaltyOption,
    NormalizeOption,
    RequireSignatureOption,
    ThreadsOption,
    decoding_options,
    given_options,
    with_search_options,
)
from .reply import say_truncated

_COMMANDS = ("/new", "/why", "/help", "/quit")
_HOST, _PORT = "localhost", 8000  # where the chat is served, where nothing else is said


def register(app: typer.Typer) -> None:
    app.command()(tui)
    app.command()(chat)


def tui(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            help="Folders or .edgechat files that `edgechat export` wrote, or demo; the first is the one to "
            "talk to.  [default: demo]",
            show_default=False,
        ),
    ] = None,
    beam: BeamOption = None,
    normalize: NormalizeOption = None,
    length_penalty: LengthPenaltyOption = None,
    private: Annotated[bool, typer.Option("--private", help="Keep nothing of what is said.")] = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="Take the lower part of the terminal only.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Open the chat in a browser; Ctrl-C here ends it.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --serve: where to listen.")] = _HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --serve: the port.")] = _PORT,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Chat with bundles in the terminal: see why they say what they say, and turn the knobs while talking.

    Conversations are kept on this machine; F1 in the chat explains the keys. With pipes, or a screen
    reader, use edgechat chat.
    """
    if serve and inline:
        raise UsageError("--inline is of a terminal and --serve of a browser: give one of them")
    changes = {"beam": beam, "normalize": normalize, "length_penalty": length_penalty}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = bundles if bundles else _shipped()
    # A bundle that cannot be used is said here, before the terminal is taken over.
    for bundle in chosen:
        _check(bundle, given, require_signature)
    if serve:
        _serve(host, port)
        return
    served = "TEXTUAL_DRIVER" in os.environ  # textual-serve runs this very command, with a driver of its own
    if not served and (host, port) != (_HOST, _PORT):
        raise UsageError("--host and --port go with --serve")
    # Textual reads stdin and draws on stderr.
    if not served and not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError("edgechat tui needs a terminal: with pipes and files, use edgechat chat or reply")
    if not served and codecs.lookup(sys.stderr.encoding).name != "utf-8":
        raise UsageError(
            f"edgechat tui draws in UTF-8, but text here is {sys.stderr.encoding}: set PYTHONUTF8=1 where "
            "the terminal knows UTF-8, or use edgechat chat"
        )
    if not served and os.environ.get("TERM") == "dumb":
        raise UsageError(
            "edgechat tui draws a screen, which this terminal (TERM=dumb) cannot: use edgechat chat"
        )
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


@with_search_options
def chat(
    context: typer.Context,
    bundle: BundleArgument = "demo",
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Hold a conversation line by line: for pipes, and for screen readers.

    Each line of stdin is a prompt, each reply is written to stdout as it is settled, and nothing is taken
    back or drawn over. /new forgets the conversation, /why lists what else the last reply might have been,
    /help lists these, /quit or the end of stdin ends. A line that begins with two slashes is a prompt that
    begins with one.
    """
    with ChatModel.load(bundle, device=device, threads=threads, require_signature=require_signature) as model:
        options = decoding_options(model.defaults, **given_options(context))
        if _interactive():
            say(f"Talking to {one_line(bundle)} on {model.device}. Write a line; /help lists the rest.")
        LineChat(model, options, greet=_interactive()).run(_lines())


class LineChat:
    """A conversation in lines. `greet`: there is a person at the other end, who is told what to do."""

    def __init__(self, model: ChatModel, options: DecodingOptions, *, greet: bool) -> None:
        self._model, self._options, self._greet = model, options, greet
        self._session: ChatSession = model.session()
        self._made = options  # how the last reply was made

    def run(self, lines: Iterator[str]) -> None:
        """Until the lines end, or one of them says so."""
        for line in lines:
            command = line.strip()
            if command == "/quit":
                return
            if command.startswith("/") and not command.startswith("//"):
                self._command(command)
            elif command:
                self._reply(line.removeprefix("/") if command.startswith("//") else line)

    def _reply(self, prompt: str) -> None:
        self._made = self._options.with_seed()
        for piece in self._session.stream(prompt, self._made):
            put(one_line(piece), end="")
            sys.stdout.flush()
        put("")
        sys.stdout.flush()
        if self._model.codec.encode_source([prompt]).truncated:  # of the context nobody wants to be told
            say_truncated(self._model)

    def _command(self, command: str) -> None:
        if command == "/new":
            self._session = self._model.session()
            self._tell("a new conversation")
        elif command == "/why":
            self._why()
        elif command == "/help":
            say("/new forgets the conversation, /why lists other replies, /quit ends; all else is a prompt")
        else:
            name = command.split()[0]
            wrong = "stands alone on its line" if name in _COMMANDS else "is no command"
            say(f"{name} {wrong}; /help lists all, and // begins a prompt with a slash")

    def _why(self) -> None:
        """The n best to the last prompt. They are searched for now: a reply alone is found sooner."""
        if len(self._session.turns) < 2:
            self._tell("nothing was said yet")
            return
        seen = self._session.turns[:-1][-self._model.codec.turns :]
        options = dataclasses.replace(self._made, n_best=self._made.beam)
        (reply,) = self._model.reply_turns([seen], options)
        for rank, candidate in enumerate(reply.candidates, start=1):
            put(f"{rank}. {candidate.score:.4f} {one_line(candidate.text)}")
        sys.stdout.flush()

    def _tell(self, text: str) -> None:
        if self._greet:
            say(text)


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _lines() -> Iterator[str]:
    """Lines of stdin: with editing and history, where a person writes them."""
    if sys.stdin is None:
        raise UsageError("stdin is closed: there is nobody to talk to")
    if not _interactive():
        yield from lines_of(sys.stdin.buffer)
        return
    with contextlib.suppress(ImportError):  # Windows has none: its console edits
        import readline  # noqa: F401 - gives `input` its editing
    while True:
        try:
            yield _written()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("")  # what comes next is not of the line that was being written
            raise


def _written() -> str:
    """The line that a person writes. It is asked for on the terminal, also where stdout is a file: `input`
    would ask there."""
    if sys.stdout.isatty():
        return input("you: ")
    typer.echo("you: ", nl=False, err=True)
    return input()


def _shipped() -> list[str]:
    """The demo, where this installation has it."""
    try:
        find_bundle("demo")
    except UsageError:
        return []
    return ["demo"]


def _check(bundle: str, given: dict[str, Any], require_signature: Path | None) -> None:
    """Raises an error where the bundle cannot be used, or not with these options."""
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    decoding_options(checked.manifest.decoding, **given)


def _serve(host: str, port: int) -> None:
    """Serve this command without --serve in a browser."""
    try:
        from ..tui.serve import is_loopback, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual_serve", "aiohttp"):
            raise
        raise EdgeChatError("--serve needs textual-serve: pip install textual-serve") from None
    if not is_loopback(host):
        say(
            f"warning: whoever reaches port {port} of {host} can read your conversations, and write files in "
            "your name"
        )
    arguments = [argument for argument in sys.argv[1:] if argument != "--serve"]
    try:
        serve(_for_shell([sys.executable, "-m", "edgechat", *arguments]), host, port)
    except socket.gaierror as error:
        raise UsageError(f"--host {host} is no address of this machine: {error.strerror}") from None
    except OSError as error:
        raise EdgeChatError(
            f"the chat cannot be served at {host}, port {port}: {error.strerror}; choose another --port"
        ) from None


def _for_shell(command: list[str]) -> str:
    """A command as the system's shell reads it, which textual-serve gives it to; that of Windows knows no
    single quotes."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
