"""The one exception root. Everything that can go wrong by the user's data, options or machine is an
`EdgeChatError` with one sentence as its text; only the command line and the terminal chat print it."""

import re

#: What PyTorch, ONNX Runtime and CUDA say where memory is short: they have no kind of error for it.
_NO_MEMORY = re.compile(
    "[Ff]ailed to allocate|can't allocate memory|out of memory|bad_alloc|smaller than requested bytes"
)


class EdgeChatError(Exception):
    """Root of all errors that edgechat raises on purpose. Its text is one sentence for the user."""


class UsageError(EdgeChatError):
    """An option or argument is wrong: its name and the value it got are in the text."""


class DataError(EdgeChatError):
    """A corpus file cannot be used; the text names the file and, where there is one, the line."""


class CheckpointError(EdgeChatError):
    """A run folder or a checkpoint in it cannot be used."""


class BundleError(EdgeChatError):
    """A bundle is incomplete, changed, unknown or unsafe; it is left as it is."""


class ProofError(EdgeChatError):
    """An exported graph does not compute what the PyTorch model computes."""


class QualityError(EdgeChatError):
    """A precision changes what the model says by more than its limits."""


class DeviceError(EdgeChatError):
    """The device that was asked for cannot be used, or its memory is too small for what was asked for."""


class ModelClosedError(EdgeChatError):
    """The model was closed, or is used while the process ends, or in a child that was forked after it was
    loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory is short, that of the machine or of a GPU."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
