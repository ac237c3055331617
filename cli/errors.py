"""Errors of the command line: each becomes one sentence on stderr and an exit code."""

import contextlib
import errno
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Set
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..runtime.errors import EdgeChatError, UsageError, is_out_of_memory
from .console import check_stdout, print_stderr, redirect_to_null

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
#: The packages of `edgechat[train]`: the name of the module, and the name that pip uses.
_TRAINING_PACKAGES = {
    **{name: name for name in ("torch", "onnx", "safetensors", "sacrebleu", "matplotlib")},
    "yaml": "pyyaml",
}
_OUT_OF_MEMORY_MESSAGE = "not enough memory: use a smaller model, --batch-size or --beam"
#: The packages that draw on a terminal, and what pip installs for each: platformdirs comes with Textual.
_SCREEN_PACKAGES = {"rich": "rich", "textual": "textual", "platformdirs": "textual"}
#: The error types of Typer's parser whose own message leaves out the wrong value, and our words for them.
_NOT_A_NUMBER = {
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "float_parsing": "not a number",
}


class CommandGroup(TyperGroup):
    """The group of all commands. Only here do exceptions become sentences and exit codes; a traceback means
    a bug."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Parse the arguments. --help, --version and shell completion already print here."""
        with _report_errors():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _report_errors():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        check_stdout()
        super().format_help(ctx, formatter)


class Command(TyperCommand):
    """A command whose errors name an option as it is typed: `--n-best`, where Python says `n_best`."""

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("json"):
            check_stdout()  # before the work, whose result would have nowhere to go
        try:
            return super().invoke(ctx)
        except UsageError as error:
            options = {p.name: p.opts[0] for p in self.params if p.param_type_name == "option"}
            given = {name for name in options if ctx.get_parameter_source(name).name == "COMMANDLINE"}
            raise UsageError(with_option_names(str(error), options, given)) from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        check_stdout()
        super().format_help(ctx, formatter)


def with_option_names(sentence: str, options: Mapping[str, str], given: Set[str]) -> str:
    """Replace the names of values in an error `sentence` by the `options` that set them.

    The sentence stays as it is unless it begins with such a name and mentions one that was `given` on the
    command line. A name that is also an English word is replaced only at the beginning and in "used with
    beam", "needs beam", "more than beam", "raise beam" and "set beam". Quoted text is never changed.
    """
    names = "|".join(
        rf"{'' if '_' in name else '(?:^|(?<=with )|(?<=needs )|(?<=than )|(?<=raise )|(?<=set ))'}\b{name}\b"
        for name in options
    )
    pattern = re.compile(rf"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|({names})""")
    if not re.match(names, sentence) or given.isdisjoint(pattern.findall(sentence)):
        return sentence
    return pattern.sub(lambda name: options.get(name[0], name[0]), sentence)


@contextlib.contextmanager
def _report_errors() -> Iterator[None]:
    try:
        yield
    except EdgeChatError as error:
        fail(str(error), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE)
    except typer.BadParameter as error:
        error.message = _message_with_value(error)
        raise
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D at a prompt for a passphrase
        fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output closed it, as `head` does once it has enough. That is not a failure.
        redirect_to_null(sys.stdout)
        raise typer.Exit(0) from None
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        raise typer.Exit(0) from None  # the same, while rich was printing; it has discarded the rest itself
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in _SCREEN_PACKAGES:
            fail(f"this command needs {package}: pip install {_SCREEN_PACKAGES[package]}", EXIT_FAILURE)
        if package not in _TRAINING_PACKAGES:
            raise
        fail(f"this command needs {error.name}: pip install {_packages_to_install(package)}", EXIT_FAILURE)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(_OUT_OF_MEMORY_MESSAGE, EXIT_FAILURE)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        hint = " (free some space and try again)" if error.errno == errno.ENOSPC else ""
        fail(f"{where}{os.strerror(error.errno)}{hint}", EXIT_FAILURE)


def _packages_to_install(package: str) -> str:
    """The pip name of `package`. Where training is wanted (only training needs `package`, or torch is
    installed), also the pip names of the other training packages that are missing."""
    is_training = package in ("torch", "onnx", "safetensors") or importlib.util.find_spec("torch") is not None
    return " ".join(
        pip
        for name, pip in _TRAINING_PACKAGES.items()
        if name == package or (is_training and importlib.util.find_spec(name) is None)
    )


def _message_with_value(error: typer.BadParameter) -> str:
    """Typer's message about a wrong value, with the value, and without the prefix of Typer's parser."""
    errors: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    if errors and (wrong := _NOT_A_NUMBER.get(errors[0]["type"])):
        return f"{errors[0]['input']!r} is {wrong}."
    return error.message.removeprefix("Value error, ")


def fail(sentence: str, code: int) -> None:
    """Print `sentence` to stderr and exit with `code`."""
    print_stderr(f"edgechat: {sentence}")
    raise typer.Exit(code)
