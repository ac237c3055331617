"""A conversation as a file: to read (Markdown), for programs (JSON), and to learn from (JSONL).

The JSONL is what `edgechat train` reads: what was marked good, or corrected, is learned; all else is
context only. A conversation with nothing of the kind gives no line.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgechat.runtime.display import BIDI_CONTROLS
from edgechat.runtime.files import write_atomic

from .plain import plain
from .records import reply_to_json
from .values import Exchange, ReplyFacts

NOTHING_TO_LEARN = "There is nothing to learn yet: mark a reply as good, or correct it"


def to_markdown(title: str, exchanges: Sequence[Exchange]) -> str:
    """For people, who may have a terminal show it: with nothing in it that this would obey."""
    lines = [f"# {' '.join(title.split())}", ""]
    for exchange in exchanges:
        lines += ["**you**", "", *_quoted(exchange.prompt), ""]
        for reply in (exchange.reply, exchange.other):
            if reply:
                lines += [f"**bot**{_how(reply, exchange)}", "", *_quoted(reply.text), ""]
        if exchange.answer is not None:
            lines += ["**should have said**", "", *_quoted(exchange.answer), ""]
    return plain("\n".join(lines))


def to_json(title: str, exchanges: Sequence[Exchange]) -> str:
    """For programs: everything there is, with the settings of each reply, but no path of this machine."""
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
    title: str, exchanges: Sequence[Exchange], learned: Callable[[Exchange], bool] = lambda exchange: True
) -> str:
    """For `edgechat train`: one dialogue, or nothing where there is nothing to learn. Of what teaches only
    what is to be `learned` does."""
    turns: list[dict[str, object]] = []
    for exchange in exchanges:
        said = exchange.said
        if said is not None:
            turns.append({"text": exchange.prompt, "train": False})
            turns.append({"text": said, "train": exchange.teaches and learned(exchange)})
    if not any(turn["train"] for turn in turns):
        return ""
    return _dumps({"turns": turns})


#: By the ending of the file.
FORMATS: dict[str, Callable[[str, Sequence[Exchange]], str]] = {
    ".md": to_markdown,
    ".json": to_json,
    ".jsonl": to_jsonl,
}


def file_of(name: str) -> Path:
    """The file that was written of."""
    return Path(name.strip()).expanduser()


def free_name(name: str) -> str:
    """`name`, or the first such as `chat-2.md` that no file has."""
    path = Path(name)
    names = (path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, 1000)))
    return str(next((free for free in names if not os.path.exists(free)), path))  # noqa: PTH110 - never fails


def export(name: str, texts: Mapping[str, Callable[[], str]]) -> str:
    """Write one of `texts`, which the ending of the name chooses, whole or not at all, and in the place of no
    other file. Gives what is wrong where it is not written, else ""."""
    try:
        file = file_of(name)
        if file.suffix not in texts:
            return f"The name must end with {' or '.join(texts)}"
        if file.exists():
            return f"{file} is there already: choose another name"
        if not file.absolute().parent.is_dir():
            return f"There is no folder {file.absolute().parent}"
    except (OSError, RuntimeError, ValueError) as error:  # too long, the home of nobody, a NUL
        return f"This cannot be the name of a file: {getattr(error, 'strerror', None) or error}"
    text = texts[file.suffix]()
    if not text:
        return NOTHING_TO_LEARN
    try:
        write_atomic(file, text.encode("utf-8", "replace"), replace=False)
    except OSError as error:
        return f"{file} cannot be written: {error.strerror or error}"
    return ""


def _dumps(values: Any, indent: int | None = None) -> str:
    """JSON that says exactly `values`; what a terminal would obey is escaped, also where JSON need not."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return re.sub(f"[\x7f-\x9f{BIDI_CONTROLS}]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _without_path(reply: ReplyFacts) -> dict[str, Any]:
    values = reply_to_json(reply)
    del values["made"]["path"]
    return values


def _how(reply: ReplyFacts, exchange: Exchange) -> str:
    notes = [reply.made.label, f"{reply.ms:.0f} ms"]
    if exchange.mark and reply is exchange.reply:
        notes.append(exchange.mark)
    if exchange.state != "done":
        notes.append(exchange.state)
    return f" ({', '.join(note for note in notes if note)})"


def _quoted(text: str) -> list[str]:
    """As a quotation, so that nothing in it becomes a heading of ours."""
    return [f"> {line}".rstrip() for line in plain(text).splitlines() or [""]]
