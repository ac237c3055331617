"""`DecodingOptions`: how a reply is searched for, with the check of every option.

docs/decoding.md explains each option, with its formula and source.
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

#: Options that need another option to have a certain value. Without it they are refused, never ignored.
REQUIRES = {
    "length_penalty": ("normalize", "gnmt"),
    "temperature": ("sample", True),
    "top_k": ("sample", True),
    "top_p": ("sample", True),
    "typical_p": ("sample", True),
    "seed": ("sample", True),
}
#: Options that exclude each other, and why; given together, they are refused.
EXCLUDES = {
    "replies": (
        ("banned", "prefix", "required", "no_repeat_ngram", "no_copy_ngram", "min_length", "max_length"),
        "a closed set lists every reply that is allowed",
    ),
    "sample": (("stop", "groups", "required"), "each sample is drawn on its own, until it ends"),
    "required": (("groups",), "each of them divides the beam"),
}

#: Options that `DecodingOptions.asks_the_same` does not compare.
_NOT_COMPARED = ("beam", "n_best", "stop", "alignments", "trace", "max_length", "replies")

MAX_BEAM = 1024
MAX_LENGTH = 10_000
MAX_TOP_K = 1_000_000
MAX_SEED = (1 << 53) - 1  # the largest whole number up to which JSON numbers are exact
MAX_TEXTS = 1000  # banned texts
MAX_REQUIRED = 16  # required texts
MAX_TEXT = 1000  # characters of one text
MAX_ALL = 20_000  # characters of all texts; the memory for each grows with the square of its length


@dataclass(frozen=True)
class DecodingOptions:
    """Options of the search, checked when the object is created. Lists of texts are kept as tuples.

    Raises:
        UsageError: names the option and its value, or the two options that cannot be used together.
    """

    beam: int = 5
    """Hypotheses kept at each step; 1 is greedy search. With `sample`, the number of replies drawn."""
    n_best: int = 1
    """Number of replies to return as candidates, at most `beam`."""
    normalize: Normalize = "gnmt"
    """How a log-probability becomes a score: see `penalties`."""
    length_penalty: float | None = None
    """alpha of `normalize="gnmt"`; None is 0.6, 0 is no normalization, larger values favor longer replies."""
    coverage_penalty: float = 0.0
    """beta of the coverage penalty (Wu et al. 2016), which lowers the score of a reply that leaves parts of
    the source unattended; 0 is off."""
    repetition_penalty: float = 1.0
    """Factor, at least 1, on the log-probability of a token that the reply already contains (after Keskar et
    al. 2019); 1 is off."""
    no_repeat_ngram: int | None = None
    """No n-gram of this many tokens occurs twice in a reply."""
    no_copy_ngram: int | None = None
    """No n-gram of this many tokens of the source occurs in the reply."""
    banned: tuple[str, ...] = ()
    """Texts that no reply contains, whichever tokens would spell them."""
    prefix: str | None = None
    """Text that every reply begins with; its tokens are scored like all others."""
    required: tuple[str, ...] = ()
    """Texts that every finished reply contains, in any order."""
    replies: tuple[str, ...] | None = None
    """A closed set: every reply is one of these texts. None is the bundle's own set, if it has one. The texts
    are normalized to NFC, also in the replies."""
    min_length: int = 0
    """Minimum number of tokens of a reply, end-of-sentence not counted."""
    max_length: int | None = None
    """Maximum number of tokens of a reply, end-of-sentence counted. None is the longest that the model
    learned."""
    stop: Stop = "exact"
    """"exact" stops when no live hypothesis can still become one of the n best, "first" when n replies have
    finished."""
    groups: int = 1
    """Number of groups into which the beam is divided for diverse beam search (Vijayakumar et al. 2016)."""
    diversity: float | None = None
    """What is subtracted from the score of a token for each hypothesis of an earlier group that chose it at
    the same step; None is 0.5."""
    sample: bool = False
    """Draw `beam` replies at random and return the `n_best` best of them (sample-and-rank, Adiwardana et al.
    2020). Their scores are those of the model, not of the distribution drawn from."""
    temperature: float | None = None
    """Divisor of the log-probabilities before the draw; None is 1."""
    top_k: int | None = None
    """Draw from the k likeliest tokens (Fan et al. 2018)."""
    top_p: float | None = None
    """Draw from the smallest set of likeliest tokens whose probabilities sum to at least p (Holtzman et al.
    2020)."""
    typical_p: float | None = None
    """Draw from the smallest set of tokens, those with the surprise nearest to the entropy first, whose
    probabilities sum to at least p (Meister et al. 2022)."""
    seed: int | None = None
    """Makes the draws repeatable; with None each call draws anew."""
    alignments: bool = False
    """Keep the attention of each token of a reply: `Candidate.alignments`."""
    trace: bool = False
    """Keep every step of the search: `Reply.trace`."""

    def __post_init__(self) -> None:
        self._keep(whole_number, "beam", 1, MAX_BEAM)
        self._keep(whole_number, "n_best", 1, MAX_BEAM)
        self._keep(whole_number, "min_length", 0, MAX_LENGTH)
        if self.max_length is not None:
            self._keep(whole_number, "max_length", 1, MAX_LENGTH)
            if self.min_length >= self.max_length:
                raise UsageError(
                    f"min_length is {self.min_length}, which must be less than max_length, "
                    f"{self.max_length}, since max_length counts the end-of-sentence"
                )
        if self.n_best > self.beam:
            raise UsageError(f"n_best is {self.n_best}, more than beam, which is {self.beam}: raise beam")
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
            raise UsageError(
                f"beam is {self.beam}, which cannot be divided into {self.groups} equal groups: use a "
                f"multiple of {self.groups}"
            )
        if self.diversity is not None:
            self._keep(number, "diversity", 0, 100)
            if self.groups == 1:
                raise UsageError("diversity needs groups to be at least 2")
        object.__setattr__(self, "banned", _texts("banned", self.banned, MAX_TEXTS))
        object.__setattr__(self, "required", _texts("required", self.required, MAX_REQUIRED))
        if self.prefix is not None:
            _text("prefix", self.prefix)
        if self.replies is not None:
            try:
                object.__setattr__(self, "replies", check_replies(self.replies))
            except ValueError as error:
                raise UsageError(f"replies: {error}") from None
        self._check_combination()

    def _keep(self, kind: Callable[..., float], name: str, least: float, most: float) -> None:
        """Check a number, and store it as a plain Python number."""
        object.__setattr__(self, name, kind(name, getattr(self, name), least, most))

    def _check_combination(self) -> None:
        """Refuse options that cannot be used together."""
        given = self.given
        for option, (mode, value) in REQUIRES.items():
            if option in given and getattr(self, mode) != value:
                if value is True:
                    raise UsageError(f"{option} needs {mode}, which is off")
                raise UsageError(f"{option} needs {mode} {value}, not {getattr(self, mode)}")
        for option in EXCLUDES:
            if option in given:
                check_exclusions(option, given)

    @property
    def given(self) -> frozenset[str]:
        """The names of all options that do not have their default value."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def asks_the_same(self, other: "DecodingOptions") -> bool:
        """Whether both allow the same replies and score them alike.

        How widely the search looks is not compared, nor are the longest reply and the closed set, whose
        defaults only a model knows.
        """
        return self._compared == other._compared

    @property
    def _compared(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_COMPARED}
        return values | {"length_penalty": self.alpha, "diversity": self.diversity_strength}

    @property
    def has_texts(self) -> bool:
        """Whether any text option is given. Enforcing one needs the vocabulary."""
        return bool(self.banned or self.required or self.prefix or self.replies)

    def longest_reply(self, max_target: int) -> int:
        """Maximum number of tokens of a reply, end-of-sentence counted, from a model that learned replies of
        at most `max_target`.

        Raises:
            UsageError: `min_length` leaves no room for the end-of-sentence.
        """
        if self.max_length is not None:  # which was compared with min_length in __post_init__
            return self.max_length
        if self.min_length >= max_target:
            raise UsageError(
                f"min_length is {self.min_length}, but replies of this model have at most {max_target} "
                "tokens, end-of-sentence counted, unless max_length is given"
            )
        return max_target

    def with_seed(self) -> "DecodingOptions":
        """The same options, with a seed if they sample without one, so that the draws can be repeated."""
        if not self.sample or self.seed is not None:
            return self
        return replace(self, seed=random.randrange(MAX_SEED + 1))

    @property
    def diversity_strength(self) -> float:
        """`diversity`, or its default."""
        return 0.5 if self.diversity is None else float(self.diversity)

    @property
    def alpha(self) -> float:
        """The exponent of the GNMT length penalty: `length_penalty`, or its default."""
        return 0.6 if self.length_penalty is None else float(self.length_penalty)

    @property
    def rows(self) -> int:
        """Rows of a sentence in every decoder call. At least two, so greedy search has a spare row: with one
        row the attention product uses another kernel, whose rounding depends on padding."""
        return max(2, self.beam)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DecodingOptions":
        if not isinstance(values, Mapping):
            raise UsageError(f"decoding options must be an object, not {shown(values)}")
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(f"unknown decoding option {shown(name)}")
        return cls(**values)


def check_exclusions(option: str, given: Collection[str], called: str | None = None) -> None:
    """Raise UsageError if `option` excludes one of the options `given`. The message names it, or what it is
    `called` if nobody gave it as an option."""
    others, why = EXCLUDES[option]
    for other in others:
        if other in given:
            raise UsageError(f"{other} cannot be used with {called or option}: {why}")


def check_beside_closed_set(given: Collection[str]) -> None:
    """Raise UsageError if one of the options `given` cannot be used with a bundle that has a closed set."""
    check_exclusions("replies", given, called="the closed set of this bundle")


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """`value` as an int; NumPy integers are accepted.

    Raises:
        UsageError: it is not a whole number from `least` to `most`; names the option and the value.
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is not None and least <= whole <= most:
        return whole
    raise UsageError(f"{name} must be a whole number from {least} to {most}, not {shown(value)}")


def number(name: str, value: Any, least: float, most: float) -> float:
    """Like `whole_number`, for any real number. An int stays an int, and NaN is refused."""
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
        raise UsageError(f"{name} must be valid Unicode, without lone surrogates, not {shown(value)}")
    return value


def _texts(name: str, values: object, most: int) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or len(values) > most:
        raise UsageError(f"{name} must be a list of at most {most} texts, not {shown(values)}")
    texts = tuple(_text(name, value) for value in values)
    if (total := sum(map(len, texts))) > MAX_ALL:
        raise UsageError(f"{name} must have at most {MAX_ALL:,} characters in total, not {total:,}")
    return texts
