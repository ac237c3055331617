"""Every action of the chat: its keys, its label and its description.

Bindings, footer, help, command palette, welcome text and `keys.toml` all use these declarations. An action
whose key some terminals do not deliver (function keys, Shift-Enter, Alt) has a second key, and every action
is in the palette.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Action:
    """One action. `id` is its name in `keys.toml`. An action without `keys` is only in the palette."""

    id: str
    keys: str
    action: str
    label: str
    help: str
    footer: bool = False
    priority: bool = False

    @property
    def binding(self) -> Binding:
        return Binding(
            self.keys or placeholder_key(self.id),
            self.action,
            self.label,
            tooltip=self.help,
            show=self.footer,
            id=self.id,
            priority=self.priority,
        )


def bindings(actions: Iterable[Action]) -> list[BindingType]:
    """The actions as Textual's `BINDINGS`."""
    return [action.binding for action in actions]


def placeholder_key(id: str) -> str:
    """A placeholder key for an action without a key. No terminal sends it, but `keys.toml` can replace it."""
    return f"<{id}>"


def is_key(key: str) -> bool:
    """Whether `key` can be pressed, that is, is not a placeholder of `placeholder_key`."""
    return not key.startswith("<")


APP_ACTIONS = (
    Action(
        "app.palette",
        "ctrl+p",
        "command_palette",
        "All",
        "Search all actions by name",
        footer=True,
        priority=True,
    ),
    Action("app.help", "f1", "help", "Help", "Explain the focused part and list its keys", footer=True),
    Action("app.quit", "ctrl+q", "quit", "Quit", "Quit the chat", footer=True, priority=True),
)

PROMPT_ACTIONS = (
    Action("prompt.send", "enter,ctrl+j", "send", "Send", "Send the prompt to the model"),
    Action("prompt.newline", "ctrl+o,shift+enter", "newline", "New line", "Insert a line break"),
)

CHAT_ACTIONS = (
    Action(
        "chat.stop",
        "escape",
        "stop",
        "Stop",
        "Stop the reply, cancel editing, or return to the latest exchange",
        footer=True,
    ),
    Action("chat.new", "ctrl+n", "new_conversation", "New", "Start a new conversation", footer=True),
    Action(
        "chat.library",
        "ctrl+l,f9",
        "library",
        "Chats",
        "Search, open, rename and delete conversations",
        footer=True,
    ),
    Action("chat.bundles", "ctrl+b,f7", "bundles", "Bundle", "Open or switch to another bundle", footer=True),
    Action(
        "chat.why",
        "f2,ctrl+t",
        "toggle_inspector",
        "Why",
        "Show or hide the inspector, which explains the reply",
        footer=True,
    ),
    Action(
        "chat.next_view",
        "f3,alt+v",
        "next_view",
        "Next view",
        "Show the next view of the inspector",
        footer=True,
    ),
    Action("chat.knobs", "f4,alt+k", "knobs", "Knobs", "Change the search settings", footer=True),
    Action(
        "chat.regenerate",
        "ctrl+r,f5",
        "regenerate",
        "Again",
        "Reply again with the current settings; for an earlier exchange, in a copy",
        footer=True,
    ),
    Action(
        "chat.edit",
        "f6,alt+e",
        "edit",
        "Edit",
        "Edit and resend the prompt; for an earlier exchange, in a copy",
        footer=True,
    ),
    Action(
        "chat.compare",
        "f8,alt+c",
        "compare",
        "Compare",
        "Send each prompt to a second bundle too and show the replies side by side",
        footer=True,
    ),
    Action(
        "chat.other",
        "alt+o,shift+f8",
        "other",
        "Other reply",
        "Select the other bundle's reply in a comparison",
    ),
    Action(
        "chat.previous", "ctrl+up,alt+up", "select(-1)", "Previous exchange", "Select the previous exchange"
    ),
    Action("chat.next", "ctrl+down,alt+down", "select(1)", "Next exchange", "Select the next exchange"),
    Action("chat.find", "ctrl+f", "find", "Find", "Search this conversation and select an exchange"),
    Action(
        "chat.good",
        "ctrl+g,alt+g",
        "mark('good')",
        "Good",
        "Mark the reply as good, or remove the mark",
        footer=True,
    ),
    Action(
        "chat.bad",
        "alt+d,f11",  # Alt-B is what terminals send for Ctrl-Left
        "mark('bad')",
        "Bad",
        "Mark the reply as bad, or remove the mark",
        footer=True,
    ),
    Action(
        "chat.answer",
        "alt+w,f10",
        "answer",
        "Correct",
        "Write what the bot should have said",
        footer=True,
    ),
    Action(
        "chat.replay",
        "f12,alt+r",
        "replay",
        "Replay",
        "Repeat the reply with the settings it was made with",
        footer=True,
    ),
    Action("chat.copy", "ctrl+y", "copy_reply", "Copy", "Copy the reply to the clipboard", footer=True),
    Action("chat.copy_prompt", "", "copy_prompt", "Copy prompt", "Copy the prompt to the clipboard"),
    Action(
        "chat.copy_all",
        "",
        "copy_conversation",
        "Copy conversation",
        "Copy the conversation to the clipboard as Markdown",
    ),
    Action("chat.export", "ctrl+s,alt+s", "export", "Export", "Save the conversation to a file", footer=True),
    Action(
        "chat.export_all",
        "",
        "export_all",
        "Export for training",
        "Save this bundle's good and corrected replies from all conversations as JSONL",
    ),
    Action("chat.rename", "", "rename", "Rename", "Change the conversation's title"),
    Action(
        "chat.scroll_up",
        "pageup",
        "scroll_conversation(-1)",
        "Scroll up",
        "Scroll the conversation up a page",
    ),
    Action(
        "chat.scroll_down",
        "pagedown",
        "scroll_conversation(1)",
        "Scroll down",
        "Scroll the conversation down a page",
    ),
)

_BACK_HELP = "Stop the reply, or return to the prompt"

CONVERSATION_ACTIONS = (
    Action(
        "conversation.previous",
        "up",
        "screen.select(-1)",
        "Previous exchange",
        "Select the previous exchange",
    ),
    Action("conversation.next", "down", "screen.select(1)", "Next exchange", "Select the next exchange"),
    Action("conversation.back", "escape", "screen.back", "Back", _BACK_HELP, footer=True),
)

_BACK = Action("inspector.back", "escape", "screen.back", "Back", _BACK_HELP, footer=True)

VIEW_ACTIONS = (
    Action("view.up", "up", "move(-1)", "Up", "Move to the previous row"),
    Action("view.down", "down", "move(1)", "Down", "Move to the next row"),
    Action("view.left", "left", "sideways(-1)", "Left", "Scroll left"),
    Action("view.right", "right", "sideways(1)", "Right", "Scroll right"),
    Action("view.first", "home", "move(-100000)", "First", "Move to the first row"),
    Action("view.last", "end", "move(100000)", "Last", "Move to the last row"),
    _BACK,
)

#: For a view whose text wraps, so that it only scrolls vertically.
VERTICAL_VIEW_ACTIONS = tuple(
    action for action in VIEW_ACTIONS if action.id not in ("view.left", "view.right")
)

CANDIDATES_ACTIONS = (
    Action(
        "candidates.choose",
        "enter",
        "choose",
        "Use",
        "Continue the conversation with this reply",
        footer=True,
    ),
)

BEAM_ACTIONS = (
    Action("beam.before", "left", "sideways(-1)", "Previous step", "Show the previous step", footer=True),
    Action("beam.after", "right", "sideways(1)", "Next step", "Show the next step", footer=True),
)

KNOBS_ACTIONS = (
    Action("knobs.less", "left", "sideways(-1)", "Less", "Lower the value", footer=True),
    Action("knobs.more", "right", "sideways(1)", "More", "Raise the value", footer=True),
    Action("knobs.type", "enter", "type", "Type", "Type a value", footer=True),
    Action("knobs.reset", "backspace,delete", "reset", "Reset", "Restore the bundle's default", footer=True),
)

LIBRARY_ACTIONS = (
    Action("library.open", "enter", "open", "Open", "Open the highlighted item", footer=True, priority=True),
    Action("library.rename", "f2,ctrl+r", "rename", "Rename", "Change the title", footer=True),
    Action(
        "library.delete",
        "ctrl+d,f8",
        "delete",
        "Delete",
        "Delete the conversation; Undo restores it until you quit",
        footer=True,
        priority=True,
    ),
    Action("library.undo", "ctrl+z", "undo", "Undo", "Restore the last deleted conversation", footer=True),
    Action("library.up", "up", "move('cursor_up')", "Up", "Move to the previous item"),
    Action("library.down", "down", "move('cursor_down')", "Down", "Move to the next item"),
    Action("library.page_up", "pageup", "move('page_up')", "Page up", "Move up a page"),
    Action("library.page_down", "pagedown", "move('page_down')", "Page down", "Move down a page"),
    Action("library.first", "home", "move('first')", "First", "Move to the first item", priority=True),
    Action("library.last", "end", "move('last')", "Last", "Move to the last item", priority=True),
)

#: For a list whose items cannot be changed.
LIST_ACTIONS = tuple(
    action
    for action in LIBRARY_ACTIONS
    if action.id not in ("library.rename", "library.delete", "library.undo")
)

#: For every dialog.
DIALOG_ACTIONS = (
    Action("over.close", "escape", "close", "Close", "Close this dialog", footer=True),
    Action("over.help", "f1", "app.help", "Help", "Explain this dialog and list its keys", footer=True),
)

ASK_ACTIONS = (Action("ask.done", "enter", "submit", "Done", "Accept the text", footer=True),)

#: Enter inserts a line break in this dialog, so other keys accept the text.
WRITE_ACTIONS = (
    Action("write.done", "ctrl+j,ctrl+s,f2", "screen.done", "Done", "Accept the text", footer=True),
)

ALL_ACTIONS = (
    *APP_ACTIONS,
    *PROMPT_ACTIONS,
    *CHAT_ACTIONS,
    *CONVERSATION_ACTIONS,
    *VIEW_ACTIONS,
    *CANDIDATES_ACTIONS,
    *BEAM_ACTIONS,
    *KNOBS_ACTIONS,
    *LIBRARY_ACTIONS,
    *DIALOG_ACTIONS,
    *ASK_ACTIONS,
    *WRITE_ACTIONS,
)
ACTION_IDS = frozenset(action.id for action in ALL_ACTIONS)

#: Ids of the actions of places without a text field, where a plain character can be a key.
IDS_ALLOWING_CHARACTERS = frozenset(
    action.id
    for action in (*CONVERSATION_ACTIONS, *VIEW_ACTIONS, *CANDIDATES_ACTIONS, *BEAM_ACTIONS, *KNOBS_ACTIONS)
)

#: The actions available together in each place. Of several places, the one with the focus takes precedence.
PLACES = (
    (*APP_ACTIONS, *PROMPT_ACTIONS, *CHAT_ACTIONS),
    CONVERSATION_ACTIONS,
    VIEW_ACTIONS,
    CANDIDATES_ACTIONS,
    BEAM_ACTIONS,
    KNOBS_ACTIONS,
    (*LIBRARY_ACTIONS, *DIALOG_ACTIONS),
    (*ASK_ACTIONS, *DIALOG_ACTIONS),
    (*WRITE_ACTIONS, *DIALOG_ACTIONS),
)


def actions_available_with(id: str) -> list[Action]:
    """The other actions that are available in the same places as action `id`."""
    places = [place for place in PLACES if any(action.id == id for action in place)]
    return [action for place in places for action in place if action.id != id]


def keymap(chosen: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Apply the user's choice of keys, by action id; "" removes all keys of an action.

    A key chosen for one action is removed from every other action available in the same places. Returns the
    keys of all actions that differ from the defaults, and a sentence for each key that an action lost.
    """
    given = {id: keys or placeholder_key(id) for id, keys in chosen.items()}
    lost = []
    for id in chosen:
        (label,) = (action.label for action in ALL_ACTIONS if action.id == id)
        taken = given[id].split(",")
        for other in actions_available_with(id):
            keys = given.get(other.id, other.keys).split(",")
            if other.id not in chosen and (gone := [key for key in keys if key in taken]):
                given[other.id] = ",".join(key for key in keys if key not in gone) or placeholder_key(
                    other.id
                )
                lost.append(f"{other.label} lost its key {', '.join(gone)} to {label}")
    return given, lost
