"""The learning-rate range test of Smith 2017 (arXiv:1506.01186): updates at a growing rate, until the loss
diverges. The model is thrown away."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from ..runtime.errors import EdgeChatError
from .batches import Batch, plan_epoch
from .bpe_dropout import BpeDropout, make_training_batch
from .config import RunConfig
from .dataset import EncodedPairs
from .distributed import SINGLE_PROCESS
from .loss import summed_losses
from .model import Seq2Seq
from .precision import autocast
from .updates import Updater, explain_out_of_memory, seed_step

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
    trials: list[RateTrial] = []
    # The initial value of the smoothed loss. A single batch would be too noisy for a model that has learned
    # most of the pairs.
    first = itertools.islice(_endless_steps(config, pairs, bpe_dropout), _INITIAL_UPDATES)
    mean = lowest = _mean_loss(updater, first, config.training.seed, device)
    steps = itertools.islice(_endless_steps(config, pairs, bpe_dropout), STEPS)
    for step, batches in enumerate(steps, start=1):
        rate = MIN_RATE * (MAX_RATE / MIN_RATE) ** ((step - 1) / (STEPS - 1))
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


@torch.no_grad()
def _mean_loss(updater: Updater, steps: Iterable[list[Batch]], seed: int, device: str) -> float:
    """The loss (natural log per target token) of these steps before any update, with the dropout that the
    updates will have."""
    total, tokens = 0.0, 0
    with autocast(updater.precision, device):
        for step, batches in enumerate(steps, start=1):
            seed_step(seed, step, process=0)
            for batch in batches:
                with explain_out_of_memory(batch, "before step 1"):
                    logits, labels = updater.model(*batch.to(device))
                    total += summed_losses(logits, labels).nll.item()
                tokens += len(labels)
    return total / tokens


def _endless_steps(
    config: RunConfig, pairs: EncodedPairs, bpe_dropout: BpeDropout | None
) -> Iterator[list[Batch]]:
    """The batches of each update, epoch after epoch."""
    for epoch in itertools.count():
        for index_batches in plan_epoch(pairs, config.training, epoch):
            yield [make_training_batch(pairs, indices, epoch, bpe_dropout) for indices in index_batches]
