"""A model that is a table of log-probabilities of the next id, given a source and the ids so far.

`TableBackend` checks its arguments strictly, so every test that uses it also tests its caller. The other
functions are reference implementations of searches, without candidates, batches or states.
"""

import itertools
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgechat.runtime.backend import Floats, Ints, StepOutput
from edgechat.runtime.hypotheses import Hypothesis
from edgechat.runtime.options import DecodingOptions
from edgechat.runtime.scheduler import SearchBatch
from edgechat.runtime.scoring import score
from edgechat.runtime.search import BeamSearch
from edgechat.runtime.text import EOS, GO, NEVER_GENERATED, PAD

Ids = tuple[int, ...]
#: Natural-log probabilities [V] of the next id, given the source and the ids fed after go.
Table = Callable[[Ids, Ids], Floats]


def random_table(seed: int, vocab_size: int, *, ties: bool = False, ending: float = 0.0) -> Table:
    """A table of pseudo-random values that differ for every source and prefix. `ending` is added to the logit
    of the end-of-sentence.

    With `ties`, there are few different values, exact in binary, so that sums often tie; they are not a
    distribution.
    """

    def logp(source: Ids, prefix: Ids) -> Floats:
        random = np.random.default_rng(zlib.crc32(repr((seed, source, prefix)).encode()))
        if ties:
            return (-0.25 * random.integers(1, 5, vocab_size)).astype(np.float32)
        logits = 1.5 * random.standard_normal(vocab_size)
        logits[EOS] += ending
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)

    return logp


def scripted_table(vocab_size: int, script: Mapping[Ids, Mapping[int, float]]) -> Table:
    """`script[prefix][id]` is the probability of `id` after `prefix`; missing ids have probability 0."""

    def logp(source: Ids, prefix: Ids) -> Floats:
        row = np.full(vocab_size, -np.inf, dtype=np.float32)
        for id, probability in script.get(prefix, {}).items():
            row[id] = np.log(probability)
        return row

    return logp


@dataclass(frozen=True)
class TableState:
    sources: list[Ids]  # of the B sentences still in the batch
    rows: list[tuple[Ids, Ids]]  # source, and ids fed after go, of each of the M rows of the previous step
    rows_per_sentence: int  # 1 after the encoder


@dataclass
class TableBackend:
    table: Table
    vocab_size: int
    sources: list[list[Ids]] = field(default_factory=list)  # of each call of `encode`
    steps: int = 0
    selects: list[list[int]] = field(default_factory=list)  # the sentences kept by each `select`

    def __post_init__(self) -> None:
        self._known: dict[tuple[Ids, Ids], Floats] = {}
        self._lock = threading.Lock()  # protects the counters

    def encode(self, src: Ints, src_len: Ints) -> TableState:
        assert src.dtype == src_len.dtype == np.int64
        assert src.shape[0] == len(src_len) > 0
        assert src_len.min() >= 1
        assert src_len.max() == src.shape[1]
        for row, length in zip(src, src_len, strict=True):
            assert (row[length:] == PAD).all()
            assert (row[:length] != PAD).all()
        sources = [tuple(row[:length].tolist()) for row, length in zip(src, src_len, strict=True)]
        with self._lock:
            self.sources.append(sources)
        return TableState(sources, [(source, ()) for source in sources], 1)

    def step(
        self, state: TableState, tokens: Ints, parents: Ints, candidates: int, *, return_logp: bool = False
    ) -> tuple[StepOutput, TableState]:
        B, N = len(state.sources), len(tokens)
        K = N // B
        assert tokens.dtype == parents.dtype == np.int64
        assert N == len(parents) == B * K
        assert K >= 2
        assert state.rows_per_sentence in (1, K)
        assert 0 <= parents.min() <= parents.max() < len(state.rows)
        assert 0 <= tokens.min() <= tokens.max() < self.vocab_size
        assert 1 <= candidates <= self.vocab_size
        rows: list[tuple[Ids, Ids]] = []
        for n, (token, parent) in enumerate(zip(tokens.tolist(), parents.tolist(), strict=True)):
            source, prefix = state.rows[parent]
            assert source == state.sources[n // K], "a row continues another sentence"
            if state.rows_per_sentence == 1:
                assert token == GO or n % K, "the first row of a sentence begins with go"
                rows.append((source, () if token == GO else (token,)))
            else:
                rows.append((source, (*prefix, token)))
        logp = np.stack([self._logp(*row) for row in rows])  # [N, V]
        order = np.argsort(-logp, axis=-1, kind="stable")[:, :candidates]  # ties: the lower id
        with self._lock:
            self.steps += 1
        align = np.zeros((N, max(map(len, state.sources))), dtype=np.float32)
        for n, (source, prefix) in enumerate(rows):
            align[n, : len(source)] = fake_attention(source, prefix)
        out = StepOutput(
            order.astype(np.int64),
            np.take_along_axis(logp, order, axis=-1),
            align,
            logp if return_logp else None,
        )
        return out, TableState(state.sources, rows, K)

    def select(self, state: TableState, sentences: Ints) -> TableState:
        kept = sentences.tolist()
        assert 0 < len(kept) < len(state.sources)
        assert kept == sorted(set(kept))
        with self._lock:
            self.selects.append(kept)
        return TableState([state.sources[i] for i in kept], state.rows, state.rows_per_sentence)

    def _logp(self, source: Ids, prefix: Ids) -> Floats:
        """Spare rows have the highest log-probabilities, so that a search that uses one goes wrong."""
        if PAD in prefix:
            return np.zeros(self.vocab_size, dtype=np.float32)
        if (source, prefix) not in self._known:
            self._known[source, prefix] = self.table(source, prefix)
        return self._known[source, prefix]


def fake_attention(source: Ids, prefix: Ids) -> Floats:
    """Pseudo-random attention weights over the source, which sum to 1."""
    weights = np.random.default_rng(zlib.crc32(repr((source, prefix)).encode())).random(len(source)) + 0.01
    return (weights / weights.sum()).astype(np.float32)


def text_of(tokens: Ids, vocabulary: Sequence[bytes]) -> bytes:
    return b"".join(vocabulary[id] for id in tokens)


def ngrams(tokens: Ids, n: int) -> list[Ids]:
    return [tokens[at : at + n] for at in range(len(tokens) - n + 1)]


def may_begin_reply(
    tokens: Ids, source: Ids, options: DecodingOptions, vocabulary: Sequence[bytes], left: int = 9
) -> bool:
    """Whether a reply that follows all rules of the options may begin with these ids, by definition, if
    `left` more tokens may follow, including the end-of-sentence."""
    text, prefix = text_of(tokens, vocabulary), (options.prefix or "").encode()
    repeats = ngrams(tokens, options.no_repeat_ngram) if options.no_repeat_ngram else []
    copies = set(ngrams(tokens, options.no_copy_ngram or 1)) & set(ngrams(source, options.no_copy_ngram or 1))
    return (
        not set(tokens) & {*NEVER_GENERATED, EOS}
        and len(set(repeats)) == len(repeats)
        and not (options.no_copy_ngram and copies)
        and not any(banned.encode() in text for banned in options.banned)
        and (
            text.startswith(prefix)
            or (
                prefix.startswith(text)
                and all(vocabulary[id] for id in tokens)
                and can_be_spelled(prefix[len(text) :], left - 1, vocabulary)
            )
        )
    )


def can_be_spelled(rest: bytes, tokens: int, vocabulary: Sequence[bytes]) -> bool:
    """Whether some sequence of at most `tokens` tokens begins with `rest`."""
    return not rest or any(
        said
        and (
            said.startswith(rest)
            or (rest.startswith(said) and can_be_spelled(rest[len(said) :], tokens - 1, vocabulary))
        )
        for said in vocabulary
        if tokens > 0
    )


def may_end_reply(tokens: Ids, options: DecodingOptions, vocabulary: Sequence[bytes]) -> bool:
    """Whether these ids, with which a reply may begin, are a complete reply."""
    prefix = (options.prefix or "").encode()
    text = text_of(tokens, vocabulary)
    held = all(required.encode() in text for required in options.required)
    return len(tokens) >= options.min_length and text.startswith(prefix) and held


def reference_hypothesis(
    table: Table, source: Ids, tokens: Ids, options: DecodingOptions, *, finished: bool
) -> tuple[float, Hypothesis]:
    """The total by which a reply is ranked, and its hypothesis, by the definitions of the penalties."""
    ids = (*tokens, EOS) if finished else tokens
    logps = tuple(float(table(source, ids[:t])[id]) for t, id in enumerate(ids))
    rank = 0.0
    for t, (id, logp) in enumerate(zip(ids, logps, strict=True)):
        rank += options.repetition_penalty * logp if id in ids[:t] else logp
    value = score(rank, len(ids), options)
    if options.coverage_penalty and ids:
        looked = [[float(p) for p in fake_attention(source, ids[:t])] for t in range(len(ids))]
        covered = [sum(row[i] for row in looked) for i in range(len(source))]
        value += options.coverage_penalty * sum(
            float(np.log(min(max(total, 1e-10), 1.0))) for total in covered
        )
    return rank, Hypothesis(tokens, logps, sum(logps), value, finished)


#: The bytes of a vocabulary without text.
NO_TEXT = (b"",) * 100


def reference_replies(
    table: Table,
    source: Ids,
    vocab_size: int,
    options: DecodingOptions,
    max_length: int,
    vocabulary: Sequence[bytes] = NO_TEXT,
) -> list[Hypothesis]:
    """Every finished reply of at most `max_length` tokens, including the end-of-sentence, that follows the
    rules of the options, best first."""
    words = [id for id in range(vocab_size) if id not in (*NEVER_GENERATED, EOS)]
    replies = [
        reference_hypothesis(table, source, tokens, options, finished=True)[1]
        for length in range(options.min_length, max_length)
        for tokens in itertools.product(words, repeat=length)
        if may_begin_reply(tokens, source, options, vocabulary) and may_end_reply(tokens, options, vocabulary)
    ]
    return sorted(replies, key=lambda reply: -reply.score)


def greedy_reply(
    table: Table, source: Ids, vocab_size: int, *, min_length: int, max_length: int
) -> tuple[Ids, bool]:
    """The likeliest id at each step up to the end-of-sentence, and whether that was reached."""
    tokens: Ids = ()
    while len(tokens) < max_length:
        logp = table(source, tokens)
        allowed = [id for id in range(vocab_size) if id not in NEVER_GENERATED]
        if len(tokens) < min_length:
            allowed.remove(EOS)
        best = max(allowed, key=lambda id: (logp[id], -id))
        if best == EOS:
            return tokens, True
        tokens = (*tokens, best)
    return tokens, False


def reference_beam_search(
    table: Table,
    source: Ids,
    vocab_size: int,
    options: DecodingOptions,
    max_length: int,
    vocabulary: Sequence[bytes] = NO_TEXT,
) -> list[Hypothesis]:
    """Beam search over whole distributions that never stops before `max_length`."""
    size = options.beam // options.groups
    groups: list[list[Ids]] = [[()] for _ in range(options.groups)]
    finished: list[tuple[int, Hypothesis]] = []  # with its group
    for step in range(1, max_length + 1):
        said: list[int] = []  # ids chosen by earlier groups at this step
        following = []
        for group, live in enumerate(groups):
            extensions = []
            for row, tokens in enumerate(live):
                for id, value in enumerate(table(source, tokens)):
                    ends = id == EOS
                    if value > -np.inf and (
                        may_end_reply(tokens, options, vocabulary)
                        if ends
                        else may_begin_reply((*tokens, id), source, options, vocabulary, max_length - step)
                    ):
                        longer = tokens if ends else (*tokens, id)
                        rank, reply = reference_hypothesis(table, source, longer, options, finished=ends)
                        extensions.append(
                            (options.diversity_strength * said.count(id) - rank, row, id, reply)
                        )
            ranked = sorted(extensions, key=lambda extension: extension[:3])
            finished += [(group, reply) for *_, id, reply in ranked[:size] if id == EOS]
            following.append([reply.tokens for *_, id, reply in ranked if id != EOS][:size])
            said += [tokens[-1] for tokens in following[-1]]
        if not any(following) and not finished:
            break
        groups = following
    wanted = -(-options.n_best // options.groups)  # per group; greedy groups take their first
    each: list[list[Hypothesis]] = [[] for _ in groups]
    known: set[Ids] = set()  # a reply of one group does not count for another
    for group, reply in sorted(finished, key=lambda found: _by_score(found[1])) if size > 1 else finished:
        if len(each[group]) < wanted and reply.tokens not in known:
            known.add(reply.tokens)
            each[group].append(reply)
    places = [sorted(filter(None, place), key=_by_score) for place in itertools.zip_longest(*each)]
    best = sorted(list(itertools.chain(*places))[: options.n_best], key=_by_score)
    live = dict.fromkeys(tokens for group in groups for tokens in group)
    cut = sorted(
        (reference_hypothesis(table, source, tokens, options, finished=False)[1] for tokens in live),
        key=_by_score,
    )
    return best or cut[: options.n_best]


def _by_score(reply: Hypothesis) -> float:
    return -reply.score


def token_ids(hypotheses: Sequence[Hypothesis]) -> list[Ids]:
    return [hypothesis.tokens for hypothesis in hypotheses]


def settled_ids(search: BeamSearch) -> list[int]:
    """The ids that are settled."""
    agreed = itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*search.contenders(), strict=False))
    return [ids[0] for ids in agreed]


def run_and_check_settled(search: BeamSearch, backend: TableBackend, source: Ids) -> None:
    """Run a search to its end, and check that nothing settled is taken back."""
    batch = SearchBatch(backend, [source], [search])
    seen, running = [settled_ids(search)], True
    while running:
        running = batch.step()
        seen.append(settled_ids(search))
    for earlier, later in itertools.pairwise(seen):
        assert later[: len(earlier)] == earlier
    assert seen[-1] == list(search.hypotheses()[0].tokens)
