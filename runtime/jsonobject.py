"""JSON: that of a bundle is to mean the same to every reader, and what is wrong with it is one sentence; what
is written has none of the numbers that JSON lacks."""

import json
import math
from collections.abc import Callable
from typing import Any

from .arguments import shown


def read_json(raw: bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """What `raw` says. Objects must not name anything twice: readers differ in which of the two they take.

    Raises:
        ValueError: one sentence of what is wrong.
    """
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=parse_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it nests its values too deep") from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's own sentence is about its settings
            raise ValueError("it has a number with thousands of digits") from None
        raise


def finite(values: Any) -> Any:
    """`values`, of dicts, lists and tuples however deep, with None for infinities and NaN."""
    if isinstance(values, float) and not math.isfinite(values):
        return None
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return values


def misfit(error: Exception) -> str:
    """What an error means that came of values being other than they must."""
    if isinstance(error, KeyError):
        return f"it has no {shown(error.args[0])}"
    if isinstance(error, ValueError):
        return str(error)
    return "a value in it is of another kind than edgechat writes"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object that names nothing twice, for the `object_pairs_hook` of `json.loads`."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it names something twice in one object")
    return values
