"""The application: it opens the chat screen and puts its keys into the command palette."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import HelpPanel

from edgechat.runtime import ChatModel, DecodingOptions

from .screens import ChatScreen


class ChatApp(App[None]):
    """A chat with the model that `load` gives; it is called in a thread. `bundle` is its name on screen."""

    TITLE = "edgechat"
    CSS_PATH = "edgechat.tcss"
    # Textual declares it as an instance variable.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "f1",
            "toggle_help",
            "Help",
            tooltip="Explain what has the focus, and list the keys",
            id="app.help",
        ),
        Binding("ctrl+q", "quit", "Quit", tooltip="Leave the chat", priority=True, id="app.quit"),
    ]

    def __init__(
        self, load: Callable[[], ChatModel], *, bundle: str, options: DecodingOptions | None = None
    ) -> None:
        super().__init__()
        self._load, self._bundle, self._options = load, bundle, options

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self._load, self._bundle, self._options)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's commands and every key of ours that does something now."""
        ours = {
            active.binding.action: SystemCommand(
                active.binding.description,
                active.binding.tooltip,
                partial(self.run_action, active.binding.action, active.node),
            )
            for active in screen.active_bindings.values()
            if active.binding.id and active.enabled
        }
        yield from ours.values()
        titles = {command.title for command in ours.values()} | {"Keys"}  # our help is its Keys
        yield from (c for c in super().get_system_commands(screen) if c.title not in titles)

    def action_toggle_help(self) -> None:
        if self.screen.query(HelpPanel):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()


def run_chat(
    bundle: str,
    *,
    device: str = "auto",
    threads: int = 1,
    require_signature: Path | None = None,
    options: DecodingOptions | None = None,
) -> None:
    """Open the terminal chat with a bundle, `demo` being the shipped one, until the user quits.

    A bundle that cannot be loaded is reported in the chat. `options` None are the bundle's own.
    """
    load = partial(
        ChatModel.load, bundle, device=device, threads=threads, require_signature=require_signature
    )
    ChatApp(load, bundle=Path(bundle).resolve().name or bundle, options=options).run()
