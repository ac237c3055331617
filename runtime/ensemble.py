"""Ensembles: several models with the same vocabulary as one backend.

The probability of an id is the mean of the models' probabilities, a linear mixture, as in fairseq and
OpenNMT. It is a distribution, so the search bounds its logarithms as those of a single model and stays exact.
The mean of log-probabilities would not be a distribution.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .backend import Backend, Floats, Ints, StepOutput
from .errors import BundleError
from .selection import likeliest_ids


class EnsembleBackend:
    """The mean of several backends. A step takes a step of each, with its whole distribution."""

    def __init__(self, backends: Sequence[Backend[Any]]) -> None:
        self._backends = tuple(backends)
        self.vocab_size = backends[0].vocab_size
        assert all(backend.vocab_size == self.vocab_size for backend in backends)

    def encode(self, src: Ints, src_len: Ints) -> tuple[Any, ...]:
        return tuple(backend.encode(src, src_len) for backend in self._backends)

    def step(
        self,
        state: tuple[Any, ...],
        tokens: Ints,
        parents: Ints,
        candidates: int,
        *,
        return_logp: bool = False,
    ) -> tuple[StepOutput, tuple[Any, ...]]:
        outs, following = zip(
            *(
                backend.step(each, tokens, parents, 1, return_logp=True)
                for backend, each in zip(self._backends, state, strict=True)
            ),
            strict=True,
        )
        logp = _log_mean_exp([out.logp for out in outs])  # [N, V]
        ids = np.stack([likeliest_ids(row, candidates) for row in logp])  # [N, C]
        align: Floats = sum(out.align for out in outs) / np.float32(len(outs))  # [N, S]
        cand_logp = np.take_along_axis(logp, ids, axis=1)
        return StepOutput(ids, cand_logp, align, logp if return_logp else None), following

    def select(self, state: tuple[Any, ...], sentences: Ints) -> tuple[Any, ...]:
        return tuple(
            backend.select(each, sentences) for backend, each in zip(self._backends, state, strict=True)
        )


def _log_mean_exp(logps: Sequence[Floats]) -> Floats:
    """log(mean(exp(logps))).

    Raises:
        BundleError: a value is not a number.
    """
    mean = logps[0]
    with np.errstate(invalid="ignore"):  # raised below
        for logp in logps[1:]:
            mean = np.logaddexp(mean, logp)
    if not (mean < np.inf).all():  # also true of NaN
        raise BundleError(
            "a bundle of the ensemble gave log-probabilities that are not numbers: its weights are damaged"
        )
    normalized: Floats = mean - np.float32(np.log(len(logps)))
    return normalized
