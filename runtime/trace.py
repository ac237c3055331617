"""What a search did, step by step: what a beam tree and an attention heatmap are drawn from.

Kept only where `DecodingOptions(trace=True)` asks for it. Ids become text with `ChatModel.codec`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .text import SPECIAL_TOKENS, TextCodec

Fate = Literal["live", "finished", "pruned", "banned"]


@dataclass(frozen=True, slots=True)
class TracedCandidate:
    """One way that a hypothesis could go on, and what became of it.

    It went on ("live"), ended a reply ("finished"), ranked too low or was not drawn ("pruned"), or may
    not come here at all ("banned", by `rule`).
    """

    id: int
    logp: float  # natural log, of this token
    total: float  # natural log, what the hypothesis with it is ranked by
    fate: Fate
    rule: str | None = None  # the option that bans it, or "special" for ids that are no words
    score: float | None = None  # of a finished reply


@dataclass(frozen=True, slots=True)
class TracedRow:
    """A live hypothesis before the step, what it looked at, and the candidates the model gave it."""

    tokens: tuple[int, ...]
    logp: float  # natural log
    align: tuple[float, ...]  # attention over the source's tokens, in text order; sums to 1
    candidates: tuple[TracedCandidate, ...]  # likeliest first


@dataclass(frozen=True, slots=True)
class TracedStep:
    rows: tuple[TracedRow, ...]


def trace_json(steps: Sequence[TracedStep], source: Sequence[int], codec: TextCodec) -> dict[str, Any]:
    """A trace as `edgechat reply --trace` writes it, with text beside every id (docs/decoding.md)."""
    return {
        "source": [_token(id, codec) for id in source],
        "steps": [{"rows": [_row(row, codec) for row in step.rows]} for step in steps],
    }


def _row(row: TracedRow, codec: TextCodec) -> dict[str, Any]:
    return {
        "tokens": list(row.tokens),
        "text": codec.decode(row.tokens),
        "logp": row.logp,
        "align": list(row.align),
        "candidates": [
            {
                **_token(candidate.id, codec),
                "logp": candidate.logp,
                "total": candidate.total,
                "fate": candidate.fate,
                "rule": candidate.rule,
                "score": candidate.score,
            }
            for candidate in row.candidates
        ],
    }


def _token(id: int, codec: TextCodec) -> dict[str, Any]:
    """An id and its text; a part of a character is U+FFFD, a special id its name."""
    return {"id": id, "text": SPECIAL_TOKENS[id] if id < len(SPECIAL_TOKENS) else codec.decode([id])}
