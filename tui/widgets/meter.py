"""How fast a reply came, and with what settings."""

import statistics
from collections.abc import Sequence
from typing import Any

from textual import events

from ..knobs import KNOBS
from ..plain import counted
from ..values import ReplyFacts
from .hints import NOTHING
from .lines import Line, Lines, one_line, spark

_NAME = 13  # cells


class Meter(Lines):
    """Times, memory and settings of a reply."""

    HELP = """
    ### Meter

    **first words**: until the first text that is never taken back. Under beam search that can be late: it is
    what all hypotheses begin with.

    **steps**: the time of each step of the search, the first with the reading of the prompt.

    **confidence**: how often replies that looked so were right, on the pairs that training held out. Only a
    calibrated bundle knows.

    **settings**: those that the reply was made with. A replay uses them again.
    """
    BINDING_GROUP_TITLE = "Meter"

    def __init__(self) -> None:
        super().__init__(lights=False)
        self._shown: tuple[ReplyFacts | None, tuple[float, ...]] = (None, ())

    def show(self, reply: ReplyFacts | None, speeds: Sequence[float]) -> None:
        """This reply, among the tokens a second of the conversation's."""
        self._shown = (reply, tuple(speeds))
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        self._fill()

    def _fill(self) -> None:
        reply, speeds = self._shown
        if reply is None:
            self.say(NOTHING)
            return
        width = max(8, self.scrollable_content_region.width - _NAME)
        rows = [
            _row("bundle", reply.made.label),
            _row("reply", f"{_ms(reply.ms)} for {counted(reply.tokens, 'token')}"),
        ]
        if reply.confidence is not None:
            rows.append(_row("confidence", f"{100 * reply.confidence:.0f}% that it is right"))
        if reply.tokens_per_second is not None:
            rows.append(_row("speed", f"{reply.tokens_per_second:,.0f} tokens a second"))
        if reply.first_ms is not None:
            rows.append(_row("first words", _ms(reply.first_ms)))
        if reply.step_ms:
            median, slowest = statistics.median(reply.step_ms), max(reply.step_ms)
            rows.append(_row("steps", f"{len(reply.step_ms)}, median {_ms(median)}, slowest {_ms(slowest)}"))
            rows.append(_row("", spark(reply.step_ms, width), "accent"))
        if len(speeds) > 1:
            rows.append(_row("speeds", spark(speeds, width), "accent"))
        if reply.memory is not None:
            rows.append(_row("memory", f"{reply.memory / 1e6:,.0f} MB"))
        rows.append([])
        rows += [
            _row("settings" if n == 0 else "", said) for n, said in enumerate(_settings(reply.made.options))
        ]
        self.draw(rows)


def _row(name: str, value: str, look: str = "") -> Line:
    return [(name.ljust(_NAME), "dim"), (one_line(value), look)]


def _settings(options: dict[str, Any]) -> list[str]:
    """As the knobs are written; those that were not set are left out."""
    return [
        f"{knob.name.replace('_', ' ')} {knob.kind.show(options[knob.name])}"
        for knob in KNOBS
        if options.get(knob.name) not in (None, (), [])
    ] or ["not known"]


def _ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
