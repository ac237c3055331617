"""Standard streams: data goes to stdout, everything else to stderr."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any, BinaryIO

import typer

from ..runtime.display import BIDI_CONTROLS, printable
from ..runtime.errors import EdgeChatError
from ..runtime.strict_json import replace_nonfinite

#: The line breaks of `str.splitlines`.
_LINE_BREAK = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
#: Characters that JSON may hold unescaped, but that control a terminal, break a line, or have no UTF-8.
_ESCAPED_IN_JSON = re.compile(f"[\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}\ud800-\udfff]")


def print_stderr(text: str) -> None:
    """Print a line for people to stderr; control characters are made visible."""
    with _ignore_failed_writes():
        typer.echo(printable(text), err=True)


@contextlib.contextmanager
def _ignore_failed_writes() -> Iterator[None]:
    """Go on where stderr cannot be written (closed pipe, full disk); from then on its output is discarded."""
    try:
        yield
    except OSError:
        redirect_to_null(sys.stderr)


class SafeStderr:
    """stderr as a file object for libraries that draw on a terminal; a write to it never fails."""

    def __init__(self) -> None:
        self._stderr = sys.stderr  # as it is now: rich replaces it while it draws

    def write(self, text: str) -> None:
        with _ignore_failed_writes():
            self._stderr.write(text)

    def flush(self) -> None:
        with _ignore_failed_writes():
            self._stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stderr, name)


def redirect_to_null(stream: Any) -> None:
    """Send everything that is written to `stream` from now on to the null device, the flush at exit too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def use_utf8_stdout() -> None:
    """Write UTF-8 to files and pipes whatever the locale, and replace characters that a terminal lacks."""
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="replace")


def reopen_closed_standard_files() -> None:
    """Open the null device in place of each of stdin, stdout and stderr that the parent process closed.

    Otherwise the next file that is opened would get its number, and the warnings of libraries with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the end


def print_stdout(text: str, *, end: str = "\n") -> None:
    """Print data to stdout: a line, or a piece of one.

    Control characters are made visible; in a file or a pipe, bidirectional ones are kept, since they are part
    of the text and only a terminal would obey them.
    """
    check_stdout()
    typer.echo(printable(text, bidi=not sys.stdout.isatty()) + end, nl=False)


def check_stdout() -> None:
    """Raise EdgeChatError where stdout is closed."""
    if sys.stdout is None:
        raise EdgeChatError("stdout is closed, but the output goes there: redirect it to a file or a pipe")


def print_json(values: Any) -> None:
    """Print one JSON object to stdout, on one line."""
    check_stdout()
    typer.echo(json_line(values))


def json_line(values: Any) -> str:
    """`values` as JSON on one line, in valid UTF-8. Infinities and NaN, which JSON lacks, become null."""
    text = json.dumps(replace_nonfinite(values), ensure_ascii=False)
    return _ESCAPED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(rows: list[tuple[str, Any]]) -> None:
    """Print names and values to stdout in two columns. A table is for people, so all control characters in it
    are made visible, also in files."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print_stdout(printable(f"{name:<{width}}  {one_line(str(value))}"))


def one_line(text: str) -> str:
    """`text` with each line break replaced by a space. Pieces of a text can be converted one by one."""
    return _LINE_BREAK.sub(" ", text)


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a UTF-8 stream as they arrive, without line ends. Invalid bytes become U+FFFD, and a byte
    order mark is dropped."""
    for number, line in enumerate(stream):
        yield line.decode("utf-8" if number else "utf-8-sig", "replace").rstrip("\r\n")
