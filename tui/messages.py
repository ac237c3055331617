"""The messages between widgets, the decode worker and the chat screen.

Those of a reply carry the number of their turn: what arrives for a turn that is over is dropped.
"""

from dataclasses import dataclass

from textual.message import Message

from .values import ReplyFacts


@dataclass
class PromptSubmitted(Message):
    """The user sent a prompt; the input is empty again."""

    text: str


@dataclass
class PromptRefused(Message):
    """The user wants to send a prompt at a time when none can be; it stays in the input."""


@dataclass
class LoadFailed(Message):
    """The bundle could not be loaded."""

    error: str


@dataclass
class ReplyAdvanced(Message):
    """The reply so far: all settled text, and the tail that may still change."""

    turn: int
    settled: str
    tail: str


@dataclass
class ReplyFinished(Message):
    """The reply is complete."""

    turn: int
    reply: ReplyFacts


@dataclass
class ReplyFailed(Message):
    """There will be no reply."""

    turn: int
    error: str
