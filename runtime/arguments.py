"""What a caller gives: of which kind it is, and how a message shows it, or a value of a stranger's bundle."""

import os
import reprlib
from collections.abc import Sequence
from typing import Any

from .errors import UsageError

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 60  # characters


def shown(value: object) -> str:
    """`value` on one line, as Python writes it, with dots where it is long."""
    try:
        return " ".join(_BRIEF.repr(value).splitlines())
    except Exception:  # its own repr may raise anything; that of a number of 4,301 digits does
        return f"{type(value).__name__}(...)"


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises UsageError where `value` is none of the `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {shown(value)}")


def path_text(name: str, value: Any) -> str:
    """A path as text; raises UsageError where it is none."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise UsageError(f"{name} must be a path, not {shown(value)}")
    return path


def listed(values: Any, takes: str, mend: str = "") -> list[Any]:
    """`values` as a list; raises UsageError, which says what `takes` one, where they are text or no list."""
    try:
        each = None if isinstance(values, str | bytes) else iter(values)
    except TypeError:
        each = None
    if each is None:
        raise UsageError(f"{takes}, not {shown(values)}{mend}")
    return list(each)
