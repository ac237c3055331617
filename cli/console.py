"""What every command shares: data goes to stdout, all else to stderr, and an error is one sentence."""

import contextlib
import errno
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import typer
from typer.core import TyperCommand, TyperGroup

from ..runtime.bundle import check_outside
from ..runtime.display import BIDI_CONTROLS, printable
from ..runtime.errors import EdgeChatError, UsageError, is_out_of_memory
from ..runtime.jsonobject import finite

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
#: What `edgechat[train]` brings, by what is imported, with the names that pip knows.
_TRAINING_PACKAGES = {
    **{name: name for name in ("torch", "onnx", "safetensors", "sacrebleu", "matplotlib")},
    "yaml": "pyyaml",
}
#: What `str.splitlines` breaks lines at.
_LINE_BREAK = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_NO_MEMORY = "not enough memory: use a smaller preset, --batch-size or --beam"
#: What Typer's parser calls these mistakes, without the value that was wrong, and what they are.
_NO_NUMBER = {
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "float_parsing": "not a number",
}
#: What JSON may hold raw, but a terminal would obey, a reader of lines would split at, or UTF-8 lacks.
_ESCAPED_IN_JSON = re.compile(f"[\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}\ud800-\udfff]")


class Commands(TyperGroup):
    """The one place where an exception becomes text and an exit code. A traceback means a bug."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """What comes before a command is printed here: --help, --version, the completion of a shell."""
        with _in_a_sentence():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _in_a_sentence():
            return super().invoke(ctx)


class Command(TyperCommand):
    """A command whose errors call an option what its user typed: `--n-best`, where Python says `n_best`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            options = {p.name: p.opts[0] for p in self.params if p.param_type_name == "option"}
            given = {name for name in options if ctx.get_parameter_source(name).name == "COMMANDLINE"}
            raise UsageError(as_typed(str(error), options, given)) from None


def as_typed(sentence: str, options: Mapping[str, str], given: Set[str]) -> str:
    """`sentence`, if it begins with the name of a value and one of those in it was `given`, with the
    `options` that set them in place of the names. Some are words, too: those are names at the beginning and
    in "goes with beam", "more than beam", "raise beam" and "set beam" alone. What is quoted stays."""
    names = "|".join(
        rf"{'' if '_' in name else '(?:^|(?<=with )|(?<=than )|(?<=raise )|(?<=set ))'}\b{name}\b"
        for name in options
    )
    found = re.compile(rf"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|({names})""")
    if not re.match(names, sentence) or given.isdisjoint(found.findall(sentence)):
        return sentence
    return found.sub(lambda name: options.get(name[0], name[0]), sentence)


@contextlib.contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except EdgeChatError as error:
        fail(str(error), WRONG_USE if isinstance(error, UsageError) else FAILED)
    except typer.BadParameter as error:
        error.message = _with_value(error)
        raise
    except (KeyboardInterrupt, typer.Abort):  # the second of a prompt, of Ctrl-D too
        fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left, as `head` does: that is no failure of ours.
        _discard(sys.stdout)
        raise typer.Exit(0) from None
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        raise typer.Exit(0) from None  # the same, of what rich was printing: it has discarded the rest
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("rich", "textual"):
            fail(f"this command needs {package}: pip install {package}", FAILED)
        if package not in _TRAINING_PACKAGES:
            raise
        fail(f"this command needs {error.name}: pip install {_missing(package)}", FAILED)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(_NO_MEMORY, FAILED)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        hint = " (free some space and try again)" if error.errno == errno.ENOSPC else ""
        fail(f"{where}{os.strerror(error.errno)}{hint}", FAILED)


def _missing(package: str) -> str:
    """`package` as pip calls it, and what else of training is not installed, where that is wanted: much needs
    one of these packages and no torch."""
    trains = package == "torch" or importlib.util.find_spec("torch") is not None
    return " ".join(
        pip
        for name, pip in _TRAINING_PACKAGES.items()
        if name == package or (trains and importlib.util.find_spec(name) is None)
    )


def _with_value(error: typer.BadParameter) -> str:
    """Typer's message on a wrong value, with that value, and without what its parser puts before it."""
    errors: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    if errors and (wrong := _NO_NUMBER.get(errors[0]["type"])):
        return f"{errors[0]['input']!r} is {wrong}."
    return error.message.removeprefix("Value error, ")


def fail(sentence: str, code: int) -> None:
    """Print the sentence on stderr and leave with `code`."""
    say(f"edgechat: {sentence}")
    raise typer.Exit(code)


def say(text: str) -> None:
    """A line for people, on stderr; control characters are shown, not obeyed."""
    with _heard_or_not():
        typer.echo(printable(text), err=True)


@contextlib.contextmanager
def _heard_or_not() -> Iterator[None]:
    """Where nobody listens any more on stderr, or its disk is full, what is said is discarded from now on,
    and the work goes on."""
    try:
        yield
    except OSError:
        _discard(sys.stderr)


class Log:
    """stderr, as a file for what draws on a terminal; no write to it fails."""

    def __init__(self) -> None:
        self._stderr = sys.stderr  # as it is now: rich puts a file of its own there while it draws

    def write(self, text: str) -> None:
        with _heard_or_not():
            self._stderr.write(text)

    def flush(self) -> None:
        with _heard_or_not():
            self._stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stderr, name)


def _discard(stream: Any) -> None:
    """From now on nothing of `stream` arrives anywhere, its flush at exit included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def speak_utf8() -> None:
    """Write UTF-8 to files and pipes, as stdin is read and whatever the locale, and never fail at a
    character that the terminal lacks."""
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="replace")


def keep_standard_files() -> None:
    """Let none of stdin, stdout and stderr that whoever started us closed become the next file that is
    opened, into which a library's warnings would go."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as we run


def put(text: str, *, end: str = "\n") -> None:
    """A line of data, or a piece of one, on stdout. A file or a pipe gets the controls of writing direction
    as they are: they belong to texts, and only a terminal is reordered by them."""
    check_stdout()
    typer.echo(printable(text, bidi=not sys.stdout.isatty()) + end, nl=False)


def check_stdout() -> None:
    """Raise EdgeChatError where there is none for a result."""
    if sys.stdout is None:
        raise EdgeChatError("stdout is closed, and the result would go there: give it a file or a pipe")


def put_json(values: Any) -> None:
    """One JSON object on one line of stdout."""
    check_stdout()
    typer.echo(json_line(values))


def json_line(values: Any) -> str:
    """`values` as JSON that is UTF-8 and one line. Infinities and NaN, which JSON lacks, become null."""
    text = json.dumps(finite(values), ensure_ascii=False)
    return _ESCAPED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def put_table(rows: list[tuple[str, Any]]) -> None:
    """Names and values in two columns, on stdout: for people, so nothing in it reorders its lines, wherever
    they are read."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        put(printable(f"{name:<{width}}  {one_line(str(value))}"))


def one_line(text: str) -> str:
    """`text` with each line break as a space: of pieces, joined, it is the same as of the whole."""
    return _LINE_BREAK.sub(" ", text)


def lines_of(stream: BinaryIO) -> Iterator[str]:
    """The lines of a text as they come, without their ends. Bytes that are no UTF-8 become U+FFFD; a byte
    order mark is no part of the first."""
    for number, line in enumerate(stream):
        yield line.decode("utf-8" if number else "utf-8-sig", "replace").rstrip("\r\n")


def check_writable(out: Path, option: str = "--out") -> None:
    """Fail early where what an option names cannot be made, not after the work."""
    if out.name in ("", ".."):
        raise UsageError(f"{option} is {out}, which gives what is written no name: end it with one")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{option} is {out}, but {parent} is a file, not a folder")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise EdgeChatError(
            f"{out} cannot be written: no file can be created in {parent} ({error.strerror})"
        ) from None


def check_file(option: str, path: Path) -> None:
    """Fail early where the file that an option names cannot be written, or may not lie there."""
    if path.is_dir():
        raise UsageError(f"{option} is {path}, which is a folder: name a file in it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} is {path}, but there is no folder {path.parent}")
    check_outside(path, option)
    check_writable(path, option)


_STOPPING = b"stopping after this step; Ctrl-C again stops at once and loses the steps since the checkpoint\n"


@contextlib.contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C, SIGTERM or end of the terminal (SIGHUP, where it is not ignored as under
    nohup) only asks to stop, at a moment that loses nothing; the second Ctrl-C ends at once. Gives what says
    whether it was asked."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not `say`: the signal may have come in the middle of a write to the same buffer.
        with contextlib.suppress(OSError):
            os.write(2, _STOPPING)

    signals = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in signals}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
