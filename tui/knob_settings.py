"""The current settings of the knobs."""

from typing import Any

from .bundles import Bundles
from .engine import error_message
from .knobs import PRESETS, Changes, KnobState, get_knob, knob_states, preset_of

#: How many values `KnobSettings.step` tries if the bundle refuses some.
MAX_TRIED_VALUES = 16


class KnobSettings:
    """The changes to the decoding options of the current bundle. Without a bundle, nothing can be changed.

    `error` says why the last change was refused, "" if it was not.
    """

    def __init__(self, bundles: Bundles, changes: Changes | None = None) -> None:
        self._bundles = bundles
        self.changes: Changes = dict(changes or {})
        self.error = ""

    @property
    def options(self) -> dict[str, Any]:
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
        return {name: changes for name, changes in PRESETS.items() if not self._why_refused(changes)}

    def states(self) -> tuple[KnobState, ...]:
        """Every knob with its value."""
        engine = self._bundles.engine
        return knob_states(self.options, engine.defaults) if engine else ()

    def reset_if_refused(self) -> str:
        """Reset all knobs if the bundle refuses the changes. Returns the reason, "" if it accepts them."""
        if error := self._why_refused(self.changes):
            self.changes = {}
        return error

    def set(self, name: str, value: Any) -> None:
        """Set a knob, and adjust the others as needed."""
        if engine := self._bundles.engine:
            try:
                self.changes, self.error = engine.with_change(self.changes, name, value), ""
            except Exception as error:
                self.error = error_message(error)

    def step(self, name: str, by: int) -> None:
        """Set a knob to its next value that is compatible with the others: with a beam of 6, the groups are
        1, 2, 3 and 6. If none of the next values is, `error` is about the first of them."""
        kind = get_knob(name).kind
        here = value = self.options.get(name)
        error = ""
        for _ in range(MAX_TRIED_VALUES):
            before, value = value, kind.step(value, by)
            if value in (here, before):  # the end of the range, or all values were tried
                break
            self.set(name, value)
            if not self.error:
                return
            error = error or self.error
        self.error = error

    def reset(self, name: str | None) -> None:
        """Reset a knob to the bundle's default, or all knobs if `name` is None."""
        if name is None:
            self.replace_all({})
        elif engine := self._bundles.engine:
            self.set(name, engine.defaults[name])

    def replace_all(self, changes: Changes) -> None:
        """Replace all changes, unless the bundle refuses the new ones."""
        if self._bundles.engine:
            self.error = self._why_refused(changes)
            if not self.error:
                self.changes = dict(changes)

    def next_preset(self, by: int) -> None:
        """Use the preset `by` places after the current one, or the first if no preset is in use."""
        presets = self.presets()
        if presets:
            names = list(presets)
            at = names.index(self.preset) + by if self.preset else 0
            self.replace_all(presets[names[at % len(names)]])

    def value_text(self, name: str) -> str:
        """A knob's value as the user would type it, "" for None."""
        return get_knob(name).kind.show(self.options[name])

    def why_invalid(self, name: str, text: str) -> str:
        """Why a knob cannot be set to what was typed, "" if it can."""
        engine = self._bundles.engine
        try:
            value = get_knob(name).kind.parse(text)
            if engine:
                engine.with_change(self.changes, name, value)
        except ValueError as error:
            return str(error)
        except Exception as error:
            return error_message(error)
        return ""

    def _why_refused(self, changes: Changes) -> str:
        """Why the bundle refuses these changes, "" if it accepts them."""
        try:
            if engine := self._bundles.engine:
                engine.options(changes)
        except Exception as error:
            return error_message(error)
        return ""

    def set_from_text(self, name: str, text: str) -> None:
        """Set a knob to what was typed, for which `why_invalid` found nothing wrong."""
        self.set(name, get_knob(name).kind.parse(text))
