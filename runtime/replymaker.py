"""`ReplyMaker`: turns options into searches, and finished searches into replies with a confidence."""

import threading
import time
from collections.abc import Sequence
from operator import attrgetter

from .calibration import Calibration
from .constraints import NO_TEXTS, ForcedPrefix, TextRules, shortest_superstring, text_rules
from .errors import UsageError
from .hypotheses import Hypothesis
from .options import DecodingOptions, check_beside_closed_set
from .replies import ClosedSet, closed_set
from .reply import Candidate, Reply
from .search import BeamSearch
from .text import EncodedSource, TextCodec

#: Number of sets of text options whose rules are cached.
_KEPT_TEXTS = 16
#: The options that `ReplyMaker._make_texts` reads. The rules are cached by them, since no other option, such
#: as the seed or the beam, changes the rules.
_TEXTS = attrgetter("banned", "prefix", "required", "replies", "min_length", "max_length")


class _KeptRules:
    """A cache entry whose lock lets one thread create the rules while others wait for them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rules: TextRules | None = None


class ReplyMaker:
    """Everything about a model except how its steps are computed. Thread-safe.

    `own` are the bundle's default options, for which `calibration` was fitted; `closed` is the bundle's
    closed set of replies, if it has one.
    """

    def __init__(
        self,
        codec: TextCodec,
        own: DecodingOptions,
        *,
        closed: ClosedSet | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.codec: TextCodec = codec
        self.own: DecodingOptions = own
        self.closed: ClosedSet | None = closed
        self.calibration: Calibration | None = calibration
        self._texts: dict[tuple[object, ...], _KeptRules] = {}

    def max_length(self, options: DecodingOptions) -> int:
        """Maximum number of tokens of a reply, end-of-sentence counted."""
        return options.longest_reply(self.codec.max_target)

    def texts(self, options: DecodingOptions) -> TextRules:
        """The rules for the text options. They are cached, since creating them reads the whole vocabulary."""
        if options.replies is None and self.closed is not None:
            check_beside_closed_set(options.given)
            return TextRules(only=self.closed, longest=self.closed.longest)
        if not options.has_texts:
            return NO_TEXTS
        key = _TEXTS(options)
        if key not in self._texts and len(self._texts) >= _KEPT_TEXTS:
            self._texts.clear()
        kept = self._texts.setdefault(key, _KeptRules())
        with kept.lock:
            if kept.rules is None:
                kept.rules = self._make_texts(options)
            return kept.rules

    def _make_texts(self, options: DecodingOptions) -> TextRules:
        if options.replies is not None:
            closed = closed_set(options.replies, self.codec)
            if closed == self.closed:
                closed = self.closed  # comparing an object with itself is fast
            return TextRules(only=closed, longest=closed.longest)
        most = self.max_length(options)
        if len(self.codec.encode(shortest_superstring(options.required))) >= most:
            raise UsageError(
                f"required texts do not fit into a reply of at most {most} tokens, end-of-sentence counted"
            )
        rules = text_rules(options, self.codec.vocabulary)
        if isinstance(rules.only, ForcedPrefix) and rules.only.fewest >= most:
            raise UsageError(
                f"prefix does not fit into a reply of at most {most} tokens, end-of-sentence counted"
            )
        return rules

    def confidence(self, logp: float, options: DecodingOptions) -> float | None:
        """The calibrated probability that a reply of this natural-log probability is right. None if the
        bundle has no calibration, or if the options allow other replies than the bundle's own or score them
        differently."""
        if self.calibration is None or not self._asks_the_same(options):
            return None
        return self.calibration.confidence(logp)

    def _asks_the_same(self, options: DecodingOptions) -> bool:
        """Whether these allow the same replies as the bundle's own options, and score them alike."""
        own, longest = self.own, self.codec.max_target
        return (
            options.asks_the_same(own)
            and (options.max_length or longest) == (own.max_length or longest)
            and self._closed_set(options) == self._closed_set(own)
        )

    def _closed_set(self, options: DecodingOptions) -> ClosedSet | None:
        only = self.texts(options).only
        return only if isinstance(only, ClosedSet) else None

    def search(self, options: DecodingOptions, source: Sequence[int]) -> BeamSearch:
        """A new search for the reply to `source`, the ids of a prompt."""
        return BeamSearch(
            options,
            max_length=self.max_length(options),
            vocab_size=self.codec.vocab_size,
            source=source,
            texts=self.texts(options),
        )

    def reply(self, search: BeamSearch, start: float, source: EncodedSource) -> Reply:
        """The reply of a search over `source` that began at `start` (`time.perf_counter`)."""
        candidates: dict[str, Candidate] = {}
        for hypothesis in search.hypotheses():
            candidate = self._candidate(hypothesis, search.options.alignments)
            candidates.setdefault(candidate.text, candidate)  # two spellings of one text are one reply
        best = next(iter(candidates.values()))
        ms = (time.perf_counter() - start) * 1e3
        trace = tuple(search.trace) if search.options.trace else None
        return Reply(
            best.text,
            best.score,
            best.tokens,
            tuple(candidates.values()),
            ms,
            source.truncated,
            trace,
            self.confidence(best.logp, search.options) if search.done and best.finished else None,
            tuple(self.codec.pieces(source.ids)),
        )

    def _candidate(self, hypothesis: Hypothesis, aligned: bool) -> Candidate:
        return Candidate(
            self.codec.decode(hypothesis.tokens),
            hypothesis.score,
            hypothesis.logp,
            tuple(self.codec.pieces(hypothesis.tokens)),
            hypothesis.tokens,
            hypothesis.token_logps,
            hypothesis.finished,
            tuple(map(tuple, hypothesis.alignments)) if aligned else None,
        )

    def forget(self) -> None:
        """Clear the cached rules."""
        self._texts.clear()
