"""The embedding API: load a bundle, reply to prompts, stream replies, hold conversations.

Its only dependencies are onnxruntime, numpy and tokenizers.
"""

from . import openblas_timeout as openblas_timeout  # must come before anything that imports NumPy
from .bundle import Bundle, read_bundle
from .chat import ChatModel, ChatSession
from .errors import (
    BundleError,
    DataError,
    DeviceError,
    EdgeChatError,
    ModelClosedError,
    UsageError,
)
from .golden import GoldenResult
from .manifest import Manifest
from .options import DecodingOptions
from .reply import Candidate, Reply
from .signature import PublicKey
from .stream import ReplyStream
from .text import TextCodec
from .trace import TracedCandidate, TracedRow, TracedStep

__all__ = [
    "Bundle",
    "BundleError",
    "Candidate",
    "ChatModel",
    "ChatSession",
    "DataError",
    "DecodingOptions",
    "DeviceError",
    "EdgeChatError",
    "GoldenResult",
    "Manifest",
    "ModelClosedError",
    "PublicKey",
    "Reply",
    "ReplyStream",
    "TextCodec",
    "TracedCandidate",
    "TracedRow",
    "TracedStep",
    "UsageError",
    "read_bundle",
]
