"""`edgechat chat`: a conversation line by line."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator

import typer

from ..runtime import ChatModel, ChatSession, DecodingOptions
from ..runtime.errors import UsageError
from .console import check_stdout, one_line, print_stderr, print_stdout, read_lines
from .options import BundleArgument, DeviceOption, RequireSignatureOption, ThreadsOption
from .reply import print_cut_off_notice, print_truncation_notice
from .search_options import decoding_options, given_options, with_search_options

_COMMANDS = ("/new", "/why", "/help", "/quit")


def register(app: typer.Typer) -> None:
    app.command()(chat)


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
    the commands, and /quit (or the end of stdin) ends. Type two slashes for a prompt that begins with one.
    """
    check_stdout()  # before a prompt is typed, whose reply would have nowhere to go
    with ChatModel.load(bundle, device=device, threads=threads, require_signature=require_signature) as model:
        options = decoding_options(model.defaults, **given_options(context))
        if _is_interactive():
            print_stderr(
                f"Chatting with {one_line(bundle)} on {model.device}. Type a prompt; /help lists commands."
            )
        LineChat(model, options, interactive=_is_interactive()).run(_read_prompts())


class LineChat:
    """A conversation in lines. With `interactive`, commands are confirmed on stderr, for a person."""

    def __init__(self, model: ChatModel, options: DecodingOptions, *, interactive: bool) -> None:
        self._model, self._options, self._interactive = model, options, interactive
        self._session: ChatSession = model.session()
        self._last_options = options  # the options of the last reply, its seed included

    def run(self, lines: Iterator[str]) -> None:
        """Reply to `lines` until they end, or one of them is /quit."""
        for line in lines:
            command = line.strip()
            if command == "/quit":
                return
            if command.startswith("/") and not command.startswith("//"):
                self._run_command(command)
            elif command:
                self._reply(line.removeprefix("/") if command.startswith("//") else line)

    def _reply(self, prompt: str) -> None:
        self._last_options = self._options.with_seed()
        stream = self._session.stream(prompt, self._last_options)
        for piece in stream:
            print_stdout(one_line(piece), end="")
            sys.stdout.flush()
        print_stdout("")
        sys.stdout.flush()
        if self._model.codec.encode_source([prompt]).truncated:  # a context that is cut is not reported
            print_truncation_notice(self._model)
        if not stream.reply.finished:
            print_cut_off_notice(stream.reply)

    def _run_command(self, command: str) -> None:
        if command == "/new":
            self._session = self._model.session()
            self._confirm("a new conversation")
        elif command == "/why":
            self._print_candidates()
        elif command == "/help":
            print_stderr(
                "/new starts a new conversation, /why lists other candidates for the last reply, /quit ends; "
                "any other line is a prompt"
            )
        else:
            name = command.split()[0]
            problem = "takes no arguments" if name in _COMMANDS else "is not a command"
            print_stderr(f"{name} {problem}; /help lists the commands, and // begins a prompt with a slash")

    def _print_candidates(self) -> None:
        """Print the n best replies to the last prompt. They are searched for only now, since a search for one
        reply is faster."""
        if len(self._session.turns) < 2:
            print_stderr("there is no reply yet")
            return
        turns = self._session.turns[:-1][-self._model.codec.turns :]
        options = dataclasses.replace(self._last_options, n_best=self._last_options.beam)
        (reply,) = self._model.reply_turns([turns], options)
        for rank, candidate in enumerate(reply.candidates, start=1):
            print_stdout(f"{rank}. {candidate.score:.4f} {one_line(candidate.text)}")
        sys.stdout.flush()

    def _confirm(self, text: str) -> None:
        if self._interactive:
            print_stderr(text)


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _read_prompts() -> Iterator[str]:
    """The lines of stdin, with editing and history on a terminal."""
    if sys.stdin is None:
        raise UsageError(
            "stdin is closed, but prompts are read from it: give it a terminal, a file or a pipe"
        )
    if not _is_interactive():
        yield from read_lines(sys.stdin.buffer)
        return
    with contextlib.suppress(ImportError):  # not on Windows, whose console has editing
        import readline  # noqa: F401 - gives `input` its editing
    while True:
        try:
            yield _read_typed_line()
        except EOFError:
            print_stderr("")
            return
        except KeyboardInterrupt:
            print_stderr("")  # end the line that was being typed
            raise


def _read_typed_line() -> str:
    """A line typed on the terminal. The prompt goes to stderr where stdout is a file, in which `input` would
    write it."""
    if sys.stdout.isatty():
        return input("you: ")
    typer.echo("you: ", nl=False, err=True)
    return input()
