"""Showing texts and counts to people, with nothing in them that controls the terminal."""

import unicodedata

#: Embeddings, overrides and isolates: in a terminal they could reorder the text around them.
BIDI_CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str, *, bidi: bool = False) -> str:
    """`text` with control characters replaced by visible ones, so that none controls the terminal.

    ESC becomes ␛, DEL becomes ␡, C1 controls and lone surrogates become U+FFFD; line feeds and tabs stay.
    Bidirectional controls become U+FFFD too, unless `bidi` is true, for text that does not go to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if bidi and c in BIDI_CONTROLS else _replace_control(c) for c in text)


def plural(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`, `1,000 replies`."""
    return f"{number:,} {noun if number == 1 else plural_form(noun)}"


def plural_form(noun: str) -> str:
    """`turns`, `replies`, `days`."""
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeou" else f"{noun}s"


def _replace_control(c: str) -> str:
    if c in "\n\t" or not (c in BIDI_CONTROLS or unicodedata.category(c) in ("Cc", "Cs")):
        return c
    if ord(c) < 0x20:
        return chr(0x2400 + ord(c))
    return "␡" if c == "\x7f" else "\ufffd"
