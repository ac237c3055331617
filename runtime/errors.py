"""The exceptions. Everything that can go wrong because of the user's data, options or machine is an
`EdgeChatError` whose text is one sentence; only the command line and the terminal chat print it."""

import re

#: What PyTorch, ONNX Runtime and CUDA say when memory runs out: they have no exception type for it.
_OUT_OF_MEMORY = re.compile(
    "[Ff]ailed to allocate|can't allocate memory|out of memory|bad_alloc|smaller than requested bytes"
)


class EdgeChatError(Exception):
    """Base class of all errors that edgechat raises deliberately. Its text is one sentence for the user."""


class UsageError(EdgeChatError):
    """An option or argument is wrong; the text has its name and value."""


class DataError(EdgeChatError):
    """A data file cannot be used; the text names the file and, if there is one, the line."""


class CheckpointError(EdgeChatError):
    """A run folder, or a checkpoint in it, cannot be used."""


class BundleError(EdgeChatError):
    """A bundle is incomplete, damaged, of an unknown format or unsafe. It is left unchanged."""


class ProofError(EdgeChatError):
    """An exported graph does not compute what the PyTorch model computes."""


class QualityError(EdgeChatError):
    """A lower precision changes the model's output by more than its limits allow."""


class DeviceError(EdgeChatError):
    """The requested device cannot be used, or does not have enough memory."""


class ModelClosedError(EdgeChatError):
    """The model was closed, was loaded before this process was forked, or is used while the process ends."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the machine or a GPU ran out of memory."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
