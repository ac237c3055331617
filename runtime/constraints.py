"""What a hypothesis may not, or must, say next.

Each rule is a small automaton over ids: a state for the hypothesis so far, the state `after` one more
id, and which ids a state bans (`Ban`), or which alone it allows (`Only`). States are never changed in
place, so the hypotheses of a beam share them; rules are made once and shared by all searches.

Rules about texts work on the bytes that ids stand for, not on one way to spell a text in ids: they
hold whatever tokens the model takes.
"""

import functools
import itertools
import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .arguments import shown
from .backend import Ints
from .choice import Progress
from .errors import UsageError
from .options import DecodingOptions
from .text import EOS, NEVER_GENERATED, SPECIAL_TOKENS, normal_form

#: The name, in a trace, of what bans the ids that are no words.
SPECIAL = "special"
_SPECIAL = frozenset(NEVER_GENERATED)
#: States of which a rule remembers what it found out: texts can make more than memory should hold.
_REMEMBERED = 512
#: The same, where it has as many numbers as the vocabulary.
_WHOLE = 16


class Ban(Protocol):
    """Ids that may not follow a hypothesis."""

    @property
    def name(self) -> str:
        """The option that it is from."""
        ...

    @property
    def start(self) -> Any:
        """The state of the empty hypothesis."""
        ...

    def after(self, state: Any, id: int) -> Any:
        """The state once `id` was said, which it did not ban."""
        ...

    def banned(self, state: Any) -> Collection[int]: ...


class Only(Protocol):
    """The only ids that may follow a hypothesis."""

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> Any: ...

    def after(self, state: Any, id: int) -> Any: ...

    def allowed(self, state: Any, left: int) -> Sequence[int] | None:
        """Where `left` tokens may still come, this one and the end-of-sentence among them; None where any
        may follow."""
        ...


@dataclass(frozen=True)
class MinLength:
    """The end-of-sentence is banned before `least` tokens. State: how many there are."""

    least: int
    name = "min_length"
    start = 0

    def after(self, state: int, id: int) -> int:
        return state + 1

    def banned(self, state: int) -> Collection[int]:
        return (EOS,) if state < self.least else ()


@dataclass(frozen=True)
class NoRepeat:
    """No n-gram comes twice. State: the ids so far, each as a character: what was said is found many times
    faster in a text than in a tuple.

    Worked example, n = 2: after [5 6 5], 6 is banned, since 5 6 was said.
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
        last, end = state[len(state) - before :], len(state) - 1  # something follows what lies before the end
        found = set()
        at = state.find(last, 0, end)
        while at >= 0:
            found.add(ord(state[at + before]))
            at = state.find(last, at + 1, end)
        return found


class NoCopy:
    """No n-gram of the source's words is said. State: the last n - 1 ids.

    Special ids are no words: an empty source is one end-of-sentence, which every reply has to say.
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
    """No text holds one of these. State: the longest end of the text that begins one of them, as bytes
    (a state of the automaton of Aho & Corasick 1975).

    Worked example, banned "bad": after "a b" the state is "b", which bans every token that begins with
    "ad", such as "adly", and at any time those that hold "bad".
    """

    name = "banned"
    start = b""

    def __init__(self, texts: Iterable[bytes], vocabulary: Sequence[bytes]) -> None:
        self._texts = tuple(texts)
        self._vocabulary = vocabulary
        self._longest = max(map(len, self._texts)) - 1
        self._beginnings = {text[:n] for text in self._texts for n in range(len(text))}
        self._whole = {id for id, said in enumerate(vocabulary) if any(text in said for text in self._texts)}
        self.banned = functools.lru_cache(_REMEMBERED)(self._banned)

    def after(self, state: bytes, id: int) -> bytes:
        said = (state + self._vocabulary[id])[-self._longest :] if self._longest else b""
        return next(said[at:] for at in range(len(said) + 1) if said[at:] in self._beginnings)

    def _banned(self, state: bytes) -> Collection[int]:
        begun = [state[at:] for at in range(len(state))]
        rests = tuple(
            text[len(beginning) :]
            for beginning in begun
            for text in self._texts
            if text.startswith(beginning)
        )
        return self._whole.union(id for id, said in enumerate(self._vocabulary) if said.startswith(rests))


class ForcedPrefix:
    """Every text begins with this. State: the bytes of it that are still to come.

    A token may be a part of the rest or begin with all of it, so that the model chooses how to spell it:
    of "turn", all of "t", "tu", "turn" and "turning" may be first. Only a spelling that would leave no room
    for the rest and the end-of-sentence may not be begun.
    """

    name = "prefix"

    def __init__(self, text: bytes, vocabulary: Sequence[bytes]) -> None:
        self.start = text
        self._vocabulary = vocabulary
        whole, ordered = set(vocabulary), sorted(vocabulary)
        longest = len(max(ordered, key=len))
        #: The fewest tokens that spell the last n bytes of the text, or more.
        self._fewest: list[float] = [0]
        for n in range(1, len(text) + 1):
            rest = text[-n:]
            after = [self._fewest[n - k] for k in range(1, min(n, longest) + 1) if rest[:k] in whole]
            at = bisect_left(ordered, rest)  # if tokens begin with the rest, the first of them is here
            if at < len(ordered) and ordered[at].startswith(rest):
                after.append(0)
            self._fewest.append(1 + min(after, default=math.inf))
        self._needed = functools.lru_cache(_REMEMBERED)(self._following)

    @property
    def fewest(self) -> float:
        """The fewest tokens that spell all of it."""
        return self._fewest[-1]

    def after(self, state: bytes, id: int) -> bytes:
        return state[len(self._vocabulary[id]) :]

    def allowed(self, state: bytes, left: int) -> Sequence[int] | None:
        if not state:
            return None
        return [id for id, more in self._needed(state).items() if more + 2 <= left]

    def _following(self, state: bytes) -> dict[int, float]:
        """By each id that goes on with it, how many tokens must follow."""
        return {
            id: self._fewest[len(self.after(state, id))]
            for id, said in enumerate(self._vocabulary)
            if said and (said.startswith(state) or state.startswith(said))
        }


class RequiredTexts:
    """The end-of-sentence is banned before every text was said. State: how many bytes of each are said at
    the end of the text, or all of them once it was said whole."""

    name = "required"

    def __init__(self, texts: Sequence[bytes], vocabulary: Sequence[bytes]) -> None:
        self._texts = tuple(texts)
        self._vocabulary = vocabulary
        self.start: tuple[int, ...] = (0,) * len(self._texts)
        cuts = range(1, min(max(map(len, vocabulary)), max(map(len, self._texts))) + 1)
        begin = tuple(text[:n] for text in self._texts for n in cuts)
        end = tuple(text[-n:] for text in self._texts for n in cuts)
        #: Ids whose bytes overlap a text: after any other, what was begun of one is begun no more.
        self._touching = [
            id
            for id, said in enumerate(vocabulary)
            if said
            and (
                said.startswith(end)
                or said.endswith(begin)
                or any(said in text or text in said for text in self._texts)
            )
        ]
        self._few = functools.lru_cache(_REMEMBERED)(self._leading_few)
        self.leading = functools.lru_cache(_WHOLE)(self._leading)

    def after(self, state: tuple[int, ...], id: int) -> tuple[int, ...]:
        said = self._vocabulary[id]
        return tuple(
            n if n == len(text) else _begun(text, text[:n] + said)
            for n, text in zip(state, self._texts, strict=True)
        )

    def banned(self, state: tuple[int, ...]) -> Collection[int]:
        return () if self.whole(state) == len(self._texts) else (EOS,)

    def whole(self, state: tuple[int, ...]) -> int:
        """How many texts were said."""
        return sum(n == len(text) for n, text in zip(state, self._texts, strict=True))

    def progress(self, state: tuple[int, ...]) -> Progress:
        """How near a state is to holding all texts."""
        whole = self.whole(state)
        begun = any(0 < n < len(text) for n, text in zip(state, self._texts, strict=True))
        return 2 * whole + begun, sum(state)

    def _leading(self, state: tuple[int, ...]) -> list[tuple[Progress, Ints]]:
        """All ids, lower ones first, those together that lead equally near, and the end by itself."""
        lost, few, named = self._few(state)
        others = np.ones(len(self._vocabulary), dtype=bool)
        others[named] = False
        return [(lost, np.flatnonzero(others)), *few]

    def _leading_few(self, state: tuple[int, ...]) -> tuple[Progress, list[tuple[Progress, Ints]], Ints]:
        """How near most ids lead, after which nothing is begun; the others as in `leading`, and all of
        them."""
        lost = self.progress(tuple(n * (n == len(t)) for n, t in zip(state, self._texts, strict=True)))
        alike: dict[Progress, list[int]] = {}
        for id in self._touching:
            alike.setdefault(self.progress(self.after(state, id)), []).append(id)
        alike.pop(lost, None)
        few = [(progress, np.array(ids)) for progress, ids in alike.items()]
        few.append((self.progress(state), np.array([EOS])))
        return lost, few, np.concatenate([ids for _, ids in few])


def _begun(text: bytes, said: bytes) -> int:
    """How many bytes of `text` stand at the end of `said`; all where it holds the whole."""
    if text in said:
        return len(text)
    longest = min(len(text) - 1, len(said))
    return next((n for n in range(longest, 0, -1) if said.endswith(text[:n])), 0)


def shortest_superstring(texts: Iterable[str]) -> str:
    """A text that holds all of these, nearly the shortest: the two that share most become one, until there is
    one left.

    Worked example: "left turn" and "turn around" share "turn", and "urn" stands within either: "left turn
    around".
    """
    left = sorted({normal_form(text).encode() for text in texts})
    while len(left) > 1:
        pairs = [(_begun(then, first), first, then) for first, then in itertools.permutations(left, 2)]
        shared, first, then = max(pairs, key=lambda pair: pair[0])
        left = [*(text for text in left if text not in (first, then)), first + then[shared:]]
    return b"".join(left).decode()


@dataclass(frozen=True)
class TextRules:
    """The rules that texts among the options make with one vocabulary."""

    bans: tuple[Ban, ...] = ()
    only: Only | None = None
    required: RequiredTexts | None = None
    longest: int | None = None  # tokens that they leave a reply at most, end-of-sentence counted


#: Where the options hold no text.
NO_TEXTS = TextRules()


def text_rules(options: DecodingOptions, vocabulary: Sequence[bytes]) -> TextRules:
    """The rules of the texts in `options`; `vocabulary` has the bytes of each id, none for special ids.

    Raises:
        UsageError: a text cannot be kept: the prefix holds what is banned.
    """
    prefix = None if options.prefix is None else normal_form(options.prefix).encode()
    banned = [normal_form(text).encode() for text in options.banned]
    for text in banned:
        if prefix is not None and text in prefix:
            raise UsageError(f"prefix holds {shown(text.decode())}, which is banned")
    required = [normal_form(text).encode() for text in options.required]
    for text, held in itertools.product(banned, required):
        if text in held:
            raise UsageError(f"required {shown(held.decode())} holds {shown(text.decode())}, which is banned")
    return TextRules(
        bans=(BannedTexts(banned, vocabulary),) if banned else (),
        required=RequiredTexts(required, vocabulary) if required else None,
        only=None if prefix is None else ForcedPrefix(prefix, vocabulary),
    )


def bans_of(options: DecodingOptions, source: Sequence[int], texts: TextRules) -> tuple[Ban, ...]:
    """Every rule that bans ids of replies to `source`."""
    bans: list[Ban] = []
    if options.min_length:
        bans.append(MinLength(options.min_length))
    if options.no_repeat_ngram:
        bans.append(NoRepeat(options.no_repeat_ngram))
    if options.no_copy_ngram:
        bans.append(NoCopy(options.no_copy_ngram, source))
    return (*bans, *texts.bans)


#: The states of all rules, of one hypothesis.
RuleState = tuple[Any, ...]


class Rules:
    """All rules of one search."""

    def __init__(self, options: DecodingOptions, source: Sequence[int], texts: TextRules) -> None:
        if texts is NO_TEXTS and options.has_texts:
            raise UsageError("banned, prefix, required and replies need a tokenizer: reply with a ChatModel")
        self.required = texts.required
        self._bans: tuple[Ban, ...] = (
            *([texts.required] if texts.required else []),
            *bans_of(options, source, texts),
        )
        self.only = texts.only
        self._all: tuple[Ban | Only, ...] = (*self._bans, *([self.only] if self.only else []))
        self.any = bool(self._all)
        self.start: RuleState = tuple(rule.start for rule in self._all)

    def after(self, state: RuleState, id: int) -> RuleState:
        """The state once `id` was said."""
        return tuple([rule.after(each, id) for rule, each in zip(self._all, state, strict=True)])

    def banned(self, state: RuleState) -> frozenset[int]:
        """The ids that may not come next, those that never may among them."""
        if not self._bans:
            return _SPECIAL
        return _SPECIAL.union(*(ban.banned(each) for ban, each in zip(self._bans, state, strict=False)))

    def allowed(self, state: RuleState, left: int) -> Sequence[int] | None:
        """The only ids that may come next, but for the banned ones; None where there is no such rule."""
        return self.only.allowed(state[-1], left) if self.only else None

    def leading(self, state: RuleState) -> list[tuple[Progress, Ints]]:
        """How near to the required texts each id leads: `RequiredTexts.leading`."""
        assert self.required is not None
        return self.required.leading(state[0])

    def blocks(self, state: RuleState, id: int, left: int) -> str | None:
        """The name of the first rule that keeps `id` from coming next."""
        if id in _SPECIAL:
            return SPECIAL
        for ban, each in zip(self._bans, state, strict=False):
            if id in ban.banned(each):
                return ban.name
        allowed = self.allowed(state, left)
        return self.only.name if self.only and allowed is not None and id not in allowed else None
