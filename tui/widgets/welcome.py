"""What an empty chat shows: what the bundle is, what such a model can do and cannot, and the keys."""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ..plain import content
from ..values import BundleFacts, KeyHint

#: Columns of keys, and the cells of one: they fit beside the candidates of a screen of 100 columns.
COLUMNS, COLUMN = 3, 18


class Welcome(Static):
    """A text for whoever opens the chat for the first time."""

    def show_loading(self, bundle: str) -> None:
        """The model is not there yet."""
        self.update(content(f"Loading {bundle} …"))

    def show_nothing(self) -> None:
        """The model will not be there: the error says why."""
        self.update("")

    def show_model(self, facts: BundleFacts, keys: Sequence[KeyHint]) -> None:
        """The model is there."""
        paragraphs = [
            content(facts.name, "bold"),
            content(_what_it_is(facts)),
            content(
                "It answers the way the dialogues it was trained on did: best where your words are like "
                "theirs. It has no other knowledge, cannot look anything up or reason, and answers "
                f"everything, wrongly too. {_memory(facts.turns)}"
            ),
            Content("\n").join(
                Content("").join(map(_hint, keys[row : row + COLUMNS]))
                for row in range(0, len(keys), COLUMNS)
            ),
        ]
        self.update(Content("\n\n").join(paragraphs))


def _hint(hint: KeyHint) -> Content:
    return content(hint.key, "bold") + content(f" {hint.does}".ljust(COLUMN - len(hint.key)))


def _what_it_is(facts: BundleFacts) -> str:
    model = "A small LSTM chat model"
    if facts.layers is not None and facts.hidden is not None:
        layers = "1 layer" if facts.layers == 1 else f"{facts.layers} layers"
        model += f" of {layers} with {facts.hidden} units"
    details = [model]
    if facts.vocabulary is not None:
        details.append(f"a vocabulary of {facts.vocabulary:,} pieces")
    if facts.precision:
        details.append(facts.precision)
    if facts.size is not None:
        details.append(f"{facts.size / 1e6:.1f} MB")
    return f"{', '.join(details)}. It runs on this machine ({facts.device}); nothing you write leaves it."


def _memory(turns: int | None) -> str:
    if turns is None:
        return ""
    if turns <= 1:
        return "It sees one prompt at a time and remembers nothing said before."
    return f"Of the conversation it sees the last {turns} turns, your prompt among them."
