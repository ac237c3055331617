"""Readers of dialogue files, gzipped or not: lines become records, one by one.

Errors name a bad line by its file and number. It can be skipped and counted instead.
"""

import contextlib
import csv
import functools
import gzip
import io
import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.arguments import short_repr
from ..runtime.errors import DataError, UsageError
from .dialogue import Dialogue, Tally, Turn, clean_dialogue, replace_surrogates

EXTENSIONS = (".jsonl", ".tsv", ".csv", ".txt")
#: Bytes. A longer line is a bad line: it is skipped in pieces and never held in memory as a whole.
MAX_LINE_BYTES = 1 << 20

#: The exceptions of reading a file, gzipped or not; `as_data_error` makes an error of each.
READ_ERRORS = (OSError, EOFError, zlib.error)

#: Column separators and their names in messages. A .csv has one of the first two: Excel writes semicolons in
#: languages with a decimal comma.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
#: A first line by which Excel is told the separator.
_DECLARED_SEPARATOR = re.compile(r"\s*sep=([,;])\s*", re.IGNORECASE)
_QUOTED_CELL = re.compile(r'"[^"]*("|\Z)')

#: Chat formats of OpenAI and ShareGPT: the key of the list of messages -> the keys of speaker and text.
_MESSAGE_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}
#: The speakers in them, and whether their messages are learned. System messages are not turns.
_LEARN_FROM_SPEAKER = {"user": False, "human": False, "assistant": True, "gpt": True}
_IGNORED_SPEAKERS = ("system", "developer")

_PROMPT_NAMES = {"prompt", "source", "question", "input", "query", "instruction"}
_RESPONSE_NAMES = {"response", "target", "answer", "output", "reply", "completion"}


def read_file(path: Path, tally: Tally, *, skip_bad: bool) -> Iterator[Dialogue]:
    """The dialogues of one file, in the format of its extension."""
    with _open_lines(path) as lines:
        yield from _read_dialogues(_read_records(data_extension(path), lines, tally), lines, tally, skip_bad)


def read_parallel(source: Path, target: Path, tally: Tally, *, skip_bad: bool) -> Iterator[Dialogue]:
    """The pairs of two parallel files, line by line."""
    with _open_lines(source) as sources, _open_lines(target) as targets:
        yield from _read_dialogues(_ParallelLines(sources, targets), sources, tally, skip_bad)


def data_extension(path: Path) -> str:
    """The extension that selects the format, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def as_data_error(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be opened or read."""
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return DataError(f"{path} cannot be read: {error.strerror or error}")
    return DataError(f"{path} is not a complete gzip file ({error}): copy or compress it again")


class _BadLineError(Exception):
    """One or more bad lines (`lines`), which can be skipped.

    `reason` is counted in the report, so it has no particulars of the line; these are in `detail`. `where` is
    None for the line that was just requested.
    """

    def __init__(self, reason: str, detail: str = "", where: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.where, self.lines = reason, detail, where, 1


_BinaryFile = io.BufferedReader | gzip.GzipFile


class _Lines(Iterator[str]):
    """The lines of a file as text, each ending with one line feed. The iteration goes on after a bad line."""

    def __init__(self, path: Path, file: _BinaryFile) -> None:
        self.path, self._file = path, file
        self.number = 0  # of the last line, from 1

    def where(self, number: int) -> str:
        return f"{self.path}, line {number}"

    def __next__(self) -> str:
        raw = self._readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        where = self.where(self.number)
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = self._readline(MAX_LINE_BYTES)
            raise _BadLineError(f"is longer than {MAX_LINE_BYTES:,} bytes", where=where)
        if self.number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in raw:
            raise _BadLineError("holds NUL bytes", where=where)
        try:
            return raw.decode("utf-8").rstrip("\r\n") + "\n"
        except UnicodeDecodeError as error:
            raise _BadLineError("is not UTF-8", f"byte {error.start + 1}", where) from None

    def _readline(self, limit: int) -> bytes:
        try:
            return self._file.readline(limit)
        except READ_ERRORS as error:
            raise as_data_error(self.path, error) from None


@contextlib.contextmanager
def _open_lines(path: Path) -> Iterator[_Lines]:
    """The lines of a file, gzipped or not. Raises UsageError or DataError if the file as a whole is
    unusable."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file, and a corpus is read more than once: save it as one")
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
            zipped = path.suffix.lower() == ".gz"
            file: _BinaryFile = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
            head = file.peek(4096)
        except READ_ERRORS as error:
            raise as_data_error(path, error) from None
        if not head:
            raise DataError(f"{path} is empty")
        if b"\0" in head[:4096]:
            raise DataError(f"{path} is a binary file, not UTF-8 text: save it as UTF-8")
        if head.count(b"\r") > 1 and b"\n" not in head:
            raise DataError(f"{path} ends its lines with CR only: save it with line feeds (LF)")
        yield _Lines(path, file)


#: The turns of the next dialogue; None for a line that holds none, such as a blank one or a header.
_Record = tuple[Turn, ...] | None


def _read_dialogues(
    records: Iterator[_Record], lines: _Lines, tally: Tally, skip_bad: bool
) -> Iterator[Dialogue]:
    while True:
        where = lines.where(lines.number + 1)
        try:
            turns = next(records)
            if turns is not None:
                _check_turns(turns)
        except StopIteration:
            return
        except (_BadLineError, csv.Error) as error:
            bad = (
                error if isinstance(error, _BadLineError) else _BadLineError("is not well-formed", str(error))
            )
            if not skip_bad:
                detail = f" ({bad.detail})" if bad.detail else ""
                raise DataError(
                    f"{bad.where or where} {bad.reason}{detail}: fix it, or skip bad lines with --skip-bad"
                ) from None
            reason = f"bad line: {bad.reason}"
            tally.dropped[reason] += bad.lines
            tally.first_bad.setdefault(reason, replace_surrogates(Path(bad.where or where).name))
            continue
        if turns is not None and (dialogue := clean_dialogue(turns, tally.dropped)):
            yield dialogue


def _check_turns(turns: tuple[Turn, ...]) -> None:
    if not any(turn.text.strip() for turn in turns):
        raise _BadLineError("holds no text")
    try:
        for turn in turns:
            turn.text.encode("utf-8")
    except UnicodeEncodeError:  # a JSON escape such as \ud800
        raise _BadLineError("holds half of a surrogate pair, which is not valid text") from None


def _read_records(kind: str, lines: _Lines, tally: Tally) -> Iterator[_Record]:
    """The records of the lines. These iterators go on after an error; a generator would end with its
    first."""
    if kind == ".jsonl":
        return map(functools.partial(_parse_json, tally), lines)
    if kind == ".tsv":
        return map(_PairColumns("\t"), csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if kind == ".csv":
        return _CsvRows(lines)
    return _LinePairs(lines)


def _parse_json(tally: Tally, line: str) -> _Record:
    if not line.strip():
        return None
    text = line.rstrip()  # so that the column of an error is on this line
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text) or error.msg.startswith("Unterminated string")
        detail = "it ends too early" if cut else f"{error.msg}, column {error.colno}"
        if text in ("[", "{"):  # JSON that is written over several lines
            detail = "a .jsonl file has one object per line"
        raise _BadLineError("is not JSON", detail) from None
    except ValueError:
        raise _BadLineError("is not JSON", "a number in it is too long") from None
    except RecursionError:
        raise _BadLineError("is not JSON", "it is nested too deeply") from None
    if not isinstance(record, dict):
        raise _BadLineError("is not a JSON object", "a .jsonl file has one per line")
    chat = next((key for key in _MESSAGE_KEYS if record.get(key) is not None), None)
    if "turns" in record:
        known = {"turns"}
        parsed = tuple(_parse_turn(turn, tally.ignored_keys) for turn in _get_list(record, "turns"))
    elif "prompt" in record and "response" in record:
        known = {"prompt", "response"}
        if not isinstance(record["prompt"], str) or not isinstance(record["response"], str):
            raise _BadLineError('has a "prompt" or "response" that is not a string')
        parsed = (Turn(record["prompt"]), Turn(record["response"]))
    elif chat is not None:
        known = {chat}
        messages = (_parse_message(each, *_MESSAGE_KEYS[chat], tally) for each in _get_list(record, chat))
        parsed = tuple(turn for turn in messages if turn)
    else:
        reason = 'has neither "turns", "messages" or "conversations" nor both "prompt" and "response"'
        raise _BadLineError(reason, _describe_keys(record))
    tally.ignored_keys.update(record.keys() - known)
    return parsed


def _get_list(record: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(record[key], list):
        raise _BadLineError(f'has "{key}" that is not a list')
    return list(record[key])


def _describe_keys(record: dict[str, Any]) -> str:
    """The first keys of a record that has none of the known ones, for the message."""
    if not record:
        return "it has no keys"
    first = ", ".join(json.dumps(key[:20], ensure_ascii=False) for key in list(record)[:5])
    return f"it has {first}" + (f" and {len(record) - 5:,} more" if len(record) > 5 else "")


def _parse_turn(turn: Any, ignored_keys: Counter[str]) -> Turn:
    if isinstance(turn, str):
        return Turn(turn)
    if not isinstance(turn, dict) or not isinstance(turn.get("text"), str):
        raise _BadLineError('has a turn that is neither a string nor an object with a "text"')
    train = turn.get("train", True)
    if not isinstance(train, bool):
        raise _BadLineError('has a turn whose "train" is neither true nor false')
    ignored_keys.update(turn.keys() - {"text", "train"})
    return Turn(turn["text"], train)


def _parse_message(message: Any, speaker_key: str, text_key: str, tally: Tally) -> Turn | None:
    """A turn of a chat with an assistant, of which only the assistant's turns are learned. None for a message
    that is not a turn."""
    if not isinstance(message, dict) or not isinstance(speaker := message.get(speaker_key), str):
        raise _BadLineError(f'has a message that is not an object with a "{speaker_key}"')
    if speaker in _IGNORED_SPEAKERS:
        tally.dropped["system message"] += 1
        return None
    if speaker not in _LEARN_FROM_SPEAKER:
        raise _BadLineError(
            "has a message from neither a user nor an assistant",
            f'its "{speaker_key}" is {short_repr(speaker)}',
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise _BadLineError("has a message that calls a tool, which is not a reply")
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise _BadLineError('has a message whose "weight" is neither 0 nor 1')
    tally.ignored_keys.update(message.keys() - {speaker_key, text_key, "weight"})
    return Turn(_message_text(message.get(text_key), text_key), _LEARN_FROM_SPEAKER[speaker] and weight == 1)


def _message_text(content: Any, name: str) -> str:
    """The text of a message, which may be given in several parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if len(texts) < len(parts):
        raise _BadLineError(f'has a message whose "{name}" is not text')
    return "".join(texts)


class _PairColumns:
    """Turns rows of two columns into pairs. A header, recognized by its names, gives their order."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self._first = True
        self._swapped = False

    def __call__(self, row: list[str]) -> _Record:
        if not any(cell.strip() for cell in row) and len(row) < 2:
            return None
        first, self._first = self._first, False
        if len(row) != 2:
            reason = f"does not have two columns separated by {_SEPARATORS[self.separator]}"
            raise _BadLineError(reason, f"it has {len(row)}")
        if first and (header := [cell.strip().casefold() for cell in row]):
            self._swapped = header[0] in _RESPONSE_NAMES and header[1] in _PROMPT_NAMES
            if self._swapped or (header[0] in _PROMPT_NAMES and header[1] in _RESPONSE_NAMES):
                return None
        prompt, response = reversed(row) if self._swapped else row
        return Turn(prompt), Turn(response)


class _CsvRows(Iterator[_Record]):
    """Rows of CSV, each of one line or, with quotes, of several.

    A first line `sep=;` declares the separator, or else the first row that has two columns determines it. A
    quote that is never closed swallows the lines after it, until they can no longer be part of a cell. After
    such a row, reading resumes at the second of its lines.
    """

    def __init__(self, lines: _Lines) -> None:
        self._lines, self._columns, self._separator_known = lines, _PairColumns(","), False
        self._row: list[str] = []  # the lines of this row
        self._to_reread: deque[str] = deque()  # lines of the previous row that are to be read again

    def __next__(self) -> _Record:
        if not self._separator_known:
            self._find_separator()
        where = self._where()
        try:
            row = self._read_row(self._columns.separator)
        except csv.Error as error:
            self._to_reread.extendleft(reversed(self._row[1:]))
            raise _BadLineError("is not well-formed", str(error), where) from None
        try:
            return self._columns(row)
        except _BadLineError as error:
            error.where, error.lines = where, len(self._row)
            raise

    def _where(self) -> str:
        """The place of the next row."""
        return self._lines.where(self._lines.number - len(self._to_reread) + 1)

    def _find_separator(self) -> None:
        """Choose the separator that is declared, or the one that gives the next row two columns, or else the
        one that gives it more. The row is read again afterwards."""
        where = self._where()
        rows: dict[str, list[str]] = {",": [], ";": []}
        for separator in rows:
            with contextlib.suppress(csv.Error):
                rows[separator] = self._read_row(separator)
            self._to_reread.extendleft(reversed(self._row))
        if declared := _DECLARED_SEPARATOR.fullmatch("".join(self._row)):
            self._to_reread.popleft()
            self._separator_known, self._columns.separator = True, declared[1]
            return
        fitting = [separator for separator, row in rows.items() if len(row) == 2]
        if len(fitting) == 2:
            outside = _QUOTED_CELL.sub("", "".join(self._row))
            fitting = [separator for separator in fitting if separator in outside]
            if len(fitting) != 1:
                readings = " or ".join(
                    f"{short_repr(prompt)} and {short_repr(response)} at {_SEPARATORS[separator]}"
                    for separator, (prompt, response) in rows.items()
                )
                raise DataError(
                    f"{where} has two columns either way, {readings}: start the file with a header such as "
                    "prompt;response, put quotes around the texts, or save it as .tsv"
                )
        self._separator_known = bool(fitting)
        self._columns.separator = max(fitting or rows, key=lambda each: len(rows[each]))

    def _read_row(self, separator: str) -> list[str]:
        self._row.clear()
        try:
            return next(csv.reader(iter(self._next_line, None), delimiter=separator, strict=True))
        except _BadLineError as error:  # a bad line makes its whole row bad
            error.lines = len(self._row) + 1
            raise

    def _next_line(self) -> str:
        self._row.append(self._to_reread.popleft() if self._to_reread else next(self._lines))
        return self._row[-1]


class _LinePairs(Iterator[_Record]):
    """A line of prompt, a line of response; blank lines between pairs."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __next__(self) -> _Record:
        bad: _BadLineError | None = None
        prompt = ""
        try:
            prompt = next(self._lines)
        except _BadLineError as error:
            bad = error  # skip its response too, or all later pairs would be shifted
        if not prompt.strip() and not bad:
            return None
        where = self._lines.where(self._lines.number)
        response = next(self._lines, "")
        if bad:
            raise bad
        if not response.strip():
            raise _BadLineError("is a prompt without a response on the next line", where=where)
        return Turn(prompt), Turn(response)


class _ParallelLines(Iterator[_Record]):
    """Line n of one file is the prompt, line n of the other its response."""

    def __init__(self, source: _Lines, target: _Lines) -> None:
        self._files = (source, target)

    def __next__(self) -> _Record:
        bad: _BadLineError | None = None
        texts: list[str | None] = []
        for lines in self._files:
            try:
                texts.append(next(lines, None))
            except _BadLineError as error:
                bad = error
                texts.append("")
        prompt, response = texts
        if prompt is None and response is None:
            raise StopIteration
        if prompt is None or response is None:
            shorter, longer = self._files if prompt is None else reversed(self._files)
            with contextlib.suppress(_BadLineError):  # a bad line is not blank
                if not bad and not (prompt or response or "").strip() and not any(map(str.strip, longer)):
                    raise StopIteration  # blank lines at the end
            raise DataError(
                f"{shorter.path} ends at line {shorter.number} and {longer.path} goes on: "
                "parallel texts need equal numbers of lines"
            )
        if bad:
            raise bad
        return Turn(prompt), Turn(response)
