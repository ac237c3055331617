"""The prompts sent so far, to walk through and edit again."""

from collections.abc import Sequence

LONGEST = 1000


class PromptHistory:
    """Past prompts, oldest first, with the draft that is being written behind them.

    An edit to a past prompt is kept while walking about and forgotten with the next `add`.
    """

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._lines = [""]
        self._at = 0

    def add(self, text: str) -> None:
        """Remember a prompt that was sent, and start a new draft."""
        if self._sent[-1:] != [text]:
            self._sent.append(text)
        del self._sent[:-LONGEST]
        self._lines = [*self._sent, ""]
        self._at = len(self._sent)

    def prepend(self, prompts: Sequence[str]) -> None:
        """Put prompts of earlier times, oldest first, before those of now, with which they may end."""
        most = min(len(prompts), len(self._sent))
        twice = next((n for n in range(most, 0, -1) if [*prompts[-n:]] == self._sent[:n]), 0)
        prompts = prompts[: len(prompts) - twice]
        self._sent[:0] = prompts
        self._lines[:0] = prompts
        self._at += len(prompts)

    def previous(self, current: str) -> str | None:
        """The prompt before this one, None at the oldest; `current` is kept in its place."""
        return self._move(-1, current)

    def next(self, current: str) -> str | None:
        """The prompt after this one, in the end the draft, None after that."""
        return self._move(1, current)

    def _move(self, by: int, current: str) -> str | None:
        if not 0 <= self._at + by < len(self._lines):
            return None
        self._lines[self._at] = current
        self._at += by
        return self._lines[self._at]
