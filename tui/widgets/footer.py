"""The footer: as many of the currently available keys as fit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from textual import events
from textual.binding import ActiveBinding, Binding
from textual.content import Content
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget

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


class FittingFooter(Widget):
    """The keys of the footer, none of which is ever cut off. Keys that do not fit are left out, starting with
    the last. Those of the application (palette, help, quit) are always shown, at the end. A click on a key
    presses it.

    Textual's footer has a widget for each key. This one draws them all, since making and laying out a dozen
    widgets takes longer than everything else that a key press changes on the screen.

    A screen may have `labels` by action, which replace those in `keys.py`.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"footer--key", "footer--hovered"}

    _shown: reactive[tuple[BindingAndTooltip, ...]] = reactive(())
    _hovered: reactive[int | None] = reactive(None)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._show_bindings_after_refresh)

    def on_resize(self) -> None:
        self._show_bindings()

    def render(self) -> Content:
        parts: list[Content | str] = []
        for number, (binding, _) in enumerate(self._shown):
            key = Content.styled(self.app.get_key_display(binding), self.get_visual_style("footer--key"))
            text = Content.assemble(key, " ", binding.description)
            if number == self._hovered:
                text = text.stylize(self.get_visual_style("footer--hovered"))
            parts += [text, " "]
        return Content.assemble(*parts)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._hovered = self._number_at(event.x)

    def on_leave(self) -> None:
        self._hovered = None

    def watch__hovered(self, number: int | None) -> None:
        self.tooltip = self._shown[number][1] if number is not None else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        number = self._number_at(event.x)
        if number is not None:
            self.app.simulate_key(self._shown[number][0].key)

    def _number_at(self, x: int) -> int | None:
        """The number of the key in column `x`."""
        end = 0
        for number, (binding, _) in enumerate(self._shown):
            end += self._width(binding)
            if x < end:
                return number if x < end - 1 else None  # each ends with a space
        return None

    def _show_bindings_after_refresh(self, screen: Screen[Any]) -> None:
        if screen.app.app_focus:
            self.call_after_refresh(self._show_bindings)

    def _show_bindings(self) -> None:
        if self.is_attached:
            self._shown = tuple(self._bindings_that_fit())
            self._hovered = None

    def _bindings_that_fit(self) -> Iterator[BindingAndTooltip]:
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
