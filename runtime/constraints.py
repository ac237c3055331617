"""Rules: which ids may not follow a hypothesis, or are the only ones that may.

Each rule is a small automaton over ids: it has a state for the hypothesis so far, the state `after` one more
id, and the ids that a state bans (`BanRule`), or the only ids that it allows (`AllowRule`). States are
immutable, so the hypotheses of a beam share them. Rules are created once and shared by all searches.

Rules about texts match the bytes that ids stand for, so they hold however a text is split into tokens.
"""

import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .arguments import short_repr
from .backend import Ints
from .errors import UsageError
from .options import DecodingOptions
from .selection import Progress
from .text import EOS, NEVER_GENERATED, SPECIAL_TOKENS, to_nfc

#: The rule, in a trace, that bans special tokens.
SPECIAL_TOKEN_RULE = "special"
_NEVER_ALLOWED = frozenset(NEVER_GENERATED)
#: Number of states whose results a rule caches. There can be too many states to cache them all.
_MAX_CACHED_STATES = 512
#: The same, for results as large as the vocabulary.
_MAX_CACHED_VOCABULARY_RESULTS = 16


class BanRule(Protocol):
    """Ids that may not follow a hypothesis."""

    @property
    def name(self) -> str:
        """The option that the rule implements."""
        ...

    @property
    def start(self) -> Any:
        """The state of the empty hypothesis."""
        ...

    def after(self, state: Any, id: int) -> Any:
        """The state after `id`, which must not be banned."""
        ...

    def banned(self, state: Any) -> Collection[int]: ...


class AllowRule(Protocol):
    """The only ids that may follow a hypothesis."""

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> Any: ...

    def after(self, state: Any, id: int) -> Any: ...

    def allowed(self, state: Any, left: int) -> Sequence[int] | None:
        """The ids that may follow; None if any may. `left` is the number of tokens that the reply may still
        have, including this one and the end-of-sentence."""
        ...


@dataclass(frozen=True)
class MinLength:
    """Bans the end-of-sentence before `minimum` tokens. State: the number of tokens."""

    minimum: int
    name = "min_length"
    start = 0

    def after(self, state: int, id: int) -> int:
        return state + 1

    def banned(self, state: int) -> Collection[int]:
        return (EOS,) if state < self.minimum else ()


@dataclass(frozen=True)
class NoRepeatNgram:
    """No n-gram occurs twice. State: the ids so far as a str, one character per id, because searching a str
    is many times faster than searching a tuple.

    Worked example, n = 2: after [5 6 5], 6 is banned, since 5 6 has occurred.
    """

    n: int
    name = "no_repeat_ngram"
    start = ""

    def after(self, state: str, id: int) -> str:
        return state + chr(id)  # graphs have at most 2^20 ids, and Unicode has more characters

    def banned(self, state: str) -> Collection[int]:
        before = self.n - 1
        if not before:
            return set(map(ord, state))
        if len(state) <= before:
            return ()
        last, end = state[len(state) - before :], len(state) - 1  # a match must have an id after it
        found = set()
        at = state.find(last, 0, end)
        while at >= 0:
            found.add(ord(state[at + before]))
            at = state.find(last, at + 1, end)
        return found


class NoCopyNgram:
    """No n-gram of the source occurs in the reply. State: the last n - 1 ids.

    N-grams with special ids are not counted: an empty source is one end-of-sentence, which every reply needs.
    """

    name = "no_copy_ngram"
    start: tuple[int, ...] = ()

    def __init__(self, n: int, source: Sequence[int]) -> None:
        self._before = n - 1
        self._following: dict[tuple[int, ...], set[int]] = {}
        for at in range(len(source) - n + 1):
            *before, last = gram = source[at : at + n]
            if min(gram) >= len(SPECIAL_TOKENS):
                self._following.setdefault(tuple(before), set()).add(last)

    def after(self, state: tuple[int, ...], id: int) -> tuple[int, ...]:
        said = (*state, id)
        return said[max(0, len(said) - self._before) :]

    def banned(self, state: tuple[int, ...]) -> Collection[int]:
        return self._following.get(state, ())


class BannedTexts:
    """No reply contains one of these texts. State: the longest suffix of the reply, as bytes, that is a
    prefix of one of them (a state of the automaton of Aho & Corasick 1975).

    Worked example, banned "bad": after "a b" the state is "b", which bans every token that begins with "ad",
    such as "adly". Tokens that contain "bad" are always banned.
    """

    name = "banned"
    start = b""

    def __init__(self, texts: Iterable[bytes], vocabulary: Sequence[bytes]) -> None:
        self._texts = frozenset(texts)
        self._ordered_texts = sorted(self._texts)
        self._vocabulary, self._sorted = vocabulary, _SortedVocabulary(vocabulary)
        self._max_state_length = max(map(len, self._texts)) - 1
        self._prefixes = {text[:n] for text in self._texts for n in range(len(text))}
        self._always_banned = self._find_always_banned()
        self.banned = functools.lru_cache(_MAX_CACHED_STATES)(self._banned)

    def _find_always_banned(self) -> set[int]:
        """The ids whose bytes contain a text. The automaton reads the bytes one by one, since to search for
        each of a thousand texts in each token would take many seconds."""

        @functools.cache
        def after(state: bytes, byte: int) -> bytes | None:
            """The state after one more byte; None if that completes a text."""
            said = state + bytes([byte])
            completes = any(said[at:] in self._texts for at in range(len(said)))
            return None if completes else self._longest_prefix_at_end(said)

        found = set()
        for id, said in enumerate(self._vocabulary):
            state: bytes | None = b""
            for byte in said:
                state = after(state, byte)
                if state is None:
                    found.add(id)
                    break
        return found

    def _longest_prefix_at_end(self, said: bytes) -> bytes:
        return next(said[at:] for at in range(len(said) + 1) if said[at:] in self._prefixes)

    def after(self, state: bytes, id: int) -> bytes:
        said = state + self._vocabulary[id]
        return self._longest_prefix_at_end(said[max(0, len(said) - self._max_state_length) :])

    def _banned(self, state: bytes) -> Collection[int]:
        banned = set(self._always_banned)
        for beginning in (state[at:] for at in range(len(state))):
            for text in self._ordered_texts[_slice_with_prefix(self._ordered_texts, beginning)]:
                banned.update(self._sorted.ids_with_prefix(text[len(beginning) :]))
        return banned


class _SortedVocabulary:
    """The ids in the order of their bytes: those with some prefix are found without looking at all."""

    def __init__(self, vocabulary: Sequence[bytes]) -> None:
        self._ids = sorted(range(len(vocabulary)), key=vocabulary.__getitem__)
        self._texts = [vocabulary[id] for id in self._ids]

    def ids_with_prefix(self, prefix: bytes) -> list[int]:
        return self._ids[_slice_with_prefix(self._texts, prefix)]

    def ids_of(self, text: bytes) -> list[int]:
        return self._ids[bisect_left(self._texts, text) : bisect_right(self._texts, text)]


def _slice_with_prefix(ordered: Sequence[bytes], prefix: bytes) -> slice:
    """Where the texts that begin with `prefix` are among these, which are in ascending order."""
    n = len(prefix)
    return slice(bisect_left(ordered, prefix), bisect_right(ordered, prefix, key=lambda text: text[:n]))


class ForcedPrefix:
    """Every reply begins with this text. State: the bytes of it that are still to come.

    A token may be part of the rest, or begin with all of it, so the model chooses the spelling: for "turn",
    the first token may be "t", "tu", "turn" or "turning". A token is not allowed if it would leave no room
    for the rest and the end-of-sentence.
    """

    name = "prefix"

    def __init__(self, text: bytes, vocabulary: Sequence[bytes]) -> None:
        self.start = text
        self._vocabulary, self._sorted = vocabulary, _SortedVocabulary(vocabulary)
        self._min_tokens_by_rest = _min_tokens_by_rest(text, vocabulary)
        self._cached_next_ids = functools.lru_cache(_MAX_CACHED_STATES)(self._next_ids)

    @property
    def min_tokens(self) -> float:
        """The minimum number of tokens that spell the whole text."""
        return self._min_tokens_by_rest[-1]

    def after(self, state: bytes, id: int) -> bytes:
        return state[len(self._vocabulary[id]) :]

    def allowed(self, state: bytes, left: int) -> Sequence[int] | None:
        if not state:
            return None
        return [id for id, more in self._cached_next_ids(state).items() if more + 2 <= left]

    def _next_ids(self, state: bytes) -> dict[int, float]:
        """Each id that may come next, with the minimum number of tokens of the prefix that must follow it."""
        parts = (self._sorted.ids_of(state[:n]) for n in range(1, len(state)))
        ids = sorted(itertools.chain(self._sorted.ids_with_prefix(state), *parts))
        return {id: self._min_tokens_by_rest[len(self.after(state, id))] for id in ids}


def _min_tokens_by_rest(text: bytes, vocabulary: Sequence[bytes]) -> list[float]:
    """At n: the minimum number of tokens that spell the last n bytes of the text, and perhaps more."""
    whole, ordered = set(vocabulary), sorted(vocabulary)
    longest = len(max(ordered, key=len))
    result: list[float] = [0]
    for n in range(1, len(text) + 1):
        rest = text[-n:]
        after = [result[n - k] for k in range(1, min(n, longest) + 1) if rest[:k] in whole]
        at = bisect_left(ordered, rest)  # where the first token that begins with the rest is, if any
        if at < len(ordered) and ordered[at].startswith(rest):
            after.append(0)
        result.append(1 + min(after, default=math.inf))
    return result


class RequiredTexts:
    """Bans the end-of-sentence until the reply contains every text. State: for each text, its length if the
    reply contains it, else how many of its first bytes the reply ends with."""

    name = "required"

    def __init__(self, texts: Sequence[bytes], vocabulary: Sequence[bytes]) -> None:
        self._texts = tuple(texts)
        self._vocabulary = vocabulary
        self.start: tuple[int, ...] = (0,) * len(self._texts)
        cuts = range(1, min(max(map(len, vocabulary)), max(map(len, self._texts))) + 1)
        begin = tuple(text[:n] for text in self._texts for n in cuts)
        end = tuple(text[-n:] for text in self._texts for n in cuts)
        #: Ids whose bytes overlap a text. Any other id discards the texts that were begun.
        self._overlapping_ids = [
            id
            for id, said in enumerate(vocabulary)
            if said
            and (
                said.startswith(end)
                or said.endswith(begin)
                or any(said in text or text in said for text in self._texts)
            )
        ]
        self._cached_overlapping_by_progress = functools.lru_cache(_MAX_CACHED_STATES)(
            self._overlapping_by_progress
        )
        self.ids_by_progress = functools.lru_cache(_MAX_CACHED_VOCABULARY_RESULTS)(self._ids_by_progress)

    def after(self, state: tuple[int, ...], id: int) -> tuple[int, ...]:
        said = self._vocabulary[id]
        return tuple(
            n if n == len(text) else _matched_length(text, text[:n] + said)
            for n, text in zip(state, self._texts, strict=True)
        )

    def banned(self, state: tuple[int, ...]) -> Collection[int]:
        return () if self.count_complete(state) == len(self._texts) else (EOS,)

    @property
    def min_tokens(self) -> float:
        """A lower bound of the number of tokens of a reply that contains all texts: the minimum for the text
        that needs most."""
        return max(map(self._min_tokens_of, self._texts))

    def _min_tokens_of(self, text: bytes) -> float:
        """The minimum number of tokens that contain `text`. The first may begin before it, the last may go
        beyond it.

        Worked example: " tha" is in the single token " that", though the tokenizer spells it " th", "a".
        """
        overlapping = [self._vocabulary[id] for id in self._overlapping_ids]
        if any(text in said for said in overlapping):
            return 1
        begun = {
            n
            for said in overlapping
            for n in range(1, min(len(said) + 1, len(text)))
            if said.endswith(text[:n])
        }
        rest = _min_tokens_by_rest(text, self._vocabulary)
        return 1 + min((rest[len(text) - n] for n in begun), default=math.inf)

    def count_complete(self, state: tuple[int, ...]) -> int:
        """The number of texts that the reply contains."""
        return sum(n == len(text) for n, text in zip(state, self._texts, strict=True))

    def progress(self, state: tuple[int, ...]) -> Progress:
        """The progress of a state towards all texts."""
        complete = self.count_complete(state)
        begun = any(0 < n < len(text) for n, text in zip(state, self._texts, strict=True))
        return 2 * complete + begun, sum(state)

    def _ids_by_progress(self, state: tuple[int, ...]) -> list[tuple[Progress, Ints]]:
        """All ids in ascending order, grouped by the progress that they lead to; the end-of-sentence is a
        group by itself."""
        lost, few, named = self._cached_overlapping_by_progress(state)
        others = np.ones(len(self._vocabulary), dtype=bool)
        others[named] = False
        return [(lost, np.flatnonzero(others)), *few]

    def _overlapping_by_progress(
        self, state: tuple[int, ...]
    ) -> tuple[Progress, list[tuple[Progress, Ints]], Ints]:
        """The progress that most ids lead to, which discard what was begun; the other ids grouped as in
        `ids_by_progress`; and all those other ids."""
        lost = self.progress(tuple(n * (n == len(t)) for n, t in zip(state, self._texts, strict=True)))
        alike: dict[Progress, list[int]] = {}
        for id in self._overlapping_ids:
            alike.setdefault(self.progress(self.after(state, id)), []).append(id)
        alike.pop(lost, None)
        few = [(progress, np.array(ids)) for progress, ids in alike.items()]
        few.append((self.progress(state), np.array([EOS])))
        return lost, few, np.concatenate([ids for _, ids in few])


def _matched_length(text: bytes, said: bytes) -> int:
    """How many of the first bytes of `text` end `said`; the length of `text` if `said` contains it."""
    if text in said:
        return len(text)
    longest = min(len(text) - 1, len(said))
    return next((n for n in range(longest, 0, -1) if said.endswith(text[:n])), 0)


@dataclass(frozen=True)
class TextRules:
    """The rules for the text options, for one vocabulary."""

    bans: tuple[BanRule, ...] = ()
    allow_rule: AllowRule | None = None
    required: RequiredTexts | None = None
    max_length: int | None = None  # maximum tokens of a reply that they imply, end-of-sentence counted


#: The rules if there are no text options.
NO_TEXT_RULES = TextRules()


def make_text_rules(options: DecodingOptions, vocabulary: Sequence[bytes]) -> TextRules:
    """The rules for the text options except `replies`. `vocabulary` has the bytes of each id; those of
    special ids are empty.

    Raises:
        UsageError: the prefix or a required text contains a banned text.
    """
    prefix = None if options.prefix is None else to_nfc(options.prefix).encode()
    banned = [to_nfc(text).encode() for text in options.banned]
    for text in banned:
        if prefix is not None and text in prefix:
            raise UsageError(f"prefix contains {short_repr(text.decode())}, which is banned")
    required = [to_nfc(text).encode() for text in options.required]
    for text, held in itertools.product(banned, required):
        if text in held:
            raise UsageError(
                f"required {short_repr(held.decode())} contains {short_repr(text.decode())}, which is banned"
            )
    return TextRules(
        bans=(BannedTexts(banned, vocabulary),) if banned else (),
        required=RequiredTexts(required, vocabulary) if required else None,
        allow_rule=None if prefix is None else ForcedPrefix(prefix, vocabulary),
    )


def make_ban_rules(
    options: DecodingOptions, source: Sequence[int], text_rules: TextRules
) -> tuple[BanRule, ...]:
    """Every rule that bans ids in replies to `source`."""
    bans: list[BanRule] = []
    if options.min_length:
        bans.append(MinLength(options.min_length))
    if options.no_repeat_ngram:
        bans.append(NoRepeatNgram(options.no_repeat_ngram))
    if options.no_copy_ngram:
        bans.append(NoCopyNgram(options.no_copy_ngram, source))
    return (*bans, *text_rules.bans)


#: The states of all rules for one hypothesis.
RuleState = tuple[Any, ...]


class Rules:
    """All rules of one search."""

    def __init__(self, options: DecodingOptions, source: Sequence[int], text_rules: TextRules) -> None:
        if text_rules is NO_TEXT_RULES and options.has_text_options:
            raise UsageError("banned, prefix, required and replies need a tokenizer: use a ChatModel")
        self.required = text_rules.required
        self._bans: tuple[BanRule, ...] = (
            *([text_rules.required] if text_rules.required else []),
            *make_ban_rules(options, source, text_rules),
        )
        self.allow_rule = text_rules.allow_rule
        self._all: tuple[BanRule | AllowRule, ...] = (
            *self._bans,
            *([self.allow_rule] if self.allow_rule else []),
        )
        self.has_rules = bool(self._all)
        self.start: RuleState = tuple(rule.start for rule in self._all)

    def after(self, state: RuleState, id: int) -> RuleState:
        """The state after `id`."""
        return tuple([rule.after(each, id) for rule, each in zip(self._all, state, strict=True)])

    def banned(self, state: RuleState) -> frozenset[int]:
        """The ids that may not follow, including those that never may."""
        if not self._bans:
            return _NEVER_ALLOWED
        return _NEVER_ALLOWED.union(*(ban.banned(each) for ban, each in zip(self._bans, state, strict=False)))

    def allowed(self, state: RuleState, left: int) -> Sequence[int] | None:
        """The only ids that may follow, of which some may be banned; None if any may."""
        return self.allow_rule.allowed(state[-1], left) if self.allow_rule else None

    def ids_by_progress(self, state: RuleState) -> list[tuple[Progress, Ints]]:
        """The ids grouped by the progress towards the required texts that they lead to: see
        `RequiredTexts.ids_by_progress`."""
        assert self.required is not None
        return self.required.ids_by_progress(state[0])

    def blocking_rule(self, state: RuleState, id: int, left: int) -> str | None:
        """The name of the first rule that forbids `id` to follow; None if no rule does."""
        if id in _NEVER_ALLOWED:
            return SPECIAL_TOKEN_RULE
        for ban, each in zip(self._bans, state, strict=False):
            if id in ban.banned(each):
                return ban.name
        allowed = self.allowed(state, left)
        return self.allow_rule.name if self.allow_rule and allowed is not None and id not in allowed else None
