"""Configuration files: sections of typed values, read from and written as TOML.

A section is a frozen dataclass of numbers, booleans, strings, paths and lists of strings. None stands for a
value that is left out.
"""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..runtime.errors import UsageError

Section = TypeVar("Section")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises UsageError if it is missing or cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}") from None


def parse_section(kind: type[Section], values: object, where: str) -> Section:
    """The dataclass `kind` with `values`; keys that are left out keep their defaults.

    Raises UsageError for a key that `kind` lacks, with the closest one that it has, and for a value of the
    wrong type.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a section of keys and values, not {values!r}")
    types = get_type_hints(kind)
    refuse_unknown(values, types, where)
    typed = {key: check_type(value, types[key], f"{where}: {key}") for key, value in values.items()}
    try:
        return kind(**typed)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise UsageError for the first of the names `given` that is not `known`."""
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            known = f"the known keys are {', '.join(sorted(names))}"
            hint = f"did you mean {near[0]!r}?" if near else known
            raise UsageError(f"{where}: unknown key {name!r}; {hint}")


def to_toml(sections: Mapping[str, Mapping[str, Any]], comment: str) -> str:
    """The sections, by name, as a file that `read_toml` and `parse_section` read. None is left out."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for section, values in sections.items():
        lines += ["", f"[{section}]"]
        lines += [f"{name} = {_toml_literal(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml_literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        assert escaped.isprintable()
        return f'"{escaped}"'
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf and nan are spelled the same in TOML
    return repr(value)


def check_type(value: Any, expected: Any, what: str) -> Any:
    """`value`, if it has the annotated type `expected`; a whole number is accepted as a float. Else raises
    UsageError."""
    if get_origin(expected) is Literal:
        if value in get_args(expected) and isinstance(value, str):
            return value
        raise UsageError(f"{what} must be {join_with_or(get_args(expected))}, not {value!r}")
    if get_origin(expected) in (Union, UnionType):
        if value is None:
            return None
        (expected,) = (kind for kind in get_args(expected) if kind is not NoneType)
        return check_type(value, expected, what)
    if get_origin(expected) is tuple:  # of strings; a single string stands for a list of one
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return tuple(check_type(text, str, what) for text in texts)
        raise UsageError(f"{what} must be a string or a list of strings, not {value!r}")
    if expected is Path and isinstance(value, str):
        return Path(check_type(value, str, what))
    if expected is str and isinstance(value, str) and "\0" in value:
        raise UsageError(f"{what} must be a string without NUL, not {value!r}")
    fits = isinstance(value, bool) if expected is bool else not isinstance(value, bool)
    if expected is float and fits and isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise UsageError(f"{what} is too large a number") from None
    if fits and isinstance(value, expected):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    raise UsageError(f"{what} must be {kinds.get(expected, 'a string')}, not {value!r}")


def join_with_or(names: Iterable[str]) -> str:
    """The names as a sentence lists alternatives: a, b or c."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
