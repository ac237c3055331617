"""The plain values that screens, widgets and the store exchange. They do not depend on the runtime."""

import dataclasses
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

State = Literal["done", "stopped", "failed"]
Mark = Literal["good", "bad"]


@dataclass(frozen=True)
class BundleFacts:
    """What the chat shows of a loaded bundle. `layers`, `hidden`, `vocabulary`, `size` (bytes of all files)
    and `max_turns` (how many the model reads, including the prompt) are None if unknown."""

    name: str
    device: str
    precision: str = ""
    layers: int | None = None
    hidden: int | None = None
    vocabulary: int | None = None
    size: int | None = None
    max_turns: int | None = None
    path: str = ""
    fingerprint: str = ""  # identifies the contents, by a hash of the manifest; "" if unknown
    has_closed_set: bool = False  # the bundle has a closed set of replies

    @property
    def label(self) -> str:
        return " · ".join(part for part in (self.name, self.precision, self.device) if part)


@dataclass(frozen=True)
class BundleChoice:
    """A bundle that can be chosen. `about` describes an open bundle, and is "" for one that is not open.
    `place` is the absolute path, the same for every spelling of `path`."""

    path: str
    name: str
    about: str
    place: Path


@dataclass(frozen=True)
class CandidateRow:
    """One of the n best replies. `score` is `logp` (natural log) normalized by length."""

    rank: int
    score: float
    logp: float
    text: str
    finished: bool
    tokens: tuple[str, ...] = ()
    token_logps: tuple[float, ...] = ()  # natural log; includes the end of sentence if finished


@dataclass(frozen=True)
class ReplyOrigin:
    """How a reply was made: all that is needed to repeat it with the same bundle."""

    bundle: str = ""
    precision: str = ""
    device: str = ""
    fingerprint: str = ""
    path: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # of DecodingOptions
    seen: tuple[str, ...] = ()  # the turns given to the model, oldest first, the prompt last

    @property
    def label(self) -> str:
        return " · ".join(part for part in (self.bundle, self.precision, self.device) if part)


@dataclass(frozen=True)
class ReplyFacts:
    """A reply that has ended.

    `truncated`: the prompt with its context was longer than the model reads. `finished` is false if the reply
    was cut at the maximum length or stopped by the user. `text` is the reply in the conversation, that is,
    the text of `candidates[chosen]` if there are candidates.
    """

    text: str
    candidates: tuple[CandidateRow, ...] = ()
    tokens: int = 0
    ms: float = 0.0
    truncated: bool = False
    finished: bool = True
    chosen: int = 0
    made: ReplyOrigin = ReplyOrigin()
    step_ms: tuple[float, ...] = ()  # wall time of each step; the first includes the encoder
    first_ms: float | None = None  # from the start to the first settled text
    memory: int | None = None  # bytes held by the process when the reply ended
    confidence: float | None = None  # calibrated probability that the reply is right

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second, None if it cannot be measured."""
        return self.tokens / self.ms * 1e3 if self.tokens and self.ms > 0 else None

    def with_chosen(self, index: int) -> "ReplyFacts":
        """The reply with the candidate at `index` in the conversation."""
        row = self.candidates[index]
        return dataclasses.replace(self, text=row.text, finished=row.finished, chosen=index)


@dataclass(frozen=True, slots=True)
class AttendedToken:
    """A token of a reply with its attention and its alternatives."""

    text: str
    weights: tuple[float, ...]  # attention over the source tokens, in text order; sums to 1
    alternatives: tuple[
        tuple[str, float], ...
    ] = ()  # other tokens with their natural-log probability, likeliest first


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """A token that could continue a hypothesis. `fate` is live, finished, pruned or banned."""

    text: str
    logp: float  # natural log, of the token
    total: float  # natural log, of the hypothesis with this token, by which the search ranks
    fate: str
    rule: str = ""  # the rule that bans the token


@dataclass(frozen=True, slots=True)
class BeamRow:
    """A hypothesis before a step, and the tokens that could continue it."""

    text: str
    logp: float
    candidates: tuple[BeamCandidate, ...]


#: Maximum estimated size of the trace of one search, and of all traces in memory together.
MAX_TRACE_BYTES = 64_000_000


def estimate_trace_bytes(candidates: int, weights: int, prefix_bytes: int) -> int:
    """The memory of a trace in CPython: with this many candidates and weights of attention in all rows, and
    the tokens or texts of all hypotheses."""
    return 190 * candidates + 32 * weights + prefix_bytes


@dataclass(frozen=True)
class Trace:
    """The trace of a reply. It is not stored; a replay makes it again."""

    source: tuple[str, ...]  # the source tokens, with `SEPARATOR` between turns
    seen: tuple[str, ...]  # the turns that the model read, oldest first, without those that were cut entirely
    max_source: int  # maximum number of source tokens
    replies: tuple[tuple[AttendedToken, ...], ...]  # for each candidate; empty if it was not traced
    steps: tuple[tuple[BeamRow, ...], ...]
    cut: bool = False  # only the end of the oldest turn of `seen` was read

    @cached_property
    def size(self) -> int:
        """Estimated memory in bytes."""
        rows = [row for step in self.steps for row in step]
        weights = sum(len(token.weights) for reply in self.replies for token in reply)
        candidates = sum(len(row.candidates) for row in rows)
        return estimate_trace_bytes(candidates, weights, sum(len(row.text) for row in rows))


#: Shown for the separator token between two turns.
SEPARATOR = "⏐"

#: Shown for the end-of-sentence token. A token with the text "" holds only part of a character.
END = "⟨end⟩"


@dataclass(frozen=True)
class Exchange:
    """A prompt and its reply. `other` is the reply of the second bundle in a comparison, `answer` the user's
    correction. `id` is the row in the store, None if the exchange is not stored."""

    prompt: str
    state: State = "done"
    reply: ReplyFacts | None = None
    other: ReplyFacts | None = None
    mark: Mark | None = None
    answer: str | None = None
    id: int | None = None

    @property
    def replies(self) -> tuple[ReplyFacts | None, ReplyFacts | None]:
        """Both replies of a comparison, the first bundle's first."""
        return self.reply, self.other

    @property
    def bot_turn(self) -> str | None:
        """The bot's turn in the conversation: the correction or a completed reply, or else None."""
        if self.answer is not None:
            return self.answer
        return self.reply.text if self.reply and self.state == "done" else None

    @property
    def is_training_data(self) -> bool:
        """Whether the exchange is training data: the reply is marked good or corrected."""
        return self.bot_turn is not None and (self.answer is not None or self.mark == "good")

    def with_correction(self, answer: str) -> "Exchange":
        """The exchange with a correction, marked bad. A correction that is empty or equals the reply removes
        an earlier correction and its mark."""
        answer = answer.strip()
        if answer and not (self.state == "done" and self.reply and answer == self.reply.text.strip()):
            return replace(self, answer=answer, mark="bad")
        return self if self.answer is None else replace(self, answer=None, mark=None)


@dataclass(frozen=True)
class InspectorData:
    """What the inspector shows of the selected exchange."""

    reply: ReplyFacts | None = None
    trace: Trace | None = None
    facts: BundleFacts | None = None  # of the current bundle
    speeds: tuple[float, ...] = ()  # tokens per second of the conversation's replies
    hint: str = ""  # shown if the trace is not known


@dataclass(frozen=True)
class ConversationSummary:
    """A conversation in the list. `updated` is in seconds since 1970 and `exchanges` their number. If a
    search found something in an exchange, `excerpt` is the line and `found_in` the exchange, counted from
    1."""

    id: int
    title: str
    bundle: str
    updated: float
    exchanges: int
    excerpt: str = ""
    found_in: int | None = None


@dataclass(frozen=True)
class KeyHint:
    """A key as shown, and what it does. `id` is the action's name in `keys.toml`."""

    key: str
    description: str
    id: str = ""


@dataclass(frozen=True)
class Status:
    """What the status line shows. Values that are None or empty are left out."""

    bundle: str
    saved: bool = True  # the conversation is saved
    why_not_saved: str = ""
    activity: str = ""
    precision: str = ""
    device: str = ""
    has_closed_set: bool = False  # the bundle has a closed set of replies
    beam: int | None = None
    knobs_changed: bool = False  # some setting differs from the bundle's default
    ms: float | None = None
    tokens_per_second: float | None = None
