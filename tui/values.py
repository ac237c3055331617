"""The plain values that screens, widgets and the store hand to each other: none of them knows the runtime."""

import dataclasses
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

State = Literal["done", "stopped", "failed"]
Mark = Literal["good", "bad"]


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
    path: str = ""
    fingerprint: str = ""  # of all that is in it, by its manifest; "" where unknown
    longest_reply: int | None = None  # tokens, end-of-sentence counted
    closed: bool = False  # it says one of a closed set of replies, and nothing else

    @property
    def label(self) -> str:
        return " · ".join(part for part in (self.name, self.precision, self.device) if part)


@dataclass(frozen=True)
class BundleChoice:
    """A bundle to choose; `about` says what is known of it, "" where it is not open."""

    path: str
    name: str
    about: str


@dataclass(frozen=True)
class CandidateRow:
    """One of the n best replies. `score` is `logp` (natural log) normalized by length."""

    rank: int
    score: float
    logp: float
    text: str
    finished: bool
    tokens: tuple[str, ...] = ()
    token_logps: tuple[float, ...] = ()  # natural log; one more than tokens, the end, where finished


@dataclass(frozen=True)
class Made:
    """How a reply was made: enough to make it again, where the bundle is the same."""

    bundle: str = ""
    precision: str = ""
    device: str = ""
    fingerprint: str = ""
    path: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # of DecodingOptions
    seen: tuple[str, ...] = ()  # turns that the model was given, oldest first, the prompt last

    @property
    def label(self) -> str:
        return " · ".join(part for part in (self.bundle, self.precision, self.device) if part)


@dataclass(frozen=True)
class ReplyFacts:
    """A finished reply. `truncated`: the prompt with its context was longer than the model reads;
    `finished` is false where the maximum length cut the reply, or the user did. `text` is what stands in
    the conversation: that of `candidates[chosen]`, where there are any."""

    text: str
    candidates: tuple[CandidateRow, ...] = ()
    tokens: int = 0
    ms: float = 0.0
    truncated: bool = False
    finished: bool = True
    chosen: int = 0
    made: Made = Made()
    step_ms: tuple[float, ...] = ()  # wall time of each step, the first with the encoder's
    first_ms: float | None = None  # from the call to the first settled piece
    memory: int | None = None  # bytes that the process held when the reply was there
    confidence: float | None = None  # that it is right, as a calibrated bundle estimates it

    @property
    def tokens_per_second(self) -> float | None:
        """None where there is nothing to measure."""
        return self.tokens / self.ms * 1e3 if self.tokens and self.ms > 0 else None

    def with_chosen(self, index: int) -> "ReplyFacts":
        """The reply with another of its candidates in place."""
        row = self.candidates[index]
        return dataclasses.replace(self, text=row.text, finished=row.finished, chosen=index)


@dataclass(frozen=True, slots=True)
class AttendedToken:
    """A token of a reply, what it looked at, and what else might have come. All logs are natural."""

    text: str
    weights: tuple[float, ...]  # over the source's tokens, in text order; sums to 1
    rivals: tuple[tuple[str, float], ...] = ()  # other tokens with their log-probability, likeliest first


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """A way that a hypothesis could go on. `fate` is live, finished, pruned or banned."""

    text: str
    logp: float  # natural log, of the token
    total: float  # natural log, what the hypothesis with it is ranked by
    fate: str
    rule: str = ""  # what bans it


@dataclass(frozen=True, slots=True)
class BeamRow:
    """A hypothesis before a step, and how it could go on."""

    text: str
    logp: float
    candidates: tuple[BeamCandidate, ...]


@dataclass(frozen=True)
class Insight:
    """How a reply came about. It is not kept: a replay finds it again."""

    source: tuple[str, ...]  # the source's tokens; between turns stands `SEPARATOR`
    seen: tuple[str, ...]  # the turns as the model read them, oldest first; none that was cut altogether
    longest: int  # tokens that a source may have
    replies: tuple[tuple[AttendedToken, ...], ...]  # for each candidate; empty where it was not followed
    steps: tuple[tuple[BeamRow, ...], ...]
    cut: bool = False  # of the oldest turn of `seen` the end is there only

    @cached_property
    def size(self) -> int:
        """Bytes that it takes, about, by what its parts take in CPython."""
        rows = [row for step in self.steps for row in step]
        weights = sum(len(token.weights) for reply in self.replies for token in reply)
        return sum(120 * len(row.candidates) + len(row.text) for row in rows) + 32 * weights


#: Stands for the token between two turns.
SEPARATOR = "⏐"

#: Stands for the end-of-sentence. A token that is "" is a part of a character, which a later one completes.
END = "⟨end⟩"


@dataclass(frozen=True)
class Exchange:
    """A prompt and what came of it. `other` is the reply of a second bundle to the same; `answer` is what
    the reply should have been, as the user wrote it. `id` is the store's, None where it is not kept."""

    prompt: str
    state: State = "done"
    reply: ReplyFacts | None = None
    other: ReplyFacts | None = None
    mark: Mark | None = None
    answer: str | None = None
    id: int | None = None

    @property
    def sides(self) -> tuple[ReplyFacts | None, ReplyFacts | None]:
        """The replies, as they stand side by side."""
        return self.reply, self.other

    @property
    def said(self) -> str | None:
        """What the conversation goes on with as the bot's turn; None where it said nothing that counts."""
        if self.answer is not None:
            return self.answer
        return self.reply.text if self.reply and self.state == "done" else None

    @property
    def teaches(self) -> bool:
        """Whether a model shall learn what was said: the user marked it good, or wrote it."""
        return self.said is not None and (self.answer is not None or self.mark == "good")

    def corrected(self, answer: str) -> "Exchange":
        """With what it should have said. An empty answer takes an earlier one back, and so does what the bot
        itself said, with the mark that came with it."""
        answer = answer.strip()
        if answer and not (self.state == "done" and self.reply and answer == self.reply.text.strip()):
            return replace(self, answer=answer, mark="bad")
        return self if self.answer is None else replace(self, answer=None, mark=None)


@dataclass(frozen=True)
class Looked:
    """A turn that is looked at, with all that the inspector shows of it."""

    reply: ReplyFacts | None = None
    insight: Insight | None = None
    facts: BundleFacts | None = None  # of the bundle that one talks to
    speeds: tuple[float, ...] = ()  # tokens a second of the conversation's replies
    hint: str = ""  # what stands where the way of the reply is not known


@dataclass(frozen=True)
class Summary:
    """A conversation in the list; `updated` in seconds since 1970. Where a search found what it looked for in
    what was said, `excerpt` is the line and `turn` the exchange, counted from 1."""

    id: int
    title: str
    bundle: str
    updated: float
    turns: int
    excerpt: str = ""
    turn: int | None = None


@dataclass(frozen=True)
class KeyHint:
    """A key as it is shown, and what it does; `id` is what the keys file calls that."""

    key: str
    does: str
    id: str = ""


@dataclass(frozen=True)
class Status:
    """What the status line shows; what is None or empty is left out."""

    bundle: str
    kept: bool = True  # what is said outlives the window
    state: str = ""
    precision: str = ""
    device: str = ""
    closed: bool = False  # the bundle has a closed set of replies
    beam: int | None = None
    changed: bool = False  # knobs are turned
    ms: float | None = None
    tokens_per_second: float | None = None
