"""The plain values that the chat screen hands to its widgets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BundleFacts:
    """What there is to say about a loaded model. `layers`, `hidden`, `vocabulary`, `size` (bytes) and
    `turns` (of a conversation that the model sees, the prompt included) are None where unknown."""

    name: str
    device: str
    precision: str = ""
    layers: int | None = None
    hidden: int | None = None
    vocabulary: int | None = None
    size: int | None = None
    turns: int | None = None


@dataclass(frozen=True)
class CandidateRow:
    """One of the n best replies. `score` is `logp` (natural log) normalized by length."""

    rank: int
    score: float
    logp: float
    text: str
    finished: bool


@dataclass(frozen=True)
class ReplyFacts:
    """A finished reply. `truncated`: the prompt with its context was longer than the model reads;
    `finished` is false where the maximum length cut the reply."""

    text: str
    candidates: tuple[CandidateRow, ...]
    tokens: int
    ms: float
    truncated: bool
    finished: bool

    @property
    def tokens_per_second(self) -> float | None:
        """None where there is nothing to measure."""
        return self.tokens / self.ms * 1e3 if self.tokens and self.ms > 0 else None


@dataclass(frozen=True)
class KeyHint:
    """A key as it is shown, and what it does."""

    key: str
    does: str


@dataclass(frozen=True)
class Status:
    """What the status line shows; what is None or empty is left out."""

    bundle: str
    state: str = ""
    precision: str = ""
    device: str = ""
    beam: int | None = None
    ms: float | None = None
    tokens_per_second: float | None = None
