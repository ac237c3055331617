"""Passphrases of private keys, which are asked for on the terminal only."""

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from ..runtime.errors import UsageError


def make_passphrase_prompt(key: Path) -> Callable[[], str] | None:
    """A function that asks for the passphrase of the private key `key`; None if stdin is not a
    terminal."""
    if not _stdin_is_terminal():
        return None
    return lambda: str(typer.prompt(f"passphrase of {key}", hide_input=True, err=True))


def ask_new_passphrase(key: Path) -> str:
    """Ask for the passphrase of a new private key, twice.

    Raises:
        UsageError: stdin is not a terminal.
    """
    if not _stdin_is_terminal():
        raise UsageError(
            "--passphrase asks for the passphrase on a terminal, but stdin is not one: run this in a terminal"
        )
    return str(typer.prompt(f"passphrase of {key}", hide_input=True, confirmation_prompt=True, err=True))


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
