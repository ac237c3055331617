"""Exchanges as rows of the store and as JSON."""

import dataclasses
import json
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from .values import Exchange, ReplyFacts


def reply_to_json(reply: ReplyFacts) -> dict[str, Any]:
    return dataclasses.asdict(reply)


def exchange_to_row(exchange: Exchange) -> tuple[Any, ...]:
    """The row of an exchange: prompt, state, text of the replies, mark, answer, details."""
    replies = {
        name: reply_to_json(reply)
        for name, reply in (("reply", exchange.reply), ("other", exchange.other))
        if reply
    }
    texts = [reply.text for reply in (exchange.reply, exchange.other) if reply]
    return (
        without_surrogates(exchange.prompt),
        exchange.state,
        without_surrogates("\n".join(texts)),
        exchange.mark,
        None if exchange.answer is None else without_surrogates(exchange.answer),
        json.dumps(replies),  # ASCII: a lone surrogate, which SQLite refuses, is escaped
    )


def without_surrogates(text: str) -> str:
    """`text` with lone surrogates, which SQLite cannot store, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def exchange_from_row(row: tuple[Any, ...]) -> Exchange:
    """Read an exchange from a row: id, prompt, state, mark, answer, details.

    Raises:
        ValueError, TypeError, RecursionError: the row was not written by `exchange_to_row`.
    """
    names = ("id", "prompt", "state", "mark", "answer")
    exchange: Exchange = _from_json(Exchange, json.loads(row[-1]) | dict(zip(names, row[:-1], strict=True)))
    for reply in exchange.replies:
        if reply and not 0 <= reply.chosen < max(1, len(reply.candidates)):
            raise ValueError(f"there is no candidate {reply.chosen}")
    return exchange


def _from_json(kind: Any, value: Any) -> Any:
    """Convert a JSON value to `kind`, a type of a field in `values.py`: a dataclass, a tuple of any length,
    literals, a dict, a plain type, or one of these or None."""
    if type(value) is kind:  # the common case, and the fast path
        return value
    arguments = get_args(kind)
    if value is None and type(None) in arguments:
        return None
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):  # keys of a newer version are ignored
        make: Any = kind
        return make(**{f.name: _from_json(f.type, value[f.name]) for f in fields(kind) if f.name in value})
    if type(None) in arguments:
        return _from_json(arguments[0], value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_from_json(arguments[0], item) for item in value)
    if get_origin(kind) is Literal and value in arguments:
        return value
    if type(value) is (get_origin(kind) or kind) or (kind is float and type(value) is int):
        return value
    raise TypeError(f"{str(value)[:20]!r} is not a {getattr(kind, '__name__', kind)}")
