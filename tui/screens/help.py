"""Help: a text about the focused widget, and all keys that are available now."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.selection import Selection
from textual.widgets import Markdown, Static

from ..safe_text import safe_content
from ..values import KeyHint
from ..widgets.hanging_indent import HangingIndent
from .dialog import Dialog

_KEY_CELLS = 18


@dataclass(frozen=True)
class KeySection:
    """A group of keys."""

    title: str
    keys: tuple[KeyHint, ...]


class _KeyRow(Static):
    """A key with its description beside it. The mouse selects the description."""

    def __init__(self, key: str, description: Content) -> None:
        super().__init__(HangingIndent(safe_content(key, "bold $text-accent"), description, _KEY_CELLS))
        self._description = description

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self._description.plain), "\n"


class Help(Dialog[None]):
    """The help dialog. `about` is Markdown that begins with a heading."""

    def __init__(self, about: str, sections: Sequence[KeySection], note: str) -> None:
        title, _, text = cleandoc(about).partition("\n") if about.strip() else ("", "", "")
        super().__init__(f"help: {title.lstrip('# ').lower()}" if title else "help")
        self._about, self._sections, self.note = text.strip(), sections, note

    def compose_box(self) -> ComposeResult:
        with VerticalScroll():
            if self._about:
                yield Markdown(self._about)
            for section in self._sections:
                yield Static(safe_content(section.title, "bold $text-primary"))
                for hint in section.keys:
                    description = safe_content(hint.description) + safe_content(
                        f"  {hint.id}" if hint.id else "", "dim"
                    )
                    yield _KeyRow(hint.key, description)
                yield Static()
            yield Static(safe_content(self.note, "dim"), classes="section")
