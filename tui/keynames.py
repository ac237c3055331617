"""How keys are written, which is how Textual names them: `n`, `question_mark`, `f5`, `ctrl+shift+left`."""

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
_NO_KEYS = ("<any>", "<ignore>", "return", "ctrl-at")  # of Textual's list; Return is called enter
#: What terminals send, with the modifiers in the order that Textual gives them.
_SENT = {key.value for key in Keys} - {*_NO_KEYS}
_KITTY = ("kp_begin", "menu", "pause", "print_screen")  # that only terminals with kitty's protocol send
_NAMES = {key.rpartition("+")[2] for key in _SENT} | {*KEY_NAME_REPLACEMENTS.values(), *_KITTY}

#: What a key is called elsewhere: in the footer, and on the keyboard.
_CALLED = {shown: key for key, shown in KEY_DISPLAY_ALIASES.items()} | {"return": "enter"}


def key_named(text: str) -> str | None:
    """The key of that name as Textual writes it, None where there is none: `shift+ctrl+left` is
    `ctrl+shift+left`, and `?` is `question_mark`."""
    if text in _SENT:
        return text
    *modifiers, name = text.split("+") if text != "+" else [text]
    character = name if len(name) == 1 else key_to_character(name)
    if character is not None and character.isprintable():
        # With a modifier a letter is a small one; what Shift alone makes of a character is another one.
        if modifiers and (character.isupper() or (modifiers == ["shift"] and not character.isspace())):
            return None
        if name not in (character, _character_to_key(character)):
            return None
        name = _character_to_key(character)
    elif name not in _NAMES:
        return None
    if len(set(modifiers)) < len(modifiers) or not set(modifiers) <= set(_MODIFIERS):
        return None
    return "+".join([*sorted(modifiers), name])


def is_written(key: str) -> bool:
    """Whether a key writes a character where one writes."""
    character = key_to_character(key)
    return character is not None and character.isprintable()


def key_like(text: str) -> str | None:
    """The key whose name is most like `text`, None where none is."""
    text = text.strip().lower().replace("^", "ctrl+")
    *modifiers, name = (text.replace("-", "+") if len(text) > 1 else text).split("+")
    name = _CALLED.get(name, name)
    near = [get_close_matches(modifier, _MODIFIERS, 1, 0.5) for modifier in modifiers]
    names = [name] if key_named(name) else get_close_matches(name, {*_NAMES, *KEY_TO_UNICODE_NAME}, 1, 0.7)
    return key_named("+".join(match[0] for match in [*near, names])) if all([*near, names]) else None
