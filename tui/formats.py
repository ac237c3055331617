"""Export a conversation: Markdown for people, JSON for programs, JSONL for training.

`edgechat train` reads the JSONL. Replies that are marked good or corrected are training targets, and all
other turns are context only. A conversation without such a reply gives no line.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgechat.runtime.atomic_write import write_atomic
from edgechat.runtime.display import BIDI_CONTROLS

from .records import reply_to_json
from .safe_text import safe_text
from .values import Exchange, ReplyFacts

NOTHING_TO_LEARN = "There is nothing to train on yet: mark a reply as good or correct it"


def to_markdown(title: str, exchanges: Sequence[Exchange]) -> str:
    """Markdown, with control characters made visible so that it is safe to show in a terminal."""
    lines = [f"# {' '.join(title.split())}", ""]
    for exchange in exchanges:
        lines += ["**you**", "", *_quote(exchange.prompt), ""]
        for reply in (exchange.reply, exchange.other):
            if reply:
                lines += [f"**bot**{_reply_details(reply, exchange)}", "", *_quote(reply.text), ""]
        if exchange.answer is not None:
            lines += ["**should have said**", "", *_quote(exchange.answer), ""]
    return safe_text("\n".join(lines))


def to_json(title: str, exchanges: Sequence[Exchange]) -> str:
    """JSON with everything that is stored, including the settings of each reply, but without local paths."""
    values = {
        "title": title,
        "exchanges": [
            {
                "prompt": exchange.prompt,
                "state": exchange.state,
                "mark": exchange.mark,
                "answer": exchange.answer,
                "reply": exchange.reply and _without_path(exchange.reply),
                "other": exchange.other and _without_path(exchange.other),
            }
            for exchange in exchanges
        ],
    }
    return _dumps(values, indent=2)


def to_jsonl(
    title: str, exchanges: Sequence[Exchange], is_target: Callable[[Exchange], bool] = lambda exchange: True
) -> str:
    """One line for `edgechat train`, or "" if there is nothing to learn. `is_target` can exclude
    exchanges from the training targets."""
    turns: list[dict[str, object]] = []
    for exchange in exchanges:
        bot_turn = exchange.bot_turn
        if bot_turn is not None:
            turns.append({"text": exchange.prompt, "train": False})
            turns.append({"text": bot_turn, "train": exchange.is_training_data and is_target(exchange)})
    if not any(turn["train"] for turn in turns):
        return ""
    return _dumps({"turns": turns})


#: The formats by file extension.
FORMATS: dict[str, Callable[[str, Sequence[Exchange]], str]] = {
    ".md": to_markdown,
    ".json": to_json,
    ".jsonl": to_jsonl,
}


def expand_path(name: str) -> Path:
    """The path that the user typed, with `~` expanded."""
    return Path(name.strip()).expanduser()


def unused_name(name: str) -> str:
    """`name`, or the first of `chat-2.md`, `chat-3.md`, ... that does not exist."""
    path = Path(name)
    names = (path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, 1000)))
    return str(next((free for free in names if not os.path.exists(free)), path))  # noqa: PTH110 - never fails


def write_export(name: str, texts: Mapping[str, Callable[[], str]]) -> str:
    """Write the text for the extension of `name` to that file, atomically and without replacing a file.

    Returns:
        Why the file was not written, "" if it was.
    """
    try:
        file = expand_path(name)
        if file.suffix not in texts:
            *others, last = texts
            return f"The name must end with {', '.join(others)}{' or ' if others else ''}{last}"
        if file.exists():
            return f"{file} already exists: choose another name"
        if not file.absolute().parent.is_dir():
            return f"There is no folder {file.absolute().parent}"
    except (OSError, RuntimeError, ValueError) as error:  # too long, the home of an unknown user, a NUL
        return f"This is not a valid file name: {getattr(error, 'strerror', None) or error}"
    text = texts[file.suffix]()
    if not text:
        return NOTHING_TO_LEARN
    try:
        write_atomic(file, text.encode("utf-8", "replace"), replace=False)
    except OSError as error:
        return f"{file} cannot be written: {error.strerror or error}"
    return ""


def _dumps(values: Any, indent: int | None = None) -> str:
    """JSON of `values`. Characters that a terminal would obey are escaped, even if JSON allows them."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return re.sub(f"[\x7f-\x9f{BIDI_CONTROLS}]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _without_path(reply: ReplyFacts) -> dict[str, Any]:
    values = reply_to_json(reply)
    del values["made"]["path"]
    return values


def _reply_details(reply: ReplyFacts, exchange: Exchange) -> str:
    notes = [reply.made.label, f"{reply.ms:.0f} ms"]
    if exchange.mark and reply is exchange.reply:
        notes.append(exchange.mark)
    if exchange.state != "done":
        notes.append(exchange.state)
    return f" ({', '.join(note for note in notes if note)})"


def _quote(text: str) -> list[str]:
    """A Markdown quotation, so that the text cannot add headings to the document."""
    return [f"> {line}".rstrip() for line in safe_text(text).splitlines() or [""]]
