"""Reading dialogues: files by their ending, parallel text, and the packaged corpora by name.

Nothing is slurped: a corpus is read line by line, as often as it is iterated.
"""

import contextlib
import csv
import functools
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..runtime.errors import DataError, UsageError
from . import importers
from .report import CorpusReport, SourceReport

ENDINGS = (".jsonl", ".tsv", ".csv", ".txt")
DEFAULT_CORPUS = "chatterbot:english"
#: Bytes. A longer line is a bad line: it is passed over in pieces and never held whole.
LONGEST_LINE = 1 << 20

_PROMPT_NAMES = {"prompt", "source", "question", "input"}
_RESPONSE_NAMES = {"response", "target", "answer", "output"}


@dataclass(frozen=True)
class Turn:
    """What one side says. `train` False: it is context only, never learned."""

    text: str
    train: bool = True


@dataclass(frozen=True)
class Dialogue:
    """Turns in order; a pair is a dialogue of two."""

    turns: tuple[Turn, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the content, the same on every machine and in every version."""
        content = json.dumps([[turn.text, turn.train] for turn in self.turns], separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()


Targets = Literal["all", "second"]


def examples(dialogue: Dialogue, *, turns: int, targets: Targets) -> Iterator[tuple[list[str], str]]:
    """The (source, target) texts to learn from a dialogue, a source being at most `turns` turns.

    Worked example: turns=2 and the dialogue a b c d give ([a], b), ([a, b], c), ([b, c], d);
    with targets="second", where the bot is the second to speak, ([a], b) and ([b, c], d).
    """
    texts = [turn.text for turn in dialogue.turns]
    for i, turn in enumerate(dialogue.turns):
        if i and turn.train and (targets == "all" or i % 2):
            yield texts[max(0, i - turns) : i], turn.text


@dataclass
class Tally:
    """What a reader left out, by reason, and the keys it did not know."""

    dropped: Counter[str] = field(default_factory=Counter)
    ignored_keys: Counter[str] = field(default_factory=Counter)


def tidy(turns: Iterable[Turn], dropped: Counter[str]) -> Dialogue | None:
    """The dialogue of these turns, trimmed; None, and counted, where it has nothing to learn.

    A turn without text stays as context but is never learned.
    """
    kept: list[Turn] = []
    for turn in turns:
        text = turn.text.strip()
        if not text and turn.train and kept:
            dropped["empty response"] += 1
        kept.append(Turn(text, turn.train and bool(text)))
    if len(kept) < 2:
        dropped["dialogue of fewer than two turns"] += 1
        return None
    if not any(turn.train for turn in kept[1:]):
        # A pair without a response is counted already.
        if any(turn.text for turn in kept[1:]):
            dropped["dialogue without a turn to learn"] += 1
        return None
    return Dialogue(tuple(kept))


class Source(Protocol):
    """One file, pair of files or packaged corpus; `dialogues` reads it anew at each call."""

    @property
    def name(self) -> str: ...
    def dialogues(self, tally: Tally) -> Iterator[Dialogue]: ...


class Corpus:
    """Dialogues of one or more sources. Each iteration reads them again, from the first line."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._report: CorpusReport | None = None

    @property
    def name(self) -> str:
        """What the manifest says of the data: names of files without folders, names of corpora."""
        return ", ".join(source.name for source in self._sources)

    @property
    def report(self) -> CorpusReport:
        """The counts of the last whole iteration."""
        if self._report is None:
            raise RuntimeError("a corpus has its report only after a whole iteration")
        return self._report

    def read(self) -> CorpusReport:
        """Iterate to the end, keeping nothing but the counts and hashes."""
        for _ in self:
            pass
        return self.report

    def __iter__(self) -> Iterator[Dialogue]:
        tally = Tally()
        reports: list[SourceReport] = []
        turns = 0
        for source in self._sources:
            hashed = hashlib.sha256()
            dialogues = 0
            for dialogue in source.dialogues(tally):
                hashed.update(dialogue.digest.encode("ascii"))
                dialogues += 1
                turns += len(dialogue.turns)
                yield dialogue
            reports.append(SourceReport(source.name, hashed.hexdigest(), dialogues))
        self._report = CorpusReport(
            sources=tuple(reports),
            dialogues=sum(report.dialogues for report in reports),
            turns=turns,
            dropped=dict(tally.dropped),
            ignored_keys=dict(tally.ignored_keys),
        )


def open_corpus(
    data: Sequence[str],
    *,
    source: Path | None = None,
    target: Path | None = None,
    skip_bad: bool = False,
) -> Corpus:
    """The corpus of files and packaged corpora `data`, and of the parallel texts `source` and `target`.

    An existing path wins over a packaged corpus of that name; nothing at all means
    `chatterbot:english`. What can be told without reading is refused here: UsageError for a name
    that is neither, an ending that is unknown or half of a parallel text. Reading raises DataError
    for a file that cannot be used and, unless `skip_bad`, for its first bad line.
    """
    if (source is None) != (target is None):
        given, other = ("--source", "--target") if target is None else ("--target", "--source")
        raise UsageError(f"{given} is one half of a parallel text: give {other} too")
    sources: list[Source] = [_source(item, skip_bad) for item in data]
    if source is not None and target is not None:
        for option, path in (("--source", source), ("--target", target)):
            if not _exists(path):
                raise UsageError(f"{option} {path} does not exist")
        sources.append(_Parallel(source, target, skip_bad))
    return Corpus(sources or [_source(DEFAULT_CORPUS, skip_bad)])


def _source(item: str, skip_bad: bool) -> Source:
    endings = ", ".join(ENDINGS)
    path = Path(item)
    if _exists(path):
        if not path.is_dir() and _ending(path) not in ENDINGS:
            raise UsageError(f"{path} has none of the known endings {endings}, each with .gz or without")
        return _File(path, skip_bad)
    if (dialogues := importers.importer(item)) is not None:
        return _Imported(item, dialogues)
    if _ending(path) in ENDINGS:
        raise UsageError(f"{path} does not exist")
    raise UsageError(
        f"{item!r} is neither a file ({endings}, each with .gz or without) "
        f"nor a packaged corpus ({', '.join(importers.KNOWN)})"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a folder that may not be searched, a name that is too long
        raise _unusable(path, error) from None


def _ending(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


@dataclass(frozen=True)
class _Imported:
    name: str
    read: importers.Importer

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        return self.read(tally.dropped)


@dataclass(frozen=True)
class _File:
    path: Path
    skip_bad: bool

    @property
    def name(self) -> str:
        return self.path.name

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        with _opened(self.path) as lines:
            yield from _dialogues(_records(_ending(self.path), lines, tally), lines, tally, self.skip_bad)


@dataclass(frozen=True)
class _Parallel:
    source: Path
    target: Path
    skip_bad: bool

    @property
    def name(self) -> str:
        return f"{self.source.name} + {self.target.name}"

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        with _opened(self.source) as source, _opened(self.target) as target:
            yield from _dialogues(_ParallelLines(source, target), source, tally, self.skip_bad)


class _BadLineError(Exception):
    """A line that can be skipped. `reason` is counted, so it says nothing about the one line;
    `detail` does. `where` is None for the line that was just asked for."""

    def __init__(self, reason: str, detail: str = "", where: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.where = reason, detail, where


_READ_ERRORS = (OSError, EOFError, zlib.error)
_Opened = io.BufferedReader | gzip.GzipFile


class _Lines(Iterator[str]):
    """Lines of a file as text, each ending with one line feed. A bad one does not end the iteration."""

    def __init__(self, path: Path, file: _Opened) -> None:
        self.path, self._file = path, file
        self.number = 0  # of the last line, from 1

    def where(self, number: int) -> str:
        return f"{self.path}, line {number}"

    def __next__(self) -> str:
        raw = self._readline(LONGEST_LINE + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        where = self.where(self.number)
        if len(raw) > LONGEST_LINE:
            while raw and not raw.endswith(b"\n"):
                raw = self._readline(LONGEST_LINE)
            raise _BadLineError(f"is longer than {LONGEST_LINE:,} bytes", where=where)
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
        except _READ_ERRORS as error:
            raise _unusable(self.path, error) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Lines]:
    """The lines of a file, gzipped or not; whatever is wrong with it as a whole is a DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file, and a corpus is read more than once: save it as one")
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
            zipped = path.suffix.lower() == ".gz"
            file: _Opened = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
            head = file.peek(4096)
        except _READ_ERRORS as error:
            raise _unusable(path, error) from None
        if not head:
            raise DataError(f"{path} is empty")
        if b"\0" in head[:4096]:
            raise DataError(f"{path} is a binary file, not UTF-8 text")
        yield _Lines(path, file)


def _unusable(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return DataError(f"{path} cannot be read: {error.strerror or error}")
    return DataError(f"{path} is not a whole gzip file ({error}): copy or compress it again")


#: The turns of the next dialogue; None for a line that holds none, such as a blank one or a header.
_Record = tuple[Turn, ...] | None


def _dialogues(records: Iterator[_Record], lines: _Lines, tally: Tally, skip_bad: bool) -> Iterator[Dialogue]:
    while True:
        where = lines.where(lines.number + 1)
        try:
            turns = next(records)
            if turns is not None:
                _check(turns)
        except StopIteration:
            return
        except (_BadLineError, csv.Error) as error:
            bad = (
                error if isinstance(error, _BadLineError) else _BadLineError("is not well-formed", str(error))
            )
            if not skip_bad:
                detail = f" ({bad.detail})" if bad.detail else ""
                raise DataError(
                    f"{bad.where or where} {bad.reason}{detail}: mend it, or skip such lines with --skip-bad"
                ) from None
            tally.dropped[f"bad line: {bad.reason}"] += 1
            continue
        if turns is not None and (dialogue := tidy(turns, tally.dropped)):
            yield dialogue


def _check(turns: tuple[Turn, ...]) -> None:
    if not any(turn.text.strip() for turn in turns):
        raise _BadLineError("holds no text")
    try:
        for turn in turns:
            turn.text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair
        raise _BadLineError("holds half of a surrogate pair, which is no text") from None


def _records(ending: str, lines: _Lines, tally: Tally) -> Iterator[_Record]:
    """Parsers that survive their own errors: a generator would end with its first bad line."""
    if ending == ".jsonl":
        return map(functools.partial(_parse_json, tally.ignored_keys), lines)
    if ending == ".tsv":
        return map(_Columns(), csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if ending == ".csv":
        return map(_Columns(), csv.reader(lines, strict=True))
    return _LinePairs(lines)


def _parse_json(ignored_keys: Counter[str], line: str) -> _Record:
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _BadLineError("is not JSON", detail) from None
    if not isinstance(record, dict):
        raise _BadLineError("is not a JSON object")
    if "turns" in record:
        known, turns = {"turns"}, record["turns"]
        if not isinstance(turns, list):
            raise _BadLineError('has "turns" that are not a list')
        parsed = tuple(_parse_turn(turn, ignored_keys) for turn in turns)
    elif "prompt" in record and "response" in record:
        known = {"prompt", "response"}
        if not isinstance(record["prompt"], str) or not isinstance(record["response"], str):
            raise _BadLineError('has a "prompt" or "response" that is not a string')
        parsed = (Turn(record["prompt"]), Turn(record["response"]))
    else:
        raise _BadLineError('has neither "turns" nor both "prompt" and "response"')
    ignored_keys.update(record.keys() - known)
    return parsed


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


class _Columns:
    """Rows of two columns to pairs. A header, recognised by its names, also tells their order."""

    def __init__(self) -> None:
        self._first = True
        self._swapped = False

    def __call__(self, row: list[str]) -> _Record:
        if not any(cell.strip() for cell in row) and len(row) < 2:
            return None
        first, self._first = self._first, False
        if len(row) != 2:
            raise _BadLineError("does not have two columns", f"it has {len(row)}")
        if first and (header := [cell.strip().casefold() for cell in row]):
            self._swapped = header[0] in _RESPONSE_NAMES and header[1] in _PROMPT_NAMES
            if self._swapped or (header[0] in _PROMPT_NAMES and header[1] in _RESPONSE_NAMES):
                return None
        prompt, response = reversed(row) if self._swapped else row
        return Turn(prompt), Turn(response)


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
            bad = error  # its response goes with it, or all later pairs would be out of step
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
            raise DataError(
                f"{shorter.path} ends at line {shorter.number} and {longer.path} goes on: "
                "parallel texts need equal numbers of lines"
            )
        if bad:
            raise bad
        return Turn(prompt), Turn(response)
