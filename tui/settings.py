"""What a user chose once and keeps: the theme, and keys. Files in the platform's config folder.

`keys.toml` is the user's own: a line `"chat.new" = "ctrl+g"` for each action that has other keys than
`keys.py` gives it, or none. `settings.json` is ours. What is wrong in either is one sentence; the rest still
counts.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import platformdirs

from edgechat.runtime.files import write_atomic

from .keynames import is_written, key_like, key_named
from .keys import IDS, READING, beside

KEYS, SETTINGS, CHATS = "keys.toml", "settings.json", "chats.db"


@dataclass(frozen=True)
class Settings:
    """Choices that outlive a window. Empty is our own default."""

    theme: str = ""


def config_folder() -> Path:
    return platformdirs.user_config_path("edgechat", appauthor=False)


def chats_file() -> Path:
    """Where conversations are kept."""
    return platformdirs.user_data_path("edgechat", appauthor=False) / CHATS


def load_settings(folder: Path) -> Settings:
    """The settings of `folder`; ours where there are none, or none that can be read."""
    try:
        values = json.loads((folder / SETTINGS).read_bytes())
        return Settings(theme=str(values.get("theme", "")))
    except (OSError, ValueError, AttributeError):
        return Settings()


def save_settings(folder: Path, settings: Settings) -> str:
    """Write them, whole or not at all; gives what went wrong, in one sentence, or ""."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / SETTINGS, json.dumps(asdict(settings)) + "\n")
    except OSError as error:
        return f"settings cannot be kept in {folder / SETTINGS}: {error.strerror}"
    return ""


def load_keys(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The user's keys by the id of their action, and a sentence for each line that is of no use."""
    file = folder / KEYS
    try:
        values = tomllib.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return {}, [f"{file} cannot be read, the usual keys are in force: {reason}"]
    keys: dict[str, str] = {}
    problems = []
    for id, value in values.items():
        if id not in IDS:
            hint = _action_like(id)
            meant = f": perhaps {hint!r}" if hint else ""
            problems.append(f"{file} names {id!r}, which is no action{meant}; F1 names each beside its key")
        elif not isinstance(value, str):
            problems.append(f'{file}: {id!r} must be a key such as "ctrl+g", or several with commas')
        else:
            parts = [part.strip() for part in value.split(",")] if value.strip() else []
            wrong = next(filter(None, (_wrong_with(id, part, keys) for part in parts)), "")
            if wrong:
                problems.append(f"{file}: {id!r} keeps its keys: {wrong}")
            else:
                keys[id] = ",".join(filter(None, map(key_named, parts)))
    return keys, problems


def _action_like(id: str) -> str | None:
    """The action whose id is most like this one: first of those that do the same elsewhere."""
    alike = [known for known in sorted(IDS) if known.split(".")[1] == id.split(".")[-1]]
    return next(iter(get_close_matches(id, alike, 1, 0) or get_close_matches(id, IDS, 1)), None)


def _wrong_with(id: str, text: str, keys: Mapping[str, str]) -> str:
    """Why an action cannot have this key beside those that were given before, "" where it can."""
    key = key_named(text)
    if key is None:
        return _no_key(text)
    if is_written(key) and id not in READING:
        return f"{text!r} is written where one writes; only what is done in a view can have such a key"
    for other in beside(id):
        if key in keys.get(other.id, "").split(","):
            return f"{text!r} is given to {other.id!r} already"
    return ""


def _no_key(text: str) -> str:
    """That there is no such key, and what one is."""
    hint = key_like(text)
    meant = f"perhaps {hint!r}" if hint else "a key is written as 'ctrl+g', 'f5' or 'question_mark'"
    return f"{text!r} is no key, {meant}"
