"""The one declaration of every action: its keys, its name, what it does. Bindings, footer, help, palette,
welcome and the keys file all come from here.

Keys that some terminals do not deliver (function keys, Shift-Enter, Alt) have a second one here, and every
action is in the palette.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Action:
    """`id` is its name in the keys file. An action without `keys` is in the palette alone."""

    id: str
    keys: str
    action: str
    label: str
    does: str
    footer: bool = False
    priority: bool = False

    @property
    def binding(self) -> Binding:
        return Binding(
            self.keys or no_key(self.id),
            self.action,
            self.label,
            tooltip=self.does,
            show=self.footer,
            id=self.id,
            priority=self.priority,
        )


def bindings(actions: Iterable[Action]) -> list[BindingType]:
    """For a `BINDINGS`."""
    return [action.binding for action in actions]


def no_key(id: str) -> str:
    """What stands for the key of an action without one, which can be given one so: no terminal sends it."""
    return f"<{id}>"


def is_key(key: str) -> bool:
    """Whether it is one that can be pressed."""
    return not key.startswith("<")


APP = (
    Action(
        "app.palette",
        "ctrl+p",
        "command_palette",
        "All",
        "Find an action by its name",
        footer=True,
        priority=True,
    ),
    Action("app.help", "f1", "help", "Help", "Explain what has the focus, and list the keys", footer=True),
    Action("app.quit", "ctrl+q", "quit", "Quit", "Leave the chat", footer=True, priority=True),
)

PROMPT = (
    Action("prompt.send", "enter,ctrl+j", "send", "Send", "Give the model the prompt"),
    Action(
        "prompt.newline", "ctrl+o,shift+enter", "newline", "New line", "Break the line instead of sending"
    ),
)

CHAT = (
    Action(
        "chat.stop",
        "escape",
        "stop",
        "Stop",
        "End the reply and keep what is there, or end editing",
        footer=True,
    ),
    Action("chat.new", "ctrl+n", "new_conversation", "New", "Begin a new conversation", footer=True),
    Action(
        "chat.library",
        "ctrl+l,f9",
        "library",
        "Chats",
        "Open, find, rename or delete a conversation",
        footer=True,
    ),
    Action(
        "chat.bundles", "ctrl+b,f7", "bundles", "Bundle", "Talk to another bundle, or open one", footer=True
    ),
    Action(
        "chat.why",
        "f2,ctrl+t",
        "toggle_inspector",
        "Why",
        "Show or hide how the reply came about",
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
    Action("chat.knobs", "f4,alt+k", "knobs", "Knobs", "Turn the settings of the search", footer=True),
    Action(
        "chat.regenerate",
        "ctrl+r,f5",
        "regenerate",
        "Again",
        "Reply to the prompt anew; to an earlier one in a copy",
        footer=True,
    ),
    Action(
        "chat.edit",
        "f6,alt+e",
        "edit",
        "Edit",
        "Put the prompt back, to change and resend; an earlier one in a copy",
        footer=True,
    ),
    Action(
        "chat.compare",
        "f8,alt+c",
        "compare",
        "Compare",
        "Give each prompt to a second bundle too, side by side",
        footer=True,
    ),
    Action(
        "chat.other",
        "alt+o,shift+f8",
        "other",
        "Other reply",
        "Look at the reply of the other bundle that was compared",
    ),
    Action("chat.previous", "ctrl+up,alt+up", "select(-1)", "Turn before", "Look at the turn before"),
    Action("chat.next", "ctrl+down,alt+down", "select(1)", "Turn after", "Look at the turn after"),
    Action("chat.find", "ctrl+f", "find", "Find", "Look at a turn of this conversation that you search for"),
    Action(
        "chat.good",
        "ctrl+g,alt+g",
        "mark('good')",
        "Good",
        "Mark the reply as good, or take the mark off",
        footer=True,
    ),
    Action(
        "chat.bad",
        "alt+d,f11",  # Alt-B is what terminals send for Ctrl-Left
        "mark('bad')",
        "Bad",
        "Mark the reply as bad, or take the mark off",
        footer=True,
    ),
    Action(
        "chat.answer",
        "alt+w,f10",
        "answer",
        "Correct",
        "Write the answer that it should have given",
        footer=True,
    ),
    Action(
        "chat.replay",
        "f12,alt+r",
        "replay",
        "Replay",
        "Make the reply again with the settings it was made with",
        footer=True,
    ),
    Action("chat.copy", "ctrl+y", "copy_reply", "Copy", "Put the reply into the clipboard", footer=True),
    Action("chat.copy_prompt", "", "copy_prompt", "Copy prompt", "Put the prompt into the clipboard"),
    Action(
        "chat.copy_all", "", "copy_conversation", "Copy conversation", "Put it into the clipboard as Markdown"
    ),
    Action(
        "chat.export", "ctrl+s,alt+s", "export", "Export", "Write the conversation to a file", footer=True
    ),
    Action(
        "chat.export_all",
        "",
        "export_all",
        "Export for training",
        "Write what was marked or corrected of this bundle's replies, as JSONL",
    ),
    Action("chat.rename", "", "rename", "Rename", "Give the conversation a title"),
    Action(
        "chat.scroll_up", "pageup", "scroll_conversation(-1)", "Scroll back", "Scroll the conversation back"
    ),
    Action(
        "chat.scroll_down", "pagedown", "scroll_conversation(1)", "Scroll on", "Scroll the conversation on"
    ),
)

CONVERSATION = (
    Action("conversation.previous", "up", "screen.select(-1)", "Turn before", "Look at the turn before"),
    Action("conversation.next", "down", "screen.select(1)", "Turn after", "Look at the turn after"),
    Action("conversation.back", "escape", "screen.back", "Back", "Go back to the prompt", footer=True),
)

_BACK = Action("inspector.back", "escape", "screen.back", "Back", "Go back to the prompt", footer=True)

VIEW = (
    Action("view.up", "up", "move(-1)", "Up", "Move to the row above"),
    Action("view.down", "down", "move(1)", "Down", "Move to the row below"),
    Action("view.left", "left", "sideways(-1)", "Left", "Scroll left"),
    Action("view.right", "right", "sideways(1)", "Right", "Scroll right"),
    Action("view.first", "home", "move(-100000)", "First", "Move to the first row"),
    Action("view.last", "end", "move(100000)", "Last", "Move to the last row"),
    _BACK,
)

#: For a view whose text wraps: it scrolls one way only.
UP_AND_DOWN = tuple(action for action in VIEW if action.id not in ("view.left", "view.right"))

CANDIDATES = (
    Action(
        "candidates.choose",
        "enter",
        "choose",
        "Take",
        "Let the conversation go on with this reply",
        footer=True,
    ),
)

BEAM = (
    Action("beam.before", "left", "sideways(-1)", "Step before", "Show the step before", footer=True),
    Action("beam.after", "right", "sideways(1)", "Step after", "Show the step after", footer=True),
)

KNOBS = (
    Action("knobs.less", "left", "sideways(-1)", "Less", "Turn it down", footer=True),
    Action("knobs.more", "right", "sideways(1)", "More", "Turn it up", footer=True),
    Action("knobs.type", "enter", "type", "Type", "Write the value", footer=True),
    Action("knobs.reset", "backspace,delete", "reset", "Reset", "Take the bundle's own value", footer=True),
)

LIBRARY = (
    Action("library.open", "enter", "open", "Open", "Take the one that is lit", footer=True, priority=True),
    Action("library.rename", "f2,ctrl+r", "rename", "Rename", "Give it another title", footer=True),
    Action(
        "library.delete",
        "ctrl+d,f8",
        "delete",
        "Delete",
        "Delete it; it can be brought back until you quit",
        footer=True,
        priority=True,
    ),
    Action("library.undo", "ctrl+z", "undo", "Undo", "Bring back what was deleted last", footer=True),
    Action("library.up", "up", "move('cursor_up')", "Up", "Move to the one above"),
    Action("library.down", "down", "move('cursor_down')", "Down", "Move to the one below"),
    Action("library.page_up", "pageup", "move('page_up')", "Page up", "Move up by what is in view"),
    Action("library.page_down", "pagedown", "move('page_down')", "Page down", "Move down by what is in view"),
    Action("library.first", "home", "move('first')", "First", "Move to the first one", priority=True),
    Action("library.last", "end", "move('last')", "Last", "Move to the last one", priority=True),
)

#: For a list of what cannot be changed.
LISTING = tuple(
    action for action in LIBRARY if action.id not in ("library.rename", "library.delete", "library.undo")
)

#: Every screen that lies over the chat.
OVER = (
    Action("over.close", "escape", "close", "Close", "Go back to the chat", footer=True),
    Action("over.help", "f1", "app.help", "Help", "Explain what this is, and list the keys", footer=True),
)

ASK = (Action("ask.done", "enter", "submit", "Done", "Take what is written", footer=True),)

#: Where the second key is needed, since `enter` breaks the line there.
WRITE = (
    Action("write.done", "ctrl+j,ctrl+s,f2", "screen.done", "Done", "Take what is written", footer=True),
)

ALL = (*APP, *PROMPT, *CHAT, *CONVERSATION, *VIEW, *CANDIDATES, *BEAM, *KNOBS, *LIBRARY, *OVER, *ASK, *WRITE)
IDS = frozenset(action.id for action in ALL)

#: Where nothing is written, and a character may be a key.
READING = frozenset(action.id for action in (*CONVERSATION, *VIEW, *CANDIDATES, *BEAM, *KNOBS))

#: Actions that are there at once. Between places, what has the focus comes first.
PLACES = (
    (*APP, *PROMPT, *CHAT),
    CONVERSATION,
    VIEW,
    CANDIDATES,
    BEAM,
    KNOBS,
    (*LIBRARY, *OVER),
    (*ASK, *OVER),
    (*WRITE, *OVER),
)


def beside(id: str) -> list[Action]:
    """The actions that are there at once with this one."""
    places = [place for place in PLACES if any(action.id == id for action in place)]
    return [action for place in places for action in place if action.id != id]


def keymap(chosen: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The keys of all actions that have others than here, where the user chose these, "" for none; and who
    lost which to whom: a key that is chosen for one action is no other's beside it."""
    given = {id: keys or no_key(id) for id, keys in chosen.items()}
    lost = []
    for id in chosen:
        (label,) = (action.label for action in ALL if action.id == id)
        taken = given[id].split(",")
        for other in beside(id):
            keys = given.get(other.id, other.keys).split(",")
            if other.id not in chosen and (gone := [key for key in keys if key in taken]):
                given[other.id] = ",".join(key for key in keys if key not in gone) or no_key(other.id)
                lost.append(f"{other.label} lost its key {', '.join(gone)} to {label}")
    return given, lost
