"""Checks of argument types, and how an error message shows a value of a caller or of an untrusted bundle."""

import math
import operator
import os
import reprlib
from collections.abc import Sequence
from numbers import Real
from typing import Any

from .errors import UsageError

_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxlevel = 2
_SHORT_REPR.maxstring = _SHORT_REPR.maxlong = _SHORT_REPR.maxother = 60  # characters


def short_repr(value: object) -> str:
    """The repr of `value` on one line, shortened with dots if it is long."""
    try:
        return " ".join(_SHORT_REPR.repr(value).splitlines())
    except Exception:  # a repr may raise anything; that of an int of more than 4,300 digits does
        return f"{type(value).__name__}(...)"


def check_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {short_repr(value)}")


def check_whole_number(name: str, value: Any, minimum: int, maximum: int) -> int:
    """`value` as an int; NumPy integers are accepted.

    Raises:
        UsageError: it is not a whole number from `minimum` to `maximum`; names the option and the value.
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is not None and minimum <= whole <= maximum:
        return whole
    raise UsageError(f"{name} must be a whole number from {minimum} to {maximum}, not {short_repr(value)}")


def check_number(name: str, value: Any, minimum: float, maximum: float) -> float:
    """Like `check_whole_number`, for any real number. An int stays an int, and NaN is refused."""
    real: Any = value if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if minimum <= real <= maximum:
        return int(real) if isinstance(real, int) else float(real)
    raise UsageError(f"{name} must be a number from {minimum} to {maximum}, not {short_repr(value)}")


def check_path(name: str, value: Any) -> str:
    """A path as text; raises UsageError if `value` is not a path."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise UsageError(f"{name} must be a path, not {short_repr(value)}")
    return path


def to_list(values: Any, problem: str, hint: str = "") -> list[Any]:
    """`values` as a list.

    Raises:
        UsageError: `values` is text or not iterable. The message is `problem` ("... takes a list of ..."),
            the value, and `hint`.
    """
    try:
        each = None if isinstance(values, str | bytes) else iter(values)
    except TypeError:
        each = None
    if each is None:
        raise UsageError(f"{problem}, not {short_repr(values)}{hint}")
    return list(each)
