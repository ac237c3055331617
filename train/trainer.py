"""The training loop: steps of batches -> updates, with a validation and a checkpoint every `save_every`
steps.

A run is a function of its configuration, its corpus and the thread count: killed at any moment and
resumed, it ends with the same weights, byte for byte (on a CPU).
"""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..runtime.atomic_write import remove_leftovers
from ..runtime.chat import ChatModel
from ..runtime.device import Device
from ..runtime.errors import CheckpointError, EdgeChatError
from ..runtime.options import DecodingOptions
from .backend import TorchBackend
from .batches import Batch, ordered_batches, plan_epoch
from .bpe_dropout import BpeDropout, make_training_batch
from .checkpoint import Position, load_checkpoint
from .dialogue import Pair
from .distributed import SINGLE_PROCESS, World
from .lock import RunLock
from .metrics import append_metrics, plot_metrics, truncate_metrics
from .model import Seq2Seq
from .perplexity import perplexity
from .precision import Precision, autocast
from .run import Run
from .schedule import count_planned_steps, learning_rate, sampling_probability
from .updates import Outcome, Shard, Updater, evaluate_loss

EndReason = Literal["finished", "stopped early", "interrupted", "out of time"]

#: Steps in a row without an update that end the run: it would not recover by itself.
_MAX_SKIPPED_IN_ROW = 5
#: Held-out pairs that are decoded at each validation if early stopping goes by the quality of replies.
_MAX_DECODED_PAIRS = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepMetrics:
    """The figures after each step, for a progress display."""

    step: int
    total_steps: int
    epoch: int
    loss: float  # natural log per target token, smoothed
    tokens_per_second: float  # target tokens, smoothed; the time of validations does not count

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


@dataclass(frozen=True)
class ValidationMetrics:
    """The figures after each validation. Losses are natural log per target token."""

    step: int
    train_loss: float  # NaN if there was no update since the last validation
    valid_loss: float | None  # None if nothing is held out
    best: bool
    skipped: int  # steps since the last validation whose loss or gradient was not finite
    metric: tuple[str, float] | None = None  # name and value of the metric of early stopping, if not the loss


@dataclass(frozen=True)
class TrainingResult:
    ended: EndReason
    position: Position
    epochs: float
    """Passes over the training data, with the fraction of the last one that is done."""
    total_steps: int
    total_steps_exact: bool
    """Whether `total_steps` is exact rather than an estimate; it is exact for a finished run."""


class _StopRequestedError(Exception):
    """A stop was requested during a validation. It has a checkpoint, and a resume begins with it."""


class Trainer:
    """Trains the model of a run, from its last checkpoint if it has one.

    It holds the run's lock from its creation to the end of `train`. `on_step` and `on_validation` are for
    displays. Each process of `world` has a trainer, and they train together.
    """

    def __init__(
        self,
        run: Run,
        *,
        device: Device = "cpu",
        world: World = SINGLE_PROCESS,
        on_step: Callable[[StepMetrics], None] = lambda metrics: None,
        on_validation: Callable[[ValidationMetrics], None] = lambda metrics: None,
        max_minutes: float | None = None,
    ) -> None:
        self._run, self._config, self._device, self._world = run, run.config.training, device, world
        self._on_step, self._on_validation = on_step, on_validation
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._train, self._valid = run.train_pairs, run.valid_pairs
        metric = self._config.early_stop
        self._metric = metric.replace("-", "_") if metric in ("exact-match", "bleu", "chrf") else None
        if self._metric is not None:
            # Imported now rather than at the first validation, since sacrebleu may be missing.
            from .reply_scores import score_greedy_replies

            self._score_greedy_replies = score_greedy_replies
        self._target_len = np.diff(self._train.tgt_offsets)
        self._cached_epoch, self._cached_steps = -1, list[list[np.ndarray]]()
        self._bpe_dropout = BpeDropout.from_config(self._config, run.tokenizer, run.codec)
        self._lock = RunLock(run.folder) if world.is_first else None
        try:
            resumes = bool(run.checkpoints)
            model = run.make_model() if resumes else run.make_initial_model()
            self._updater = Updater(model, self._config, device, world)
            self._position, self._saved_step = Position(), -1
            if resumes:
                self._position = load_checkpoint(run.checkpoints.last, self._updater.training_state)
                self._saved_step = self._position.step
            if world.is_first:
                remove_leftovers(run.folder)
                truncate_metrics(run.folder, self._position.validated_step)
            #: The planned number of steps, and whether that is exact rather than an estimate.
            self.total_steps, self.total_steps_exact = count_planned_steps(
                self._config, lambda epoch: len(self._steps_of_epoch(epoch))
            )
        except BaseException:
            self._release_lock()
            raise
        self._should_stop: Callable[[], bool] = lambda: False
        self._next_shards: list[Shard] = []
        self._smoothed_loss: float | None = None
        self._smoothed_speed: float | None = None

    @property
    def model(self) -> Seq2Seq:
        """The model in its present state."""
        return self._updater.model

    @property
    def position(self) -> Position:
        """The position of the run; step 0 is its beginning."""
        return replace(self._position)

    @property
    def parameter_count(self) -> int:
        """The number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def finished(self) -> bool:
        """Whether the run has reached the end of its epochs, or its last step."""
        position, config = self._position, self._config
        if config.max_steps is not None and position.step >= config.max_steps:
            return True
        epochs = position.epoch + (position.epoch_step >= len(self._steps_of_epoch(position.epoch)))
        return epochs >= config.epochs

    @property
    def validation_due(self) -> bool:
        """Whether this step is one that is validated, and has not been yet."""
        position = self._position
        planned = position.step % self._config.save_every == 0 or self.finished
        return planned and position.validated_step != position.step

    @property
    def out_of_patience(self) -> bool:
        """Whether early stopping has ended the run."""
        return self._config.early_stop is not None and self._position.waited >= self._config.patience

    @property
    def processes(self) -> int:
        """The number of processes that train together."""
        return self._world.size

    @property
    def precision(self) -> Precision:
        """The type of numbers that the training computes in."""
        return self._updater.precision

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> TrainingResult:
        """Train until the planned steps, the time or the patience is over, or until `should_stop` returns
        true. It is called after every step and during validations; a stopped run can be resumed."""
        self._should_stop = should_stop
        try:
            ended = self._train_to_end()
        except _StopRequestedError:
            ended = "interrupted"
        except OSError as error:
            advice = (
                "what was saved before is intact, and --resume continues from the last checkpoint"
                if self._run.checkpoints
                else "there is no checkpoint yet, and --resume starts from the beginning"
            )
            raise CheckpointError(
                f"{self._run.folder} cannot be written at step {self._position.step} ({error.strerror}): "
                + advice
            ) from error
        finally:
            self._plot_curves()
            self._release_lock()
        if self.finished:
            self.total_steps, self.total_steps_exact = self._position.step, True
        return TrainingResult(
            ended, self.position, self._count_epochs(), self.total_steps, self.total_steps_exact
        )

    def _plot_curves(self) -> None:
        """Draw the curves. A failure is only logged, since they can be drawn again."""
        if self._lock is None:
            return
        try:
            self._lock.check()
            plot_metrics(self._run.folder, self._position.best_step, self._metric)
        except CheckpointError:
            pass  # the error that ended the training says more
        except Exception as error:
            _log.warning("no curves are drawn in %s: %s", self._run.folder, error)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _train_to_end(self) -> EndReason:
        position = self._position
        if self._run.base_info and position.step == 0 and (measured := self._validate()):
            # For comparison. It never counts as the best, since the best checkpoint must have learned DATA.
            self._on_validation(ValidationMetrics(0, math.nan, measured["loss"], best=False, skipped=0))
        if self.validation_due:  # the process ended during it
            self._validate_and_save()
        while not self.finished:
            if self.out_of_patience:
                return "stopped early"
            if position.epoch_step >= len(self._steps_of_epoch(position.epoch)):
                position.epoch, position.epoch_step = position.epoch + 1, 0
            self._train_step(self._steps_of_epoch(position.epoch))
            position.step, position.epoch_step = position.step + 1, position.epoch_step + 1
            if self.validation_due:
                self._validate_and_save()
            stop, late = self._world.sum(self._should_stop(), time.monotonic() >= self._deadline)
            if (stop or late) and not self.finished:
                self._save()
                self._remove_old_checkpoints()
                return "interrupted" if stop else "out of time"
        return "finished"

    def _count_epochs(self) -> float:
        """Passes over the training data, with the fraction of this one that is done."""
        position = self._position
        return position.epoch + position.epoch_step / len(self._steps_of_epoch(position.epoch))

    def _steps_of_epoch(self, epoch: int) -> list[list[np.ndarray]]:
        """The steps of an epoch; those of the last call are cached."""
        if self._cached_epoch != epoch:
            self._cached_steps = plan_epoch(self._train, self._config, epoch)
            self._cached_epoch = epoch
        return self._cached_steps

    def _train_step(self, steps: list[list[np.ndarray]]) -> None:
        """One update of the weights: the next of the `steps` of this epoch."""
        position, config, start = self._position, self._config, time.perf_counter()
        index_batches = steps[position.epoch_step]
        shards, self._next_shards = self._next_shards or self._make_shards(index_batches), []

        def prefetch() -> None:
            following = steps[position.epoch_step + 1 : position.epoch_step + 2]
            self._next_shards = self._make_shards(following[0]) if following else []

        tokens = self._target_tokens(index_batches, shards)
        outcome = self._updater.update(
            shards,
            tokens,
            step=position.step + 1,
            rate=self._learning_rate(position.step),
            sampling=sampling_probability(position.step, self.total_steps, config),
            meanwhile=prefetch,
        )
        if not outcome.applied:
            self._count_skipped(outcome)
            return
        position.skipped_in_row = 0
        position.loss_sum += outcome.loss * tokens
        position.tokens += tokens
        position.norm_sum += outcome.norm
        position.updates += 1
        speed = tokens / max(1e-9, time.perf_counter() - start)
        self._smoothed_loss = _smooth(self._smoothed_loss, outcome.loss, 0.05)
        self._smoothed_speed = _smooth(self._smoothed_speed, speed, 0.1)
        self._on_step(
            StepMetrics(
                position.step + 1,
                self.total_steps,
                position.epoch + 1,
                self._smoothed_loss,
                self._smoothed_speed,
            )
        )

    def _make_shards(self, index_batches: list[np.ndarray]) -> list[Shard]:
        """This process's parts of the batches of a step of this epoch."""
        parts = map(self._world.shard, index_batches)
        epoch = self._position.epoch
        return [
            (make_training_batch(self._train, own, epoch, self._bpe_dropout), weight) for own, weight in parts
        ]

    def _target_tokens(self, index_batches: list[np.ndarray], shards: list[Shard]) -> int:
        """The number of target tokens of these batches, over all processes."""
        if self._bpe_dropout is None:
            return sum(int(self._target_len[indices].sum()) for indices in index_batches)
        own = sum(weight * int(batch.target_len.sum()) for batch, weight in shards)
        return int(self._world.sum(own)[0])

    def _learning_rate(self, step: int) -> float:
        """The learning rate of the update after `step` updates."""
        return learning_rate(step, self.total_steps, self._config, self._position.rate_scale)

    def _count_skipped(self, outcome: Outcome) -> None:
        """Count a step that left the weights unchanged because its loss or gradient was not finite.

        Raises EdgeChatError after too many in a row.
        """
        position = self._position
        position.skipped += 1
        if outcome.rescaled:
            return
        position.skipped_in_row += 1
        if position.skipped_in_row >= _MAX_SKIPPED_IN_ROW:
            raise self._divergence_error(
                f"the loss or its gradient was not finite (loss {outcome.loss}) in {_MAX_SKIPPED_IN_ROW} "
                f"steps in a row, up to step {position.step + 1}"
            )

    def _divergence_error(self, what: str) -> EdgeChatError:
        """The error for a diverged training. A run keeps its learning rate, so the way on is another run."""
        config, best = self._config, self._position.best_step
        way = f"--from-run {self._run.folder} (best checkpoint: step {best})" if best else "--force"
        return EdgeChatError(
            f"{what}: start another run with {way} and a lower --learning-rate (now {config.learning_rate}) "
            f"or --clip (now {config.clip})"
        )

    def _validate_and_save(self) -> None:
        """Validate, between the writing of the checkpoint and that of its score: whatever ends the process
        during the validation, a resume goes on from here."""
        self._save()
        position, config = self._position, self._config
        train_loss = position.loss_sum / position.tokens if position.tokens else math.nan
        measured = self._validate()
        loss = measured.get("loss", train_loss)
        score = self._checkpoint_score(loss, measured)
        finite = math.isfinite(loss)  # NaN too if nothing is held out and all steps were skipped
        previous = position.best_score
        best = finite and (
            previous is None
            or position.best_loss is None
            or (score, loss) < (previous, position.best_loss)  # the loss decides between equal scores
        )
        # While no reply is right, the loss tells whether the model learns; later only a better score counts.
        improved = best and (previous is None or score < previous or score == 0)
        if best:
            position.best_loss, position.best_step, position.best_score = loss, position.step, score
        position.waited = 0 if improved else position.waited + 1
        row = {
            "step": position.step,
            "epoch": self._count_epochs(),
            "learning_rate": self._learning_rate(position.step - 1),
            "train_loss": train_loss if position.tokens else None,
            "gradient_norm": position.norm_sum / position.updates if position.updates else None,
            "valid_loss": measured.get("loss"),
            "valid_perplexity": perplexity(measured["loss"]) if measured else None,
            "skipped": position.skipped,
            **{f"valid_{name}": value for name, value in measured.items() if name != "loss"},
        }
        metric = (str(config.early_stop), -score) if self._metric else None
        validated = ValidationMetrics(
            position.step, train_loss, measured.get("loss"), best, position.skipped, metric
        )
        position.loss_sum, position.tokens, position.skipped = 0.0, 0, 0
        position.norm_sum, position.updates = 0.0, 0
        position.validated_step = position.step
        self._decay_on_plateau(loss)
        diverged = bool(measured) and not finite
        if self._lock is not None:
            self._lock.check()
            append_metrics(self._run.folder, row)
            if diverged:
                self._run.checkpoints.remove(position.step)
            else:
                self._run.checkpoints.save_validation(position, *((score, loss) if finite else (None, None)))
        if diverged:
            raise self._divergence_error(f"the held-out loss is not finite at step {position.step}")
        self._remove_old_checkpoints()
        self._on_validation(validated)

    def _validate(self) -> dict[str, float]:
        """Measure the held-out pairs with the weights that would be exported. Empty if there are none."""
        if not len(self._valid):
            return {}
        updater = self._updater
        model = updater.model
        averaged = updater.average.swapped_into(model) if updater.average else contextlib.nullcontext()
        with averaged:
            with autocast(updater.precision, self._device):
                when = f"in the validation at step {self._position.step}"
                total, tokens = self._world.sum(*evaluate_loss(model, self._validation_batches(), when))
            measured = {"loss": total / max(1, tokens)}
            if self._metric:
                measured |= self._score_replies(model)
        return measured

    def _validation_batches(self) -> Iterator[Batch]:
        """This process's pairs of each batch of which it has some. Raises _StopRequestedError if a stop is
        requested."""
        for batch in ordered_batches(self._valid, self._config):
            if any(self._world.sum(self._should_stop())):
                raise _StopRequestedError
            own = Batch(*(tensor[self._world.rank :: self._world.size] for tensor in batch))
            if len(own.src):
                yield own

    def _score_replies(self, model: Seq2Seq) -> dict[str, float]:
        """The quality of replies to held-out prompts. The first process decodes, the others wait for it."""

        def decode() -> dict[str, float]:
            chat = ChatModel(TorchBackend(model), self._run.codec, DecodingOptions(), device=self._device)
            return self._score_greedy_replies(chat, self._decoded_pairs)

        scores = self._world.run_first_then_others(
            decode, lambda: {"exact_match": 0.0, "bleu": 0.0, "chrf": 0.0}
        )
        return dict(zip(scores, self._world.sum(*scores.values()), strict=True))

    @functools.cached_property
    def _decoded_pairs(self) -> list[Pair]:
        """The held-out pairs whose prompts are decoded at each validation, spread evenly over all."""
        texts = self._run.valid_texts()
        chosen = np.linspace(0, len(texts) - 1, num=min(_MAX_DECODED_PAIRS, len(texts)), dtype=np.int64)
        return [texts[i] for i in chosen]

    def _checkpoint_score(self, loss: float, measured: dict[str, float]) -> float:
        """The score that decides which validation is the best; lower is better."""
        return loss if self._metric is None else -measured[self._metric]

    def _decay_on_plateau(self, loss: float) -> None:
        """Decay the rate of the plateau schedule if the loss has not fallen for its patience."""
        position, config = self._position, self._config
        lowest = math.inf if position.lowest_loss is None else position.lowest_loss
        if loss < lowest:  # false for NaN
            position.lowest_loss, position.plateau = loss, 0
            return
        position.plateau += 1
        if config.schedule == "plateau" and position.plateau >= config.plateau_patience:
            position.rate_scale, position.plateau = position.rate_scale * config.decay, 0

    def _save(self) -> None:
        """Write the checkpoint of this step, if there is none."""
        if self._saved_step == self._position.step:
            return
        if self._lock is not None:
            self._lock.check()
            self._run.checkpoints.save(self._updater.training_state, self._position)
        self._world.barrier()
        self._saved_step = self._position.step

    def _remove_old_checkpoints(self) -> None:
        if self._lock is not None:
            self._lock.check()
            self._run.checkpoints.remove_old(self._position, self._config.keep)
        self._world.barrier()


def _smooth(mean: float | None, value: float, share: float) -> float:
    """The moving average `mean`, of which `value` becomes this share; None is that of no values."""
    return value if mean is None else (1 - share) * mean + share * value
