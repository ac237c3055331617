"""The messages between widgets, the decode worker, the store's thread and the chat screen.

Messages about a reply carry the number of their `ReplyTask`; the screen drops messages of a task that has
ended. `side` is 0 for the current bundle's reply and 1 for the second bundle's.
"""

from dataclasses import dataclass

from textual.message import Message

from .values import ReplyFacts, Trace


@dataclass
class PromptSubmitted(Message):
    """The user sent a prompt."""

    text: str


@dataclass
class PromptRefused(Message):
    """The user tried to send a prompt when none can be sent. The text stays in the prompt."""


@dataclass
class LoadFailed(Message):
    """The bundle at `path` could not be loaded."""

    path: str
    error: str


@dataclass
class ReplyAdvanced(Message):
    """The reply so far: all settled text, and the tail that may still change."""

    task: int
    side: int
    settled: str
    tail: str


@dataclass
class ReplyFinished(Message):
    """The reply is complete."""

    task: int
    side: int
    reply: ReplyFacts
    trace: Trace | None


@dataclass
class ReplyFailed(Message):
    """The reply failed."""

    task: int
    side: int
    error: str


@dataclass
class WriteEnded(Message):
    """A write to the store ended. `error` says why it failed, "" if it succeeded."""

    error: str


@dataclass
class ReplySelected(Message):
    """The user selected a reply of an exchange."""

    number: int
    side: int


@dataclass
class CandidateChosen(Message):
    """The user chose the candidate at this index to continue the conversation with."""

    index: int


@dataclass
class ViewSelected(Message):
    """The user selected a view of the inspector."""

    name: str


@dataclass
class KnobStepped(Message):
    """The user raised (`by` 1) or lowered (-1) a knob."""

    name: str
    by: int


@dataclass
class KnobTyped(Message):
    """The user wants to type the value of a knob."""

    name: str


@dataclass
class KnobReset(Message):
    """The user reset a knob to the bundle's default, or all knobs if `name` is None."""

    name: str | None


@dataclass
class PresetStepped(Message):
    """The user asked for the preset `by` places after the current one."""

    by: int
