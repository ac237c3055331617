"""The names of keys, which are Textual's: `n`, `question_mark`, `f5`, `ctrl+shift+left`."""

from difflib import get_close_matches

from textual.keys import (
    KEY_DISPLAY_ALIASES,
    KEY_NAME_REPLACEMENTS,
    KEY_TO_UNICODE_NAME,
    Keys,
    _character_to_key,
    key_to_character,
)

_MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")
_PSEUDO_KEYS = (
    "<any>",
    "<ignore>",
    "return",
    "ctrl-at",
)  # in Textual's list, but not keys; Return is called enter
#: The keys that terminals send, with modifiers in Textual's order.
_TERMINAL_KEYS = {key.value for key in Keys} - {*_PSEUDO_KEYS}
_KITTY_KEYS = ("kp_begin", "menu", "pause", "print_screen")  # only sent by terminals with kitty's protocol
_KEY_NAMES = {key.rpartition("+")[2] for key in _TERMINAL_KEYS} | {
    *KEY_NAME_REPLACEMENTS.values(),
    *_KITTY_KEYS,
}

#: Other names of keys: in the footer, and on the keyboard.
_ALIASES = {shown: key for key, shown in KEY_DISPLAY_ALIASES.items()} | {"return": "enter"}


def parse_key(text: str) -> str | None:
    """The key called `text`, in Textual's spelling, or None if there is no such key. `shift+ctrl+left` gives
    `ctrl+shift+left`, and `?` gives `question_mark`."""
    if text in _TERMINAL_KEYS:
        return text
    *modifiers, name = text.split("+") if text != "+" else [text]
    character = name if len(name) == 1 else key_to_character(name)
    if character is not None and character.isprintable():
        # With a modifier, a letter is lowercase. Shift alone makes another character, not a key with Shift.
        if modifiers and (character.isupper() or (modifiers == ["shift"] and not character.isspace())):
            return None
        if name not in (character, _character_to_key(character)):
            return None
        name = _character_to_key(character)
    elif name not in _KEY_NAMES:
        return None
    if len(set(modifiers)) < len(modifiers) or not set(modifiers) <= set(_MODIFIERS):
        return None
    return "+".join([*sorted(modifiers), name])


def types_character(key: str) -> bool:
    """Whether a key types a character in a text field."""
    character = key_to_character(key)
    return character is not None and character.isprintable()


def suggest_key(text: str) -> str | None:
    """The key with the name most similar to `text`, None if none is similar."""
    text = text.strip().lower().replace("^", "ctrl+")
    *modifiers, name = (text.replace("-", "+") if len(text) > 1 else text).split("+")
    name = _ALIASES.get(name, name)
    near = [get_close_matches(modifier, _MODIFIERS, 1, 0.5) for modifier in modifiers]
    names = (
        [name] if parse_key(name) else get_close_matches(name, {*_KEY_NAMES, *KEY_TO_UNICODE_NAME}, 1, 0.7)
    )
    return parse_key("+".join(match[0] for match in [*near, names])) if all([*near, names]) else None
