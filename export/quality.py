"""What a precision costs: int8 or fp16 graphs compared with fp32, in quality on held-out text and in time."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ..runtime.backend import pad
from ..runtime.manifest import PrecisionName
from ..runtime.measure import interleaved
from ..runtime.ort import OrtBackend
from ..runtime.scheduler import BATCH_SIZE, batches_of
from ..runtime.scoring import forced_steps
from ..runtime.text import GO
from ..train.perplexity import perplexity_of


@dataclass(frozen=True)
class QualityLimits:
    """Limits of the difference from fp32."""

    agreement: float  # smallest fraction of tokens at which both have the same likeliest token
    perplexity_rise: float  # largest relative rise
    mean_logp: float  # largest mean error of a token's log-probability (natural log)
    worst_logp: float  # largest error of a token's log-probability


LIMITS: dict[PrecisionName, QualityLimits] = {
    "fp16": QualityLimits(agreement=0.99, perplexity_rise=0.005, mean_logp=0.01, worst_logp=0.5),
    "int8": QualityLimits(agreement=0.95, perplexity_rise=0.02, mean_logp=0.1, worst_logp=3.0),
}


@dataclass(frozen=True)
class Quality:
    """Differences from fp32 along given pairs. Errors are absolute errors of the natural-log probabilities of
    the target tokens."""

    pairs: int
    tokens: int
    agreement: float
    perplexity: float
    fp32_perplexity: float
    mean_logp: float
    worst_logp: float

    def to_json(self) -> dict[str, Any]:
        return {
            name: value if isinstance(value, int) else float(f"{value:.6g}")
            for name, value in asdict(self).items()
        }

    @property
    def perplexity_change(self) -> float:
        return perplexity_change(self.perplexity, self.fp32_perplexity)

    def beyond(self, limits: QualityLimits) -> list[str]:
        """The limits that are exceeded, each as a phrase with its figures. NaN exceeds every limit."""
        measured = (
            (
                self.agreement >= limits.agreement,
                f"{self.agreement:.1%} of tokens agree, but at least {limits.agreement:.0%} is required",
            ),
            (
                self.perplexity_change <= limits.perplexity_rise,
                f"perplexity changes by {self.perplexity_change:+.2%}, but at most "
                f"{limits.perplexity_rise:+.1%} is allowed",
            ),
            (
                self.mean_logp <= limits.mean_logp,
                f"the mean log-probability error is {self.mean_logp:.3f}, but at most {limits.mean_logp} "
                "is allowed",
            ),
            (
                self.worst_logp <= limits.worst_logp,
                f"the worst log-probability error is {self.worst_logp:.2f}, but at most {limits.worst_logp} "
                "is allowed",
            ),
        )
        return [phrase for within, phrase in measured if not within]


def perplexity_change(perplexity: float, fp32_perplexity: float) -> float:
    """The relative change from fp32; 0 where both are infinite."""
    return 0.0 if perplexity == fp32_perplexity else perplexity / fp32_perplexity - 1


def compare(
    exact: OrtBackend,
    variant: OrtBackend,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> Quality:
    """Feed every target to both backends, and compare the distributions token by token."""
    logps: tuple[list[Any], list[Any]] = ([], [])
    agreeing = 0
    lengths = [(len(target), len(source)) for source, target in zip(sources, targets, strict=True)]
    for chosen in batches_of(lengths, BATCH_SIZE):
        source = pad([sources[i] for i in chosen])
        target, target_len = pad([targets[i] for i in chosen])  # [B, T]
        both = (forced_steps(backend, backend.encode(*source), target) for backend in (exact, variant))
        for t, steps in enumerate(zip(*both, strict=True)):
            live = t < target_len
            for found, step in zip(logps, steps, strict=True):
                found.append(step.logp[np.arange(len(chosen)), target[:, t]][live])
            ours, theirs = (step.logp.argmax(axis=1) for step in steps)
            agreeing += int((ours == theirs)[live].sum())
    ours, theirs = (np.concatenate(parts) for parts in logps)
    errors = np.abs(ours.astype(np.float64) - theirs)
    return Quality(
        pairs=len(sources),
        tokens=len(errors),
        agreement=agreeing / len(errors),
        perplexity=perplexity_of([theirs]),
        fp32_perplexity=perplexity_of([ours]),
        mean_logp=float(errors.mean()),
        worst_logp=float(errors.max()),
    )


def step_ms(
    backends: Mapping[PrecisionName, OrtBackend], source: Sequence[int], *, beam: int = 5
) -> dict[PrecisionName, float]:
    """Median CPU milliseconds of a decoder step at batch 1. The backends, of one thread each, take turns."""
    calls: dict[str, Callable[[], object]] = {}
    for name, backend in backends.items():
        state = backend.encode(*pad([source]))
        tokens, parents = np.full(beam, GO, dtype=np.int64), np.zeros(beam, dtype=np.int64)
        calls[name] = partial(backend.step, state, tokens, parents, beam + 2)
    times = interleaved(calls, 30)
    return {name: statistics.median(times[name]) for name in backends}


def beyond_limits(
    precision: PrecisionName,
    quality: Quality,
    *,
    size: int,
    fp32_size: int,
    ms: Mapping[PrecisionName, float],
) -> list[str]:
    """Reasons against a precision, with figures: each limit that it exceeds, and that it is neither smaller
    nor faster than fp32.

    Sizes are bytes of the graphs; `ms` is the result of `step_ms` for "fp32" and `precision`.
    """
    reasons = quality.beyond(LIMITS[precision])
    if size >= fp32_size and ms[precision] >= ms["fp32"]:
        reasons.append(
            f"no smaller ({size:,} bytes, fp32 {fp32_size:,}) and no faster "
            f"({ms[precision]:.2f} ms per step, fp32 {ms['fp32']:.2f})"
        )
    return reasons
