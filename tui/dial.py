"""The knobs as they are turned now, and what keeps one from being turned further."""

from typing import Any

from .bundles import Bundles
from .engine import sentence
from .knobs import KNOBS, Changes, Knob, KnobState, preset_of, presets, states

#: Values of a knob that are tried where one is refused.
TRIES = 16


class Dial:
    """What is changed of the options of the bundle that one talks to, whichever that is; nothing can be
    turned while there is none. `wrong` says why what was asked for last was refused, "" where it was not."""

    def __init__(self, bundles: Bundles, changes: Changes | None = None) -> None:
        self._bundles = bundles
        self.changes: Changes = dict(changes or {})
        self.wrong = ""

    @property
    def values(self) -> dict[str, Any]:
        """The options as they are now; none while there is no model."""
        engine = self._bundles.engine
        return engine.options(self.changes) if engine else {}

    @property
    def preset(self) -> str:
        """The preset that the knobs stand at, "" where that is none."""
        return preset_of(self.changes, self.values)

    def presets(self) -> dict[str, Changes]:
        """Those that the bundle can be asked for."""
        return {name: changes for name, changes in presets(self.values).items() if not self._refuses(changes)}

    def states(self) -> tuple[KnobState, ...]:
        """Each knob, to be shown."""
        engine = self._bundles.engine
        return states(self.values, engine.defaults) if engine else ()

    def fit(self) -> str:
        """For a bundle that one talks to from now on: turn all back where it refuses what was right for
        another. What was wrong, "" where nothing was."""
        if wrong := self._refuses(self.changes):
            self.changes = {}
        return wrong

    def turn(self, name: str, value: Any) -> None:
        """Turn one knob, and those that have to turn with it."""
        if engine := self._bundles.engine:
            try:
                self.changes, self.wrong = engine.turned(self.changes, name, value), ""
            except Exception as error:
                self.wrong = sentence(error)

    def step(self, name: str, by: int) -> None:
        """Turn a knob to the next value that goes together with the others: groups that share a beam of 6
        are 1, 2, 3 and 6. Where there is none near, what is wrong with the first is told."""
        kind = _knob(name).kind
        here = value = self.values.get(name)
        wrong = ""
        for _ in range(TRIES):
            before, value = value, kind.step(value, by)
            if value in (here, before):  # the last there is, or once around
                break
            self.turn(name, value)
            if not self.wrong:
                return
            wrong = wrong or self.wrong
        self.wrong = wrong

    def reset(self, name: str | None) -> None:
        """Turn a knob to the bundle's own value; None is all of them."""
        if name is None:
            self.use({})
        elif engine := self._bundles.engine:
            self.turn(name, engine.defaults[name])

    def use(self, changes: Changes) -> None:
        """Turn the knobs to these, and all others to the bundle's own."""
        if self._bundles.engine:
            self.wrong = self._refuses(changes)
            if not self.wrong:
                self.changes = dict(changes)

    def next_preset(self, by: int) -> None:
        """The preset `by` places on; the first, where the knobs stand at none."""
        offered = self.presets()
        if offered:
            names = list(offered)
            at = names.index(self.preset) + by if self.preset else 0
            self.use(offered[names[at % len(names)]])

    def shown(self, name: str) -> str:
        """A knob's value as it is written, "" for none."""
        return _knob(name).kind.show(self.values[name])

    def wrong_with(self, name: str, text: str) -> str:
        """Why a knob does not take what was written, "" where it does."""
        engine = self._bundles.engine
        try:
            value = _knob(name).kind.parse(text)
            if engine:
                engine.turned(self.changes, name, value)
        except ValueError as error:
            return str(error)
        except Exception as error:
            return sentence(error)
        return ""

    def _refuses(self, changes: Changes) -> str:
        """Why the bundle refuses these together, "" where it does not."""
        try:
            if engine := self._bundles.engine:
                engine.options(changes)
        except Exception as error:
            return sentence(error)
        return ""

    def write(self, name: str, text: str) -> None:
        """Turn a knob to what was written, which is right."""
        self.turn(name, _knob(name).kind.parse(text))


def _knob(name: str) -> Knob:
    return next(knob for knob in KNOBS if knob.name == name)
