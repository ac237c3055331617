"""What one model may say, and how sure it is: searches are made of options here, and replies of searches."""

import threading
import time
from collections.abc import Sequence
from operator import attrgetter

from .calibration import Calibration
from .constraints import NO_TEXTS, ForcedPrefix, TextRules, shortest_superstring, text_rules
from .errors import UsageError
from .hypotheses import Hypothesis
from .options import DecodingOptions, refuse_company
from .replies import ClosedSet, closed_set
from .reply import Candidate, Reply
from .search import BeamSearch
from .text import EncodedSource, TextCodec

#: Sets of texts whose rules are remembered.
_KEPT_TEXTS = 16
#: The options that `ReplyMaker._make_texts` reads, and no others: whatever the seed or the beam, the rules
#: are the same.
_TEXTS = attrgetter("banned", "prefix", "required", "replies", "min_length", "max_length")


class _KeptRules:
    """Rules that one thread makes while others that ask for them wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rules: TextRules | None = None


class ReplyMaker:
    """Knows all of a model but how its steps are computed. Thread-safe.

    `closed` are the only replies that it gives, where its bundle says so; `calibration` is of replies with
    the bundle's own options.
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
        """Tokens that a reply has at most, end-of-sentence counted."""
        most = self.codec.max_target if options.max_length is None else options.max_length
        if options.min_length >= most:
            raise UsageError(
                f"min_length is {options.min_length}, but replies of this model have at most {most} tokens "
                "where max_length is not given"
            )
        return most

    def texts(self, options: DecodingOptions) -> TextRules:
        """The rules of the texts among the options, which are worth keeping: making them reads the
        whole vocabulary."""
        if options.replies is None and self.closed is not None:
            refuse_company("replies", options.given)
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
                closed = self.closed  # one object is compared at once
            return TextRules(only=closed, longest=closed.longest)
        most = self.max_length(options)
        if len(self.codec.encode(shortest_superstring(options.required))) >= most:
            raise UsageError(f"required texts have more tokens than a reply may have, {most} with its end")
        rules = text_rules(options, self.codec.vocabulary)
        if isinstance(rules.only, ForcedPrefix) and rules.only.fewest >= most:
            raise UsageError(f"prefix has more tokens than a reply may have, {most} with its end")
        return rules

    def confidence(self, logp: float, options: DecodingOptions) -> float | None:
        """The probability that a reply of this natural-log probability is right, by the bundle's
        calibration. None where there is none, or other replies are possible than those it was made with."""
        if self.calibration is None or not self._asks_the_same(options):
            return None
        return self.calibration.confidence(logp)

    def _asks_the_same(self, options: DecodingOptions) -> bool:
        """Whether these let and favour the same replies as the bundle's own options."""
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
        """A search for the reply to a source of ids."""
        return BeamSearch(
            options,
            max_length=self.max_length(options),
            vocab_size=self.codec.vocab_size,
            source=source,
            texts=self.texts(options),
        )

    def reply(self, search: BeamSearch, start: float, source: EncodedSource) -> Reply:
        """The result of a search over `source` that began at `start` (`time.perf_counter`)."""
        candidates: dict[str, Candidate] = {}
        for hypothesis in search.hypotheses():
            candidate = self._candidate(hypothesis, search.options.alignments)
            candidates.setdefault(candidate.text, candidate)  # two ways to spell one text are one reply
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
        """Let go of the rules that are remembered."""
        self._texts.clear()
