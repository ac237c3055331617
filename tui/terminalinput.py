"""What a terminal sends, made safe for Textual to read: any bytes, and pastes that stay pastes.

Textual ends with an error at a byte that is no UTF-8, such as a Latin-1 terminal's é, and takes what follows
an escape within a paste for keys. Not every terminal keeps escapes out of what it pastes; tmux does not. An
escape with a letter, which is Alt, it waits for a tenth of a second to be sure of: what comes meanwhile is
taken with it, and another escape makes `^` and the letter of it.
"""

import codecs
import importlib
import re
import sys

from textual import constants

_BEGIN, _END = "\x1b[200~", "\x1b[201~"
_VISIBLE_ESCAPE = "␛"
#: Alt with a letter; Alt-B and Alt-F are what terminals send for Ctrl-Left and Ctrl-Right.
_ALT = re.compile("\x1b([ac-eg-z])")


def tolerate() -> None:
    """Have Textual's drivers read by `TerminalInput`. Windows has none of this."""
    if sys.platform != "win32":
        for name in ("linux_driver", "linux_inline_driver"):
            driver = importlib.import_module(f"textual.drivers.{name}")
            driver.getincrementaldecoder = lambda _: TerminalInput  # type: ignore[attr-defined]


class TerminalInput:
    """An incremental decoder. Escapes between the marks of a bracketed paste become visible, and Alt with a
    letter becomes what kitty's protocol has for it, of which Textual is sure at once."""

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pastes = False
        self._before = ""  # of a mark: what may be its beginning

    def decode(self, data: bytes, final: bool = False) -> str:
        text = self._bytes.decode(data, final)
        read = ""
        while text:
            mark = _END if self._pastes else _BEGIN
            taken, text, found = self._until(mark, text)
            read += taken.replace("\x1b", _VISIBLE_ESCAPE) if self._pastes else _with_alt(taken)
            if found:
                read += mark if self._pastes else ""
                self._pastes = not self._pastes
        return read

    def _until(self, mark: str, text: str) -> tuple[str, str, bool]:
        """What comes before `mark`, or with it where a paste begins; the rest; whether it is there. Of what
        is typed nothing is held back, since an escape by itself is a key."""
        whole = self._before + text
        at = whole.find(mark)
        if self._pastes:
            if at >= 0:
                self._before = ""
                return whole[:at], whole[at + len(mark) :], True
            self._before = _beginning(mark, whole)
            return whole[: len(whole) - len(self._before)], "", False
        if at >= 0:
            end = at + len(mark)
            new = whole[len(self._before) : end]
            self._before = ""
            return new, whole[end:], True
        self._before = _beginning(mark, whole)
        return text, "", False


def _beginning(mark: str, text: str) -> str:
    """The end of `text` that may be the beginning of `mark`."""
    return next((mark[:n] for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), "")


def _with_alt(text: str) -> str:
    if constants.DISABLE_KITTY_KEY:
        return text
    return _ALT.sub(lambda found: f"\x1b[{ord(found[1])};3u", text)
