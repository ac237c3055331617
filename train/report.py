"""The report of a corpus: what was read, what was dropped and why, and what the model will see of it."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.display import plural
from .dialogue import replace_surrogates

#: Called regularly with the present activity ("reading", "tokenizer", "encoding") and the number of
#: dialogues, or of texts for the tokenizer, that are done.
ProgressCallback = Callable[[str, int], None]

#: How many ignored keys are reported, the most frequent first, and how many characters of each.
_MAX_KEYS, _MAX_KEY_LENGTH = 10, 100
PERCENTILES = {"median": 50, "p90": 90, "p99": 99, "longest": 100}


def select_ignored_keys(counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """The most frequent keys, as they are reported, with their counts; and the number of the others."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    selected = {replace_surrogates(key[:_MAX_KEY_LENGTH]): count for key, count in ordered[:_MAX_KEYS]}
    return selected, len(ordered[_MAX_KEYS:])


@dataclass(frozen=True)
class SourceReport:
    """One file or packaged corpus. `sha256` is the hash of its dialogues in order, after cleaning."""

    name: str
    sha256: str
    dialogues: int


@dataclass(frozen=True)
class CorpusReport:
    """The counts of a corpus. A reader fills the first block, `prepare_corpus` the rest.

    With a separate held-out corpus, `dialogues` and `turns` are those of `sources`. The other counts include
    `valid_sources`, except those whose names begin with `train_` or `valid_`. Token lengths
    are those after truncation; a target's includes its end-of-sentence.
    """

    sources: tuple[SourceReport, ...] = ()
    dialogues: int = 0
    turns: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first_bad: dict[str, str] = field(default_factory=dict)  # reason -> file and number of the first bad line
    ignored_keys: dict[str, int] = field(default_factory=dict)  # the most frequent ones
    more_ignored_keys: int = 0  # number of the others

    valid_sources: tuple[SourceReport, ...] = ()
    pairs: int = 0
    train_dialogues: int = 0
    train_pairs: int = 0
    valid_dialogues: int = 0
    valid_pairs: int = 0
    valid_learned: int = 0  # held-out pairs that are also training pairs
    truncated_sources: int = 0
    truncated_targets: int = 0
    empty_prompts: int = 0  # pairs with an empty prompt, which are learned as they are
    ambiguous_prompts: int = 0  # sources with more than one target: normal in chat, a mistake among commands
    ambiguous_pairs: int = 0  # pairs with such a source
    vocab_size: int = 0
    source_tokens: dict[str, int] = field(default_factory=dict)
    target_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """One digest for all training sources; equal for the same dialogues in the same order."""
        return hashlib.sha256("".join(source.sha256 for source in self.sources).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, tuples, strings and numbers. It holds no path and no text of the
        data."""
        return dataclasses.asdict(self)

    def with_valid(self, valid: "CorpusReport") -> "CorpusReport":
        """This report with the sources of a separate held-out corpus, and the drops and ignored keys of
        both."""
        ignored_keys, more = select_ignored_keys(Counter(self.ignored_keys) + Counter(valid.ignored_keys))
        return dataclasses.replace(
            self,
            valid_sources=valid.sources,
            dropped=dict(Counter(self.dropped) + Counter(valid.dropped)),
            first_bad={**valid.first_bad, **self.first_bad},
            ignored_keys=ignored_keys,
            more_ignored_keys=self.more_ignored_keys + valid.more_ignored_keys + more,
        )

    def lines(self) -> list[str]:
        """The report as lines of a plain text table."""
        rows = [(source.name, plural(source.dialogues, "dialogue")) for source in self.sources]
        of_data = of_all = ""
        if self.valid_sources:
            held_out = ((source.name, plural(source.dialogues, "dialogue")) for source in self.valid_sources)
            rows += [(name, f"{dialogues}, held out") for name, dialogues in held_out]
            of_data, of_all = " in the training data", " in the training and held-out data"
        rows += [
            ("dialogues", f"{self.dialogues:,}{of_data}, sha256 {self.sha256[:12]}"),
            ("turns", f"{self.turns:,}{of_data}"),
            ("pairs", f"{self.pairs:,}{of_all}"),
            ("to train", _format_pairs(self.train_pairs, self.train_dialogues)),
            ("held out", _format_pairs(self.valid_pairs, self.valid_dialogues) + self._format_learned()),
            ("vocabulary", f"{self.vocab_size:,} tokens"),
            ("source tokens", _format_percentiles(self.source_tokens)),
            ("target tokens", _format_percentiles(self.target_tokens)),
            (
                "truncated",
                f"{plural(self.truncated_sources, 'source')}, {plural(self.truncated_targets, 'target')}",
            ),
        ]
        if self.empty_prompts:
            rows.append(("empty prompts", f"{self.empty_prompts:,}, taken as they are"))
        if self.ambiguous_prompts:
            prompts, pairs = plural(self.ambiguous_prompts, "prompt"), plural(self.ambiguous_pairs, "pair")
            rows.append(("ambiguous", f"{prompts} with more than one reply, in {pairs}"))
        rows += [("dropped", line) for line in self.dropped_lines()]
        rows += [("ignored key", line) for line in _count_lines(self.ignored_keys)]
        if self.more_ignored_keys:
            rows.append(("ignored key", f"and {self.more_ignored_keys:,} more"))
        width = max(len(label) for label, _ in rows)
        return [f"{label:<{width}}  {value}" for label, value in rows]

    def dropped_lines(self) -> list[str]:
        """What was dropped, and where the first bad line of each kind is; the most frequent first."""
        named = {
            f"{what} (first: {self.first_bad[what]})" if what in self.first_bad else what: count
            for what, count in self.dropped.items()
        }
        return _count_lines(named)

    def _format_learned(self) -> str:
        return f", {self.valid_learned:,} of them learned too" if self.valid_learned else ""


def _format_pairs(pairs: int, dialogues: int) -> str:
    return f"{plural(pairs, 'pair')} of {plural(dialogues, 'dialogue')}"


def percentiles(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """The percentiles of token lengths; empty if there are no lengths."""
    if not len(lengths):
        return {}
    return {name: int(np.percentile(lengths, q, method="higher")) for name, q in PERCENTILES.items()}


def _format_percentiles(lengths: dict[str, int]) -> str:
    return ", ".join(f"{name} {length:,}" for name, length in lengths.items()) or "none"


def _count_lines(counts: Mapping[str, int]) -> list[str]:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count:,} × {what}" for what, count in most_first]
