"""The footer: as many of the currently available keys as fit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from ..keys import ALL_ACTIONS, is_key

#: A binding and its tooltip.
BindingAndTooltip = tuple[Binding, str]

_ORDER = {action.id: n for n, action in enumerate(ALL_ACTIONS)}


def sort_bindings(screen: Screen[object]) -> list[ActiveBinding]:
    """The active bindings: those of the focused widget first, then in the order of declaration in `keys.py`.
    A key from `keys.toml` keeps the place of its action."""
    active = list(screen.active_bindings.values())
    nodes = {node: n for n, node in reversed(list(enumerate(a.node for a in active)))}
    return sorted(active, key=lambda a: (nodes[a.node], _ORDER.get(a.binding.id or "", len(_ORDER))))


def first_key(screen: Screen[Any], id: str) -> str:
    """The first key of an action as it is shown, "" if it has none now."""
    bound = (active.binding for active in screen.active_bindings.values())
    keys = (
        screen.app.get_key_display(binding) for binding in bound if binding.id == id and is_key(binding.key)
    )
    return next(keys, "")


class FittingFooter(Footer):
    """A footer whose keys are never cut off. Keys that do not fit are left out, starting with the last. Those
    of the application (palette, help, quit) are always shown, at the end.

    A screen may have `labels` by action, which replace those in `keys.py`.
    """

    _shown: tuple[BindingAndTooltip, ...] = ()

    def compose(self) -> ComposeResult:
        self._shown = tuple(self._bindings_that_fit())
        yield from (self._make_footer_key(*shown) for shown in self._shown)

    async def recompose(self) -> None:
        """Recompose only if other keys are shown: each key is a widget and takes time to make."""
        if self.is_attached and self._shown != tuple(self._bindings_that_fit()):
            await super().recompose()

    def on_resize(self, event: events.Resize) -> None:
        self.refresh(recompose=True)

    def _bindings_that_fit(self) -> Iterator[BindingAndTooltip]:
        if not self._bindings_ready:
            return
        shown: dict[str, BindingAndTooltip] = {}
        last: dict[str, BindingAndTooltip] = {}
        for node, binding, enabled, tooltip in sort_bindings(self.screen):
            if binding.show and enabled and is_key(binding.key) and binding.action not in shown:
                label = getattr(self.screen, "labels", {}).get(binding.action, binding.description)
                key = replace(binding, description=label), tooltip
                (last if node is self.app else shown)[binding.action] = key
        room = self.size.width - sum(self._width(binding) for binding, _ in last.values())
        for key in shown.values():
            room -= self._width(key[0])
            if room < 0:
                break
            yield key
        yield from last.values()

    def _width(self, binding: Binding) -> int:
        return len(self.app.get_key_display(binding)) + len(binding.description) + 2

    def _make_footer_key(self, binding: Binding, tooltip: str) -> FooterKey:
        return FooterKey(
            binding.key,
            self.app.get_key_display(binding),
            binding.description,
            binding.action,
            tooltip=tooltip,
            classes="-compact",
        )
