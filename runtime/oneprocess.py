"""What lives in one process only."""

import os
from typing import NoReturn

from .errors import ModelClosedError, UsageError


class OneProcess:
    """A base for what holds sessions: neither pickled, nor copied, nor used in a forked child."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def check_process(self) -> None:
        """Raises ModelClosedError in a child that was forked since."""
        if os.getpid() != self._process:
            raise ModelClosedError(
                "the model was loaded before this process was forked: load it in the child"
            )

    def __reduce__(self) -> NoReturn:  # nor what holds one: a session, a bound method
        raise UsageError("a model is neither pickled nor copied: load it in the worker")
