"""Make the text of a model, a bundle or a user safe to draw: no control sequences, no markup."""

from textual.content import Content

from edgechat.runtime.display import counted as counted
from edgechat.runtime.display import printable

#: Maximum characters that are drawn of a text: a pasted megabyte would take seconds to wrap.
LONGEST_DRAWN = 8_000

# Only some terminals break a line at line and paragraph separators.
_SEPARATORS = str.maketrans(dict.fromkeys("\u2028\u2029", "\n"))


def plain(text: str) -> str:
    """`text` with line feeds as line ends, and with control characters made visible."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n")).translate(_SEPARATORS)


def content(text: str, style: str = "") -> Content:
    """`text` as content to draw, without interpreting markup. A very long text is cut."""
    shown = plain(text[:LONGEST_DRAWN])
    if len(text) > LONGEST_DRAWN:
        shown += f" … ({len(text) - LONGEST_DRAWN:,} more characters)"
    return Content.styled(shown, style) if style else Content(shown)
