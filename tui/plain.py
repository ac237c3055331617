"""Text of a model, a bundle or a user as what may safely be drawn: no control sequence, no markup."""

from textual.content import Content

from edgechat.runtime.display import counted as counted
from edgechat.runtime.display import printable

#: Characters of one text that are drawn: a pasted megabyte would take seconds to wrap.
LONGEST_DRAWN = 8_000

# Line and paragraph separators break a row for some terminals only.
_SEPARATORS = str.maketrans(dict.fromkeys("\u2028\u2029", "\n"))


def plain(text: str) -> str:
    """`text` with line ends as line feeds, and with everything visible that a terminal would obey."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n")).translate(_SEPARATORS)


def content(text: str, style: str = "") -> Content:
    """`text` to draw, exactly as it reads: nothing in it is taken for markup. What is very long is cut."""
    shown = plain(text[:LONGEST_DRAWN])
    if len(text) > LONGEST_DRAWN:
        shown += f" … ({len(text) - LONGEST_DRAWN:,} more characters)"
    return Content.styled(shown, style) if style else Content(shown)
