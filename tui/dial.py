"""The current settings of the knobs."""

from typing import Any

from .bundles import Bundles
from .engine import sentence
from .knobs import PRESETS, Changes, KnobState, knob_named, preset_of, states

#: Values that `Dial.step` tries if the bundle refuses some.
TRIES = 16


class Dial:
    """The changes to the decoding options of the current bundle. Without a bundle, nothing can be changed.

    `wrong` says why the last change was refused, "" if it was not.
    """

    def __init__(self, bundles: Bundles, changes: Changes | None = None) -> None:
        self._bundles = bundles
        self.changes: Changes = dict(changes or {})
        self.wrong = ""

    @property
    def values(self) -> dict[str, Any]:
        """The current options, empty if no bundle is loaded."""
        engine = self._bundles.engine
        return engine.options(self.changes) if engine else {}

    @property
    def preset(self) -> str:
        """The name of the preset in use, "" if there is none."""
        return preset_of(self.changes)

    def presets(self) -> dict[str, Changes]:
        """The presets that the bundle accepts."""
        if not self._bundles.engine:
            return {}
        return {name: changes for name, changes in PRESETS.items() if not self._refuses(changes)}

    def states(self) -> tuple[KnobState, ...]:
        """Every knob with its value."""
        engine = self._bundles.engine
        return states(self.values, engine.defaults) if engine else ()

    def fit(self) -> str:
        """Reset all knobs if the bundle refuses the changes. Returns the reason, "" if it accepts them."""
        if wrong := self._refuses(self.changes):
            self.changes = {}
        return wrong

    def set(self, name: str, value: Any) -> None:
        """Set a knob, and adjust the others as needed."""
        if engine := self._bundles.engine:
            try:
                self.changes, self.wrong = engine.changed(self.changes, name, value), ""
            except Exception as error:
                self.wrong = sentence(error)

    def step(self, name: str, by: int) -> None:
        """Set a knob to its next value that is compatible with the others: with a beam of 6, the groups are
        1, 2, 3 and 6. If none of the next values is, `wrong` is about the first of them."""
        kind = knob_named(name).kind
        here = value = self.values.get(name)
        wrong = ""
        for _ in range(TRIES):
            before, value = value, kind.step(value, by)
            if value in (here, before):  # the end of the range, or all values were tried
                break
            self.set(name, value)
            if not self.wrong:
                return
            wrong = wrong or self.wrong
        self.wrong = wrong

    def reset(self, name: str | None) -> None:
        """Reset a knob to the bundle's default, or all knobs if `name` is None."""
        if name is None:
            self.use({})
        elif engine := self._bundles.engine:
            self.set(name, engine.defaults[name])

    def use(self, changes: Changes) -> None:
        """Replace all changes, unless the bundle refuses the new ones."""
        if self._bundles.engine:
            self.wrong = self._refuses(changes)
            if not self.wrong:
                self.changes = dict(changes)

    def next_preset(self, by: int) -> None:
        """Use the preset `by` places after the current one, or the first if no preset is in use."""
        offered = self.presets()
        if offered:
            names = list(offered)
            at = names.index(self.preset) + by if self.preset else 0
            self.use(offered[names[at % len(names)]])

    def shown(self, name: str) -> str:
        """A knob's value as the user would type it, "" for None."""
        return knob_named(name).kind.show(self.values[name])

    def wrong_with(self, name: str, text: str) -> str:
        """Why a knob cannot be set to what was typed, "" if it can."""
        engine = self._bundles.engine
        try:
            value = knob_named(name).kind.parse(text)
            if engine:
                engine.changed(self.changes, name, value)
        except ValueError as error:
            return str(error)
        except Exception as error:
            return sentence(error)
        return ""

    def _refuses(self, changes: Changes) -> str:
        """Why the bundle refuses these changes, "" if it accepts them."""
        try:
            if engine := self._bundles.engine:
                engine.options(changes)
        except Exception as error:
            return sentence(error)
        return ""

    def write(self, name: str, text: str) -> None:
        """Set a knob to what was typed, for which `wrong_with` found nothing wrong."""
        self.set(name, knob_named(name).kind.parse(text))
