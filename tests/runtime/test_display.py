"""Text for a terminal without control characters, and numbers with their nouns."""

import unicodedata

import pytest
from hypothesis import given, settings

from edgechat.runtime.display import plural, printable

from .test_text import ANY_TEXT


def test_no_control_character_is_printed():
    for code in [*range(0x20), *range(0x7F, 0xA0)]:
        c = chr(code)
        shown = printable(f"a{c}b")
        if c in "\n\t":
            assert shown == f"a{c}b"
        else:
            assert shown[0] + shown[2] == "ab"
            assert unicodedata.category(shown[1]) != "Cc"


def test_escape_delete_and_c1_are_shown_by_their_signs():
    assert printable("\x1b[31mred\x7f\x9b") == "␛[31mred␡\ufffd"
    assert printable("\r") == "␍"
    assert printable("\x00") == "␀"


@pytest.mark.parametrize("control", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ids=ascii)
def test_bidirectional_controls_are_replaced_for_a_terminal_and_kept_for_a_file(control):
    assert printable(f"a{control}\x1bb") == "a\ufffd␛b"
    assert printable(f"a{control}\x1bb", bidi=True) == f"a{control}␛b"


def test_lone_surrogates_are_printable_afterwards():
    assert printable("a\ud800") == "a\ufffd"
    printable("a\ud800").encode()


@given(text=ANY_TEXT)
@settings(max_examples=200)
def test_everything_else_is_printed_unchanged(text):
    shown = printable(text, bidi=True)
    assert len(shown) == len(text)
    for before, after in zip(text, shown, strict=True):
        if unicodedata.category(before) not in ("Cc", "Cs"):
            assert after == before
        else:
            assert after in "\n\t" or unicodedata.category(after) not in ("Cc", "Cs")


def test_a_number_comes_with_its_noun():
    shown = [plural(1, "turn"), plural(0, "turn"), plural(1000, "reply"), plural(1, "day"), plural(2, "day")]
    assert shown == ["1 turn", "0 turns", "1,000 replies", "1 day", "2 days"]
