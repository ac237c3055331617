"""JSON objects of a bundle: they are to mean the same to every reader."""

from typing import Any


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object that names nothing twice, for the `object_pairs_hook` of `json.loads`: readers differ in
    which of the two they take.

    Raises:
        ValueError: it does.
    """
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it names something twice in one object")
    return values
