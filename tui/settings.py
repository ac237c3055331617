"""The user's settings: the theme and the keys, in files in the platform's config folder.

The user writes `keys.toml`, with a line such as `"chat.new" = "ctrl+g"` for each action that has other keys
than those in `keys.py`, or none. The chat writes `settings.json`. An invalid entry is reported and ignored.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import platformdirs

from edgechat.runtime.atomic_write import write_atomic

from .key_names import parse_key, suggest_key, types_character
from .keys import ACTION_IDS, IDS_ALLOWING_CHARACTERS, actions_available_with

KEYS_FILE, SETTINGS_FILE, CHATS_FILE = "keys.toml", "settings.json", "chats.db"


@dataclass(frozen=True)
class Settings:
    """The settings that the chat saves. An empty value stands for the default."""

    theme: str = ""


def config_folder() -> Path:
    return platformdirs.user_config_path("edgechat", appauthor=False)


def chats_file() -> Path:
    """The file of all conversations."""
    return platformdirs.user_data_path("edgechat", appauthor=False) / CHATS_FILE


def load_settings(folder: Path) -> Settings:
    """Read the settings in `folder`. A missing or invalid file gives the defaults."""
    try:
        values = json.loads((folder / SETTINGS_FILE).read_bytes())
        return Settings(theme=str(values.get("theme", "")))
    except (OSError, ValueError, AttributeError):
        return Settings()


def save_settings(folder: Path, settings: Settings) -> str:
    """Write the settings atomically. Returns what went wrong as a sentence, "" if nothing did."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / SETTINGS_FILE, json.dumps(asdict(settings)) + "\n")
    except OSError as error:
        return f"The settings cannot be saved in {folder / SETTINGS_FILE}: {error.strerror}"
    return ""


def load_keys(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Read `keys.toml`. Returns the keys by action id, and a sentence for each invalid line."""
    file = folder / KEYS_FILE
    try:
        values = tomllib.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return {}, [f"{file} cannot be read, so the default keys are used: {reason}"]
    keys: dict[str, str] = {}
    problems = []
    for id, value in values.items():
        if id not in ACTION_IDS:
            hint = _suggest_action(id)
            meant = f"; did you mean {hint!r}?" if hint else "."
            problems.append(f"{file}: {id!r} is not an action{meant} F1 shows each action's name")
        elif not isinstance(value, str):
            problems.append(f'{file}: {id!r} must be a key such as "ctrl+g", or several separated by commas')
        else:
            parts = [part.strip() for part in value.split(",")] if value.strip() else []
            wrong = next(filter(None, (_why_invalid(id, part, keys) for part in parts)), "")
            if wrong:
                problems.append(f"{file}: {id!r} keeps its default keys: {wrong}")
            else:
                keys[id] = ",".join(filter(None, map(parse_key, parts)))
    return keys, problems


def _suggest_action(id: str) -> str | None:
    """The action id most similar to `id`, preferably one with the same name in another place."""
    same_name = [known for known in sorted(ACTION_IDS) if known.split(".")[1] == id.split(".")[-1]]
    return next(iter(get_close_matches(id, same_name, 1, 0) or get_close_matches(id, ACTION_IDS, 1)), None)


def _why_invalid(id: str, text: str, keys: Mapping[str, str]) -> str:
    """Why an action cannot have this key, given the `keys` of the lines before. "" if it can."""
    key = parse_key(text)
    if key is None:
        return _unknown_key_message(text)
    if types_character(key) and id not in IDS_ALLOWING_CHARACTERS:
        return f"{text!r} types a character, so it can only be the key of an action in a view"
    for other in actions_available_with(id):
        if key in keys.get(other.id, "").split(","):
            return f"{text!r} is already the key of {other.id!r}"
    return ""


def _unknown_key_message(text: str) -> str:
    """Say that there is no such key, and suggest one."""
    hint = suggest_key(text)
    meant = f"did you mean {hint!r}?" if hint else "write a key as 'ctrl+g', 'f5' or 'question_mark'"
    return f"{text!r} is not a key; {meant}"
