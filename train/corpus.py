"""A corpus: files by their extension, parallel text, and packaged corpora by name.

Nothing is held in memory: each iteration of a corpus reads its sources again, line by line.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..runtime.errors import UsageError
from . import importers
from .dialogue import Dialogue, Tally, replace_surrogates
from .readers import EXTENSIONS, as_data_error, data_extension, read_file, read_parallel
from .report import CorpusReport, SourceReport, select_ignored_keys

DEFAULT_CORPUS = "chatterbot:english"


class Source(Protocol):
    """One file, pair of files or packaged corpus. Each call of `dialogues` reads it again."""

    @property
    def name(self) -> str: ...
    def dialogues(self, tally: Tally) -> Iterator[Dialogue]: ...


class Corpus:
    """The dialogues of one or more sources. Each iteration reads them again from the first line."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._report: CorpusReport | None = None

    @property
    def name(self) -> str:
        """The data as the manifest names it: files without their folders, and packaged corpora."""
        return ", ".join(source.name for source in self._sources)

    @property
    def report(self) -> CorpusReport:
        """The counts of the last complete iteration."""
        if self._report is None:
            raise RuntimeError("a corpus has its report only after a complete iteration")
        return self._report

    def read(self) -> CorpusReport:
        """Iterate to the end and keep only the counts and hashes."""
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
        ignored_keys, more_ignored_keys = select_ignored_keys(tally.ignored_keys)
        self._report = CorpusReport(
            sources=tuple(reports),
            dialogues=sum(report.dialogues for report in reports),
            turns=turns,
            dropped=dict(tally.dropped),
            first_bad=tally.first_bad,
            ignored_keys=ignored_keys,
            more_ignored_keys=more_ignored_keys,
        )


def open_corpus(
    data: Sequence[str],
    *,
    source: Path | None = None,
    target: Path | None = None,
    skip_bad: bool = False,
    option_names: tuple[str, str] = ("--source", "--target"),
) -> Corpus:
    """The corpus of `data`, which are files and packaged corpora, and of the parallel text `source` and
    `target`, which errors call by `option_names`. Without any of them it is `DEFAULT_CORPUS`.

    An existing path takes precedence over a packaged corpus of that name. Reading raises DataError for a file
    that cannot be used and, unless `skip_bad`, for the first bad line.

    Raises:
        UsageError: an item is neither a file nor a packaged corpus, a file has an unknown extension or does
            not exist, or only half of a parallel text was given.
    """
    if (source is None) != (target is None):
        given, other = option_names if target is None else reversed(option_names)
        raise UsageError(f"{given} is one half of a parallel text: give {other} too")
    sources: list[Source] = [_open_source(item, skip_bad) for item in data]
    if source is not None and target is not None:
        for option, path in zip(option_names, (source, target), strict=True):
            if not _exists(path):
                raise UsageError(f"{option} {path} does not exist")
        sources.append(_ParallelSource(source, target, skip_bad))
    return Corpus(sources or [_open_source(DEFAULT_CORPUS, skip_bad)])


def _open_source(item: str, skip_bad: bool) -> Source:
    extensions = ", ".join(EXTENSIONS)
    path = Path(item)
    if _exists(path):
        if not path.is_dir() and data_extension(path) not in EXTENSIONS:
            raise UsageError(
                f"{path} has none of the known extensions {extensions}, each with or without .gz "
                "(a .jsonl file has one object per line)"
            )
        return _FileSource(path, skip_bad)
    if (dialogues := importers.find_importer(item)) is not None:
        return _PackagedSource(item, dialogues)
    if data_extension(path) in EXTENSIONS:
        raise UsageError(f"{path} does not exist")
    raise UsageError(
        f"{item!r} is neither a file ({extensions}, each with or without .gz) "
        f"nor a packaged corpus ({', '.join(importers.CORPUS_NAMES)})"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a folder without search permission, a name that is too long
        raise as_data_error(path, error) from None


@dataclass(frozen=True)
class _PackagedSource:
    name: str
    read: importers.Importer

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        return self.read(tally.dropped)


@dataclass(frozen=True)
class _FileSource:
    path: Path
    skip_bad: bool

    @property
    def name(self) -> str:
        return replace_surrogates(self.path.name)

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        return read_file(self.path, tally, skip_bad=self.skip_bad)


@dataclass(frozen=True)
class _ParallelSource:
    source: Path
    target: Path
    skip_bad: bool

    @property
    def name(self) -> str:
        return replace_surrogates(f"{self.source.name} + {self.target.name}")

    def dialogues(self, tally: Tally) -> Iterator[Dialogue]:
        return read_parallel(self.source, self.target, tally, skip_bad=self.skip_bad)
