"""The keys that do something now, as many as there is room for, the most particular first."""

from collections.abc import Iterator

from textual import events
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from ..keys import ALL, is_key

#: A key, and what it does.
Shown = tuple[Binding, str]

_ORDER = {action.id: n for n, action in enumerate(ALL)}


def in_order(screen: Screen[object]) -> list[ActiveBinding]:
    """The keys that do something now: those of what has the focus first, then in the order of their
    declaration. A key that the user gave to an action stands where the action did."""
    active = list(screen.active_bindings.values())
    nodes = {node: n for n, node in reversed(list(enumerate(a.node for a in active)))}
    return sorted(active, key=lambda a: (nodes[a.node], _ORDER.get(a.binding.id or "", len(_ORDER))))


class Keys(Footer):
    """Never cut off: of what does not fit, the last in the order of declaration are left out. Those of the
    application (help, quit, palette) stand at the end, and always fit."""

    _shown: tuple[Shown, ...] = ()

    def compose(self) -> ComposeResult:
        self._shown = tuple(self._fitting())
        yield from (self._key(*shown) for shown in self._shown)

    async def recompose(self) -> None:
        """Nothing, where the same would be shown again: each key is a widget, and costs time."""
        if self.is_attached and self._shown != tuple(self._fitting()):
            await super().recompose()

    def on_resize(self, event: events.Resize) -> None:
        self.refresh(recompose=True)

    def _fitting(self) -> Iterator[Shown]:
        if not self._bindings_ready:
            return
        shown: dict[str, Shown] = {}
        last: dict[str, Shown] = {}
        for node, binding, enabled, tooltip in in_order(self.screen):
            if binding.show and enabled and is_key(binding.key) and binding.action not in shown:
                (last if node is self.app else shown)[binding.action] = (binding, tooltip)
        room = self.size.width - sum(self._width(binding) for binding, _ in last.values())
        for key in shown.values():
            room -= self._width(key[0])
            if room < 0:
                break
            yield key
        yield from last.values()

    def _width(self, binding: Binding) -> int:
        return len(self.app.get_key_display(binding)) + len(binding.description) + 2

    def _key(self, binding: Binding, tooltip: str) -> FooterKey:
        return FooterKey(
            binding.key,
            self.app.get_key_display(binding),
            binding.description,
            binding.action,
            tooltip=tooltip,
            classes="-compact",
        )
