"""The application: it opens the chat screen, keeps what the user chose, and offers every action by name."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.events import DeliveryFailed, Key, Paste
from textual.notifications import Notify
from textual.screen import Screen
from textual.widget import Widget

from edgechat.runtime import EdgeChatError

from . import keysfirst, terminalinput
from .engine import load
from .inorder import KeysInOrder
from .keeper import Keeper
from .keys import ALL, APP, CHAT, PROMPT, bindings, is_key, keymap
from .knobs import Changes
from .plain import plain
from .screens import ChatScreen, Help, KeySection, Palette
from .screens.talking import Load
from .settings import KEYS, Settings, chats_file, config_folder, load_keys, load_settings, save_settings
from .signals import quitting
from .store import Store
from .themes import DARK, THEMES
from .values import KeyHint
from .widgets import VIEWS


class ChatApp(KeysInOrder):
    """A chat with the bundles at `bundles`, each of which `load` is called with, in a thread.

    `config` is the folder of settings and keys; without it nothing that is chosen outlives the window.
    """

    TITLE = "edgechat"
    CSS_PATH = "edgechat.tcss"
    # Textual declares them as instance variables.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (8, "-short"), (14, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = bindings(APP)

    def __init__(
        self,
        load: Load,
        bundles: Sequence[str],
        *,
        changes: Changes | None = None,
        keeper: Keeper | None = None,
        config: Path | None = None,
    ) -> None:
        # Where NO_COLOR is set, Textual leaves out "native" colours; of others it makes greys. An empty one
        # counts as none (no-color.org), for Textual too where it is gone.
        colourless = bool(os.environ.get("NO_COLOR") or os.environ.pop("NO_COLOR", None))
        super().__init__(ansi_color=True if colourless else None)
        self._load, self._bundles, self._changes = load, tuple(bundles), changes
        self._keeper, self._config = keeper, config
        self._settings = load_settings(config) if config else Settings()
        self._problems: list[str] = []
        self._quits = False
        self._ready_in: asyncio.AbstractEventLoop | None = None
        for theme in THEMES:
            self.register_theme(theme)
        known = self._settings.theme in self.available_themes
        self.theme = self._settings.theme if known else DARK.name
        if config:
            chosen, self._problems = load_keys(config)
            keys, lost = keymap(chosen)
            self._problems += [f"{KEYS}: {loss}" for loss in lost]
            self.set_keymap(keys)

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self._load, self._bundles, self._changes, self._keeper)

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda theme: self._keep(theme=theme.name))
        # Textual draws what changed: of a screen that the shell had meanwhile, next to nothing.
        self.app_resume_signal.subscribe(self, lambda _: self.screen.refresh())
        for problem in self._problems:
            self.notify(plain(problem), severity="warning", markup=False)

    def on_ready(self) -> None:
        """The first screen is there. What is half made cannot be left."""
        self._ready_in = asyncio.get_running_loop()
        if self._quits:
            self.exit()

    def quit_soon(self) -> None:
        """Quit, or do so once there is a screen: for a signal's handler, which may come at any time."""
        self._quits = True
        if self._ready_in:
            self._ready_in.call_soon_threadsafe(self.exit)

    def exit(self, *arguments: Any, **options: Any) -> None:
        """A reply that is being made is stopped, as by its key: its prompt is kept."""
        for screen in self.screen_stack:
            if isinstance(screen, ChatScreen) and screen.turn:
                screen.action_stop()
        super().exit(*arguments, **options)

    def on_notify(self, event: Notify) -> None:
        """The same is told once at a time, however often its key is pressed."""
        if any(told.message == event.notification.message for told in self._notifications):
            event.prevent_default()

    def before_key(self, event: Key | Paste) -> None:
        if isinstance(self.screen, ChatScreen):
            self.screen.lead_to_prompt(event)

    def _keep(self, theme: str) -> None:
        """Remember a choice."""
        self._settings = replace(self._settings, theme=theme)
        if self._config and (problem := save_settings(self._config, self._settings)):
            self.notify(plain(problem), severity="warning", markup=False)

    def deliver_screenshot(
        self, filename: str | None = None, path: str | None = None, time_format: str | None = None
    ) -> str | None:
        """Where there is no folder of downloads, into the one that the chat was opened in."""
        if path is None and not platformdirs.user_downloads_path().is_dir():
            path = str(Path.cwd())
        return super().deliver_screenshot(filename, path, time_format)

    def on_delivery_failed(self, event: DeliveryFailed) -> None:
        """A screenshot that cannot be written: Textual's own notice leaves out the reason."""
        event.prevent_default()
        self.notify(plain(f"The screenshot is not saved: {event.exception}"), severity="error", markup=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action that does something now, the views, the presets, and Textual's own commands."""
        titles = set(_TEXTUALS_OWN)
        for active in screen.active_bindings.values():
            if active.binding.action == "command_palette":
                continue
            if active.binding.id and active.enabled and active.binding.description not in titles:
                titles.add(active.binding.description)
                run = partial(self.run_action, active.binding.action, active.node)
                yield SystemCommand(active.binding.description, active.binding.tooltip, run)
        if isinstance(screen, ChatScreen):
            yield from self._chat_commands(screen, titles)
        yield from (c for c in super().get_system_commands(screen) if c.title not in titles)

    def _chat_commands(self, screen: ChatScreen, titles: set[str]) -> Iterable[SystemCommand]:
        nodes = [(CHAT, screen), (PROMPT, screen.prompt)]
        for actions, node in nodes:
            for action in actions:
                name = action.action.split("(")[0]
                if action.label not in titles and node.check_action(name, ()):
                    yield SystemCommand(
                        action.label, action.does, partial(self.run_action, action.action, node)
                    )
        for name in VIEWS:
            yield SystemCommand(f"View: {name}", "Show it in the inspector", partial(screen.show_view, name))
        for name, changes in screen.dial.presets().items():
            told = ", ".join(f"{option} {value}" for option, value in changes.items()) or "no knob turned"
            yield SystemCommand(f"Preset: {name}", told, partial(screen.use_preset, changes))

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        """Explain what has the focus. Over another screen, that screen."""
        if isinstance(self.screen, Help):
            self.screen.dismiss(None)
            return
        about = ""
        node: DOMNode | None = self.screen.focused or self.screen
        while node is not None and not about:
            about = node.HELP if isinstance(node, Widget) and node.HELP else ""
            node = node.parent
        palette = self._key_of("app.palette")
        notes = [f"Every action is in the palette, {palette}, too."] if palette else []
        if self._config:
            notes.append(
                "Other keys: a line with the dim name beside it,"
                f' such as "chat.new" = "ctrl+k", in {self._config / KEYS}'
            )
        self.push_screen(Help(about, self._sections(), " ".join(notes)))

    def action_help_quit(self) -> None:
        """Ctrl-C, where there is nothing to copy: Textual tells which key quits."""
        if self._key_of("app.quit"):
            super().action_help_quit()

    def _key_of(self, id: str) -> str:
        """The first key of an action as it is shown, "" where it has none now."""
        bound = (active.binding for active in self.screen.active_bindings.values())
        keys = (self.get_key_display(b) for b in bound if b.id == id and is_key(b.key))
        return next(keys, "")

    def _sections(self) -> list[KeySection]:
        """Keys that do something now, by where they are from: ours first, in the order of their declaration,
        then those of the editor."""
        ours = {action.id: n for n, action in enumerate(ALL)}
        groups: dict[str, dict[str, _Row]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.system or not (binding.description or binding.tooltip):
                continue
            title = active.node.BINDING_GROUP_TITLE or "Everywhere"
            if binding.id not in ours:
                title = "Editing" if active.node is self.screen.focused else "Everywhere"
            id = binding.id if binding.id in ours else None
            does = _said(binding.description, binding.tooltip)
            row = _Row(ours.get(id or "", len(ours)), does, id or "", [])
            row = groups.setdefault(title, {}).setdefault(binding.action, row)
            if is_key(binding.key):
                row.keys.append(self.get_key_display(binding))
        return [
            KeySection(title, tuple(row.hint for row in sorted(rows.values(), key=lambda row: row.order)))
            for title, rows in sorted(groups.items(), key=lambda item: _LAST.get(item[0], 0))
        ]


@dataclass(frozen=True)
class _Row:
    """An action in help, with all of its keys."""

    order: int
    does: str
    id: str
    keys: list[str]

    @property
    def hint(self) -> KeyHint:
        return KeyHint(" ".join(dict.fromkeys(self.keys)) or "–", self.does, self.id)


#: Commands of Textual's that are not offered: our help is its Keys, and who made the prompt as large as the
#: window would see no reply.
_TEXTUALS_OWN = ("Keys", "Maximize", "Minimize")

#: Where the keys that are everywhere stand in help.
_LAST = {"Everywhere": 1, "Editing": 2}


def _said(label: str, does: str) -> str:
    return f"{label}: {does[:1].lower()}{does[1:]}" if does else label


def run_chat(
    bundles: Sequence[str],
    *,
    device: str = "auto",
    threads: int = 1,
    require_signature: Path | None = None,
    changes: Changes | None = None,
    private: bool = False,
    inline: bool = False,
) -> None:
    """Open the terminal chat with bundles, `demo` being the shipped one, until the user quits.

    A bundle that cannot be loaded is reported in the chat. `changes` are decoding options by name, over
    the bundle's own. `require_signature` is the public key by which each must be signed. With `private`
    nothing that is said is kept; with `inline` the chat takes the lower part of the terminal only.
    """
    keeper = Keeper(partial(Store, ":memory:" if private else chats_file()), lasts=not private)
    app = ChatApp(
        partial(load, device=device, threads=threads, require_signature=require_signature),
        bundles,
        changes=changes,
        keeper=keeper,
        config=config_folder(),
    )
    keysfirst.begin()
    terminalinput.tolerate()
    with quitting(app.quit_soon, keeper.close):
        try:
            app.run(inline=inline)
        finally:
            lost = keeper.close()
    not_kept = f"the last of what was said is not kept: {lost}" if lost else ""
    if app.return_code:
        kept = not_kept or "every turn that had ended is kept, unless the status line said 'not kept'"
        raise EdgeChatError(f"the chat ended by a bug of its own, the traceback is above; {kept}")
    if not_kept:
        raise EdgeChatError(not_kept)
