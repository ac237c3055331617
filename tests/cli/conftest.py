"""Runs commands in this process, where torch is imported once, for tests that do not need a new process."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgechat.cli.app import app

Invoke = Callable[..., "CommandResult"]
Tree = dict[str, bytes | str]


@dataclass(frozen=True)
class CommandResult:
    returncode: int
    stdout: str
    stderr: str

    @property
    def sentence(self) -> str:
        """The single line on stderr of a failed command that printed nothing to stdout."""
        assert self.stdout == ""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("edgechat: ")
        return lines[0].removeprefix("edgechat: ")


def _invoke(*arguments: object, stdin: str | bytes = b"") -> CommandResult:
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    done = CliRunner().invoke(app, [str(a) for a in arguments], input=raw, prog_name="edgechat")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception  # the user would see a traceback
    return CommandResult(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    return _invoke


def _read_tree(folder: Path) -> Tree:
    """Every name under `folder` with its content, or the target of its link."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)  # noqa: PTH115 - as it is written
        else:
            found[name] = path.read_bytes() if path.is_file() else "no file"
    return found


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], Tree]:
    return _read_tree
