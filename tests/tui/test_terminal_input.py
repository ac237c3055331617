"""Terminal input: arbitrary bytes and pastes."""

import pytest
from textual import constants
from textual._xterm_parser import XTermParser

from edgechat.tui.terminal_input import TerminalInput

SENT = "a\x1b[A\x1b\x1b[200~x\x1b[31m\x1b[20\x1b]\x11\té\x1b[200~\x1b[201~b\x1b[200~y\x1b[201~\x1b"
READ = "a\x1b[A\x1b\x1b[200~x␛[31m␛[20␛]\x11\té␛[200~\x1b[201~b\x1b[200~y\x1b[201~\x1b"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_escapes_within_a_paste_become_visible_however_it_is_split(size):
    data, reader = SENT.encode(), TerminalInput()
    parts = [reader.decode(data[at : at + size]) for at in range(0, len(data), size)]
    assert "".join(parts) == READ


def test_typed_text_is_not_held_back():
    reader = TerminalInput()
    assert [reader.decode(key) for key in (b"\x1b", b"[", b"a", b"\x1b[20")] == ["\x1b", "[", "a", "\x1b[20"]


def test_invalid_utf8_is_replaced():
    reader = TerminalInput()
    assert reader.decode(b"caf\xe9 au lait \xff\xc3") == "caf� au lait �"
    assert reader.decode(b"\xa9") == "é"


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("\x1bkx", "alt+k x"),
        ("\x1bk\x1b[B", "alt+k down"),
        ("\x1bd\x1b[<35;3;3M", "alt+d"),  # the mouse moves
        ("\x1bkab\x1bk", "alt+k a b alt+k"),
        ("\x1b\x1bk", "escape alt+k"),
        ("\x1bb\x1bf\x1bOP\x1b[1;3D", "ctrl+left ctrl+right f1 alt+left"),
    ],
)
def test_alt_with_a_letter_is_read_at_once(sent, keys):
    parser = XTermParser()
    read = [*parser.feed(TerminalInput().decode(sent.encode()))]
    assert " ".join(event.key for event in read if hasattr(event, "key")) == keys


def test_without_kittys_protocol_alt_is_not_translated(monkeypatch):
    monkeypatch.setattr(constants, "DISABLE_KITTY_KEY", True)
    assert TerminalInput().decode(b"\x1bk") == "\x1bk"
