"""Help: a text about the focused widget, and all keys that are available now."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.selection import Selection
from textual.widgets import Markdown, Static

from ..plain import content
from ..values import KeyHint
from ..widgets.hanging import Hanging
from .dialog import Dialog

_KEY = 18  # cells


@dataclass(frozen=True)
class KeySection:
    """A group of keys."""

    title: str
    keys: tuple[KeyHint, ...]


class _Row(Static):
    """A key with its description beside it. The mouse selects the description."""

    def __init__(self, key: str, does: Content) -> None:
        super().__init__(Hanging(content(key, "bold $text-accent"), does, _KEY))
        self._does = does

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self._does.plain), "\n"


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
                yield Static(content(section.title, "bold $text-primary"))
                for hint in section.keys:
                    does = content(hint.does) + content(f"  {hint.id}" if hint.id else "", "dim")
                    yield _Row(hint.key, does)
                yield Static()
            yield Static(content(self.note, "dim"), classes="section")
