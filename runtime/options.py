"""How a reply is searched for: one frozen object that is schema, validation and help at once."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from .errors import UsageError

Normalize = Literal["none", "gnmt", "average"]
Stop = Literal["exact", "first"]

#: Which option goes with which mode only; given with another, it is refused, never ignored.
GOES_WITH = {"length_penalty": ("normalize", "gnmt")}

MAX_BEAM = 1024
MAX_LENGTH = 10_000


@dataclass(frozen=True)
class DecodingOptions:
    """Options of the search. All are checked when the object is made.

    Raises:
        UsageError: names the option and the value it got, or the two options that do not go together.
    """

    beam: int = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    n_best: int = 1
    """Finished hypotheses wanted, at most `beam`."""
    normalize: Normalize = "gnmt"
    """How a log-probability becomes a score: see `penalties`."""
    length_penalty: float | None = None
    """alpha of `normalize="gnmt"` (0.6 where None); 0 is no normalization, larger favours longer replies."""
    min_length: int = 0
    """Tokens that a reply has at least, end-of-sentence not counted."""
    max_length: int | None = None
    """Tokens that a reply has at most, end-of-sentence counted; None is the longest the model learned."""
    stop: Stop = "exact"
    """"exact" ends when no live hypothesis can still enter the n best, "first" with the n-th finished one."""
    trace: bool = False
    """Keep what each step did: `Reply.trace`."""

    def __post_init__(self) -> None:
        whole_number("beam", self.beam, 1, MAX_BEAM)
        whole_number("n_best", self.n_best, 1, MAX_BEAM)
        whole_number("min_length", self.min_length, 0, MAX_LENGTH)
        if self.max_length is not None:
            whole_number("max_length", self.max_length, 1, MAX_LENGTH)
            if self.min_length >= self.max_length:
                raise UsageError(
                    f"min_length is {self.min_length}, which must be below max_length, {self.max_length}: "
                    "max_length counts the end-of-sentence"
                )
        if self.n_best > self.beam:
            raise UsageError(f"n_best is {self.n_best}, more than beam, {self.beam}: raise beam")
        _one_of("normalize", self.normalize, get_args(Normalize))
        _one_of("stop", self.stop, get_args(Stop))
        if not isinstance(self.trace, bool):
            raise UsageError(f"trace must be True or False, not {self.trace!r}")
        for option, (mode, value) in GOES_WITH.items():
            if getattr(self, option) is not None and getattr(self, mode) != value:
                raise UsageError(
                    f"{option} goes with {mode}={value!r}, not with {mode}={getattr(self, mode)!r}"
                )
        if self.length_penalty is not None and (
            isinstance(self.length_penalty, bool)
            or not isinstance(self.length_penalty, int | float)
            or not 0 <= self.length_penalty <= 10
        ):
            raise UsageError(f"length_penalty must be a number from 0 to 10, not {self.length_penalty!r}")

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
    def from_json(cls, values: dict[str, Any]) -> "DecodingOptions":
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(f"unknown decoding option {min(unknown)!r}")
        return cls(**values)


def whole_number(name: str, value: object, least: int, most: int) -> None:
    """Raises UsageError, with the name and the value, where `value` is not what it must be."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {value!r}")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
