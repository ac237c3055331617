"""The knobs of the chat: the decoding options that can be changed while talking, and their presets."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgechat.runtime.options import REQUIRES

#: Changed decoding options by name. Every other option has the bundle's default.
Changes = Mapping[str, Any]


class Kind(Protocol):
    """The type of a knob's values."""

    def step(self, value: Any, by: int) -> Any:
        """The value `by` steps after `value`."""
        ...

    def parse(self, text: str) -> Any:
        """Read a value that the user typed.

        Raises:
            ValueError: `text` is not a value of this kind; the message says what is.
        """
        ...

    def show(self, value: Any) -> str:
        """Write `value` as the user would type it, "" for None."""
        ...


@dataclass(frozen=True)
class Number:
    """A number; whole if `increment` is an int. Steps go from `minimum` to `maximum`, but other values can be
    typed.

    With `off`, None is a value too: one step below `minimum`, shown as that word. With `default`, None stands
    for that number.
    """

    minimum: float
    maximum: float
    increment: float = 1
    off: str = ""
    default: float | None = None

    def step(self, value: Any, by: int) -> Any:
        start = self.default if value is None else value
        if start is None:
            return self._whole(self.minimum) if by > 0 else None
        moved = round(start + by * self.increment, 6)
        if moved < self.minimum and self.off:
            return None
        return self._number(max(min(self.minimum, start), min(moved, max(self.maximum, start))))

    def parse(self, text: str) -> Any:
        if text.strip() in (self._none_text, "") and self._none_text:
            return None
        try:
            return self._number(int(text) if self._integral else float(text))
        except ValueError:
            kind = "a whole number" if self._integral else "a number"
            raise ValueError(f"{text!r} is not {kind}" + (f" or {self.off!r}" if self.off else "")) from None

    def show(self, value: Any) -> str:
        return self._none_text if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def _none_text(self) -> str:
        """How None is shown, "" if None is not a value of this knob."""
        return self.off if self.default is None else f"{self.default:g}"

    def _number(self, value: float) -> float | None:
        return None if value == self.default else self._whole(value)

    @property
    def _integral(self) -> bool:
        return isinstance(self.increment, int)

    def _whole(self, value: float) -> float:
        return int(value) if self._integral else float(value)


@dataclass(frozen=True)
class Choice:
    """One of a fixed set of words."""

    words: tuple[str, ...]

    def step(self, value: Any, by: int) -> Any:
        at = self.words.index(value) if value in self.words else 0
        return self.words[(at + by) % len(self.words)]

    def parse(self, text: str) -> Any:
        if text.strip() not in self.words:
            raise ValueError(f"{text!r} is not one of {', '.join(self.words)}")
        return text.strip()

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Switch:
    """On or off."""

    def step(self, value: Any, by: int) -> Any:
        return not value

    def parse(self, text: str) -> Any:
        if text.strip() not in ("on", "off"):
            raise ValueError(f"{text!r} is not on or off")
        return text.strip() == "on"

    def show(self, value: Any) -> str:
        return "on" if value else "off"


@dataclass(frozen=True)
class Words:
    """A text, or several separated by commas. Texts are typed: `step` leaves them as they are."""

    several: bool = False

    def step(self, value: Any, by: int) -> Any:
        return value

    def parse(self, text: str) -> Any:
        if not self.several:
            return text or None
        found = (quoted.replace('""', '"') or bare for quoted, bare in _LIST_ITEM.findall(text))
        return tuple(filter(None, found))

    def show(self, value: Any) -> str:
        return ", ".join(map(_quote_list_item, value or ())) if self.several else value or ""


#: One of several texts and the comma after it. A text in quotation marks is taken literally; a quotation mark
#: within it is doubled.
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:,|\Z)')


def _quote_list_item(text: str) -> str:
    """Write a text so that `_LIST_ITEM` reads it back."""
    if text == text.strip() and "," not in text and not text.startswith('"'):
        return text
    return '"' + text.replace('"', '""') + '"'


@dataclass(frozen=True)
class Knob:
    """A decoding option that can be changed. `name` is its field of `DecodingOptions`; with a value in
    `neutral`, the option has no effect."""

    name: str
    kind: Kind
    help: str
    neutral: tuple[Any, ...] = (None,)


_NO_TEXTS: tuple[Any, ...] = ((), [])  # in `DecodingOptions`, and in a stored reply (JSON)

KNOBS = (
    Knob("beam", Number(1, 64), "hypotheses kept at each step; 1 is greedy search"),
    Knob("normalize", Choice(("none", "gnmt", "average")), "how scores are normalized by reply length"),
    Knob(
        "length_penalty",
        Number(0.0, 3.0, 0.1, default=0.6),
        "alpha of gnmt; a higher value favors longer replies",
        neutral=(),
    ),
    Knob(
        "coverage_penalty",
        Number(0.0, 3.0, 0.1),
        "penalty for leaving parts of the prompt unattended",
        neutral=(0,),
    ),
    Knob("min_length", Number(0, 200), "minimum number of tokens in a reply", neutral=(0,)),
    Knob("max_length", Number(1, 500, off="learned"), "maximum number of tokens in a reply", neutral=()),
    Knob(
        "stop",
        Choice(("exact", "first")),
        "exact: search until no better reply is possible; first: stop at the first finished replies",
    ),
    Knob(
        "repetition_penalty", Number(1.0, 5.0, 0.1), "penalty for tokens already in the reply", neutral=(1,)
    ),
    Knob("no_repeat_ngram", Number(1, 10, off="off"), "no sequence of n tokens occurs twice in a reply"),
    Knob("no_copy_ngram", Number(1, 10, off="off"), "no sequence of n tokens is copied from the prompt"),
    Knob("groups", Number(1, 16), "groups of hypotheses that avoid each other's tokens", neutral=(1,)),
    Knob(
        "diversity",
        Number(0.0, 5.0, 0.1, default=0.5),
        "how strongly the groups avoid each other",
        neutral=(),
    ),
    Knob("sample", Switch(), "draw as many replies as the beam at random", neutral=(False,)),
    Knob(
        "temperature",
        Number(0.1, 5.0, 0.1, default=1.0),
        "below 1: more predictable draws; above 1: more varied",
        neutral=(),
    ),
    Knob("top_k", Number(1, 1000, off="off"), "draw only from the k likeliest tokens"),
    Knob(
        "top_p",
        Number(0.05, 1.0, 0.05, off="off"),
        "draw only from the likeliest tokens of total probability p",
    ),
    Knob(
        "typical_p",
        Number(0.05, 1.0, 0.05, off="off"),
        "draw only from the most typical tokens of total probability p",
    ),
    Knob("seed", Number(0, 2**31, off="new"), "seed of the random draws; the same seed gives the same draws"),
    Knob("prefix", Words(), "text that every reply begins with"),
    Knob(
        "banned",
        Words(several=True),
        'texts that no reply contains, separated by commas; "a, b" in quotes is one text',
        neutral=_NO_TEXTS,
    ),
    Knob(
        "required",
        Words(several=True),
        'texts that every reply contains, separated by commas; "a, b" in quotes is one text',
        neutral=_NO_TEXTS,
    ),
)

_KNOBS = {knob.name: knob for knob in KNOBS}


def get_knob(name: str) -> Knob:
    """The knob of a decoding option.

    Raises:
        KeyError: the option has no knob.
    """
    return _KNOBS[name]


#: Combinations of settings with a name.
PRESETS: dict[str, Changes] = {
    "bundle's defaults": {},
    "greedy": {"beam": 1},
    "thorough": {"beam": 12},
    "brief": {"beam": 5, "normalize": "none"},
    "talkative": {"beam": 8, "normalize": "gnmt", "length_penalty": 1.6, "min_length": 6},
    "lively": {"sample": True, "temperature": 0.8, "top_p": 0.9},
}


@dataclass(frozen=True)
class KnobState:
    """A knob with its value."""

    knob: Knob
    value: Any
    changed: bool  # the value differs from the bundle's default


def knob_states(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[KnobState, ...]:
    """Every knob with its value."""
    return tuple(
        KnobState(knob, values[knob.name], values[knob.name] != defaults[knob.name]) for knob in KNOBS
    )


def is_same_value(name: str, one: Any, other: Any) -> bool:
    """Whether two values of an option mean the same: None equals the default number of its knob."""
    knob = _KNOBS.get(name)
    default = knob.kind.default if knob and isinstance(knob.kind, Number) else None
    return bool((default if one is None else one) == (default if other is None else other))


def effective_settings(options: Mapping[str, Any]) -> list[str]:
    """The settings that have an effect in `options`, defaults included, as "name value".

    `options` may come from a stored reply of an earlier version, without the newer options.
    """
    return [
        f"{knob.name.replace('_', ' ')} {knob.kind.show(options[knob.name])}"
        for knob in KNOBS
        if knob.name in options and _has_effect(knob.name, options) and options[knob.name] not in knob.neutral
    ]


def _has_effect(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an option has an effect in combination with the others."""
    if name == "stop":  # every sample is drawn to its end
        return not options.get("sample")
    if name == "diversity":
        return bool(options.get("groups", 1) > 1)
    mode, value = REQUIRES.get(name, ("", None))
    return options.get(mode) == value


def preset_of(changes: Changes) -> str:
    """The name of the preset that equals these changes, "" if there is none."""
    return next((name for name, preset in PRESETS.items() if dict(preset) == dict(changes)), "")


def make_compatible(
    changes: Changes,
    name: str,
    defaults: Mapping[str, Any],
    required_modes: Mapping[str, tuple[str, Any]],
    check: Callable[[Changes], object],
) -> Changes:
    """Adjust `changes` so that all options are compatible with `name`, which was changed last.

    An option may require a mode (`required_modes`): changing the option sets its mode, and leaving a mode
    resets the options that require it. If an incompatibility remains, one other option is reset to its value
    in `defaults`. Numbers are not reset, since the user should decide about them.

    Raises:
        Exception: the error of `check` with the option's mode set, if no adjustment helps.
    """
    try:
        check(changes)
        return changes
    except Exception as error:
        wrong = error
    adjusted = dict(changes)
    if name in required_modes and changes[name] is not None:
        mode, value = required_modes[name]
        adjusted[mode] = value
    for option, (mode, value) in required_modes.items():
        if option in defaults and adjusted.get(mode, defaults.get(mode)) != value:
            adjusted[option] = defaults[option]
    resettable = (other for other, value in defaults.items() if other != name and not _is_number(value))
    for tried in (adjusted, *(adjusted | {other: defaults[other]} for other in resettable)):
        try:
            check(tried)
        except Exception as error:
            wrong = error if tried is adjusted else wrong
            continue
        return tried
    raise wrong


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
