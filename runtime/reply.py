"""What a model gives back: a reply with its candidates."""

from dataclasses import dataclass

from .trace import TracedStep


@dataclass(frozen=True)
class Candidate:
    """One of the n best replies. `score` is `logp` (natural log) with the repetition penalty, normalized by
    length, and with the coverage penalty (docs/decoding.md has the formula)."""

    text: str
    score: float
    logp: float
    tokens: tuple[str, ...]  # joined they are the text
    ids: tuple[int, ...]  # of the tokens: of two ways to spell the text, the likelier
    token_logps: tuple[float, ...]  # natural log; one more than tokens, the end-of-sentence, where finished
    finished: bool  # whether it came to its end; else the maximum length or a cancellation cut it
    #: With DecodingOptions(alignments=True), for each of `token_logps`: its attention over `Reply.source`;
    #: each sums to 1.
    alignments: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Reply:
    """The best reply, with the n best as `candidates`, best first. `str(reply)` is its text.

    There may be fewer than n: only what finished counts, unless nothing did, and one text counts once.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    ms: float  # wall time, milliseconds, from the call (of a stream: with what its consumer took)
    truncated: bool  # true where the prompt and its context were longer than the longest source
    trace: tuple[TracedStep, ...] | None = None  # with DecodingOptions(trace=True): what each step did
    confidence: float | None = None
    """The probability, from 0 to 1, that this is the right reply, where the bundle was calibrated and the
    options allow what its own do. None where not, and where the reply or its search was cut."""
    source: tuple[str, ...] = ()
    """The tokens of prompt and context that the model read, in text order. Special ones, as that between two
    turns, are empty."""

    @property
    def logp(self) -> float:
        """The natural-log probability of the best reply."""
        return self.candidates[0].logp

    @property
    def finished(self) -> bool:
        """Whether the best reply came to its end; else the maximum length or a cancellation cut it."""
        return self.candidates[0].finished

    def __str__(self) -> str:
        return self.text
