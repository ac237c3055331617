"""What every command shares: data goes to stdout, all else to stderr, and an error is one sentence."""

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from ..runtime.errors import EdgeChatError
from ..runtime.text import printable

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
_TRAINING_PACKAGES = ("torch", "onnx", "safetensors", "sacrebleu", "matplotlib", "yaml")


class Commands(TyperGroup):
    """The one place where an exception becomes text and an exit code. A traceback means a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeChatError as error:
            fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output left, as `head` does: that is no failure of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in _TRAINING_PACKAGES:
                raise
            fail(f'this command needs {error.name}: pip install "edgechat[train]"', FAILED)
        except MemoryError:
            fail("not enough memory: use a smaller preset, --batch-size or --beam", FAILED)
        except OSError as error:
            if error.errno is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            hint = " (free some space and try again)" if error.errno == errno.ENOSPC else ""
            fail(f"{where}{os.strerror(error.errno)}{hint}", FAILED)


def fail(sentence: str, code: int) -> None:
    """Print the sentence on stderr and leave with `code`."""
    say(f"edgechat: {sentence}")
    raise typer.Exit(code)


def say(text: str) -> None:
    """A line for people, on stderr; control characters are shown, not obeyed."""
    typer.echo(printable(text), err=True)


def put(text: str) -> None:
    """A line of data, on stdout."""
    typer.echo(printable(text))


def put_json(values: Any) -> None:
    """One JSON object on one line of stdout. Infinities, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(values), ensure_ascii=False))


def _finite(values: Any) -> Any:
    if isinstance(values, float) and values in (float("inf"), float("-inf")):
        return None
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values


def put_table(rows: list[tuple[str, Any]]) -> None:
    """Names and values in two columns, on stdout."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        put(f"{name:<{width}}  {value}")


@contextlib.contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only asks to stop, at a moment that loses nothing; the second
    Ctrl-C ends at once. Gives what says whether it was asked."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after this step; Ctrl-C again stops at once and loses the steps since the checkpoint")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal. Gives what advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
