"""How texts and counts are shown to people: a terminal obeys nothing of them."""

import unicodedata

#: Embeddings, overrides and isolates reach past the text they stand in: a terminal that obeys them reorders
#: what stands beside it.
BIDI_CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str, *, bidi: bool = False) -> str:
    """`text` with control characters made visible (ESC becomes ␛), so that a terminal obeys none.

    Line feeds and tabs stay. C1 controls and DEL become U+FFFD and ␡, and so do the controls of writing
    direction, but with `bidi`, where no terminal reads.
    """
    if text.isprintable():
        return text
    return "".join(c if bidi and c in BIDI_CONTROLS else _visible(c) for c in text)


def counted(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`, `1,000 replies`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _visible(c: str) -> str:
    if c in "\n\t" or not (c in BIDI_CONTROLS or unicodedata.category(c) in ("Cc", "Cs")):
        return c
    if ord(c) < 0x20:
        return chr(0x2400 + ord(c))
    return "␡" if c == "\x7f" else "\ufffd"
