"""What a search did, step by step: what a beam tree and an attention heatmap are drawn from.

Kept only where `DecodingOptions(trace=True)` asks for it. Ids become text with `ChatModel.codec`.
"""

from dataclasses import dataclass
from typing import Literal

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
