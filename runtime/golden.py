"""Golden vectors: seeded random sources with the candidates and replies that the bundle gave when it was
made. Any implementation, on any machine, can check itself against them without the training data or torch.

The sources are random ids, not text, so that they contain nothing private. Kinds of CPU differ in how they
round sums, so tokens are compared only if the margin of the best reply is above `MIN_MARGIN`. The margin is
the difference to the score of the second best finished reply. It does not include by how little the best
reply stayed in the beam on the way, so a device on which it drops out there reports a mismatch.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Backend, State, pad
from .errors import BundleError
from .manifest import MAX_REPLY_ROWS
from .options import MAX_LENGTH, DecodingOptions
from .scheduler import decode
from .strict_json import describe_misfit, read_json
from .text import GO, SPECIAL_TOKENS

MIN_MARGIN = 0.1  # natural log
TOLERANCE = 0.05  # natural log
#: Limits, so that an untrusted file cannot make the check run for hours. In addition, all replies together
#: may take at most `MAX_REPLY_ROWS` rows of the decoder. edgechat writes 8 sources of at most 20 ids.
MAX_CASES = 64
MAX_SOURCE_IDS = 1000
_CANDIDATES = 8
_OPTIONS = {
    "greedy": DecodingOptions(beam=1, normalize="none"),
    "beam5": DecodingOptions(beam=5, n_best=2, normalize="none"),
}
_ROWS_PER_STEP = sum(options.rows for options in _OPTIONS.values())  # decoder rows per source and step


@dataclass(frozen=True)
class GoldenResult:
    """The result of a check against golden vectors."""

    sources: int
    replies: int  # number of replies compared token by token
    near_ties: int  # number of replies not compared: their margin is too small to hold on every CPU
    mismatches: int  # number of compared replies whose tokens differ
    worst_difference: float  # largest difference of natural-log probabilities

    @property
    def passed(self) -> bool:
        """Whether there is no mismatch, and no difference above the tolerance. Even if every reply is a near
        tie, the first candidates of each source have been compared."""
        return self.mismatches == 0 and self.worst_difference <= TOLERANCE


def make_golden(backend: Backend[State], *, seed: int, count: int, max_source: int, max_length: int) -> bytes:
    """golden.json for `count` sources of 1 to `max_source` random ids, at most 20, with replies of at most
    `max_length` tokens, or as many as the limits of a check allow."""
    max_length = min(max_length, MAX_REPLY_ROWS // (count * _ROWS_PER_STEP))
    random = np.random.default_rng(seed)
    low = min(len(SPECIAL_TOKENS), backend.vocab_size - 1)
    longest = min(max_source, 20)
    sources = [
        random.integers(low, backend.vocab_size, size=random.integers(1, longest + 1)).tolist()
        for _ in range(count)
    ]
    cases = [{"src": source, "candidates": _first_candidates(backend, source)} for source in sources]
    for name, options in _OPTIONS.items():
        for case, search in zip(cases, decode(backend, sources, options, max_length=max_length), strict=True):
            best, *others = search.hypotheses()
            margin = best.score - others[0].score if others else search.min_gap
            case[name] = {
                "tokens": list(best.tokens),
                "logp": round(best.logp, 4),
                "finished": best.finished,
                "margin": round(min(margin, 1e3), 4),
            }
    golden = {"seed": seed, "max_length": max_length, "cases": cases}
    return (json.dumps(golden, sort_keys=True) + "\n").encode()


def check_golden(backend: Backend[State], raw: bytes) -> GoldenResult:
    """Repeat every golden vector and compare.

    Raises:
        BundleError: golden.json is not what `make_golden` writes.
    """
    with _bundle_errors():
        golden, sources = _parse_golden(raw, backend.vocab_size)
        cases, max_length = golden["cases"], int(golden["max_length"])
        if not 1 <= max_length <= MAX_LENGTH:
            raise ValueError(f"max_length must be from 1 to {MAX_LENGTH}, not {max_length}")
        if any(len(case["candidates"]["ids"]) != len(case["candidates"]["logp"]) for case in cases):
            raise ValueError("it does not have one log-probability for each candidate")
        if not all(case["candidates"]["ids"] for case in cases):
            raise ValueError("it has a source without candidates")
        if (rows := len(cases) * _ROWS_PER_STEP * max_length) > MAX_REPLY_ROWS:
            raise ValueError(f"its replies take {rows:,} rows of the decoder, {MAX_REPLY_ROWS:,} are allowed")
        return _compare(backend, cases, sources, max_length)


def golden_sources(raw: bytes, vocab_size: int) -> list[list[int]]:
    """The sources of the golden vectors, as ids.

    Raises:
        BundleError: as `check_golden`.
    """
    with _bundle_errors():
        return _parse_golden(raw, vocab_size)[1]


@contextlib.contextmanager
def _bundle_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise BundleError(f"golden.json cannot be used: {describe_misfit(error)}") from error


def _parse_golden(raw: bytes, vocab_size: int) -> tuple[dict[str, Any], list[list[int]]]:
    """The parsed golden.json, and its sources, which are checked."""
    golden = read_json(raw, parse_constant=_refuse_constant)
    cases = golden["cases"]
    if len(cases) > MAX_CASES or any(len(case["src"]) > MAX_SOURCE_IDS for case in cases):
        raise ValueError(f"it has more than {MAX_CASES} sources, or one of more than {MAX_SOURCE_IDS} ids")
    sources = [[int(id) for id in case["src"]] for case in cases]
    ids = [id for source in sources for id in source]
    if not cases or not all(sources) or not 0 <= min(ids) <= max(ids) < vocab_size:
        raise ValueError("sources are missing or contain ids outside the vocabulary")
    return golden, sources


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def _compare(
    backend: Backend[State], cases: list[dict[str, Any]], sources: list[list[int]], max_length: int
) -> GoldenResult:
    differences = [0.0]
    replies = near_ties = mismatches = 0
    for case, source in zip(cases, sources, strict=True):
        got, expected = (
            dict(zip(candidates["ids"], candidates["logp"], strict=True))
            for candidates in (_first_candidates(backend, source), case["candidates"])
        )
        shared = got.keys() & expected.keys()
        differences += [abs(got[id] - expected[id]) for id in shared]
        # An id that only one side lists must be within the tolerance of the last one of the other side.
        for one, other in ((got, expected), (expected, got)):
            differences += [logp - min(other.values()) for id, logp in one.items() if id not in shared]
    for name, options in _OPTIONS.items():
        for case, search in zip(cases, decode(backend, sources, options, max_length=max_length), strict=True):
            expected, best = case[name], search.hypotheses()[0]
            if expected["margin"] <= MIN_MARGIN:
                near_ties += 1
                continue
            replies += 1
            if list(best.tokens) != expected["tokens"] or best.finished != expected["finished"]:
                mismatches += 1
            else:
                differences.append(abs(best.logp - expected["logp"]))
    return GoldenResult(len(cases), replies, near_ties, mismatches, float(np.max(differences)))


def _first_candidates(backend: Backend[State], source: list[int]) -> dict[str, list[Any]]:
    """The likeliest first tokens of the reply to a source, with their log-probabilities."""
    state = backend.encode(*pad([source]))
    tokens, parents = np.full(2, GO, dtype=np.int64), np.zeros(2, dtype=np.int64)
    out, _ = backend.step(state, tokens, parents, min(_CANDIDATES, backend.vocab_size))
    return {"ids": out.cand_ids[0].tolist(), "logp": [round(float(x), 4) for x in out.cand_logp[0]]}
