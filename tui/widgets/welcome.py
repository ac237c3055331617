"""The welcome text of an empty chat: the bundle, what such a model can and cannot do, and the keys."""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ..safe_text import plural, safe_content
from ..values import BundleFacts, KeyHint

#: The most columns of keys, and the cells of each.
MAX_COLUMNS, COLUMN_CELLS = 3, 20

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
        self.update(safe_content(f"Loading {bundle} …", "dim"))

    def show_nothing(self, keys: Sequence[KeyHint]) -> None:
        """Say that no bundle is open, and how to make one."""
        self._show(
            safe_content("No bundle is open", "bold"),
            safe_content(
                "A bundle is a small chat or command model, trained on a file of dialogues. Each line of the "
                "file is an object such as "
            )
            + safe_content('{"prompt": "hello", "response": "hi there"}', "$text-accent")
            + safe_content(". Three commands make your own bundle:"),
            _commands(),
            keys=keys,
        )

    def show_model(self, facts: BundleFacts, keys: Sequence[KeyHint], *, demo: bool = False) -> None:
        """Introduce the loaded bundle. The text for the demo also says how to make a bundle."""
        self._show(
            safe_content(facts.name, "bold $text-primary")
            + safe_content(f"  {_bundle_details(facts)}", "dim"),
            safe_content(
                "A small LSTM that runs on this machine; nothing you write leaves it. It answers like the "
                "dialogues it was trained on, and best when your words are similar to theirs. It has no "
                "other knowledge, cannot look anything up or reason, and always answers, even when wrong. "
                + _closed_set_text(facts.has_closed_set)
                + _turns_text(facts.max_turns)
            ),
            *([safe_content("Make your own:"), _commands()] if demo else []),
            keys=keys,
        )

    def on_resize(self) -> None:
        self._draw()

    def _show(self, *paragraphs: Content, keys: Sequence[KeyHint]) -> None:
        self._paragraphs, self._keys = paragraphs, tuple(keys)
        self._draw()

    def _draw(self) -> None:
        if self._paragraphs:
            columns = max(1, min(MAX_COLUMNS, self.content_size.width // COLUMN_CELLS))
            self.update(Content("\n\n").join([*self._paragraphs, _hints(self._keys, columns)]))


def _commands() -> Content:
    return Content("\n").join(safe_content(f"  {command}", "$text-accent") for command in COMMANDS)


def _hints(keys: Sequence[KeyHint], columns: int) -> Content:
    rows = (keys[row : row + columns] for row in range(0, len(keys), columns))
    return Content("\n").join(Content("").join(map(_hint, row)) for row in rows)


def _hint(hint: KeyHint) -> Content:
    return safe_content(hint.key, "bold $text-accent") + safe_content(
        f" {hint.description}".ljust(COLUMN_CELLS - len(hint.key))
    )


def _bundle_details(facts: BundleFacts) -> str:
    details = []
    if facts.layers is not None and facts.hidden is not None:
        details.append(f"{plural(facts.layers, 'layer')} of {facts.hidden} units")
    if facts.vocabulary is not None:
        details.append(f"{facts.vocabulary:,} tokens")
    if facts.precision:
        details.append(facts.precision)
    if facts.size is not None:
        details.append(f"{facts.size / 1e6:.1f} MB")
    details.append(facts.device)
    return " · ".join(details)


def _closed_set_text(closed: bool) -> str:
    return "It has a closed set of replies and says nothing else. " if closed else ""


def _turns_text(turns: int | None) -> str:
    if turns is None:
        return ""
    if turns <= 1:
        return "It reads one prompt at a time and remembers nothing said before."
    return (
        f"It reads the last {turns} turns of the conversation, including your prompt; each prompt or reply "
        "is one turn."
    )
