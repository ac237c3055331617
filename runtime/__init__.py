"""Embed a bundle in any application: load it, reply, stream, hold a conversation.

Needs onnxruntime, numpy and tokenizers, and nothing else.
"""

from . import numpy_at_rest as numpy_at_rest  # before anything imports NumPy
from .chat import ChatModel, ChatSession
from .errors import (
    BundleError,
    DataError,
    DeviceError,
    EdgeChatError,
    ModelClosedError,
    UsageError,
)
from .options import DecodingOptions
from .reply import Candidate, Reply
from .stream import ReplyStream
from .trace import TracedCandidate, TracedRow, TracedStep

__all__ = [
    "BundleError",
    "Candidate",
    "ChatModel",
    "ChatSession",
    "DataError",
    "DecodingOptions",
    "DeviceError",
    "EdgeChatError",
    "ModelClosedError",
    "Reply",
    "ReplyStream",
    "TracedCandidate",
    "TracedRow",
    "TracedStep",
    "UsageError",
]
