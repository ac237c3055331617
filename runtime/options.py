"""`DecodingOptions`: how a reply is searched for, with the check of every option.

docs/decoding.md explains each option, with its formula and source.
"""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from .arguments import check_number, check_one_of, check_whole_number, short_repr
from .closed_set import check_replies_argument
from .errors import UsageError
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

#: Options that `DecodingOptions.scores_replies_like` does not compare.
_OPTIONS_NOT_COMPARED = ("beam", "n_best", "stop", "alignments", "trace", "max_length", "replies")

MAX_BEAM = 1024
MAX_LENGTH = 10_000
MAX_TOP_K = 1_000_000
MAX_SEED = (1 << 53) - 1  # the largest whole number up to which JSON numbers are exact
MAX_BANNED_TEXTS = 1000
MAX_REQUIRED_TEXTS = 16
MAX_TEXT_LENGTH = 1000  # characters of one text
MAX_TOTAL_LENGTH = 20_000  # characters of all texts; the memory for each grows with its square


@dataclass(frozen=True)
class DecodingOptions:
    """Options of the search, checked when the object is created. Lists of texts become tuples.

    Raises:
        UsageError: names the option and its value, or the two options that cannot be used together.
    """

    beam: int = 5
    """Hypotheses kept at each step; 1 is greedy search. With `sample`, the number of replies drawn."""
    n_best: int = 1
    """Number of replies to return as candidates, at most `beam`."""
    normalize: Normalize = "gnmt"
    """How a log-probability becomes a score: see `scoring`."""
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
    banned: list[str] | tuple[str, ...] = ()
    """Texts that no reply contains, whichever tokens would spell them."""
    prefix: str | None = None
    """Text that every reply begins with; its tokens are scored like all others."""
    required: list[str] | tuple[str, ...] = ()
    """Texts that every finished reply contains, in any order."""
    replies: list[str] | tuple[str, ...] | None = None
    """A closed set: every reply is one of these texts, in NFC and without the white space around it. This
    field holds them in that form. None is the bundle's own set, if it has one."""
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
        self._check_and_set(check_whole_number, "beam", 1, MAX_BEAM)
        self._check_and_set(check_whole_number, "n_best", 1, MAX_BEAM)
        self._check_and_set(check_whole_number, "min_length", 0, MAX_LENGTH)
        if self.max_length is not None:
            self._check_and_set(check_whole_number, "max_length", 1, MAX_LENGTH)
            if self.min_length >= self.max_length:
                raise UsageError(
                    f"min_length is {self.min_length}, which must be less than max_length, "
                    f"{self.max_length}, since max_length counts the end-of-sentence"
                )
        if self.n_best > self.beam:
            raise UsageError(f"n_best is {self.n_best}, more than beam, which is {self.beam}: raise beam")
        check_one_of("normalize", self.normalize, get_args(Normalize))
        check_one_of("stop", self.stop, get_args(Stop))
        for name in ("sample", "alignments", "trace"):
            _check_bool(name, getattr(self, name))
        for name in ("no_repeat_ngram", "no_copy_ngram"):
            if getattr(self, name) is not None:
                self._check_and_set(check_whole_number, name, 1, MAX_LENGTH)
        if self.length_penalty is not None:
            self._check_and_set(check_number, "length_penalty", 0, 10)
        self._check_and_set(check_number, "coverage_penalty", 0, 10)
        self._check_and_set(check_number, "repetition_penalty", 1, 100)
        if self.temperature is not None:
            self._check_and_set(check_number, "temperature", 0.01, 100)
        if self.top_k is not None:
            self._check_and_set(check_whole_number, "top_k", 1, MAX_TOP_K)
        for name in ("top_p", "typical_p"):
            if getattr(self, name) is not None:
                self._check_and_set(check_number, name, 0.0001, 1)
        if self.seed is not None:
            self._check_and_set(check_whole_number, "seed", 0, MAX_SEED)
        self._check_and_set(check_whole_number, "groups", 1, MAX_BEAM)
        if self.beam % self.groups:
            raise UsageError(
                f"beam is {self.beam}, which cannot be divided into {self.groups} equal groups: use a "
                f"multiple of {self.groups}"
            )
        if self.diversity is not None:
            self._check_and_set(check_number, "diversity", 0, 100)
            if self.groups == 1:
                raise UsageError("diversity needs groups to be at least 2")
        object.__setattr__(self, "banned", _check_texts("banned", self.banned, MAX_BANNED_TEXTS))
        object.__setattr__(self, "required", _check_texts("required", self.required, MAX_REQUIRED_TEXTS))
        if self.prefix is not None:
            _check_text("prefix", self.prefix)
        if self.replies is not None:
            object.__setattr__(self, "replies", check_replies_argument(self.replies))
        self._check_combination()

    def _check_and_set(self, kind: Callable[..., float], name: str, minimum: float, maximum: float) -> None:
        """Check a number, and store it as a plain Python number."""
        object.__setattr__(self, name, kind(name, getattr(self, name), minimum, maximum))

    def _check_combination(self) -> None:
        """Refuse options that cannot be used together."""
        given = self.non_default
        for option, (mode, value) in REQUIRES.items():
            if option in given and getattr(self, mode) != value:
                if value is True:
                    raise UsageError(f"{option} needs {mode}, which is off")
                raise UsageError(f"{option} needs {mode} {value}, not {getattr(self, mode)}")
        for option in EXCLUDES:
            if option in given:
                check_exclusions(option, given)

    @property
    def non_default(self) -> frozenset[str]:
        """The names of all options that do not have their default value."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def scores_replies_like(self, other: "DecodingOptions") -> bool:
        """Whether both allow the same replies and score them alike.

        How widely the search looks is not compared, nor are the longest reply and the closed set, whose
        defaults only a model knows.
        """
        return self._compared_values == other._compared_values

    @property
    def _compared_values(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OPTIONS_NOT_COMPARED}
        return values | {"length_penalty": self.alpha, "diversity": self.diversity_strength}

    @property
    def has_text_options(self) -> bool:
        """Whether any text option is given. Enforcing one needs the vocabulary."""
        return bool(self.banned or self.required or self.prefix or self.replies)

    def max_reply_length(self, max_target: int) -> int:
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
            raise UsageError(f"decoding options must be an object, not {short_repr(values)}")
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(f"unknown decoding option {short_repr(name)}")
        return cls(**values)


def check_exclusions(option: str, given: Collection[str], display_name: str | None = None) -> None:
    """Raise UsageError if `option` excludes one of the options `given`. The message names it, or
    `display_name` if nobody gave it as an option."""
    others, why = EXCLUDES[option]
    for other in others:
        if other in given:
            raise UsageError(f"{other} cannot be used with {display_name or option}: {why}")


def check_closed_set_exclusions(given: Collection[str]) -> None:
    """Raise UsageError if one of the options `given` cannot be used with a bundle that has a closed set."""
    check_exclusions("replies", given, display_name="the closed set of this bundle")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {short_repr(value)}")


def _check_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_LENGTH:
        raise UsageError(f"{name} must be text of 1 to {MAX_TEXT_LENGTH} characters, not {short_repr(value)}")
    if not is_unicode(value):
        raise UsageError(f"{name} must be valid Unicode, without lone surrogates, not {short_repr(value)}")
    return value


def _check_texts(name: str, values: object, max_count: int) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or len(values) > max_count:
        raise UsageError(f"{name} must be a list of at most {max_count} texts, not {short_repr(values)}")
    texts = tuple(_check_text(name, value) for value in values)
    if (total := sum(map(len, texts))) > MAX_TOTAL_LENGTH:
        raise UsageError(f"{name} must have at most {MAX_TOTAL_LENGTH:,} characters in total, not {total:,}")
    return texts
