"""Drives searches over a backend: one that is streamed, or many in a batch.

Worked example of the row numbers, with K = 2 rows per sentence. Before the first step the encoder has made
one row for each of the sentences 0, 1, 2, so the parents of their rows are [0 0 1 1 2 2]. In later steps
sentence i had the rows 2i and 2i+1, so its local parents [1 0] become [2i+1, 2i]. When sentence 1 leaves the
batch, sentence 2 becomes the second sentence, but its parents in the next step are still the rows 4 and 5.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np

from .arguments import check_whole_number
from .backend import Backend, State, pad
from .constraints import NO_TEXT_RULES, TextRules
from .options import DecodingOptions
from .search import BeamSearch

#: Default number of sentences decoded together.
DEFAULT_BATCH_SIZE = 32
MAX_BATCH_SIZE = 100_000


class SearchBatch(Generic[State]):
    """Searches with the same number of rows that share decoder steps, one for each of `sources`."""

    def __init__(
        self, backend: Backend[State], sources: Sequence[Sequence[int]], searches: Sequence[BeamSearch]
    ) -> None:
        self._backend = backend
        self._state = backend.encode(*pad(sources))
        self._searches = list(searches)
        self._first_rows = list(range(len(searches)))  # first row of each sentence in the previous step

    def step(self) -> bool:
        """Advance every search by one token; return False when all are done."""
        tokens: list[int] = []
        parents: list[int] = []
        requests = [search.request() for search in self._searches]
        for first, request in zip(self._first_rows, requests, strict=True):
            tokens += request.tokens
            parents += [first + parent for parent in request.parents]
        out, self._state = self._backend.step(
            self._state,
            np.array(tokens, dtype=np.int64),
            np.array(parents, dtype=np.int64),
            max(request.candidates for request in requests),
            return_logp=any(request.needs_logp for request in requests),
        )
        cand_ids, cand_logp = out.cand_ids.tolist(), out.cand_logp.tolist()
        K = self._searches[0].rows
        self._first_rows = list(range(0, len(tokens), K))
        for first, search in zip(self._first_rows, self._searches, strict=True):
            if not search.done:
                rows = slice(first, first + K)
                logp = None if out.logp is None else out.logp[rows]
                search.advance(cand_ids[rows], cand_logp[rows], out.align[rows], logp)
        return self._drop_finished()

    def _drop_finished(self) -> bool:
        """Drop the sentences that are done when they are at least a quarter of the batch, not one by one,
        since each time the memory of the others is copied."""
        running = [i for i, search in enumerate(self._searches) if not search.done]
        if running and len(running) <= 0.75 * len(self._searches):
            self._state = self._backend.select(self._state, np.array(running, dtype=np.int64))
            self._searches = [self._searches[i] for i in running]
            self._first_rows = [self._first_rows[i] for i in running]
        return bool(running)


def batches_by_length(lengths: Sequence[int | tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """Indices into `lengths`, in batches of similar length.

    Raises:
        UsageError: `batch_size` is out of range.
    """
    check_whole_number("batch_size", batch_size, 1, MAX_BATCH_SIZE)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    return (by_length[start : start + batch_size] for start in range(0, len(lengths), batch_size))


def decode(
    backend: Backend[State],
    sources: Sequence[Sequence[int]],
    options: DecodingOptions,
    *,
    max_length: int,
    text_rules: TextRules = NO_TEXT_RULES,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[BeamSearch]:
    """Search for replies to all sources, in batches of similar length.

    Returns the searches in the order of `sources`. `text_rules` are the rules for the text options.
    `progress` is called after each batch with the number of searches that it finished. When `cancelled`
    returns True, no further step is taken, and the searches stay as they are.
    """
    searches = [
        BeamSearch(
            options,
            max_length=max_length,
            vocab_size=backend.vocab_size,
            source=source,
            text_rules=text_rules,
        )
        for source in sources
    ]
    for chosen in batches_by_length([len(source) for source in sources], batch_size):
        if cancelled():
            break
        batch = SearchBatch(backend, [sources[i] for i in chosen], [searches[i] for i in chosen])
        while not cancelled() and batch.step():
            pass
        if progress is not None:
            progress(sum(searches[i].done for i in chosen))
    return searches
