"""The application: it opens the chat screen, saves settings, and fills the command palette and help."""

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

from . import responsiveness, terminal_input
from .engine import load_model
from .key_queue import KeyQueueApp
from .keys import ALL_ACTIONS, APP_ACTIONS, CHAT_ACTIONS, PROMPT_ACTIONS, bindings, is_key, keymap
from .knobs import Changes, get_knob
from .safe_text import safe_text
from .screens import ChatScreen, Help, KeySection, Palette
from .screens.chat_replies import ModelLoader
from .screens.dialog import Dialog
from .settings import KEYS_FILE, Settings, chats_file, config_folder, load_keys, load_settings, save_settings
from .signals import quit_on_signals
from .store import Store
from .store_thread import StoreThread
from .themes import DARK, THEMES
from .values import KeyHint
from .widgets import VIEWS
from .widgets.editor import MAX_TEXT_CHARACTERS
from .widgets.footer import first_key


class ChatApp(KeyQueueApp):
    """The chat application. `load` is called in a thread with each path in `bundles`.

    `config` is the folder of settings and keys; without it, nothing that the user chooses is saved.
    """

    TITLE = "edgechat"
    CSS_PATH = "edgechat.tcss"
    # Textual declares these as instance variables.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (8, "-short"), (14, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = bindings(APP_ACTIONS)

    def __init__(
        self,
        load: ModelLoader,
        bundles: Sequence[str],
        *,
        changes: Changes | None = None,
        store_thread: StoreThread | None = None,
        config: Path | None = None,
    ) -> None:
        # With NO_COLOR, Textual turns colors into grays, unless they are "native" (ANSI), which it leaves
        # out. An empty NO_COLOR counts as not set (no-color.org), but not for Textual, so it is removed.
        no_color = bool(os.environ.get("NO_COLOR") or os.environ.pop("NO_COLOR", None))
        super().__init__(ansi_color=True if no_color else None)
        self._load, self._bundles, self._changes = load, tuple(bundles), changes
        self._store_thread, self._config = store_thread, config
        self._settings = load_settings(config) if config else Settings()
        self._problems: list[str] = []
        self._quit_requested = False
        self._event_loop: asyncio.AbstractEventLoop | None = None
        for theme in THEMES:
            self.register_theme(theme)
        known = self._settings.theme in self.available_themes
        self.theme = self._settings.theme if known else DARK.name
        if config:
            chosen, self._problems = load_keys(config)
            keys, lost = keymap(chosen)
            self._problems += [f"{KEYS_FILE}: {loss}" for loss in lost]
            self.set_keymap(keys)

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self._load, self._bundles, self._changes, self._store_thread)

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda theme: self._save_theme(theme=theme.name))
        # Textual only draws changes, but after a suspension the terminal shows something else.
        self.app_resume_signal.subscribe(self, lambda _: self.screen.refresh())
        for problem in self._problems:
            self.notify(safe_text(problem), severity="warning", markup=False)

    def on_ready(self) -> None:
        """Called when the first screen is ready. Before that, the application cannot exit."""
        self._event_loop = asyncio.get_running_loop()
        if self._quit_requested:
            self.exit()

    def quit_soon(self) -> None:
        """Quit as soon as possible. Safe to call in a signal handler at any time."""
        self._quit_requested = True
        if self._event_loop:
            self._event_loop.call_soon_threadsafe(self.exit)

    def exit(self, *arguments: Any, **options: Any) -> None:
        """Exit. A running reply is stopped, so that its prompt is saved."""
        for screen in self.screen_stack:
            if isinstance(screen, ChatScreen) and screen.reply_task:
                screen.stop()
        super().exit(*arguments, **options)

    async def action_quit(self) -> None:
        """Quit, unless a dialog first asks whether its text is to be discarded."""
        for dialog in (screen for screen in self.screen_stack if isinstance(screen, Dialog)):
            if not dialog.may_close():
                if isinstance(self.screen, Help):  # it covers the dialog
                    self.screen.dismiss(None)
                return
        await super().action_quit()

    def on_notify(self, event: Notify) -> None:
        """Show a notification only once at a time, however often its key is pressed."""
        if any(shown.message == event.notification.message for shown in self._notifications):
            event.prevent_default()

    def before_key(self, event: Key | Paste) -> None:
        if isinstance(self.screen, ChatScreen):
            self.screen.focus_prompt_for_text(event)
        elif isinstance(self.screen, Palette) and isinstance(event, Paste):
            # The palette's field is Textual's, which inserts control characters as they are.
            event.text = safe_text(event.text[:MAX_TEXT_CHARACTERS])

    def _save_theme(self, theme: str) -> None:
        """Save the choice of the theme."""
        self._settings = replace(self._settings, theme=theme)
        if self._config and (problem := save_settings(self._config, self._settings)):
            self.notify(safe_text(problem), severity="warning", markup=False)

    def deliver_screenshot(
        self, filename: str | None = None, path: str | None = None, time_format: str | None = None
    ) -> str | None:
        """Save a screenshot in the downloads folder, or in the current folder if there is none."""
        if path is None and not platformdirs.user_downloads_path().is_dir():
            path = str(Path.cwd())
        return super().deliver_screenshot(filename, path, time_format)

    def on_delivery_failed(self, event: DeliveryFailed) -> None:
        """Report why a screenshot could not be saved. Textual's own notification leaves out the reason."""
        event.prevent_default()
        self.notify(
            safe_text(f"The screenshot could not be saved: {event.exception}"), severity="error", markup=False
        )

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The commands of the palette: all available actions, the views, the presets, and Textual's own."""
        titles = set(_HIDDEN_COMMANDS)
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
        nodes = [(CHAT_ACTIONS, screen), (PROMPT_ACTIONS, screen.prompt)]
        for actions, node in nodes:
            for action in actions:
                name = action.action.split("(")[0]
                if action.label not in titles and node.check_action(name, ()):
                    yield SystemCommand(
                        action.label, action.help, partial(self.run_action, action.action, node)
                    )
        for name in VIEWS:
            help_text = "Show this view in the inspector"
            yield SystemCommand(f"View: {name}", help_text, partial(screen.show_view, name))
        for name, changes in screen.knob_settings.presets().items():
            settings = (
                f"{option.replace('_', ' ')} {get_knob(option).kind.show(value)}"
                for option, value in changes.items()
            )
            help_text = ", ".join(settings) or "Reset all settings"
            yield SystemCommand(f"Preset: {name}", help_text, partial(screen.use_preset, changes))

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        """Show help about the focused widget or dialog, or close the help."""
        if isinstance(self.screen, Help):
            self.screen.dismiss(None)
            return
        about = ""
        node: DOMNode | None = self.screen.focused or self.screen
        while node is not None and not about:
            about = node.HELP if isinstance(node, Widget) and node.HELP else ""
            node = node.parent
        palette = first_key(self.screen, "app.palette")
        notes = [f"The command palette ({palette}) has every action too."] if palette else []
        if self._config:
            notes.append(
                "To change a key, add a line with the action's name, shown dim beside it, "
                f'such as "chat.new" = "ctrl+k", to {self._config / KEYS_FILE}'
            )
        self.push_screen(Help(about, self.key_sections(), " ".join(notes)))

    def action_help_quit(self) -> None:
        """Handle Ctrl-C when nothing is selected: Textual tells which key quits."""
        if first_key(self.screen, "app.quit"):
            super().action_help_quit()

    def key_sections(self) -> list[KeySection]:
        """All keys that are available now, grouped by where they apply: those of the chat's actions first, in
        the order of declaration, then those of the editor."""
        order_by_id = {action.id: n for n, action in enumerate(ALL_ACTIONS)}
        groups: dict[str, dict[str, _HelpRow]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.system or not (binding.description or binding.tooltip):
                continue
            title = active.node.BINDING_GROUP_TITLE or "Everywhere"
            if binding.id not in order_by_id:
                title = "Editing" if active.node is self.screen.focused else "Everywhere"
            id = binding.id if binding.id in order_by_id else None
            description = _describe(binding.description, binding.tooltip)
            row = _HelpRow(order_by_id.get(id or "", len(order_by_id)), description, id or "", [])
            row = groups.setdefault(title, {}).setdefault(binding.action, row)
            if is_key(binding.key):
                row.keys.append(self.get_key_display(binding))
        return [
            KeySection(title, tuple(row.hint for row in sorted(rows.values(), key=lambda row: row.order)))
            for title, rows in sorted(groups.items(), key=lambda item: _SECTION_ORDER.get(item[0], 0))
        ]


@dataclass(frozen=True)
class _HelpRow:
    """A row of the help: an action with all its keys."""

    order: int
    description: str
    id: str
    keys: list[str]

    @property
    def hint(self) -> KeyHint:
        return KeyHint(" ".join(dict.fromkeys(self.keys)) or "–", self.description, self.id)


#: Textual's commands that the palette leaves out. Help replaces Keys, and maximizing would hide the replies.
_HIDDEN_COMMANDS = ("Keys", "Maximize", "Minimize")

#: The sections at the end of the help.
_SECTION_ORDER = {"Everywhere": 1, "Editing": 2}


def _describe(label: str, help_text: str) -> str:
    return f"{label}: {help_text[:1].lower()}{help_text[1:]}" if help_text else label


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
    """Run the terminal chat until the user quits. `demo` is the bundle that comes with the package.

    A bundle that cannot be loaded is reported in the chat. `changes` are decoding options that differ from
    the bundle's defaults. `require_signature` is the public key that must have signed every bundle. With
    `private`, no conversation is saved; with `inline`, the chat uses only the lower part of the terminal.

    Raises:
        EdgeChatError: the chat ended because of a bug, or the end of the conversation could not be saved.
    """
    store_thread = StoreThread(
        partial(Store, ":memory:" if private else chats_file()), persistent=not private
    )
    app = ChatApp(
        partial(load_model, device=device, threads=threads, require_signature=require_signature),
        bundles,
        changes=changes,
        store_thread=store_thread,
        config=config_folder(),
    )
    responsiveness.prepare_process()
    terminal_input.install()
    with quit_on_signals(app.quit_soon, store_thread.close):
        try:
            app.run(inline=inline)
        finally:
            lost = store_thread.close()
    not_saved = f"the end of the conversation is not saved: {lost}" if lost else ""
    if app.return_code:
        saved = not_saved or "every finished exchange is saved, unless the status line said 'not saved'"
        raise EdgeChatError(f"the chat ended because of a bug, see the traceback above; {saved}")
    if not_saved:
        raise EdgeChatError(not_saved)
