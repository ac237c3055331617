"""The training loop: batches -> loss -> gradients clipped to a global norm -> Adam, with validation and
a checkpoint each so many steps.

A run is a function of its configuration, its corpus and the thread count: killed at any moment and
resumed, it ends with the same weights, byte for byte (on CPU).
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..runtime.errors import CheckpointError, EdgeChatError
from ..runtime.files import remove_leftovers
from .backend import evaluating
from .batches import Batch, epoch_order, make_batch, ordered_batches
from .checkpoint import Position, checkpoint_folder, has_checkpoint, load_checkpoint, save_checkpoint
from .config import TrainingConfig
from .dataset import EncodedPairs
from .loss import perplexity, token_loss
from .metrics import append_metrics, cut_metrics, plot_metrics
from .model import Seq2Seq
from .run import Run

Ended = Literal["finished", "interrupted", "out of time"]


@dataclass(frozen=True)
class Progress:
    """After each step, for a progress display."""

    step: int
    total_steps: int
    epoch: int
    loss: float  # natural log a target token, smoothed
    learning_rate: float
    tokens_per_second: float  # target tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


@dataclass(frozen=True)
class Validated:
    """After each validation. Losses are natural log a target token."""

    step: int
    train_loss: float
    valid_loss: float | None  # None where nothing is held out
    best: bool


@dataclass(frozen=True)
class Result:
    ended: Ended
    position: Position
    total_steps: int


class Trainer:
    """Trains the model of a run, from its last checkpoint where it has one.

    `on_step` and `on_validation` are for displays. `should_stop` is asked after every step: where it
    says true, a checkpoint is written and the run can be resumed.
    """

    def __init__(
        self,
        run: Run,
        *,
        device: str = "cpu",
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_validation: Callable[[Validated], None] = lambda validated: None,
        should_stop: Callable[[], bool] = lambda: False,
        max_minutes: float | None = None,
    ) -> None:
        self._run, self._config, self._device = run, run.config.training, device
        self._on_step, self._on_validation, self._should_stop = on_step, on_validation, should_stop
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._train, self._valid = run.pairs("train"), run.pairs("valid")
        self._model = run.new_model().to(device).train()
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=self._config.learning_rate)
        self._position = Position()
        if has_checkpoint(run.folder):
            folder = checkpoint_folder(run.folder, "last")
            self._position = load_checkpoint(folder, self._model, self._optimizer)
        remove_leftovers(run.folder)
        cut_metrics(run.folder, self._position.step)
        self._steps_per_epoch = math.ceil(len(self._train) / self._config.batch_size)
        self.total_steps = min(
            self._config.epochs * self._steps_per_epoch, self._config.max_steps or math.inf
        )
        self._saved_step = self._position.step if has_checkpoint(run.folder) else -1
        self._smoothed: float | None = None
        self._speed = _Speed()

    @property
    def position(self) -> Position:
        """Where the run stands; at step 0 it begins."""
        return replace(self._position)

    def train(self) -> Result:
        """Train to the end of the plan, of the time, or until `should_stop`."""
        try:
            ended = self._train_to_end()
        except OSError as error:
            raise CheckpointError(
                f"{self._run.folder} cannot be written at step {self._position.step} ({error.strerror}): "
                "what was saved before is whole, and --resume goes on from the last checkpoint"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # the curves can be drawn again; an error above says more
                plot_metrics(self._run.folder)
        return Result(ended, self.position, int(self.total_steps))

    def _train_to_end(self) -> Ended:
        position = self._position
        order = self._order(position.epoch)
        while position.step < self.total_steps:
            if position.batch == len(order):
                position.epoch, position.batch = position.epoch + 1, 0
                order = self._order(position.epoch)
            self._step(make_batch(self._train, order[position.batch]))
            position.step, position.batch = position.step + 1, position.batch + 1
            if position.step % self._config.save_every == 0 or position.step == self.total_steps:
                self._validate_and_save()
            if self._should_stop():
                self._save()
                return "interrupted"
            if time.monotonic() >= self._deadline:
                self._save()
                return "out of time"
        if self._saved_step != position.step:
            self._save()
        return "finished"

    def _order(self, epoch: int) -> list[Any]:
        return epoch_order(self._train, self._config.batch_size, seed=self._config.seed, epoch=epoch)

    def _step(self, batch: Batch) -> None:
        """One update of the weights."""
        position = self._position
        rate = learning_rate(position.step, int(self.total_steps), self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        logits, labels = self._model(*batch.to(self._device))
        loss = token_loss(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            raise EdgeChatError(
                f"the loss became {value} at step {position.step + 1}: lower --learning-rate, now "
                f"{self._config.learning_rate}; the last good checkpoint is that of step "
                f"{max(0, self._saved_step)}"
            )
        self._optimizer.step()
        tokens = len(labels)
        position.loss_sum += value * tokens
        position.tokens += tokens
        self._smoothed = value if self._smoothed is None else 0.95 * self._smoothed + 0.05 * value
        self._on_step(
            Progress(
                position.step + 1,
                int(self.total_steps),
                position.epoch + 1,
                self._smoothed,
                rate,
                self._speed.add(tokens),
            )
        )

    def _validate_and_save(self) -> None:
        position = self._position
        train_loss = position.loss_sum / max(1, position.tokens)
        valid_loss = (
            validation_loss(self._model, self._valid, self._config.batch_size) if len(self._valid) else None
        )
        score = train_loss if valid_loss is None else valid_loss
        best = position.best_loss is None or score < position.best_loss
        if best:
            position.best_loss, position.best_step = score, position.step
        position.loss_sum, position.tokens = 0.0, 0
        row = {
            "step": position.step,
            "epoch": position.epoch + position.batch / self._steps_per_epoch,
            "learning_rate": learning_rate(position.step, int(self.total_steps), self._config),
            "train_loss": train_loss,
            "valid_loss": valid_loss,
            "valid_perplexity": None if valid_loss is None else perplexity(valid_loss),
        }
        append_metrics(self._run.folder, row)
        self._save()
        self._on_validation(Validated(position.step, train_loss, valid_loss, best))

    def _save(self) -> None:
        if self._saved_step != self._position.step:
            save_checkpoint(self._run.folder, self._model, self._optimizer, self._position)
            self._saved_step = self._position.step


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The rate of the update after `step` updates: a linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.inference_mode()
def validation_loss(model: Seq2Seq, pairs: EncodedPairs, batch_size: int) -> float:
    """Mean cross entropy (natural log) over all target tokens of `pairs`, dropout off."""
    device = model.embedding.weight.device
    total, tokens = 0.0, 0
    with evaluating(model):
        for batch in ordered_batches(pairs, batch_size):
            logits, labels = model(*batch.to(device))
            total += token_loss(logits, labels).item() * len(labels)
            tokens += len(labels)
    return total / max(1, tokens)


class _Speed:
    """Tokens a second, over the last seconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._rate: float | None = None

    def add(self, tokens: int) -> float:
        now = time.perf_counter()
        rate = tokens / max(1e-9, now - self._last)
        self._last = now
        self._rate = rate if self._rate is None else 0.9 * self._rate + 0.1 * rate
        return self._rate
