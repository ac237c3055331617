"""The attention view."""

import bisect
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from ..values import Trace
from .hints import NOT_TRACED
from .lines import Line, Lines, display_token, fit_cells

_TOKEN_CELLS, _MAX_COLUMN_CELLS = 12, 10
_SHADES = " ░▒▓█"
#: The lowest attention weight of each shade except the first.
_MIN_WEIGHTS = (0.05, 0.15, 0.3, 0.6)


class Attention(Lines):
    """The attention weights, with a row for each token of the reply and a column for each source token."""

    HELP = """
    ### Attention

    Each row is a token of the reply, each column a token that the model read. The number is the share of
    attention in percent; a row adds up to 100. The shade shows the same: `░` from 5, `▒` from 15, `▓` from
    30, `█` from 60.

    `·` is a token that holds only part of a character; a later token completes it.

    Up, Down and the mouse highlight a row. Left and Right scroll.
    """
    BINDING_GROUP_TITLE = "Attention"

    def show(self, trace: Trace | None, reply: int, hint: str) -> None:
        """Show the candidate of index `reply`, or `hint` if there is no trace."""
        tokens = trace.replies[reply] if trace and reply < len(trace.replies) else ()
        if not trace or not tokens:
            self.show_message(hint if trace is None else NOT_TRACED)
            return
        widths = [max(6, min(_MAX_COLUMN_CELLS, cell_len(display_token(text)) + 2)) for text in trace.source]
        names = "".join(
            fit_cells(display_token(text), w - 1, right=True) + " "
            for text, w in zip(trace.source, widths, strict=True)
        )
        head: Line = [(" " * (_TOKEN_CELLS + 2), ""), (names, "head")]
        rows = [
            [
                (fit_cells(display_token(each.text), _TOKEN_CELLS, right=True) + "  ", "bold"),
                *_weights(each.weights, widths),
            ]
            for each in tokens
        ]
        self.draw(rows, [head], fixed=_TOKEN_CELLS + 2)


def _weights(weights: Sequence[float], widths: Sequence[int]) -> Iterator[tuple[str, str]]:
    for weight, width in zip(weights, widths, strict=False):
        percent = round(100 * weight)
        level = bisect.bisect_right(_MIN_WEIGHTS, weight)
        text = f"{_SHADES[level]}{percent:>3}" if percent else "·"
        yield text.rjust(width - 1) + " ", f"heat{level}" if level else "dim"
