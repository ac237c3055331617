"""What a precision costs in quality and time: int8 or fp16 graphs compared with fp32 along given pairs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ..runtime.backend import pad
from ..runtime.manifest import PrecisionName
from ..runtime.measure import time_interleaved
from ..runtime.ort import OrtBackend
from ..runtime.scheduler import DEFAULT_BATCH_SIZE, batches_by_length
from ..runtime.teacher_forcing import forced_steps
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

    def exceeded_limits(self, limits: QualityLimits) -> list[str]:
        """The limits that are exceeded, each as a phrase with its figures. NaN exceeds every limit."""
        checks = (
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
        return [phrase for within, phrase in checks if not within]


def perplexity_change(perplexity: float, fp32_perplexity: float) -> float:
    """The relative change from fp32; 0 where both are infinite."""
    return 0.0 if perplexity == fp32_perplexity else perplexity / fp32_perplexity - 1


def compare_with_fp32(
    fp32_backend: OrtBackend,
    backend: OrtBackend,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> Quality:
    """Feed every target to both backends, and compare the distributions token by token."""
    logps: tuple[list[Any], list[Any]] = ([], [])
    agreeing = 0
    lengths = [(len(target), len(source)) for source, target in zip(sources, targets, strict=True)]
    for indices in batches_by_length(lengths, DEFAULT_BATCH_SIZE):
        source = pad([sources[i] for i in indices])
        target, target_len = pad([targets[i] for i in indices])  # [B, T]
        both = (forced_steps(each, each.encode(*source), target) for each in (fp32_backend, backend))
        for t, steps in enumerate(zip(*both, strict=True)):
            live = t < target_len
            for parts, step in zip(logps, steps, strict=True):
                parts.append(step.logp[np.arange(len(indices)), target[:, t]][live])
            fp32, variant = (step.logp.argmax(axis=1) for step in steps)
            agreeing += int((fp32 == variant)[live].sum())
    fp32, variant = (np.concatenate(parts) for parts in logps)
    errors = np.abs(fp32.astype(np.float64) - variant)
    return Quality(
        pairs=len(sources),
        tokens=len(errors),
        agreement=agreeing / len(errors),
        perplexity=perplexity_of([variant]),
        fp32_perplexity=perplexity_of([fp32]),
        mean_logp=float(errors.mean()),
        worst_logp=float(errors.max()),
    )


def measure_step_ms(
    backends: Mapping[PrecisionName, OrtBackend], source: Sequence[int], *, beam: int = 5
) -> dict[PrecisionName, float]:
    """Median CPU milliseconds of a decoder step at batch 1. The backends, of one thread each, take turns."""
    calls: dict[str, Callable[[], object]] = {}
    for name, backend in backends.items():
        state = backend.encode(*pad([source]))
        tokens, parents = np.full(beam, GO, dtype=np.int64), np.zeros(beam, dtype=np.int64)
        calls[name] = partial(backend.step, state, tokens, parents, beam + 2)
    times = time_interleaved(calls, 30)
    return {name: statistics.median(times[name]) for name in backends}


def reasons_against(
    precision: PrecisionName,
    quality: Quality,
    *,
    size: int,
    fp32_size: int,
    ms: Mapping[PrecisionName, float],
) -> list[str]:
    """Reasons against a precision, with figures: each limit that it exceeds, and that it is neither smaller
    nor faster than fp32.

    Sizes are bytes of the graphs; `ms` is the result of `measure_step_ms` for "fp32" and `precision`.
    """
    reasons = quality.exceeded_limits(LIMITS[precision])
    if size >= fp32_size and ms[precision] >= ms["fp32"]:
        reasons.append(
            f"no smaller ({size:,} bytes, fp32 {fp32_size:,}) and no faster "
            f"({ms[precision]:.2f} ms per step, fp32 {ms['fp32']:.2f})"
        )
    return reasons
