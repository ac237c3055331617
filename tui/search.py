"""Text search: how texts are compared, and the excerpt shown for a match."""

from bisect import bisect_left
from collections.abc import Iterable

from edgechat.runtime.text import normal_form


def folded(text: str) -> str:
    """`text` as it is compared: case-folded and in NFC."""
    return normal_form(text).casefold()


def holds(text: str, term: str) -> bool:
    """Whether `term` occurs in `text`."""
    return folded(term) in folded(text)


def excerpt(texts: Iterable[str], term: str) -> str:
    """The first line of `texts` that contains the folded `term`, cut to begin shortly before it."""
    lines = (normal_form(line) for text in texts for line in text.splitlines())
    line = next((line for line in lines if term in folded(line)), "")
    # Folding can change the length, so positions in the folded line are not positions in the line.
    end = bisect_left(range(len(line)), True, key=lambda n: term in folded(line[:n]))
    begin = max(0, end - len(term) - 20)
    return ("…" if begin else "") + line[begin : begin + 120]
