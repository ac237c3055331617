"""Make the input of a terminal safe for Textual to read.

Textual has three problems with its input:

- It crashes at a byte that is not UTF-8, such as é of a Latin-1 terminal.
- It reads what follows an escape within a paste as keys. Not every terminal removes escapes from pastes; tmux
  does not.
- It waits a tenth of a second after an escape and a letter, which is Alt with the letter. Input in that time
  is read as part of the sequence, and another escape turns it into `^` and the letter.
"""

import codecs
import importlib
import re
import sys

from textual import constants

_BEGIN, _END = "\x1b[200~", "\x1b[201~"
_VISIBLE_ESCAPE = "␛"
#: Alt with a letter, except Alt-B and Alt-F, which terminals send for Ctrl-Left and Ctrl-Right.
_ALT = re.compile("\x1b([ac-eg-z])")


def tolerate() -> None:
    """Make Textual's drivers use `TerminalInput`. Windows does not need it."""
    if sys.platform != "win32":
        for name in ("linux_driver", "linux_inline_driver"):
            driver = importlib.import_module(f"textual.drivers.{name}")
            driver.getincrementaldecoder = lambda _: TerminalInput  # type: ignore[attr-defined]


class TerminalInput:
    """An incremental decoder. It makes escapes within a bracketed paste visible, and translates Alt with a
    letter to the sequence of kitty's protocol, which Textual recognizes at once."""

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pastes = False
        self._before = ""  # the end of the input so far, if it may be the beginning of a mark

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
        """Split `text` at `mark`: the text before it, the text after it, and whether it was found.

        Within a paste, text that may be the beginning of the mark is held back. Typed text is never held
        back, since an escape by itself is a key; there, the first part includes the mark.
        """
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
    """The longest end of `text` that is a beginning of `mark`."""
    return next((mark[:n] for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), "")


def _with_alt(text: str) -> str:
    if constants.DISABLE_KITTY_KEY:
        return text
    return _ALT.sub(lambda found: f"\x1b[{ord(found[1])};3u", text)
