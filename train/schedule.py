"""The planned number of steps, and functions of the step: learning rate and share of sampled tokens."""

import math
from collections.abc import Callable

from .config import TrainingConfig

#: Steps that are counted before the first one. Beyond them the total is extrapolated, so that the count takes
#: seconds for any number of epochs.
_MAX_COUNTED_STEPS = 50_000


def learning_rate(step: int, total_steps: int, config: TrainingConfig, scale: float = 1.0) -> float:
    """The rate of the update after `step` updates of `total_steps`: a linear warm-up, then the schedule.

    `scale` is the product of the decays of the plateau schedule, and 1 for the others.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    return config.learning_rate * scale * _rate_factor(step, total_steps, config)


def count_planned_steps(
    config: TrainingConfig, count_steps_of_epoch: Callable[[int], int]
) -> tuple[int, bool]:
    """The planned number of steps, and whether it is exact.

    With batches of pairs all epochs have the same number of steps. With batches of tokens the numbers differ:
    if something depends on the total, epochs are counted up to `_MAX_COUNTED_STEPS` steps, else only the
    first one is. The remaining epochs are assumed to be as long as those counted.
    """
    limit = config.max_steps or math.inf
    if not config.batch_tokens:
        return int(min(config.epochs * count_steps_of_epoch(0), limit)), True
    enough = min(limit, _MAX_COUNTED_STEPS if _depends_on_total_steps(config) else 1)
    steps = epochs = 0
    while epochs < config.epochs and steps < enough:
        steps, epochs = steps + count_steps_of_epoch(epochs), epochs + 1
    if epochs == config.epochs or steps >= limit:
        return int(min(steps, limit)), True
    return int(min(steps * config.epochs // epochs, limit)), False


def _depends_on_total_steps(config: TrainingConfig) -> bool:
    """Whether the rate, or the share of sampled tokens, depends on the planned number of steps."""
    planned = config.schedule == "luong" and None in (config.decay_start, config.decay_every)
    return config.schedule == "cosine" or planned or config.scheduled_sampling > 0


def _rate_factor(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The fraction of the full rate after the warm-up, from 0 to 1."""
    match config.schedule:
        case "cosine":
            done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        case "inverse-sqrt":
            return math.sqrt(config.warmup_steps / (step + 1))
        case "luong":
            return config.decay ** _count_decays(step, total_steps, config)
        case _:
            return 1.0


def _count_decays(step: int, total_steps: int, config: TrainingConfig) -> int:
    """How often the luong schedule has decayed the rate.

    Worked example: with 100 steps it starts at 50 and repeats every 10. Step 49 has 0 decays, steps 50 to 59
    have 1, 60 to 69 have 2, and 99 has 5.
    """
    start = total_steps // 2 if config.decay_start is None else config.decay_start
    every = max(1, total_steps // 10) if config.decay_every is None else config.decay_every
    return 0 if step < start else 1 + (step - start) // every


def sampling_probability(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The share of fed tokens that the model draws itself at this step. It rises linearly from 0 to
    `scheduled_sampling` (the linear decay of Bengio et al. 2015, section 2.4)."""
    return config.scheduled_sampling * min(1.0, step / max(1, total_steps - 1))
