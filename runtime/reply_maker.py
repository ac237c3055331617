"""`ReplyMaker`: turns options into searches, and finished searches into replies with a confidence."""

import threading
import time
from collections.abc import Sequence
from operator import attrgetter

from .calibration import Calibration
from .closed_set import ClosedSet, make_closed_set
from .constraints import NO_TEXT_RULES, ForcedPrefix, TextRules, make_text_rules
from .errors import UsageError
from .hypotheses import Hypothesis
from .options import DecodingOptions, check_closed_set_exclusions
from .reply import Candidate, Reply
from .search import BeamSearch
from .text import EncodedSource, TextCodec

#: Number of sets of text options whose rules are cached.
_MAX_CACHED_RULES = 16
#: The options that `ReplyMaker._make_text_rules` reads. The rules are cached by them, since no other option,
#: such as the seed or the beam, changes the rules.
_rules_key = attrgetter("banned", "prefix", "required", "replies", "min_length", "max_length")


class _CachedRules:
    """A cache entry whose lock lets one thread create the rules while others wait for them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rules: TextRules | None = None


class ReplyMaker:
    """Everything about a model except how its steps are computed. Thread-safe.

    `defaults` are the bundle's default options, for which `calibration` was fitted; `closed_set` is the
    bundle's closed set of replies, if it has one.
    """

    def __init__(
        self,
        codec: TextCodec,
        defaults: DecodingOptions,
        *,
        closed_set: ClosedSet | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.codec: TextCodec = codec
        self.defaults: DecodingOptions = defaults
        self.closed_set: ClosedSet | None = closed_set
        self.calibration: Calibration | None = calibration
        self._rules_cache: dict[tuple[object, ...], _CachedRules] = {}
        self._cache_lock = threading.Lock()

    def max_length(self, options: DecodingOptions) -> int:
        """Maximum number of tokens of a reply, end-of-sentence counted."""
        return options.max_reply_length(self.codec.max_target)

    def check_options(self, options: DecodingOptions) -> None:
        """Raise UsageError if no reply of the model can satisfy the options."""
        self.max_length(options)
        self.text_rules(options)

    def text_rules(self, options: DecodingOptions) -> TextRules:
        """The rules for the text options. They are cached, since creating them reads the whole vocabulary."""
        if options.replies is None and self.closed_set is not None:
            check_closed_set_exclusions(options.non_default)
            return TextRules(allow_rule=self.closed_set, max_length=self.closed_set.max_length)
        if not options.has_text_options:
            return NO_TEXT_RULES
        key = _rules_key(options)
        with self._cache_lock:
            cached = self._rules_cache.pop(key, None) or _CachedRules()
            self._rules_cache[key] = cached  # the most recently used rules come last
            if len(self._rules_cache) > _MAX_CACHED_RULES:
                del self._rules_cache[next(iter(self._rules_cache))]
        with cached.lock:
            if cached.rules is None:
                cached.rules = self._make_text_rules(options)
            return cached.rules

    def _make_text_rules(self, options: DecodingOptions) -> TextRules:
        if options.replies is not None:
            closed = make_closed_set(options.replies, self.codec)
            if closed == self.closed_set:
                closed = self.closed_set  # comparing an object with itself is fast
            return TextRules(allow_rule=closed, max_length=closed.max_length)
        max_length = self.max_length(options)
        rules = make_text_rules(options, self.codec.vocabulary)
        if rules.required and rules.required.min_tokens >= max_length:
            raise UsageError(
                f"required texts do not fit into a reply of at most {max_length} tokens, "
                "end-of-sentence counted"
            )
        if isinstance(rules.allow_rule, ForcedPrefix) and rules.allow_rule.min_tokens >= max_length:
            raise UsageError(
                f"prefix does not fit into a reply of at most {max_length} tokens, end-of-sentence counted"
            )
        return rules

    def confidence(self, logp: float, options: DecodingOptions) -> float | None:
        """The calibrated probability that a reply of this natural-log probability is right. None if the
        bundle has no calibration, or if the options allow other replies than the bundle's defaults or score
        them differently."""
        if self.calibration is None or not self._scores_replies_like_defaults(options):
            return None
        return self.calibration.confidence(logp)

    def _scores_replies_like_defaults(self, options: DecodingOptions) -> bool:
        """Whether these allow the same replies as the bundle's default options, and score them alike."""
        defaults, longest = self.defaults, self.codec.max_target
        return (
            options.scores_replies_like(defaults)
            and (options.max_length or longest) == (defaults.max_length or longest)
            and self._closed_set(options) == self._closed_set(defaults)
        )

    def _closed_set(self, options: DecodingOptions) -> ClosedSet | None:
        rule = self.text_rules(options).allow_rule
        return rule if isinstance(rule, ClosedSet) else None

    def search(self, options: DecodingOptions, source: Sequence[int]) -> BeamSearch:
        """A new search for the reply to `source`, the ids of a prompt."""
        return BeamSearch(
            options,
            max_length=self.max_length(options),
            vocab_size=self.codec.vocab_size,
            source=source,
            text_rules=self.text_rules(options),
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

    def clear_cache(self) -> None:
        """Clear the cached rules."""
        with self._cache_lock:
            self._rules_cache.clear()
