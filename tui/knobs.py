"""The knobs of the search, one line each. Which of them a model has, its options say: a knob whose option
the installed runtime lacks is not shown."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgechat.runtime.options import GOES_WITH

#: What an option is changed to, by name; what is not named is the bundle's own.
Changes = Mapping[str, Any]


class Kind(Protocol):
    """What values a knob has."""

    def step(self, value: Any, by: int) -> Any:
        """The value `by` places on."""
        ...

    def parse(self, text: str) -> Any:
        """The value that was typed.

        Raises:
            ValueError: it is none; the text says what one is.
        """
        ...

    def show(self, value: Any) -> str:
        """It as it would be typed, "" for none."""
        ...


@dataclass(frozen=True)
class Number:
    """From `least` to `most`. With `off`, one step below the least is None, shown as that word. With
    `default`, that number is None."""

    least: float
    most: float
    by: float = 1
    off: str = ""
    default: float | None = None

    def step(self, value: Any, by: int) -> Any:
        start = self.default if value is None else value
        if start is None:
            return self._whole(self.least) if by > 0 else None
        moved = round(start + by * self.by, 6)
        if moved < self.least and self.off:
            return None
        return self._number(max(self.least, min(moved, self.most)))

    def parse(self, text: str) -> Any:
        if text.strip() in (self._none, "") and self._none:
            return None
        try:
            return self._number(int(text) if self._integral else float(text))
        except ValueError:
            kind = "a whole number" if self._integral else "a number"
            raise ValueError(
                f"{text!r} is not {kind}" + (f", nor {self.off!r}" if self.off else "")
            ) from None

    def show(self, value: Any) -> str:
        return self._none if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def _none(self) -> str:
        """How None is shown, "" where it is no value."""
        return self.off if self.default is None else f"{self.default:g}"

    def _number(self, value: float) -> float | None:
        return None if value == self.default else self._whole(value)

    @property
    def _integral(self) -> bool:
        return isinstance(self.by, int)

    def _whole(self, value: float) -> float:
        return int(value) if self._integral else float(value)


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    words: tuple[str, ...]

    def step(self, value: Any, by: int) -> Any:
        at = self.words.index(value) if value in self.words else 0
        return self.words[(at + by) % len(self.words)]

    def parse(self, text: str) -> Any:
        if text.strip() not in self.words:
            raise ValueError(f"{text!r} is not one of: {', '.join(self.words)}")
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
            raise ValueError(f"{text!r} is neither on nor off")
        return text.strip() == "on"

    def show(self, value: Any) -> str:
        return "on" if value else "off"


@dataclass(frozen=True)
class Words:
    """A text, or several with commas between; it is typed, there is nothing to step through."""

    several: bool = False

    def step(self, value: Any, by: int) -> Any:
        return value

    def parse(self, text: str) -> Any:
        if not self.several:
            return text or None
        found = (quoted.replace('""', '"') or bare for quoted, bare in _ONE_OF_SEVERAL.findall(text))
        return tuple(filter(None, found))

    def show(self, value: Any) -> str:
        return ", ".join(map(_one_of_several, value or ())) if self.several else value or ""


#: One of several texts, and the comma behind it. In quotation marks, doubled within, it is as it stands.
_ONE_OF_SEVERAL = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:,|\Z)')


def _one_of_several(text: str) -> str:
    """As `_ONE_OF_SEVERAL` reads it."""
    if text == text.strip() and "," not in text and not text.startswith('"'):
        return text
    return '"' + text.replace('"', '""') + '"'


@dataclass(frozen=True)
class Knob:
    """An option that can be turned. `name` is that of `DecodingOptions`; at a value of `idle` it does
    nothing."""

    name: str
    kind: Kind
    does: str
    idle: tuple[Any, ...] = (None,)


_NO_TEXTS: tuple[Any, ...] = ((), [])  # as it is, and as a kept reply has it

KNOBS = (
    Knob("beam", Number(1, 64), "hypotheses kept at each step; 1 is greedy"),
    Knob("normalize", Choice(("none", "gnmt", "average")), "how scores are made fair to long replies"),
    Knob(
        "length_penalty",
        Number(0.0, 3.0, 0.1, default=0.6),
        "alpha of gnmt: more favours longer replies",
        idle=(),
    ),
    Knob(
        "coverage_penalty",
        Number(0.0, 3.0, 0.1),
        "what a reply loses that leaves parts unattended",
        idle=(0,),
    ),
    Knob("min_length", Number(0, 200), "tokens that a reply has at least", idle=(0,)),
    Knob("max_length", Number(1, 500, off="learned"), "tokens that a reply has at most", idle=()),
    Knob("stop", Choice(("exact", "first")), "when the search ends"),
    Knob("repetition_penalty", Number(1.0, 5.0, 0.1), "what tokens lose that were said already", idle=(1,)),
    Knob("no_repeat_ngram", Number(1, 10, off="off"), "no n tokens come twice in a reply"),
    Knob("no_copy_ngram", Number(1, 10, off="off"), "no n tokens of the prompt come in the reply"),
    Knob("groups", Number(1, 16), "hypotheses in groups that avoid each other's tokens", idle=(1,)),
    Knob("diversity", Number(0.0, 5.0, 0.1, default=0.5), "how much the groups avoid each other", idle=()),
    Knob("sample", Switch(), "draw replies at random, as many as the beam", idle=(False,)),
    Knob(
        "temperature",
        Number(0.1, 5.0, 0.1, default=1.0),
        "below 1 surer of the likely, above 1 wilder",
        idle=(),
    ),
    Knob("top_k", Number(1, 1000, off="off"), "draw from the k likeliest tokens only"),
    Knob("top_p", Number(0.05, 1.0, 0.05, off="off"), "draw from the likeliest that make up p"),
    Knob("typical_p", Number(0.05, 1.0, 0.05, off="off"), "draw from the most typical that make up p"),
    Knob("seed", Number(0, 2**31, off="new"), "the same seed draws the same"),
    Knob("prefix", Words(), "what every reply begins with"),
    Knob(
        "banned",
        Words(several=True),
        'texts that no reply holds, with commas between; "a, b" is one',
        idle=_NO_TEXTS,
    ),
    Knob(
        "required",
        Words(several=True),
        'texts that every reply holds, with commas between; "a, b" is one',
        idle=_NO_TEXTS,
    ),
)

#: One is offered where the runtime has all of its options.
PRESETS: dict[str, Changes] = {
    "bundle's own": {},
    "greedy": {"beam": 1},
    "thorough": {"beam": 12},
    "brief": {"beam": 5, "normalize": "none"},
    "talkative": {"beam": 8, "normalize": "gnmt", "length_penalty": 1.6, "min_length": 6},
    "lively": {"sample": True, "temperature": 0.8, "top_p": 0.9},
}


@dataclass(frozen=True)
class KnobState:
    """A knob as it is shown."""

    knob: Knob
    value: Any
    changed: bool  # it is not the bundle's own


def states(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[KnobState, ...]:
    """The knobs that these options have, with their values."""
    return tuple(
        KnobState(knob, values[knob.name], values[knob.name] != defaults[knob.name])
        for knob in KNOBS
        if knob.name in values
    )


def same(name: str, one: Any, other: Any) -> bool:
    """Whether two values of an option are one: None is the number that is its default."""
    kind = next((knob.kind for knob in KNOBS if knob.name == name), None)
    default = kind.default if isinstance(kind, Number) else None
    return bool((default if one is None else one) == (default if other is None else other))


def in_force(options: Mapping[str, Any]) -> list[str]:
    """What a reply is made with, each knob as it is written: a default too, but none that does nothing."""
    return [
        f"{knob.name.replace('_', ' ')} {knob.kind.show(options[knob.name])}"
        for knob in KNOBS
        if knob.name in options and _acts(knob.name, options) and options[knob.name] not in knob.idle
    ]


def _acts(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an option says anything beside the others."""
    if name == "stop":  # each sample is drawn to its end
        return not options.get("sample")
    if name == "diversity":
        return bool(options.get("groups", 1) > 1)
    mode, value = GOES_WITH.get(name, ("", None))
    return options.get(mode) == value


def presets(values: Mapping[str, Any]) -> dict[str, Changes]:
    """Those that these options can express."""
    return {name: changes for name, changes in PRESETS.items() if changes.keys() <= values.keys()}


def preset_of(changes: Changes, values: Mapping[str, Any]) -> str:
    """The preset that these changes are, "" where they are none."""
    return next((name for name, preset in presets(values).items() if dict(preset) == dict(changes)), "")


def settle(
    changes: Changes,
    name: str,
    plain: Mapping[str, Any],
    goes_with: Mapping[str, tuple[str, Any]],
    valid: Callable[[Changes], object],
) -> Changes:
    """`changes`, of which `name` is the newest, with the others so changed that they go together with it.

    An option goes with a mode (`goes_with`): one that is turned brings its mode, and a mode that is left
    takes along what went with it. Of what still excludes another, one is put back to `plain`, but no number:
    those are for the user to weigh. `valid` raises what is wrong; where nothing mends it, so does this, with
    the option's mode in force: that the mode is off is not what stands in the way.
    """
    try:
        valid(changes)
        return changes
    except Exception as error:
        wrong = error
    mended = dict(changes)
    if name in goes_with and changes[name] is not None:
        mode, value = goes_with[name]
        mended[mode] = value
    for option, (mode, value) in goes_with.items():
        if option in plain and mended.get(mode, plain.get(mode)) != value:
            mended[option] = plain[option]
    loose = (other for other, value in plain.items() if other != name and not _is_number(value))
    for tried in (mended, *(mended | {other: plain[other]} for other in loose)):
        try:
            valid(tried)
        except Exception as error:
            wrong = error if tried is mended else wrong
            continue
        return tried
    raise wrong


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
