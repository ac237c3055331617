"""JSON that means the same to every reader: duplicate names are refused when reading, and infinities and NaN
are replaced when writing. Errors are one sentence."""

import json
import math
from collections.abc import Callable
from typing import Any

from .arguments import short_repr


def read_json(raw: bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Parse `raw`. Duplicate names in an object are refused, since readers differ in which value they take.

    Raises:
        ValueError: says in one sentence what is wrong.
    """
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_refuse_duplicates, parse_constant=parse_constant
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's own message is about its settings
            raise ValueError("it has a number with thousands of digits") from None
        raise


def replace_nonfinite(values: Any) -> Any:
    """`values`, nested dicts, lists and tuples, with infinities and NaN replaced by None."""
    if isinstance(values, float) and not math.isfinite(values):
        return None
    if isinstance(values, dict):
        return {key: replace_nonfinite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [replace_nonfinite(value) for value in values]
    return values


def describe_misfit(error: Exception) -> str:
    """A sentence for an error that was raised because a parsed value is not as expected."""
    if isinstance(error, KeyError):
        return f"it has no {short_repr(error.args[0])}"
    if isinstance(error, ValueError):
        return str(error)
    return "it has a value of the wrong type"


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate names in a JSON object; the `object_pairs_hook` of `json.loads`."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it has a duplicate name in an object")
    return values
