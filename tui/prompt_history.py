"""The history of prompts."""

from collections.abc import Sequence

MAX_PROMPTS = 1000


class PromptHistory:
    """Past prompts, oldest first, followed by the current draft.

    An edit to a past prompt is remembered until the next `add`.
    """

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._lines = [""]
        self._position = 0

    def add(self, text: str) -> None:
        """Add a prompt, and start a new draft."""
        if self._sent[-1:] != [text]:
            self._sent.append(text)
        del self._sent[:-MAX_PROMPTS]
        self._lines = [*self._sent, ""]
        self._position = len(self._sent)

    def prepend(self, prompts: Sequence[str]) -> None:
        """Add older prompts, oldest first, before the present ones. They may end with prompts that are in the
        history already."""
        max_overlap = min(len(prompts), len(self._sent))
        overlap = next((n for n in range(max_overlap, 0, -1) if [*prompts[-n:]] == self._sent[:n]), 0)
        prompts = prompts[: len(prompts) - overlap]
        self._sent[:0] = prompts
        self._lines[:0] = prompts
        self._position += len(prompts)

    def previous(self, current: str) -> str | None:
        """The previous prompt, None at the oldest. `current` is the text of the prompt being left."""
        return self._move(-1, current)

    def next(self, current: str) -> str | None:
        """The next prompt, or the draft after the newest prompt, None after the draft."""
        return self._move(1, current)

    def _move(self, by: int, current: str) -> str | None:
        if not 0 <= self._position + by < len(self._lines):
            return None
        self._lines[self._position] = current
        self._position += by
        return self._lines[self._position]
