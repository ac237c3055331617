"""The learning-rate range test of Smith 2017 (arXiv:1506.01186): updates at a growing rate, until the loss
diverges. The model is thrown away."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..runtime.errors import EdgeChatError
from .batches import make_batch, plan_epoch
from .bpe_dropout import BpeDropout, make_training_batch
from .config import RunConfig
from .dataset import EncodedPairs
from .distributed import SINGLE_PROCESS
from .model import Seq2Seq
from .precision import autocast
from .updates import Updater, evaluate_loss

MIN_RATE, MAX_RATE = 1e-6, 10.0
STEPS = 120
#: The loss has diverged when it is this many times the lowest one.
_DIVERGENCE_FACTOR = 4.0
_SMOOTHING = 0.9
_INITIAL_UPDATES = 20  # updates on whose batches the initial loss is measured


@dataclass(frozen=True)
class RateTrial:
    """A learning rate, and the smoothed loss after the update with it."""

    rate: float
    loss: float  # natural log per target token


@dataclass(frozen=True)
class RangeTestResult:
    trials: list[RateTrial]
    suggestion: float
    """A tenth of the rate with the lowest loss: the loss was still falling there, with a margin."""


def find_learning_rate(
    config: RunConfig,
    model: Seq2Seq,
    pairs: EncodedPairs,
    device: str,
    *,
    bpe_dropout: BpeDropout | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> RangeTestResult:
    """Try growing rates on a model with its initial weights, which it changes. The rate and the schedule of
    the configuration are ignored. Raises EdgeChatError if not even the lowest rate can be tried."""
    updater = Updater(model, config.training, device, SINGLE_PROCESS)
    steps = _endless_steps(config, pairs)
    trials: list[RateTrial] = []
    # The initial value of the smoothed loss. A single batch would be too noisy for a model that has learned
    # most of the pairs.
    first = (
        indices
        for _, index_batches in itertools.islice(_endless_steps(config, pairs), _INITIAL_UPDATES)
        for indices in index_batches
    )
    with autocast(updater.precision, device):
        total, count = evaluate_loss(
            model, (make_batch(pairs, indices) for indices in first), "before step 1"
        )
    mean = total / count
    lowest = mean
    for step in range(1, STEPS + 1):
        rate = MIN_RATE * (MAX_RATE / MIN_RATE) ** ((step - 1) / (STEPS - 1))
        epoch, index_batches = next(steps)
        batches = [make_training_batch(pairs, indices, epoch, bpe_dropout) for indices in index_batches]
        tokens = sum(int(batch.target_len.sum()) for batch in batches)
        shards = [(batch, 1.0) for batch in batches]
        outcome = updater.update(shards, tokens, step=step, rate=rate)
        progress(1)
        if outcome.rescaled:  # float16 only found its scale; the rate was not tried
            continue
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * outcome.loss
        if not outcome.applied or mean > _DIVERGENCE_FACTOR * lowest:
            break
        trials.append(RateTrial(rate, mean))
        lowest = min(lowest, mean)
    if not trials:
        raise EdgeChatError(
            f"no learning rate can be found: even at the lowest, {MIN_RATE:g}, the loss "
            f"({outcome.loss:g}) or its gradient is not finite, or too large"
            + ("" if updater.precision == "fp32" else ": try without --amp")
        )
    return RangeTestResult(trials, suggest_rate(trials))


def suggest_rate(trials: list[RateTrial]) -> float:
    """A tenth of the rate with the lowest loss, rounded to one digit."""
    best = min(trials, key=lambda one: one.loss)
    return float(f"{best.rate / 10:.0e}")


def _endless_steps(config: RunConfig, pairs: EncodedPairs) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The epoch and the batches of each update, epoch after epoch."""
    training, epoch = config.training, 0
    while True:
        for index_batches in plan_epoch(pairs, training, epoch):
            yield epoch, index_batches
        epoch += 1
