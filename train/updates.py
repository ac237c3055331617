"""One update of the weights: losses of its batches -> gradients, clipped to a global norm -> optimizer.

An update is a function of the weights, the batches, the seed and the number of the step. Its random numbers
are seeded with (seed, step, process), so no random state needs to be saved for a resume.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..runtime.errors import EdgeChatError, is_out_of_memory
from .averaging import MovingAverage
from .backend import evaluation_mode
from .batches import Batch
from .checkpoint import TrainingState
from .config import TrainingConfig
from .distributed import World
from .loss import real_token_mask, summed_losses
from .model import Seq2Seq
from .optimizer import Optimizer
from .precision import autocast, resolve_precision, uses_float16

#: A process's part of a batch, and the weight of its losses: 1, or 0 if it only keeps the process in step
#: with the others.
Shard = tuple[Batch, float]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one update."""

    loss: float  # natural log per target token, without smoothing
    applied: bool  # False if the loss or the gradient was not finite and the weights did not change
    rescaled: bool = False  # not applied because the scale of float16 was too high; it has been lowered
    norm: float = math.nan  # of the gradient, before clipping


class Updater:
    """A model with its optimizer, gradient scaler and moving average. All processes of `world` make the same
    updates."""

    def __init__(self, model: Seq2Seq, config: TrainingConfig, device: str, world: World) -> None:
        self._config, self._device, self._world = config, device, world
        self.precision = resolve_precision(config.amp, device)
        self.model = model.to(device).train()
        self.optimizer = Optimizer(self.model, config)
        self.average = MovingAverage(self.model, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(device, enabled=uses_float16(self.precision, device))
        self._wrapped_model = world.wrap_model(self.model)

    @property
    def training_state(self) -> TrainingState:
        """The contents of a checkpoint."""
        return TrainingState(self.model, self.optimizer, self.average, self.scaler)

    def update(
        self,
        shards: Sequence[Shard],
        tokens: int,
        *,
        step: int,
        rate: float,
        sampling: float = 0.0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Make update number `step` at learning rate `rate`, from this process's shards of batches that have
        `tokens` target tokens over all processes. `sampling` is the share of fed tokens that the model draws
        itself. `meanwhile` is called while a GPU computes the gradients."""
        seed_step(self._config.seed, step, self._world.rank)
        self.model.zero_grad()
        losses = []
        for number, (batch, weight) in enumerate(shards, start=1):
            with (
                self._world.sync_gradients(self._wrapped_model, number == len(shards)),
                explain_out_of_memory(batch, f"at step {step}"),
            ):
                losses.append(self._accumulate(batch.to(self._device), weight / tokens, sampling))
        meanwhile()
        (total,) = self._world.sum(tokens * torch.stack(losses).sum().item())
        # The first step allocates the optimizer's moments.
        with explain_out_of_memory(shards[-1][0], f"at step {step}"):
            return self._apply(total / tokens, step, rate)

    def _apply(self, loss: float, step: int, rate: float) -> Outcome:
        """Clip the gradients and update the weights, if the gradients and the loss are finite."""
        scaled = cast(torch.optim.Optimizer, self.optimizer)  # has what the scaler uses of one
        self.scaler.unscale_(scaled)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip).item()
        applied = math.isfinite(loss) and math.isfinite(norm)
        if applied:
            self.scaler.step(scaled, rate)
            if self.average is not None:
                self.average.update(self.model, step)
        before = 0.0 if applied else self.scaler.get_scale()
        self.scaler.update()
        return Outcome(loss, applied, before > 1 and self.scaler.get_scale() < before, norm)

    def _accumulate(self, batch: Batch, weight: float, sampling: float) -> Tensor:
        """Add the gradient of a batch's summed objective, times `weight`. Returns the summed loss, also times
        `weight`."""
        previous = self._sample_fed_tokens(batch, sampling) if sampling else None
        with autocast(self.precision, self._device):
            logits, labels = self._wrapped_model(*batch, previous)
            losses = summed_losses(logits, labels, self._config.label_smoothing)
        # Processes average their gradients; times their number it is the sum.
        torch.autograd.backward(self.scaler.scale(losses.objective * (weight * self._world.size)))
        return losses.nll.double() * weight

    @torch.no_grad()
    def _sample_fed_tokens(self, batch: Batch, probability: float) -> Tensor:
        """The target [B, T], with tokens replaced, each with `probability`, by draws of the model, each
        given the correct tokens before it (parallel scheduled sampling, one pass; Duckworth et al. 2019,
        arXiv:1906.04331)."""
        # In its own autocast block: older PyTorch caches the 16-bit weights of a block as they were made
        # without gradients, and weights that are then learned from get none (pytorch#158232).
        with evaluation_mode(self.model), autocast(self.precision, self._device):
            logits, _ = self.model(*batch)
        likely = logits.float().nan_to_num().softmax(dim=-1)  # (n, V); a step with NaN is skipped later
        drawn = torch.multinomial(likely, 1).squeeze(1)  # (n,)
        own = torch.rand(drawn.shape, device=drawn.device) < probability
        mixed, real = batch.target.clone(), real_token_mask(batch.target, batch.target_len)
        mixed[real] = torch.where(own, drawn, batch.target[real])
        return mixed


@torch.inference_mode()
def evaluate_loss(model: Seq2Seq, batches: Iterable[Batch], when: str) -> tuple[float, float]:
    """Cross entropy (natural log), summed over the target tokens of these batches, and their number. Dropout
    is off. The error for a batch that does not fit into memory includes `when`."""
    device = model.embedding.weight.device
    total, tokens = 0.0, 0
    with evaluation_mode(model):
        for batch in batches:
            with explain_out_of_memory(batch, when):
                logits, labels = model(*batch.to(device))
                total += summed_losses(logits, labels).nll.item()
            tokens += len(labels)
    return total, float(tokens)


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed PyTorch's random numbers of this step with these three."""
    (state,) = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)
    torch.manual_seed(int(state))


@contextlib.contextmanager
def explain_out_of_memory(batch: Batch, when: str) -> Iterator[None]:
    """Turn an out-of-memory error into one that names the batch."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        pairs, longest_source = batch.src.shape
        raise EdgeChatError(
            f"out of memory {when} on a batch of {pairs} pairs, sources to {longest_source} and "
            f"targets to {batch.target.shape[1]} tokens: halve --batch-size or --batch-tokens and double "
            "--accumulate (a resume may do so too, since its steps stay the same), or lower --max-source and "
            "--max-target"
        ) from error
