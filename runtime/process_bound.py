"""`ProcessBound`: a base class for objects that can only be used in the process that created them."""

import os
from typing import NoReturn

from .errors import ModelClosedError, UsageError


class ProcessBound:
    """Base class for objects that hold ONNX Runtime sessions: they cannot be pickled, copied or used in a
    forked child."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check_process(self) -> None:
        """Raise ModelClosedError in a child process that was forked after this object was created."""
        if os.getpid() != self._process:
            raise ModelClosedError(
                "the model was loaded before this process was forked: load it in the child"
            )

    def __reduce__(self) -> NoReturn:  # also called for objects that refer to this one, such as bound methods
        raise UsageError("a model cannot be pickled or copied: load it in the worker")
