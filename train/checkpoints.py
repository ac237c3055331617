"""The checkpoints of a run, `checkpoints/step-...`: the last, the best, and which ones are kept."""

import contextlib
import functools
import logging
import re
import shutil
from pathlib import Path

from ..runtime.atomic_write import TEMPORARY_PREFIX, remove_leftovers, sync_folder
from ..runtime.display import plural
from ..runtime.errors import CheckpointError, UsageError
from .checkpoint import (
    STATE,
    CheckpointState,
    Position,
    TrainingState,
    checkpoint_name,
    checkpoint_step,
    complete_checkpoints,
    read_state,
    write_checkpoint,
    write_validation,
)


class Checkpoints:
    """The checkpoints of the run in a folder. Each call looks at the disk again. False if there are none."""

    def __init__(self, run: Path) -> None:
        self._run, self._folder = run, run / "checkpoints"

    def __bool__(self) -> bool:
        return bool(complete_checkpoints(self._folder))

    @property
    def last(self) -> Path:
        """The folder of the last one. Raises CheckpointError if there is none yet."""
        folders = complete_checkpoints(self._folder)
        if not folders:
            raise CheckpointError(
                f"{self._run} has no checkpoint yet: train it until it writes one, or, if it has diverged, "
                "anew with --force and a lower --learning-rate"
            )
        return folders[-1]

    @property
    def best(self) -> Path:
        """The folder of the best one. Raises CheckpointError if there is none yet, or it is missing."""
        last, folders = self.last, complete_checkpoints(self._folder)
        states = _readable_states(folders)
        if not states:
            read_state(last)  # raises the error that says why
        best = next(iter(states.values())).position.best_step
        if not best:  # none was validated
            return last
        for folder in folders:
            if checkpoint_step(folder) == best:
                return folder
        raise CheckpointError(
            f"{self._run} has lost its best checkpoint, step {best:,}: use the last one, step "
            f"{checkpoint_step(last):,}, with --checkpoint last"
        )

    @property
    def last_position(self) -> Position:
        """The position of the last one."""
        return read_state(self.last).position

    def select(self, which: str) -> list[Path]:
        """The folders that `which` names: "last", "best", or "last:N" or "best:N" for N checkpoints whose
        weights are to be averaged, newest or best first.

        Raises:
            UsageError: `which` has none of these forms, or fewer than N were kept.
            CheckpointError: the run has none yet.
        """
        kind, colon, number = which.partition(":")
        if kind not in ("last", "best") or (colon and not re.fullmatch("[1-9][0-9]{0,3}", number)):
            raise UsageError(
                f"--checkpoint must be best or last, or best:N or last:N for an average, not {which}"
            )
        if not colon:
            return [self.last if kind == "last" else self.best]
        _ = self.last  # raises if there is none
        scores = _scores(_readable_states(complete_checkpoints(self._folder)))
        if len(scores) < int(number):
            there_are = plural(len(scores), "validated checkpoint")
            raise UsageError(
                f"--checkpoint {which}: {self._run} has {there_are}: use a smaller number, or train "
                f"longer, with --keep {number} or higher"
            )
        return _ranked(scores, kind)[: int(number)]

    def step(self, which: str) -> int:
        """The step of the checkpoint that `which` names, or the highest step of several."""
        return max(map(checkpoint_step, self.select(which)))

    def save(self, training_state: TrainingState, position: Position) -> None:
        """Write the checkpoint of `position`. Older ones stay until `remove_old`."""
        self._folder.mkdir(exist_ok=True)
        sync_folder(self._run)  # else a power cut could lose the folder with everything in it
        remove_leftovers(self._folder)
        write_checkpoint(self._folder / checkpoint_name(position.step), training_state, position)

    def save_validation(self, position: Position, score: float | None, loss: float | None) -> None:
        """Add to the checkpoint of this step what a validation measured: the `position` after it, and its
        `score` and `loss` (lower is better), or None if nothing was measured."""
        write_validation(self._folder / checkpoint_name(position.step), position, score, loss)

    def remove(self, step: int) -> None:
        """Remove the checkpoint of a step."""
        _remove(self._folder / checkpoint_name(step))

    def remove_old(self, position: Position, keep: int) -> None:
        """Remove the checkpoints that are neither that of `position` or the best one, nor among the last
        `keep` or the best `keep` validated ones. Unreadable ones are left alone if `keep` is above 1."""
        folders = complete_checkpoints(self._folder)
        states = _readable_states(folders) if keep > 1 else {}
        kept = {folder for kind in ("last", "best") for folder in _ranked(_scores(states), kind)[:keep]}
        if keep > 1:
            kept |= set(folders) - set(states)
        for old in folders:
            if checkpoint_step(old) not in (position.step, position.best_step) and old not in kept:
                with contextlib.suppress(OSError):
                    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a checkpoint. It is renamed first, so that the next save removes one that a kill leaves half
    deleted."""
    temporary = folder.rename(folder.with_name(TEMPORARY_PREFIX + folder.name))
    shutil.rmtree(temporary, ignore_errors=True)


def _scores(states: dict[Path, CheckpointState]) -> dict[Path, tuple[float, float]]:
    """The score and the loss of the checkpoints at validations. Those written by an interruption have none,
    so a run keeps the same checkpoints whether it was interrupted or not."""
    return {
        folder: (state.score, state.loss)
        for folder, state in states.items()
        if state.score is not None and state.loss is not None
    }


def _readable_states(folders: list[Path]) -> dict[Path, CheckpointState]:
    """The states of the readable checkpoints, newest first. Warns of the others."""
    states = {}
    for folder in reversed(folders):
        try:
            states[folder] = read_state(folder)
        except CheckpointError:
            _warn_once(f"{folder / STATE} is damaged or missing: this checkpoint is skipped")
    return states


@functools.cache
def _warn_once(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


def _ranked(scores: dict[Path, tuple[float, float]], kind: str) -> list[Path]:
    """Newest first, or best first with the earlier of equals in front."""
    if kind == "last":
        return sorted(scores, key=lambda folder: -checkpoint_step(folder))
    return sorted(scores, key=lambda folder: (scores[folder], checkpoint_step(folder)))
