"""What a search compares, and what is shown of where it found something."""

from bisect import bisect_left
from collections.abc import Iterable

from edgechat.runtime.text import normal_form


def folded(text: str) -> str:
    """What is compared: whatever the case, and however an accent is written."""
    return normal_form(text).casefold()


def holds(text: str, term: str) -> bool:
    """Whether `term` occurs."""
    return folded(term) in folded(text)


def excerpt(texts: Iterable[str], term: str) -> str:
    """Of the first of `texts` with `term`, a folded one, the line with it, cut to begin shortly before it."""
    lines = (normal_form(line) for text in texts for line in text.splitlines())
    line = next((line for line in lines if term in folded(line)), "")
    # A folded text may be longer than what it is of: its places are not those of the line.
    end = bisect_left(range(len(line)), True, key=lambda n: term in folded(line[:n]))
    begin = max(0, end - len(term) - 20)
    return ("…" if begin else "") + line[begin : begin + 120]
