"""What a user chose once and keeps: the theme, and keys. Files in the platform's config folder.

`keys.toml` is the user's own: a line `"chat.new" = "ctrl+g"` for each action that has other keys than
`keys.py` gives it. `settings.json` is ours. What is wrong in either is one sentence; the rest still counts.
"""

import json
import tomllib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import platformdirs

from edgechat.runtime.files import write_atomic

from .keynames import key_like, key_named

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


def load_keys(folder: Path, known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The user's keys by the id of their action, and a sentence for each line that is of no use."""
    file = folder / KEYS
    try:
        values = tomllib.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return {}, [f"{file} cannot be read, the usual keys are in force: {reason}"]
    keys, problems = {}, []
    for id, key in values.items():
        if id not in known:
            hint = next(iter(get_close_matches(id, known, 1)), None)
            meant = f": perhaps {hint!r}" if hint else ""
            problems.append(f"{file} names {id!r}, which is no action{meant}; F1 names each beside its key")
        elif not isinstance(key, str) or not key.strip():
            problems.append(f'{file}: {id!r} must be a key such as "ctrl+g", or several with commas')
        else:
            parts = [part.strip() for part in key.split(",")]
            named = [key_named(part) for part in parts]
            if all(named):
                keys[id] = ",".join(filter(None, named))
            else:
                problems.append(f"{file}: {id!r} keeps its keys: {_no_key(parts[named.index(None)])}")
    return keys, problems


def _no_key(text: str) -> str:
    """That there is no such key, and what one is."""
    hint = key_like(text)
    meant = f"perhaps {hint!r}" if hint else "a key is written as 'ctrl+g', 'f5' or 'question_mark'"
    return f"{text!r} is no key, {meant}"
