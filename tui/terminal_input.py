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

_PASTE_BEGIN, _PASTE_END = "\x1b[200~", "\x1b[201~"
_VISIBLE_ESCAPE = "␛"
#: Alt with a letter, except Alt-B and Alt-F, which terminals send for Ctrl-Left and Ctrl-Right.
_ALT_LETTER = re.compile("\x1b([ac-eg-z])")


def install() -> None:
    """Make Textual's drivers use `TerminalInput`. Windows does not need it."""
    if sys.platform != "win32":
        for name in ("linux_driver", "linux_inline_driver"):
            driver = importlib.import_module(f"textual.drivers.{name}")
            driver.getincrementaldecoder = lambda _: TerminalInput  # type: ignore[attr-defined]


class TerminalInput:
    """An incremental decoder. It makes escapes within a bracketed paste visible, and translates Alt with a
    letter to the sequence of kitty's protocol, which Textual recognizes at once."""

    def __init__(self) -> None:
        self._utf8_decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._in_paste = False
        self._partial_mark = ""  # the end of the input so far, if it may be the beginning of a mark

    def decode(self, data: bytes, final: bool = False) -> str:
        text = self._utf8_decoder.decode(data, final)
        read = ""
        while text:
            mark = _PASTE_END if self._in_paste else _PASTE_BEGIN
            taken, text, found = self._split_at(mark, text)
            read += taken.replace("\x1b", _VISIBLE_ESCAPE) if self._in_paste else _translate_alt(taken)
            if found:
                read += mark if self._in_paste else ""
                self._in_paste = not self._in_paste
        return read

    def _split_at(self, mark: str, text: str) -> tuple[str, str, bool]:
        """Split `text` at `mark`: the text before it, the text after it, and whether it was found.

        Within a paste, text that may be the beginning of the mark is held back. Typed text is never held
        back, since an escape by itself is a key; there, the first part includes the mark.
        """
        whole = self._partial_mark + text
        at = whole.find(mark)
        if self._in_paste:
            if at >= 0:
                self._partial_mark = ""
                return whole[:at], whole[at + len(mark) :], True
            self._partial_mark = _partial_mark_at_end(mark, whole)
            return whole[: len(whole) - len(self._partial_mark)], "", False
        if at >= 0:
            end = at + len(mark)
            new = whole[len(self._partial_mark) : end]
            self._partial_mark = ""
            return new, whole[end:], True
        self._partial_mark = _partial_mark_at_end(mark, whole)
        return text, "", False


def _partial_mark_at_end(mark: str, text: str) -> str:
    """The longest end of `text` that is a beginning of `mark`."""
    return next((mark[:n] for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), "")


def _translate_alt(text: str) -> str:
    if constants.DISABLE_KITTY_KEY:
        return text
    return _ALT_LETTER.sub(lambda found: f"\x1b[{ord(found[1])};3u", text)
