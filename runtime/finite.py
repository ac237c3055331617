"""What JSON lacks: infinities and NaN."""

import math
from typing import Any


def finite(values: Any) -> Any:
    """`values`, of dicts, lists and tuples however deep, with None for what is no finite number."""
    if isinstance(values, float) and not math.isfinite(values):
        return None
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return values
