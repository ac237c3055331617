"""The messages between widgets, the decode worker, the keeper and the chat screen.

Those of a reply carry the number of their turn: what arrives for a turn that is over is dropped. `side` is
0 for the bundle that one talks to, 1 for the one it is compared with.
"""

from dataclasses import dataclass

from textual.message import Message

from .values import Insight, ReplyFacts


@dataclass
class PromptSubmitted(Message):
    """The user sent a prompt; the input is empty again."""

    text: str


@dataclass
class PromptRefused(Message):
    """The user wants to send a prompt at a time when none can be; it stays in the input."""


@dataclass
class LoadFailed(Message):
    """The bundle at `path` could not be loaded."""

    path: str
    error: str


@dataclass
class ReplyAdvanced(Message):
    """The reply so far: all settled text, and the tail that may still change."""

    turn: int
    side: int
    settled: str
    tail: str


@dataclass
class ReplyFinished(Message):
    """The reply is complete."""

    turn: int
    side: int
    reply: ReplyFacts
    insight: Insight | None


@dataclass
class ReplyFailed(Message):
    """There will be no reply."""

    turn: int
    side: int
    error: str


@dataclass
class Written(Message):
    """The store has written what was said, or could not: `error` says why, "" where it has."""

    error: str


@dataclass
class TurnPicked(Message):
    """The user wants to look at a reply of this exchange."""

    number: int
    side: int


@dataclass
class CandidateChosen(Message):
    """The conversation shall go on with the candidate of this index."""

    index: int


@dataclass
class ViewPicked(Message):
    """The inspector shows another view."""

    name: str


@dataclass
class KnobTurned(Message):
    """A knob shall be turned up (`by` 1) or down (-1)."""

    name: str
    by: int


@dataclass
class KnobTyped(Message):
    """The user wants to write the value of a knob."""

    name: str


@dataclass
class KnobReset(Message):
    """A knob shall have the bundle's own value, None being all of them."""

    name: str | None


@dataclass
class PresetTurned(Message):
    """The preset so many places on is wanted."""

    by: int
