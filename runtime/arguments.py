"""Checks of argument types, and how an error message shows a value of a caller or of an untrusted bundle."""

import os
import reprlib
from collections.abc import Sequence
from typing import Any

from .errors import UsageError

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 60  # characters


def shown(value: object) -> str:
    """The repr of `value` on one line, shortened with dots if it is long."""
    try:
        return " ".join(_BRIEF.repr(value).splitlines())
    except Exception:  # a repr may raise anything; that of an int of more than 4,300 digits does
        return f"{type(value).__name__}(...)"


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")


def path_text(name: str, value: Any) -> str:
    """A path as text; raises UsageError if `value` is not a path."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise UsageError(f"{name} must be a path, not {shown(value)}")
    return path


def listed(values: Any, takes: str, hint: str = "") -> list[Any]:
    """`values` as a list.

    Raises:
        UsageError: `values` is text or not iterable. The message is `takes` ("... takes a list of ..."), the
            value, and `hint`.
    """
    try:
        each = None if isinstance(values, str | bytes) else iter(values)
    except TypeError:
        each = None
    if each is None:
        raise UsageError(f"{takes}, not {shown(values)}{hint}")
    return list(each)
