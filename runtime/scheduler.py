"""Drives searches over a backend: one sentence that streams, or many in one batch.

Worked example of the row numbers, K = 2 rows a sentence. At the first step the encoder has left one
row for each of sentences 0, 1, 2, so their rows' parents are [0 0 1 1 2 2]. At later steps sentence i
had rows 2i and 2i+1: its local parents [1 0] become [2i+1, 2i]. When sentence 1 leaves, sentence 2
becomes the second of the batch, but its parents of the next step are still rows 4 and 5.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np

from .backend import Backend, State, pad
from .constraints import NO_TEXTS, TextRules
from .options import DecodingOptions, whole_number
from .search import BeamSearch

#: Sentences decoded together where a caller has more.
BATCH_SIZE = 32
MAX_BATCH_SIZE = 100_000


class Batch(Generic[State]):
    """Searches of one K that share decoder steps. Each is one sentence of `sources`."""

    def __init__(
        self, backend: Backend[State], sources: Sequence[Sequence[int]], searches: Sequence[BeamSearch]
    ) -> None:
        self._backend = backend
        self._state = backend.encode(*pad(sources))
        self._searches = list(searches)
        self._origins = list(range(len(searches)))  # first row of each sentence in the step before

    def step(self) -> bool:
        """Advance every search by one token; false once all are done."""
        tokens: list[int] = []
        parents: list[int] = []
        wants = [search.want() for search in self._searches]
        for origin, want in zip(self._origins, wants, strict=True):
            tokens += want.tokens
            parents += [origin + parent for parent in want.parents]
        out, self._state = self._backend.step(
            self._state,
            np.array(tokens, dtype=np.int64),
            np.array(parents, dtype=np.int64),
            max(want.candidates for want in wants),
            whole=any(want.whole for want in wants),
        )
        K = self._searches[0].rows
        self._origins = list(range(0, len(tokens), K))
        for first, search, want in zip(self._origins, self._searches, wants, strict=True):
            if not search.done:
                rows, C = slice(first, first + K), want.candidates
                search.advance(
                    out.cand_ids[rows, :C].tolist(),
                    out.cand_logp[rows, :C].tolist(),
                    out.align[rows],
                    None if out.logp is None else out.logp[rows],
                )
        return self._leave()

    def _leave(self) -> bool:
        """Drop the sentences that are done once they are a quarter of the batch, not one by one: each
        time copies the memory of those that stay."""
        running = [i for i, search in enumerate(self._searches) if not search.done]
        if running and len(running) <= 0.75 * len(self._searches):
            self._state = self._backend.select(self._state, np.array(running, dtype=np.int64))
            self._searches = [self._searches[i] for i in running]
            self._origins = [self._origins[i] for i in running]
        return bool(running)


def batches_of(lengths: Sequence[int | tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """The numbers of `lengths`, those of similar length together.

    Raises:
        UsageError: a wrong `batch_size`.
    """
    whole_number("batch_size", batch_size, 1, MAX_BATCH_SIZE)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    return (by_length[start : start + batch_size] for start in range(0, len(lengths), batch_size))


def decode(
    backend: Backend[State],
    sources: Sequence[Sequence[int]],
    options: DecodingOptions,
    *,
    max_length: int,
    texts: TextRules = NO_TEXTS,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[BeamSearch]:
    """Search replies to all sources, in batches of similar length; the searches come in the order of
    the sources. `texts` are the rules of the texts among the options. `progress` is called with the
    number of sentences that each batch finished. Once `cancelled`, no other step is taken, and the
    searches stay as they are."""
    searches = [
        BeamSearch(options, max_length=max_length, vocab_size=backend.vocab_size, source=source, texts=texts)
        for source in sources
    ]
    for chosen in batches_of([len(source) for source in sources], batch_size):
        if cancelled():
            break
        batch = Batch(backend, [sources[i] for i in chosen], [searches[i] for i in chosen])
        while not cancelled() and batch.step():
            pass
        if progress is not None:
            progress(sum(searches[i].done for i in chosen))
    return searches
