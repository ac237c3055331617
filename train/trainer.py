"""The training loop: steps of batches -> updates, with validation and a checkpoint each so many steps.

A run is a function of its configuration, its corpus and the thread count: killed at any moment and
resumed, it ends with the same weights, byte for byte (on CPU).
"""

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..runtime.chat import ChatModel
from ..runtime.device import Device
from ..runtime.errors import CheckpointError, EdgeChatError
from ..runtime.files import remove_leftovers
from ..runtime.options import DecodingOptions
from .backend import TorchBackend
from .batches import epoch_order, ordered_batches
from .bpe_dropout import BpeDropout, batch_of
from .checkpoint import Position, load_checkpoint
from .distributed import ALONE, World
from .lock import RunLock
from .metrics import append_metrics, cut_metrics, plot_metrics
from .model import Seq2Seq
from .perplexity import perplexity
from .precision import Precision, autocast
from .run import Run
from .schedule import goes_by_total, learning_rate, sampling_share
from .updates import Outcome, Share, Updater, summed_loss

Ended = Literal["finished", "stopped early", "interrupted", "out of time"]

#: So many steps in a row without an update end the run: it would not come back by itself.
_MOST_SKIPPED = 5
#: Held-out pairs that are decoded at a validation that is to know how good replies are.
_DECODED = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """After each step, for a progress display."""

    step: int
    total_steps: int
    epoch: int
    loss: float  # natural log a target token, smoothed
    tokens_per_second: float  # target tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


@dataclass(frozen=True)
class Validated:
    """After each validation. Losses are natural log a target token."""

    step: int
    train_loss: float  # not a number where no step was made since the last one
    valid_loss: float | None  # None where nothing is held out
    best: bool
    skipped: int  # steps since the last one whose loss or gradient was no finite number
    metric: tuple[str, float] | None = None  # what early stopping goes by, where that is not the loss


@dataclass(frozen=True)
class Result:
    ended: Ended
    position: Position
    total_steps: int
    counted: bool
    """Whether these are exact, as they are of a run that is finished."""


class Trainer:
    """Trains the model of a run, from its last checkpoint where it has one.

    It holds the run's lock from its creation to the end of `train`. `on_step` and `on_validation` are for
    displays. The processes of `world` each have a trainer, and train together.
    """

    def __init__(
        self,
        run: Run,
        *,
        device: Device = "cpu",
        world: World = ALONE,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_validation: Callable[[Validated], None] = lambda validated: None,
        max_minutes: float | None = None,
    ) -> None:
        self._run, self._config, self._device, self._world = run, run.config.training, device, world
        self._on_step, self._on_validation = on_step, on_validation
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._train, self._valid = run.train_pairs, run.valid_pairs
        by = self._config.early_stop
        self._metric = by.replace("-", "_") if by in ("exact-match", "bleu", "chrf") else None
        if self._metric is not None:
            # Now, and not at the first validation, since what it needs may be missing.
            from .evaluate import decoded_scores

            self._decoded_scores = decoded_scores
        self._target_len = np.diff(self._train.tgt_offsets)
        self._order_epoch, self._order = -1, list[list[np.ndarray]]()
        self._bpe_dropout = BpeDropout.wanted(self._config, run.tokenizer, run.codec)
        self._lock = RunLock(run.folder) if world.writes else None
        try:
            self._updater = Updater(run.new_model(), self._config, device, world)
            self._position, self._saved_step = Position(), -1
            if run.checkpoints:
                self._go_on_from(run.checkpoints.last)
            if world.writes:
                remove_leftovers(run.folder)
                cut_metrics(run.folder, self._position.step)
            #: Whether `total_steps` is exact, or as if each epoch had as many as the first.
            self.counted = not self._config.batch_tokens or goes_by_total(self._config)
            self.total_steps = self._planned_steps()
        except BaseException:
            self._unlock()
            raise
        self._smoothed: float | None = None
        self._speed = _Speed()

    @property
    def model(self) -> Seq2Seq:
        """What is trained, in the state it has come to."""
        return self._updater.model

    @property
    def position(self) -> Position:
        """Where the run stands; at step 0 it begins."""
        return replace(self._position)

    @property
    def weights(self) -> int:
        """How many numbers it learns."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def finished(self) -> bool:
        """Whether it has come to the end of its epochs, or to its last step."""
        position, config = self._position, self._config
        if config.max_steps is not None and position.step >= config.max_steps:
            return True
        epochs = position.epoch + (position.epoch_step >= len(self._steps(position.epoch)))
        return epochs >= config.epochs

    @property
    def out_of_patience(self) -> bool:
        """Whether early stopping has ended it."""
        return self._config.early_stop is not None and self._position.waited >= self._config.patience

    @property
    def processes(self) -> int:
        """How many train it together."""
        return self._world.size

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._updater.precision

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Result:
        """Train to the end of the plan, of the time, of the patience, or until `should_stop`, which is asked
        after every step, says so: then a checkpoint is written, and the run can be resumed."""
        try:
            ended = self._train_to_end(should_stop)
        except OSError as error:
            saved = bool(self._run.checkpoints)
            raise CheckpointError(
                f"{self._run.folder} cannot be written at step {self._position.step} ({error.strerror}): "
                + ("what was saved before is whole, and " if saved else "there is no checkpoint yet: ")
                + ("--resume goes on from the last checkpoint" if saved else "--resume begins it again")
            ) from error
        finally:
            self._draw()
            self._unlock()
        if self.finished:
            self.total_steps, self.counted = self._position.step, True
        return Result(ended, self.position, self.total_steps, self.counted)

    def _draw(self) -> None:
        """The curves, which can be drawn again and fail no training."""
        if self._lock is None:
            return
        try:
            self._lock.check()
            plot_metrics(self._run.folder, self._position.best_step, self._metric)
        except CheckpointError:
            pass  # an error that is on its way says more
        except Exception as error:
            _log.warning("no curves are drawn in %s: %s", self._run.folder, error)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _train_to_end(self, should_stop: Callable[[], bool]) -> Ended:
        position, config = self._position, self._config
        if self._run.begun_from and position.step == 0 and (measured := self._validate()):
            # To compare with. It is never the best: whoever trains on wants what is learned from now on.
            self._on_validation(Validated(0, math.nan, measured["loss"], best=False, skipped=0))
        while not self.finished:
            if self.out_of_patience:
                return "stopped early"
            if position.epoch_step >= len(self._steps(position.epoch)):
                position.epoch, position.epoch_step = position.epoch + 1, 0
            self._step(self._steps(position.epoch)[position.epoch_step])
            position.step, position.epoch_step = position.step + 1, position.epoch_step + 1
            if position.step % config.save_every == 0 or self.finished:
                self._validate_and_save()
            stop, late = self._world.sum(should_stop(), time.monotonic() >= self._deadline)
            if (stop or late) and not self.finished:
                self._save()
                return "interrupted" if stop else "out of time"
        self._save()
        return "finished"

    def _steps(self, epoch: int) -> list[list[np.ndarray]]:
        """The steps of an epoch, those of the last one asked for being remembered."""
        if self._order_epoch != epoch:
            self._order = epoch_order(self._train, self._config, epoch)
            self._order_epoch = epoch
        return self._order

    def _go_on_from(self, checkpoint: Path) -> None:
        self._position = position = load_checkpoint(checkpoint, self._updater.learned)
        self._saved_step = position.step
        if not position.of_batches:
            return
        steps = len(self._steps(position.epoch))
        if self._config.batch_tokens:  # as many batches as then need not be as many steps
            done = min(steps, -(-position.epoch_step // self._config.accumulate))
        else:
            done = position.step - position.epoch * steps
        if done != position.epoch_step:  # a step had several batches
            position.epoch_step = done
            if self._world.writes:
                _log.warning(
                    "%s is of an older edgechat, which drew each batch of a step by itself: this goes on, "
                    "but in epoch %d some pairs come twice and others not at all",
                    checkpoint,
                    position.epoch + 1,
                )

    def _planned_steps(self) -> int:
        """Steps of a number of pairs are equally many in each epoch. Those of a number of tokens are not, and
        are counted only where the schedule goes by how many they are: of many epochs that takes long."""
        config, steps, epoch = self._config, 0, 0
        limit = config.max_steps or math.inf
        same = 1 if self.counted and config.batch_tokens else config.epochs
        while epoch < config.epochs and steps < limit:
            steps, epoch = steps + same * len(self._steps(epoch)), epoch + same
        return int(min(steps, limit))

    def _step(self, group: list[np.ndarray]) -> None:
        """One update of the weights, from the batches of `group`."""
        position, config = self._position, self._config
        shares = [self._share(indices) for indices in group]
        tokens = self._target_tokens(group, shares)
        outcome = self._updater.update(
            shares,
            tokens,
            step=position.step + 1,
            rate=self._rate(),
            sampling=sampling_share(position.step, self.total_steps, config),
        )
        if not outcome.applied:
            self._count_skipped(outcome)
            return
        position.skipped_in_row = 0
        position.loss_sum += outcome.loss * tokens
        position.tokens += tokens
        position.norm_sum += outcome.norm
        position.updates += 1
        smoothed = outcome.loss if self._smoothed is None else 0.95 * self._smoothed + 0.05 * outcome.loss
        self._smoothed = smoothed
        speed = self._speed.add(tokens)
        self._on_step(Progress(position.step + 1, self.total_steps, position.epoch + 1, smoothed, speed))

    def _share(self, indices: np.ndarray) -> Share:
        own, weight = self._world.share(indices)
        return batch_of(self._train, own, self._position.epoch, self._bpe_dropout), weight

    def _target_tokens(self, group: list[np.ndarray], shares: list[Share]) -> int:
        """How many tokens the targets of these batches have, over all processes."""
        if self._bpe_dropout is None:
            return sum(int(self._target_len[indices].sum()) for indices in group)
        own = sum(weight * int(batch.target_len.sum()) for batch, weight in shares)
        return int(self._world.sum(own)[0])

    def _rate(self) -> float:
        """The learning rate of the next update."""
        return learning_rate(self._position.step, self.total_steps, self._config, self._position.rate_scale)

    def _count_skipped(self, outcome: Outcome) -> None:
        """A step whose loss or gradient was no finite number left the weights as they were."""
        position = self._position
        position.skipped += 1
        if outcome.rescaled:
            return
        position.skipped_in_row += 1
        if position.skipped_in_row >= _MOST_SKIPPED:
            raise self._diverged(
                f"the loss or its gradient was no finite number (loss {outcome.loss}) in {_MOST_SKIPPED} "
                f"steps in a row, to step {position.step + 1}"
            )

    def _diverged(self, what: str) -> EdgeChatError:
        """What went wrong, and how one goes on: a run keeps its rate, so with another run."""
        config, best = self._config, self._position.best_step
        begin = (
            f"with --from-run {self._run.folder} from its best checkpoint, step {best}" if best else "anew"
        )
        return EdgeChatError(
            f"{what}: begin another run {begin}, with a lower --learning-rate, now {config.learning_rate}, "
            f"or --clip, now {config.clip}"
        )

    def _validate_and_save(self) -> None:
        position, config = self._position, self._config
        train_loss = position.loss_sum / position.tokens if position.tokens else math.nan
        measured = self._validate()
        loss = measured.get("loss", train_loss)
        score = self._score(loss, measured)
        finite = math.isfinite(loss)  # nor is it where nothing is held out and all steps were skipped
        best = finite and (position.best_score is None or score < position.best_score)
        if best:
            position.best_loss, position.best_step, position.best_score = loss, position.step, score
        position.waited = 0 if best else position.waited + 1
        row = {
            "step": position.step,
            "epoch": position.epoch + position.epoch_step / len(self._steps(position.epoch)),
            "learning_rate": self._rate(),
            "train_loss": train_loss if position.tokens else None,
            "gradient_norm": position.norm_sum / position.updates if position.updates else None,
            "valid_loss": measured.get("loss"),
            "valid_perplexity": perplexity(measured["loss"]) if measured else None,
            "skipped": position.skipped,
            **{f"valid_{name}": value for name, value in measured.items() if name != "loss"},
        }
        metric = (str(config.early_stop), -score) if self._metric else None
        validated = Validated(position.step, train_loss, measured.get("loss"), best, position.skipped, metric)
        position.loss_sum, position.tokens, position.skipped = 0.0, 0, 0
        position.norm_sum, position.updates = 0.0, 0
        self._watch_plateau(loss)
        if self._lock is not None:
            self._lock.check()
            append_metrics(self._run.folder, row)
        if measured and not finite:
            raise self._diverged(f"the held-out loss is no finite number at step {position.step}")
        self._save(score if finite else None)
        self._on_validation(validated)

    def _validate(self) -> dict[str, float]:
        """What is measured on the held-out pairs, with the weights that would be exported; empty where
        there are none."""
        if not len(self._valid):
            return {}
        updater = self._updater
        model = updater.model
        averaged = updater.average.applied(model) if updater.average else contextlib.nullcontext()
        with averaged:
            with autocast(updater.precision, self._device):
                batches = ordered_batches(self._valid, self._config)
                own = itertools.islice(batches, self._world.rank, None, self._world.size)
                when = f"in the validation at step {self._position.step}"
                total, tokens = self._world.sum(*summed_loss(model, own, when))
            measured = {"loss": total / max(1, tokens)}
            if self._metric:
                measured |= self._decoded(model)
        return measured

    def _decoded(self, model: Seq2Seq) -> dict[str, float]:
        """How good replies to held-out prompts are. The first process decodes, the others wait for it."""

        def decode() -> dict[str, float]:
            texts = self._run.held_out()
            chosen = np.unique(np.linspace(0, len(texts) - 1, num=min(_DECODED, len(texts)), dtype=np.int64))
            chat = ChatModel(TorchBackend(model), self._run.codec, DecodingOptions(), device=self._device)
            return self._decoded_scores(chat, [texts[i] for i in chosen])

        scores = self._world.first_does(decode, lambda: {"exact_match": 0.0, "bleu": 0.0, "chrf": 0.0})
        return dict(zip(scores, self._world.sum(*scores.values()), strict=True))

    def _score(self, loss: float, measured: dict[str, float]) -> float:
        """What "best" goes by: lower is better."""
        return loss if self._metric is None else -measured[self._metric]

    def _watch_plateau(self, loss: float) -> None:
        """Cut the rate of the plateau schedule where the loss has not fallen for its patience."""
        position, config = self._position, self._config
        lowest = math.inf if position.lowest_loss is None else position.lowest_loss
        if loss < lowest:  # never where it is no number
            position.lowest_loss, position.plateau = loss, 0
            return
        position.plateau += 1
        if config.schedule == "plateau" and position.plateau >= config.plateau_patience:
            position.rate_scale, position.plateau = position.rate_scale * config.decay, 0

    def _save(self, score: float | None = None) -> None:
        if self._saved_step == self._position.step:
            return
        if self._lock is not None:
            self._lock.check()
            self._run.checkpoints.save(
                self._updater.learned, self._position, score=score, keep=self._config.keep
            )
        self._world.wait()
        self._saved_step = self._position.step


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
