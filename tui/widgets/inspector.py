"""The inspector: views of how a reply was found, and the knobs. One view is shown at a time."""

from typing import ClassVar

from rich.cells import cell_len
from textual import events, getters
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from ..keys import VIEW_ACTIONS, bindings
from ..messages import ViewSelected
from ..values import InspectorData
from .attention import Attention
from .beam import BeamTree
from .candidates import Candidates
from .context import Context
from .knobs import Knobs
from .meter import Meter
from .tokens import Tokens

#: The widget of each view, by name.
VIEWS: dict[str, type[Widget]] = {
    "candidates": Candidates,
    "attention": Attention,
    "tokens": Tokens,
    "beam": BeamTree,
    "seen": Context,
    "meter": Meter,
    "knobs": Knobs,
}

#: The views whose keys Left and Right do something else than scroll.
_STEPPED_VIEWS = (BeamTree, Knobs)


class ScrollHint(Widget):
    """Which keys scroll the current view: beside the tabs or, in a wide terminal, below them. It is left out
    where not all of it fits."""

    text: reactive[str] = reactive("")

    def render(self) -> str:
        return self.text if cell_len(self.text) <= self.size.width else ""


class Tab(Static):
    """The name of a view. A click shows the view."""

    def __init__(self, name: str) -> None:
        super().__init__(name, id=f"tab-{name}", markup=False)
        self._view = name

    def on_click(self, event: events.Click) -> None:
        self.post_message(ViewSelected(self._view))


class Inspector(Vertical):
    """A row of tabs and the current view."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        action for action in VIEW_ACTIONS if action.id == "inspector.back"
    )

    switcher = getters.query_one(ContentSwitcher)
    scroll_hint = getters.query_one(ScrollHint)
    candidates = getters.query_one(Candidates)
    attention = getters.query_one(Attention)
    tokens = getters.query_one(Tokens)
    beam = getters.query_one(BeamTree)
    seen = getters.query_one(Context)
    meter = getters.query_one(Meter)
    knobs = getters.query_one(Knobs)

    def compose(self) -> ComposeResult:
        with Container(id="top"):
            with Horizontal(id="tabs"):
                for name in VIEWS:
                    yield Tab(name)
            yield ScrollHint()
        with ContentSwitcher(initial="candidates"):
            for name, kind in VIEWS.items():
                view = kind()
                view.id = name
                yield view

    def on_mount(self) -> None:
        self.view = "candidates"
        for view in self.switcher.children:
            for scrollbar in ("show_vertical_scrollbar", "show_horizontal_scrollbar"):
                self.watch(view, scrollbar, self._show_scroll_hint, init=False)

    @property
    def view(self) -> str:
        """The name of the current view."""
        return self.switcher.current or "candidates"

    @view.setter
    def view(self, name: str) -> None:
        self.switcher.current = name
        for tab in self.query(Tab):
            tab.set_class(tab.id == f"tab-{name}", "-shown")
        self.call_after_refresh(self._show_tab)
        self._show_scroll_hint()

    def on_resize(self, event: events.Resize) -> None:
        self._show_tab()

    def on_descendant_focus(self) -> None:
        self._show_scroll_hint()

    def on_descendant_blur(self) -> None:
        self._show_scroll_hint()

    def _show_scroll_hint(self) -> None:
        """Say which keys scroll, if the view has more than is shown, and how to move into it first."""
        view = self.shown
        arrows = "↑↓" if view.show_vertical_scrollbar else ""
        if view.show_horizontal_scrollbar and not isinstance(view, _STEPPED_VIEWS):
            arrows += "←→"
        before = "" if view.has_focus else "Shift+Tab "
        self.scroll_hint.text = f"{before}{arrows} scroll" if arrows else ""

    def _show_tab(self) -> None:
        """Scroll the current tab into view: in a narrow terminal, not all tabs fit."""
        self.query_one(f"#tab-{self.view}").scroll_visible(animate=False)

    @property
    def shown(self) -> Widget:
        """The current view."""
        return self.switcher.query_one(f"#{self.view}")

    def show(self, data: InspectorData) -> None:
        """Fill the current view. Other views are filled when they are shown. The knobs do not depend on the
        selected exchange."""
        reply, trace, hint = data.reply, data.trace, data.hint
        chosen = reply.chosen if reply else 0
        if self.view == "candidates":
            self.candidates.show(reply.candidates if reply else (), chosen)
        elif self.view == "attention":
            self.attention.show(trace, chosen, hint)
        elif self.view == "tokens":
            row = reply.candidates[chosen] if reply and reply.candidates else None
            self.tokens.show(row, trace, chosen, hint)
        elif self.view == "beam":
            self.beam.show(trace, hint)
        elif self.view == "seen":
            self.seen.show(reply, trace, data.facts)
        elif self.view == "meter":
            self.meter.show(reply, data.speeds)
