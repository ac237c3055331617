"""Text search: how texts are compared, and the excerpt shown for a match."""

from bisect import bisect_left
from collections.abc import Iterable

from edgechat.runtime.text import to_nfc


def fold_case(text: str) -> str:
    """`text` as it is compared: case-folded and in NFC."""
    return to_nfc(text).casefold()


def contains_folded(text: str, term: str) -> bool:
    """Whether `term` occurs in `text`, ignoring case."""
    return fold_case(term) in fold_case(text)


def excerpt(texts: Iterable[str], term: str) -> str:
    """The first line of `texts` that contains the folded `term`, cut to begin shortly before it."""
    lines = (to_nfc(line) for text in texts for line in text.splitlines())
    line = next((line for line in lines if term in fold_case(line)), "")
    # Folding can change the length, so positions in the folded line are not positions in the line.
    end = bisect_left(range(len(line)), True, key=lambda n: term in fold_case(line[:n]))
    begin = max(0, end - len(term) - 20)
    return ("…" if begin else "") + line[begin : begin + 120]
