"""What terminals send: any bytes, and pastes with anything in them."""

import pytest

from edgechat.tui.terminalinput import TerminalInput

SENT = "a\x1b[A\x1b\x1b[200~x\x1b[31m\x1b[20\x1b]\x11\té\x1b[200~\x1b[201~b\x1b[200~y\x1b[201~\x1b"
READ = "a\x1b[A\x1b\x1b[200~x␛[31m␛[20␛]\x11\té␛[200~\x1b[201~b\x1b[200~y\x1b[201~\x1b"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_escapes_within_a_paste_become_visible_however_it_is_cut(size):
    data, reader = SENT.encode(), TerminalInput()
    parts = [reader.decode(data[at : at + size]) for at in range(0, len(data), size)]
    assert "".join(parts) == READ


def test_what_is_typed_is_not_held_back():
    reader = TerminalInput()
    assert [reader.decode(key) for key in (b"\x1b", b"[", b"a", b"\x1b[20")] == ["\x1b", "[", "a", "\x1b[20"]


def test_bytes_that_are_no_text_are_replaced_and_the_rest_is_read():
    reader = TerminalInput()
    assert reader.decode(b"caf\xe9 au lait \xff\xc3") == "caf� au lait �"
    assert reader.decode(b"\xa9") == "é"
