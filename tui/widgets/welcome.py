"""The welcome text of an empty chat: the bundle, what such a model can and cannot do, and the keys."""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ..plain import content, counted
from ..values import BundleFacts, KeyHint

#: The most columns of keys, and the cells of each.
COLUMNS, COLUMN = 3, 20

#: The commands that make a bundle from a file of dialogues.
COMMANDS = (
    "edgechat train mine.jsonl --out runs/mine",
    "edgechat export runs/mine --out bundles/mine",
    "edgechat tui bundles/mine",
)


class Welcome(Static):
    """The text that an empty chat shows."""

    def __init__(self) -> None:
        super().__init__()
        self._paragraphs: tuple[Content, ...] = ()
        self._keys: tuple[KeyHint, ...] = ()

    def show_loading(self, bundle: str) -> None:
        """Say that a bundle is being loaded."""
        self._paragraphs = ()
        self.update(content(f"Loading {bundle} …", "dim"))

    def show_nothing(self, keys: Sequence[KeyHint]) -> None:
        """Say that no bundle is open, and how to make one."""
        self._show(
            content("No bundle is open", "bold"),
            content(
                "A bundle is a small chat or command model, trained on a file of dialogues. Each line of the "
                "file is an object such as "
            )
            + content('{"prompt": "hello", "response": "hi there"}', "$text-accent")
            + content(". Three commands make your own bundle:"),
            _commands(),
            keys=keys,
        )

    def show_model(self, facts: BundleFacts, keys: Sequence[KeyHint], *, demo: bool = False) -> None:
        """Introduce the loaded bundle. The text for the demo also says how to make a bundle."""
        self._show(
            content(facts.name, "bold $text-primary") + content(f"  {_figures(facts)}", "dim"),
            content(
                "A small LSTM that runs on this machine; nothing you write leaves it. It answers like the "
                "dialogues it was trained on, and best when your words are similar to theirs. It has no "
                "other knowledge, cannot look anything up or reason, and always answers, even when wrong. "
                + _closed(facts.closed)
                + _memory(facts.turns)
            ),
            *([content("Make your own:"), _commands()] if demo else []),
            keys=keys,
        )

    def on_resize(self) -> None:
        self._draw()

    def _show(self, *paragraphs: Content, keys: Sequence[KeyHint]) -> None:
        self._paragraphs, self._keys = paragraphs, tuple(keys)
        self._draw()

    def _draw(self) -> None:
        if self._paragraphs:
            columns = max(1, min(COLUMNS, self.content_size.width // COLUMN))
            self.update(Content("\n\n").join([*self._paragraphs, _hints(self._keys, columns)]))


def _commands() -> Content:
    return Content("\n").join(content(f"  {command}", "$text-accent") for command in COMMANDS)


def _hints(keys: Sequence[KeyHint], columns: int) -> Content:
    rows = (keys[row : row + columns] for row in range(0, len(keys), columns))
    return Content("\n").join(Content("").join(map(_hint, row)) for row in rows)


def _hint(hint: KeyHint) -> Content:
    return content(hint.key, "bold $text-accent") + content(f" {hint.does}".ljust(COLUMN - len(hint.key)))


def _figures(facts: BundleFacts) -> str:
    details = []
    if facts.layers is not None and facts.hidden is not None:
        details.append(f"{counted(facts.layers, 'layer')} of {facts.hidden} units")
    if facts.vocabulary is not None:
        details.append(f"{facts.vocabulary:,} tokens")
    if facts.precision:
        details.append(facts.precision)
    if facts.size is not None:
        details.append(f"{facts.size / 1e6:.1f} MB")
    details.append(facts.device)
    return " · ".join(details)


def _closed(closed: bool) -> str:
    return "It has a closed set of replies and says nothing else. " if closed else ""


def _memory(turns: int | None) -> str:
    if turns is None:
        return ""
    if turns <= 1:
        return "It reads one prompt at a time and remembers nothing said before."
    return (
        f"It reads the last {turns} turns of the conversation, including your prompt; each prompt or reply "
        "is one turn."
    )
