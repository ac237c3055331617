"""The trace of a search, step by step; beam trees and attention heatmaps are drawn from it.

It is kept only with `DecodingOptions(trace=True)`. `ChatModel.codec` turns its ids into text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .text import SPECIAL_TOKENS, TextCodec

Fate = Literal["live", "finished", "pruned", "banned"]


@dataclass(frozen=True, slots=True)
class TracedCandidate:
    """A possible next token of a hypothesis, and what became of it.

    `fate` is "live" if the extended hypothesis stayed in the beam, "finished" if it became a finished reply,
    "pruned" if it ranked too low or was not drawn, and "banned" if `rule` forbids the token here.
    """

    id: int
    logp: float  # natural-log probability of this token
    total: float  # natural log, after the repetition penalty: what the extended hypothesis is ranked by
    fate: Fate
    rule: str | None = None  # the option that bans it, or "special" for special tokens
    score: float | None = None  # of a finished reply


@dataclass(frozen=True, slots=True)
class TracedRow:
    """A live hypothesis before the step, its attention, and the candidates for its next token."""

    tokens: tuple[int, ...]
    logp: float  # natural-log probability of these tokens
    align: tuple[float, ...]  # attention over the source's tokens, in text order; sums to 1
    candidates: tuple[TracedCandidate, ...]  # likeliest first


@dataclass(frozen=True, slots=True)
class TracedStep:
    rows: tuple[TracedRow, ...]


def trace_json(steps: Sequence[TracedStep], source: Sequence[int], codec: TextCodec) -> dict[str, Any]:
    """A trace as `edgechat reply --trace` writes it, with the text of every id (see docs/decoding.md)."""
    return {
        "source": [_token_json(id, codec) for id in source],
        "steps": [{"rows": [_row_json(row, codec) for row in step.rows]} for step in steps],
    }


def _row_json(row: TracedRow, codec: TextCodec) -> dict[str, Any]:
    return {
        "tokens": list(row.tokens),
        "text": codec.decode(row.tokens),
        "logp": row.logp,
        "align": list(row.align),
        "candidates": [
            {
                **_token_json(candidate.id, codec),
                "logp": candidate.logp,
                "total": candidate.total,
                "fate": candidate.fate,
                "rule": candidate.rule,
                "score": candidate.score,
            }
            for candidate in row.candidates
        ],
    }


def _token_json(id: int, codec: TextCodec) -> dict[str, Any]:
    """An id and its text: U+FFFD for part of a character, its name for a special token."""
    return {"id": id, "text": SPECIAL_TOKENS[id] if id < len(SPECIAL_TOKENS) else codec.decode([id])}
