"""How a reply is searched for: one frozen object that is schema, validation and help at once.

docs/decoding.md explains each option with its formula and where it is from.
"""

import math
import operator
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, get_args

from .arguments import one_of, shown
from .errors import UsageError
from .replies import check_replies
from .text import is_unicode

Normalize = Literal["none", "gnmt", "average"]
Stop = Literal["exact", "first"]

#: Which option goes with which mode only; given with another, it is refused, never ignored.
GOES_WITH = {
    "length_penalty": ("normalize", "gnmt"),
    "temperature": ("sample", True),
    "top_k": ("sample", True),
    "top_p": ("sample", True),
    "typical_p": ("sample", True),
    "seed": ("sample", True),
}
#: Which options do not go together, and why; given together, they are refused.
EXCLUDES = {
    "replies": (
        ("banned", "prefix", "required", "no_repeat_ngram", "no_copy_ngram", "min_length", "max_length"),
        "a closed set of replies says all that may be said",
    ),
    "sample": (("stop", "groups", "required"), "samples are drawn, each for itself and to its end"),
    "required": (("groups",), "both share the beam out"),
}

#: What `DecodingOptions.asks_the_same` leaves out.
_NOT_ASKED = ("beam", "n_best", "stop", "alignments", "trace", "max_length", "replies")

MAX_BEAM = 1024
MAX_LENGTH = 10_000
MAX_TOP_K = 1_000_000
MAX_SEED = (1 << 53) - 1  # what a JSON number holds exactly
MAX_TEXTS = 1000  # banned phrases
MAX_REQUIRED = 16
MAX_TEXT = 1000  # characters of one
MAX_ALL = 20_000  # characters of all; the memory of their rules grows with the square of each one's length


@dataclass(frozen=True)
class DecodingOptions:
    """Options of the search. All are checked when the object is made; a list of texts, as JSON has it, is
    kept as a tuple.

    Raises:
        UsageError: names the option and the value it got, or the two options that do not go together.
    """

    beam: int = 5
    """Hypotheses kept at each step; 1 is greedy search. With `sample`, how many replies are drawn."""
    n_best: int = 1
    """Finished hypotheses wanted, at most `beam`."""
    normalize: Normalize = "gnmt"
    """How a log-probability becomes a score: see `penalties`."""
    length_penalty: float | None = None
    """alpha of `normalize="gnmt"` (0.6 where None); 0 is no normalization, larger favours longer replies."""
    coverage_penalty: float = 0.0
    """beta of the coverage penalty (Wu et al. 2016): what it takes off a reply that leaves parts of the
    source unattended; 0 is none."""
    repetition_penalty: float = 1.0
    """What the log-probability of a token that the reply already holds is multiplied by (after Keskar et
    al. 2019), at least 1; 1 is none."""
    no_repeat_ngram: int | None = None
    """No n-gram of so many tokens comes twice in a reply."""
    no_copy_ngram: int | None = None
    """No n-gram of so many tokens of the source comes in the reply."""
    banned: tuple[str, ...] = ()
    """Texts that no reply holds, whatever tokens would spell them."""
    prefix: str | None = None
    """What every reply begins with; its tokens are scored as all are."""
    required: tuple[str, ...] = ()
    """Texts that every finished reply holds, in any order."""
    replies: tuple[str, ...] | None = None
    """A closed set: one of these is said, nothing else; None is the bundle's own set, where it has one. They
    are kept in NFC, in which they are said."""
    min_length: int = 0
    """Tokens that a reply has at least, end-of-sentence not counted."""
    max_length: int | None = None
    """Tokens that a reply has at most, end-of-sentence counted; None is the longest the model learned."""
    stop: Stop = "exact"
    """"exact" ends when no live hypothesis can still enter the n best, "first" with the n-th finished one."""
    groups: int = 1
    """Groups of `beam / groups` hypotheses that keep off each other's words (Vijayakumar et al. 2016)."""
    diversity: float | None = None
    """What a word takes for each hypothesis of an earlier group that goes on with it too; None is 0.5."""
    sample: bool = False
    """Draw replies at random, `beam` of them, of which the `n_best` best are given (sample and rank,
    Adiwardana et al. 2020). Scores stay those of the model, whatever the draw was from."""
    temperature: float | None = None
    """What log-probabilities are divided by before the draw; None is 1."""
    top_k: int | None = None
    """Draw among the so many likeliest ids (Fan et al. 2018)."""
    top_p: float | None = None
    """Draw among the fewest likeliest ids with this probability together (Holtzman et al. 2020)."""
    typical_p: float | None = None
    """Draw among the fewest ids nearest to the expected surprise with this probability together (Meister et
    al. 2022)."""
    seed: int | None = None
    """Makes the draws repeatable; None draws anew each time."""
    alignments: bool = False
    """Keep what each token of a reply looked at: `Candidate.alignments`."""
    trace: bool = False
    """Keep what each step did: `Reply.trace`."""

    def __post_init__(self) -> None:
        self._keep(whole_number, "beam", 1, MAX_BEAM)
        self._keep(whole_number, "n_best", 1, MAX_BEAM)
        self._keep(whole_number, "min_length", 0, MAX_LENGTH)
        if self.max_length is not None:
            self._keep(whole_number, "max_length", 1, MAX_LENGTH)
            if self.min_length >= self.max_length:
                raise UsageError(
                    f"min_length is {self.min_length}, which must be below max_length, {self.max_length}: "
                    "max_length counts the end-of-sentence"
                )
        if self.n_best > self.beam:
            raise UsageError(f"n_best is {self.n_best}, more than beam, {self.beam}: raise beam")
        one_of("normalize", self.normalize, get_args(Normalize))
        one_of("stop", self.stop, get_args(Stop))
        for name in ("sample", "alignments", "trace"):
            _true_or_false(name, getattr(self, name))
        for name in ("no_repeat_ngram", "no_copy_ngram"):
            if getattr(self, name) is not None:
                self._keep(whole_number, name, 1, MAX_LENGTH)
        if self.length_penalty is not None:
            self._keep(number, "length_penalty", 0, 10)
        self._keep(number, "coverage_penalty", 0, 10)
        self._keep(number, "repetition_penalty", 1, 100)
        if self.temperature is not None:
            self._keep(number, "temperature", 0.01, 100)
        if self.top_k is not None:
            self._keep(whole_number, "top_k", 1, MAX_TOP_K)
        for name in ("top_p", "typical_p"):
            if getattr(self, name) is not None:
                self._keep(number, name, 0.0001, 1)
        if self.seed is not None:
            self._keep(whole_number, "seed", 0, MAX_SEED)
        self._keep(whole_number, "groups", 1, MAX_BEAM)
        if self.beam % self.groups:
            raise UsageError(f"beam is {self.beam}, which {self.groups} groups cannot share: take a multiple")
        if self.diversity is not None:
            self._keep(number, "diversity", 0, 100)
            if self.groups == 1:
                raise UsageError("diversity goes with groups, of which there is one")
        object.__setattr__(self, "banned", _texts("banned", self.banned, MAX_TEXTS))
        object.__setattr__(self, "required", _texts("required", self.required, MAX_REQUIRED))
        if self.prefix is not None:
            _text("prefix", self.prefix)
        if self.replies is not None:
            try:
                object.__setattr__(self, "replies", check_replies(self.replies))
            except ValueError as error:
                raise UsageError(f"replies: {error}") from None
        self._check_company()

    def _keep(self, kind: Callable[..., float], name: str, least: float, most: float) -> None:
        """Check a number, and keep it as Python's own."""
        object.__setattr__(self, name, kind(name, getattr(self, name), least, most))

    def _check_company(self) -> None:
        """Refuse what does not go together."""
        given = self.given
        for option, (mode, value) in GOES_WITH.items():
            if option in given and getattr(self, mode) != value:
                if value is True:
                    raise UsageError(f"{option} goes with {mode}, which is off")
                raise UsageError(f"{option} goes with {mode} {value}, not with {mode} {getattr(self, mode)}")
        for option in EXCLUDES:
            if option in given:
                refuse_company(option, given)

    @property
    def given(self) -> frozenset[str]:
        """The names of all options that are not at their default."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def asks_the_same(self, other: "DecodingOptions") -> bool:
        """Whether both let and favour the same replies, however widely they are searched, and but for what a
        model completes: the longest reply and the closed set."""
        return self._asked == other._asked

    @property
    def _asked(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_ASKED}
        return values | {"length_penalty": self.alpha, "diversity": self.diversity_strength}

    @property
    def has_texts(self) -> bool:
        """Whether an option is text, whose rules need the vocabulary."""
        return bool(self.banned or self.required or self.prefix or self.replies)

    def with_seed(self) -> "DecodingOptions":
        """These, with a seed where they draw and have none: the same draws can then be made again."""
        if not self.sample or self.seed is not None:
            return self
        return replace(self, seed=random.randrange(MAX_SEED + 1))

    @property
    def diversity_strength(self) -> float:
        """The diversity of groups."""
        return 0.5 if self.diversity is None else float(self.diversity)

    @property
    def alpha(self) -> float:
        """The exponent of the GNMT length penalty."""
        return 0.6 if self.length_penalty is None else float(self.length_penalty)

    @property
    def rows(self) -> int:
        """Rows a sentence has in every decoder call: at least two (greedy carries a spare), since with
        one row the attention product takes another kernel whose rounding depends on padding."""
        return max(2, self.beam)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DecodingOptions":
        if not isinstance(values, Mapping):
            raise UsageError(f"decoding options are an object, not {shown(values)}")
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(f"unknown decoding option {shown(name)}")
        return cls(**values)


def refuse_company(option: str, given: Collection[str]) -> None:
    """Raises UsageError where an option of `given` does not go with `option`."""
    others, why = EXCLUDES[option]
    for other in others:
        if other in given:
            raise UsageError(f"{other} does not go with {option}: {why}")


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """`value` as an int, NumPy's taken too.

    Raises:
        UsageError: with the name and the value, where it is not what it must be.
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is not None and least <= whole <= most:
        return whole
    raise UsageError(f"{name} must be a whole number from {least} to {most}, not {shown(value)}")


def number(name: str, value: Any, least: float, most: float) -> float:
    """As `whole_number`, for any number, which stays whole where it is; NaN is none."""
    real: Any = value if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if least <= real <= most:
        return int(real) if isinstance(real, int) else float(real)
    raise UsageError(f"{name} must be a number from {least} to {most}, not {shown(value)}")


def _true_or_false(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {shown(value)}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise UsageError(f"{name} must be text of 1 to {MAX_TEXT} characters, not {shown(value)}")
    if not is_unicode(value):
        raise UsageError(f"{name} must be text, not half of a surrogate pair: {shown(value)}")
    return value


def _texts(name: str, values: object, most: int) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or len(values) > most:
        raise UsageError(f"{name} must be a list of at most {most} texts, not {shown(values)}")
    texts = tuple(_text(name, value) for value in values)
    if (total := sum(map(len, texts))) > MAX_ALL:
        raise UsageError(f"{name} must have at most {MAX_ALL:,} characters in all, not {total:,}")
    return texts
