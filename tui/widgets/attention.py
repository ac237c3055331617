"""What a reply looked at."""

import bisect
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from ..values import Insight
from .hints import NOT_FOLLOWED
from .lines import Line, Lines, cells, token

_TOKEN, _COLUMN = 12, 10  # cells
_SHADES = " ░▒▓█"
#: The least attention for each shade but the first.
_LEVELS = (0.05, 0.15, 0.3, 0.6)


class Attention(Lines):
    """A row for each token of the reply, a column for each of the source: how much it looked at it."""

    HELP = """
    ### Attention

    A row for each token of the reply, a column for each token that the model read. The figure says how much
    of its attention was there, in percent; a row adds up to 100. The shade says the same: `░` from 5, `▒`
    from 15, `▓` from 30, `█` from 60.

    A token that is `·` is a part of a character, which a later one completes.

    Up and Down, or the mouse, light a row. Left and Right scroll.
    """
    BINDING_GROUP_TITLE = "Attention"

    def show(self, insight: Insight | None, reply: int, hint: str) -> None:
        """The reply of that index among the candidates; where there is none, the hint."""
        way = insight.replies[reply] if insight and reply < len(insight.replies) else ()
        if not insight or not way:
            self.say(hint if insight is None else NOT_FOLLOWED)
            return
        widths = [max(6, min(_COLUMN, cell_len(token(text)) + 2)) for text in insight.source]
        names = "".join(
            cells(token(text), w - 1, right=True) + " "
            for text, w in zip(insight.source, widths, strict=True)
        )
        head: Line = [(" " * (_TOKEN + 2), ""), (names, "head")]
        rows = [
            [
                (cells(token(step.text), _TOKEN, right=True) + "  ", "bold"),
                *_weights(step.weights, widths),
            ]
            for step in way
        ]
        self.draw(rows, [head], fixed=_TOKEN + 2)


def _weights(weights: Sequence[float], widths: Sequence[int]) -> Iterator[tuple[str, str]]:
    for weight, width in zip(weights, widths, strict=False):
        percent = round(100 * weight)
        level = bisect.bisect_right(_LEVELS, weight)
        text = f"{_SHADES[level]}{percent:>3}" if percent else "·"
        yield text.rjust(width - 1) + " ", f"heat{level}" if level else "dim"
