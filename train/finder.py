"""The learning-rate range test of Smith 2017 (arXiv:1506.01186): updates at a growing rate, until the loss
diverges. The model is thrown away."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..runtime.errors import EdgeChatError
from .batches import epoch_order, make_batch
from .bpe_dropout import BpeDropout, batch_of
from .config import RunConfig
from .dataset import EncodedPairs
from .distributed import ALONE
from .model import Seq2Seq
from .precision import autocast
from .updates import Updater, summed_loss

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 120
#: The loss has diverged when it is this many times the lowest one.
_DIVERGED = 4.0
_SMOOTHING = 0.9
_FIRST = 20  # updates on whose batches the initial loss is measured


@dataclass(frozen=True)
class Tried:
    """A learning rate, and the smoothed loss after the update with it."""

    rate: float
    loss: float  # natural log per target token


@dataclass(frozen=True)
class Found:
    tried: list[Tried]
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
) -> Found:
    """Try growing rates on a model with its initial weights, which it changes. The rate and the schedule of
    the configuration are ignored. Raises EdgeChatError if not even the lowest rate can be tried."""
    updater = Updater(model, config.training, device, ALONE)
    groups = _groups(config, pairs)
    tried: list[Tried] = []
    # The initial value of the smoothed loss. A single batch would be too noisy for a model that has learned
    # most of the pairs.
    first = (indices for _, group in itertools.islice(_groups(config, pairs), _FIRST) for indices in group)
    with autocast(updater.precision, device):
        total, count = summed_loss(model, (make_batch(pairs, indices) for indices in first), "before step 1")
    mean = total / count
    lowest = mean
    for step in range(1, STEPS + 1):
        rate = LOWEST * (HIGHEST / LOWEST) ** ((step - 1) / (STEPS - 1))
        epoch, group = next(groups)
        batches = [batch_of(pairs, indices, epoch, bpe_dropout) for indices in group]
        tokens = sum(int(batch.target_len.sum()) for batch in batches)
        shares = [(batch, 1.0) for batch in batches]
        outcome = updater.update(shares, tokens, step=step, rate=rate)
        progress(1)
        if outcome.rescaled:  # float16 only found its scale; the rate was not tried
            continue
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * outcome.loss
        if not outcome.applied or mean > _DIVERGED * lowest:
            break
        tried.append(Tried(rate, mean))
        lowest = min(lowest, mean)
    if not tried:
        raise EdgeChatError(
            f"no learning rate can be found: even at the lowest, {LOWEST:g}, the loss ({outcome.loss:g}) or "
            "its gradient is not finite, or too large"
            + ("" if updater.precision == "fp32" else ": try without --amp")
        )
    return Found(tried, suggestion(tried))


def suggestion(tried: list[Tried]) -> float:
    """A tenth of the rate with the lowest loss, rounded to one digit."""
    best = min(tried, key=lambda one: one.loss)
    return float(f"{best.rate / 10:.0e}")


def _groups(config: RunConfig, pairs: EncodedPairs) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The epoch and the batches of each update, epoch after epoch."""
    training, epoch = config.training, 0
    while True:
        for group in epoch_order(pairs, training, epoch):
            yield epoch, group
        epoch += 1
