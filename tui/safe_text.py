"""Make the text of a model, a bundle or a user safe to draw: no control sequences, no markup."""

from textual.content import Content

from edgechat.runtime.display import plural as plural
from edgechat.runtime.display import printable

#: How much of a text is drawn: a pasted megabyte would take seconds to wrap.
MAX_DRAWN_CHARACTERS = 8_000

# Only some terminals break a line at line and paragraph separators.
_LINE_SEPARATORS = str.maketrans(dict.fromkeys("\u2028\u2029", "\n"))


def safe_text(text: str) -> str:
    """`text` with line feeds as line ends, and with control characters made visible."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n")).translate(_LINE_SEPARATORS)


def safe_content(text: str, style: str = "") -> Content:
    """`text` as content to draw, without interpreting markup. A very long text is cut."""
    shown = safe_text(text[:MAX_DRAWN_CHARACTERS])
    if len(text) > MAX_DRAWN_CHARACTERS:
        shown += f" … ({len(text) - MAX_DRAWN_CHARACTERS:,} more characters)"
    return Content.styled(shown, style) if style else Content(shown)
