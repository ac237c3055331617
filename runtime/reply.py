"""The result of a search: a reply with its candidates."""

from dataclasses import dataclass

from .trace import TracedStep


@dataclass(frozen=True)
class Candidate:
    """One of the n best replies.

    `score`, by which candidates are ranked, is `logp` after the repetition penalty, length normalization and
    the coverage penalty; docs/decoding.md has the formula.
    """

    text: str
    score: float
    logp: float  # natural-log probability of the reply
    tokens: tuple[str, ...]  # joined, they are the text
    ids: tuple[int, ...]  # of the tokens; if several spellings of the text were found, of the best
    token_logps: tuple[float, ...]  # natural log, one per token and, if finished, the end-of-sentence
    finished: bool  # whether it ended by itself; False if the maximum length or a cancellation cut it off
    #: With DecodingOptions(alignments=True): for each of `token_logps`, the attention over `Reply.source`,
    #: which sums to 1.
    alignments: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Reply:
    """The best reply, with the n best as `candidates`, best first. `str(reply)` is its text.

    There may be fewer than n candidates: each text is listed once, and cut-off replies are listed only if no
    reply finished.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    ms: float
    """Wall time of the call in milliseconds. That of a stream includes the time of its consumer. Each reply
    of a batch has that of the whole batch."""
    truncated: bool  # whether the oldest text of prompt and context was dropped to fit the longest source
    trace: tuple[TracedStep, ...] | None = None  # with DecodingOptions(trace=True): every step of the search
    confidence: float | None = None
    """The calibrated probability, from 0 to 1, that this is the right reply. None if the bundle has no
    calibration, if the options allow other replies than the bundle's own or score them differently, if the
    reply was cut off, or if the search was cancelled."""
    source: tuple[str, ...] = ()
    """The tokens of the prompt and context that the model read, in text order. Special tokens, such as the
    separator of two turns, are empty strings."""

    @property
    def logp(self) -> float:
        """The natural-log probability of the best reply."""
        return self.candidates[0].logp

    @property
    def finished(self) -> bool:
        """Whether the best reply ended by itself: see `Candidate.finished`."""
        return self.candidates[0].finished

    def __str__(self) -> str:
        return self.text
