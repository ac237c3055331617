"""An exchange as the store keeps it, and as JSON has it."""

import dataclasses
import json
from typing import Any

from .values import CandidateRow, Exchange, Made, ReplyFacts


def reply_to_json(reply: ReplyFacts) -> dict[str, Any]:
    return dataclasses.asdict(reply)


def reply_from_json(values: dict[str, Any]) -> ReplyFacts:
    """The reply that `reply_to_json` wrote; keys of a newer version are left out."""
    known = _known(ReplyFacts, values)
    candidates = tuple(
        CandidateRow(
            **_known(CandidateRow, row)
            | {"tokens": tuple(row["tokens"]), "token_logps": tuple(row["token_logps"])}
        )
        for row in values["candidates"]
    )
    made = Made(**_known(Made, values["made"]) | {"seen": tuple(values["made"]["seen"])})
    return ReplyFacts(**known | {"candidates": candidates, "made": made, "step_ms": tuple(values["step_ms"])})


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values}


def columns(exchange: Exchange) -> tuple[Any, ...]:
    """Prompt, state, the text of the replies, mark, answer, details."""
    replies = {
        name: reply_to_json(reply)
        for name, reply in (("reply", exchange.reply), ("other", exchange.other))
        if reply
    }
    texts = [reply.text for reply in (exchange.reply, exchange.other) if reply]
    return (
        _text(exchange.prompt),
        exchange.state,
        _text("\n".join(texts)),
        exchange.mark,
        None if exchange.answer is None else _text(exchange.answer),
        json.dumps(replies),  # in ASCII: half a surrogate pair, which SQLite refuses, is escaped
    )


def _text(text: str) -> str:
    """What SQLite can keep of `text`: half a surrogate pair is no text."""
    return text.encode("utf-8", "replace").decode("utf-8")


def exchange_of(row: tuple[Any, ...]) -> Exchange:
    """The exchange of a row: id, prompt, state, mark, answer, details."""
    id, prompt, state, mark, answer, details = row
    replies = {name: reply_from_json(values) for name, values in json.loads(details).items()}
    return Exchange(prompt, state, replies.get("reply"), replies.get("other"), mark, answer, id)
