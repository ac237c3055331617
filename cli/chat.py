"""`edgechat tui` and `edgechat chat`: a conversation, on the full screen or line by line."""

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
from .options import BundleArgument, DeviceOption, RequireSignatureOption, ThreadsOption
from .reply import say_truncated
from .searchoptions import (
    BeamOption,
    LengthPenaltyOption,
    NormalizeOption,
    decoding_options,
    given_options,
    with_search_options,
)

_COMMANDS = ("/new", "/why", "/help", "/quit")
_HOST, _PORT = "localhost", 8000  # defaults of --host and --port


def register(app: typer.Typer) -> None:
    app.command()(tui)
    app.command()(chat)


def tui(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
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
            "--inline does not go with --serve: one is for the terminal, the other for a browser"
        )
    changes = {"beam": beam, "normalize": normalize, "length_penalty": length_penalty}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = bundles if bundles else _shipped()
    # An unusable bundle is reported here, before the chat takes over the terminal.
    for bundle in chosen:
        _check(bundle, given, require_signature)
    if serve:
        _serve(host, port)
        return
    served = "TEXTUAL_DRIVER" in os.environ  # textual-serve runs this command with its own driver
    if not served and (host, port) != (_HOST, _PORT):
        raise UsageError("--host and --port go with --serve")
    # Textual reads stdin and draws on stderr.
    if not served and not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError("edgechat tui needs a terminal: for pipes and files, use edgechat chat or reply")
    if not served and codecs.lookup(sys.stderr.encoding).name != "utf-8":
        raise UsageError(
            f"edgechat tui needs UTF-8, but the encoding of stderr is {sys.stderr.encoding}: set "
            "PYTHONUTF8=1 if the terminal supports UTF-8, or use edgechat chat"
        )
    if not served and os.environ.get("TERM") == "dumb":
        raise UsageError(
            "edgechat tui cannot draw its screen on this terminal (TERM=dumb): use edgechat chat"
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
    """Chat line by line, for pipes and screen readers.

    Each line of stdin is a prompt. Each reply is printed to stdout piece by piece; nothing printed is ever
    withdrawn or overwritten.

    Commands: /new starts a new conversation, /why lists the other candidates for the last reply, /help lists
    the commands, and /quit (or the end of stdin) ends. A prompt that begins with a slash is typed with two.
    """
    with ChatModel.load(bundle, device=device, threads=threads, require_signature=require_signature) as model:
        options = decoding_options(model.defaults, **given_options(context))
        if _interactive():
            say(f"Chatting with {one_line(bundle)} on {model.device}. Type a prompt; /help lists commands.")
        LineChat(model, options, greet=_interactive()).run(_lines())


class LineChat:
    """A conversation in lines. With `greet`, commands are confirmed on stderr, for a person."""

    def __init__(self, model: ChatModel, options: DecodingOptions, *, greet: bool) -> None:
        self._model, self._options, self._greet = model, options, greet
        self._session: ChatSession = model.session()
        self._last_options = options  # the options of the last reply, its seed included

    def run(self, lines: Iterator[str]) -> None:
        """Reply to `lines` until they end, or one of them is /quit."""
        for line in lines:
            command = line.strip()
            if command == "/quit":
                return
            if command.startswith("/") and not command.startswith("//"):
                self._command(command)
            elif command:
                self._reply(line.removeprefix("/") if command.startswith("//") else line)

    def _reply(self, prompt: str) -> None:
        self._last_options = self._options.with_seed()
        for piece in self._session.stream(prompt, self._last_options):
            put(one_line(piece), end="")
            sys.stdout.flush()
        put("")
        sys.stdout.flush()
        if self._model.codec.encode_source([prompt]).truncated:  # a context that is cut is not reported
            say_truncated(self._model)

    def _command(self, command: str) -> None:
        if command == "/new":
            self._session = self._model.session()
            self._confirm("a new conversation")
        elif command == "/why":
            self._why()
        elif command == "/help":
            say(
                "/new starts a new conversation, /why lists other candidates for the last reply, /quit ends; "
                "any other line is a prompt"
            )
        else:
            name = command.split()[0]
            wrong = "takes no arguments" if name in _COMMANDS else "is not a command"
            say(f"{name} {wrong}; /help lists the commands, and // begins a prompt with a slash")

    def _why(self) -> None:
        """Print the n best replies to the last prompt. They are searched for only now, since a search for one
        reply is faster."""
        if len(self._session.turns) < 2:
            self._confirm("there is no reply yet")
            return
        seen = self._session.turns[:-1][-self._model.codec.turns :]
        options = dataclasses.replace(self._last_options, n_best=self._last_options.beam)
        (reply,) = self._model.reply_turns([seen], options)
        for rank, candidate in enumerate(reply.candidates, start=1):
            put(f"{rank}. {candidate.score:.4f} {one_line(candidate.text)}")
        sys.stdout.flush()

    def _confirm(self, text: str) -> None:
        if self._greet:
            say(text)


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _lines() -> Iterator[str]:
    """The lines of stdin, with editing and history on a terminal."""
    if sys.stdin is None:
        raise UsageError(
            "stdin is closed, but prompts are read from it: give it a terminal, a file or a pipe"
        )
    if not _interactive():
        yield from lines_of(sys.stdin.buffer)
        return
    with contextlib.suppress(ImportError):  # not on Windows, whose console has editing
        import readline  # noqa: F401 - gives `input` its editing
    while True:
        try:
            yield _typed_line()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("")  # end the line that was being typed
            raise


def _typed_line() -> str:
    """A line typed on the terminal. The prompt goes to stderr where stdout is a file, in which `input` would
    write it."""
    if sys.stdout.isatty():
        return input("you: ")
    typer.echo("you: ", nl=False, err=True)
    return input()


def _shipped() -> list[str]:
    """The demo bundle, if this installation has one."""
    try:
        find_bundle("demo")
    except UsageError:
        return []
    return ["demo"]


def _check(bundle: str, given: dict[str, Any], require_signature: Path | None) -> None:
    """Raise an error where the bundle cannot be used, or not with these options."""
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    decoding_options(checked.manifest.decoding, **given)


def _serve(host: str, port: int) -> None:
    """Serve this command, without --serve, to a browser."""
    try:
        from ..tui.serve import is_loopback, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual_serve", "aiohttp"):
            raise
        raise EdgeChatError("--serve needs textual-serve: pip install textual-serve") from None
    if not is_loopback(host):
        say(
            f"warning: anyone who can reach port {port} of {host} can read your conversations, and write "
            "files as your user"
        )
    arguments = [argument for argument in sys.argv[1:] if argument != "--serve"]
    try:
        serve(_for_shell([sys.executable, "-m", "edgechat", *arguments]), host, port)
    except socket.gaierror as error:
        raise UsageError(
            f"--host is {host}, which is not an address of this machine: {error.strerror}"
        ) from None
    except OSError as error:
        raise EdgeChatError(
            f"the chat cannot be served at {host}, port {port}: {error.strerror}; choose another --port"
        ) from None


def _for_shell(command: list[str]) -> str:
    """`command` quoted for the shell of the system, in which textual-serve runs it. The shell of Windows does
    not know single quotes."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
