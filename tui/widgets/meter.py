"""The meter view: how fast a reply was made, and with which settings."""

import statistics
from collections.abc import Sequence

from rich.cells import cell_len
from textual import events

from ..knobs import effective_settings
from ..safe_text import plural
from ..values import ReplyFacts
from .hints import NO_REPLY
from .lines import Line, Lines, format_ms, one_line, sparkline

_NAME_CELLS, _MIN_BARS_CELLS = 13, 16


class Meter(Lines):
    """The times, memory and settings of a reply."""

    HELP = """
    ### Meter

    **settings**: the settings that the reply was made with, without those that had no effect. A replay uses
    them again.

    **confidence**: the probability that the reply is right, word for word, calibrated on the pairs that
    training held out. In open chat, where many replies would do, it is low. Only a calibrated bundle has it.

    **speed**: the speed of this reply, and as bars the speeds of all replies of the conversation.

    **first words**: the time until the first text that cannot change any more. With beam search this can be
    late, because all hypotheses must begin with it.

    **steps**: the time of each step of the search; the first one includes reading the prompt.
    """
    BINDING_GROUP_TITLE = "Meter"

    def __init__(self) -> None:
        super().__init__(highlights=False)
        self._shown: tuple[ReplyFacts | None, tuple[float, ...]] = (None, ())

    def show(self, reply: ReplyFacts | None, speeds: Sequence[float]) -> None:
        """Show a reply. `speeds` are the tokens per second of the conversation's replies."""
        self._shown = (reply, tuple(speeds))
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    def _fill(self) -> None:
        reply, speeds = self._shown
        if reply is None:
            self.show_message(NO_REPLY)
            return
        width = max(8, self.scrollable_content_region.width - _NAME_CELLS)
        settings = _pack_lines(effective_settings(reply.made.options) or ["not known"], width)
        rows = [
            _row("bundle", reply.made.label),
            *(_row("" if n else "settings", line) for n, line in enumerate(settings)),
            _row("reply", f"{format_ms(reply.ms)} for {plural(reply.tokens, 'token')}"),
        ]
        if reply.confidence is not None:
            rows.append(_row("confidence", f"{_percent(reply.confidence)} likely to be right"))
        if reply.tokens_per_second is not None:
            speed = f"{reply.tokens_per_second:,.0f} tokens/s"
            rows += _bar_rows("speed", speed, speeds if len(speeds) > 1 else (), width)
        if reply.first_ms is not None:
            rows.append(_row("first words", format_ms(reply.first_ms)))
        if reply.step_ms:
            median, slowest = statistics.median(reply.step_ms), max(reply.step_ms)
            steps = f"{len(reply.step_ms)}, median {format_ms(median)}, slowest {format_ms(slowest)}"
            rows += _bar_rows("steps", steps, reply.step_ms, width)
        if reply.memory is not None:
            rows.append(_row("memory", f"{reply.memory / 1e6:,.0f} MB"))
        self.draw(rows)


def _pack_lines(parts: Sequence[str], width: int) -> list[str]:
    """Join the parts into lines, as many on each line as fit."""
    lines = [one_line(parts[0])]
    for part in map(one_line, parts[1:]):
        longer = f"{lines[-1]} · {part}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _bar_rows(name: str, value: str, values: Sequence[float], width: int) -> list[Line]:
    """A row with values as bars after its text, or below it if there is no room."""
    room = width - len(value) - 2
    if room < min(len(values), _MIN_BARS_CELLS):
        return [_row(name, value), _row("", sparkline(values, width), "accent")]
    return [[*_row(name, f"{value}  "), (sparkline(values, room), "accent")]]


def _percent(probability: float) -> str:
    """Like 83%; never 0% or 100%, since nothing is certain."""
    if probability < 0.01:
        return "less than 1%"
    return "more than 99%" if probability > 0.99 else f"{100 * probability:.0f}%"


def _row(name: str, value: str, style: str = "") -> Line:
    return [(name.ljust(_NAME_CELLS), "dim"), (one_line(value), style)]
