"""Checkpoints: safetensors plus JSON, each a folder that exists only once it is whole.

    checkpoints/step-00000200/model.safetensors      weights, by their PyTorch names
                              optimizer.safetensors  the optimizer's moments
                              average.safetensors    with --ema: the moving average of the weights
                              state.json             position, score, and the hash of these files

A checkpoint is written beside its place, synced and renamed, so a kill at any moment leaves the
checkpoints that were there. Only then are older ones removed, the last and the best kept. There are no
states of random numbers: those of a step are a function of the seed and the step (see updates.py).
"""

import contextlib
import functools
import json
import logging
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError, UsageError
from ..runtime.files import TEMPORARY, folder_atomic, remove_leftovers, sha256, sync_folder
from ..runtime.text import counted
from .averaging import MovingAverage, mean_weights

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_AVERAGE = "average.safetensors"


@dataclass
class Position:
    """Where a run stands, and the sums that its next row of metrics needs."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    loss_sum: float = 0.0  # natural log, over target tokens since the last validation
    tokens: int = 0  # target tokens since the last validation
    best_step: int = 0
    best_loss: float | None = None  # of the best validation: held out, or of training where nothing is
    best_score: float | None = None  # what "best" goes by, lower being better: the loss, or minus a metric
    waited: int = 0  # validations since the best
    skipped: int = 0  # steps without an update since the last validation
    skipped_in_row: int = 0
    lowest_loss: float | None = None  # of all validations, for the plateau schedule
    plateau: int = 0  # validations since then, or since the last cut
    rate_scale: float = 1.0  # what the plateau schedule has come down to

    def __post_init__(self) -> None:
        if self.best_score is None:  # a checkpoint of the time when the loss alone decided
            self.best_score = self.best_loss


@dataclass(frozen=True)
class Learned:
    """What a checkpoint holds of a training besides its position."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler


def checkpoint_folder(run: Path, which: str) -> Path:
    """The folder of the `last` or the `best` checkpoint of a run.

    Raises:
        CheckpointError: the run has none yet, or the best one is not there.
    """
    folders = _folders(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet: let it train until its first one")
    last = folders[-1]
    if which == "last":
        return last
    states = _readable(folders)
    if not states:
        _read_state(last)  # says why
    best = next(iter(states.values()))["position"]["best_step"]
    if not best:  # none was validated
        return last
    for folder in folders:
        if _step(folder) == best:
            return folder
    raise CheckpointError(
        f"{run} has lost its best checkpoint, step {best:,}: take the last one, step {_step(last):,}, with "
        "--checkpoint last"
    )


def checkpoint_folders(run: Path, which: str) -> list[Path]:
    """The folders that `which` names: "last" or "best", or "last:3" or "best:3" for so many, best or newest
    first, whose weights are then averaged.

    Raises:
        UsageError: it is none of these, or so many were not kept.
        CheckpointError: the run has none yet.
    """
    kind, colon, number = which.partition(":")
    if kind not in ("last", "best") or (colon and not re.fullmatch("[1-9][0-9]{0,3}", number)):
        raise UsageError(
            f"--checkpoint must be best or last, or best:N or last:N for an average, not {which}"
        )
    if not colon:
        return [checkpoint_folder(run, kind)]
    checkpoint_folder(run, "last")  # there is one
    scores = _scores(_readable(_folders(run)))
    if len(scores) < int(number):
        there_are = counted(len(scores), "validated checkpoint")
        raise UsageError(
            f"--checkpoint {which}: {run} has {there_are}: ask for no more, or train "
            f"longer, with --keep {number} or higher"
        )
    return [folder for folder, _ in _ranked(scores, kind)[: int(number)]]


def save_checkpoint(
    run: Path, learned: Learned, position: Position, *, score: float | None = None, keep: int = 1
) -> Path:
    """Write the checkpoint of `position`, and remove those that are neither among the `keep` last nor the
    `keep` best that were validated. `score`, lower being better, is of a validation at this very step."""
    folder = run / "checkpoints" / f"step-{position.step:08d}"
    folder.parent.mkdir(exist_ok=True)
    sync_folder(run)  # a power cut could take it, with all that is synced in it
    remove_leftovers(folder.parent)
    contents = {
        _MODEL: weights_to_bytes(learned.model),
        _OPTIMIZER: safetensors.torch.save(_optimizer_tensors(learned.model, learned.optimizer)),
    }
    if learned.average is not None:
        contents[_AVERAGE] = safetensors.torch.save(_contiguous(learned.average.weights))
    state = {
        "position": asdict(position),
        "score": score,
        "scaler": learned.scaler.state_dict(),
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in contents.items()},
    }
    with folder_atomic(folder, replace=True) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        (temporary / _STATE).write_text(json.dumps(state, indent=2) + "\n")
    _remove_all_but(run, keep, {position.step, position.best_step})
    return folder


def _remove_all_but(run: Path, keep: int, steps: set[int]) -> None:
    """What cannot be read is left alone, where it is looked at."""
    folders = _folders(run)
    states = _readable(folders) if keep > 1 else {}
    kept = {folder for kind in ("last", "best") for folder, _ in _ranked(_scores(states), kind)[:keep]}
    if keep > 1:
        kept |= set(folders) - set(states)
    for old in folders:
        if _step(old) not in steps and old not in kept:
            # Half deleted it must not look like a checkpoint: a kill leaves what the next save removes first.
            with contextlib.suppress(OSError):
                shutil.rmtree(old.rename(old.with_name(TEMPORARY + old.name)), ignore_errors=True)


def _scores(states: dict[Path, dict[str, Any]]) -> dict[Path, float]:
    """Of the checkpoints at validations, with their scores. What an interruption wrote is not one of them,
    so that a run keeps the same ones whether it was interrupted or not."""
    scores = {folder: state.get("score") for folder, state in states.items()}
    return {folder: float(score) for folder, score in scores.items() if score is not None}


def _readable(folders: list[Path]) -> dict[Path, dict[str, Any]]:
    """The states of checkpoints, newest first; that one cannot be read is said."""
    states = {}
    for folder in reversed(folders):
        try:
            states[folder] = _read_state(folder)
        except CheckpointError:
            _warn(f"{folder / _STATE} is damaged or missing: this checkpoint is passed over")
    return states


@functools.cache  # once is enough
def _warn(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


def _ranked(scores: dict[Path, float], kind: str) -> list[tuple[Path, float]]:
    """Newest first, or best first and the earlier of equals."""
    newest = sorted(scores.items(), key=lambda item: -_step(item[0]))
    return newest if kind == "last" else sorted(newest, key=lambda item: (item[1], _step(item[0])))


def load_weights(folder: Path, model: nn.Module) -> Position:
    """Load the weights to use into `model`: the moving average of a run that keeps one."""
    state = _read_state(folder)
    name = _AVERAGE if _AVERAGE in state["files"] else _MODEL
    _fill(model, _read_tensors(folder, name, state), folder / name)
    return Position(**state["position"])


def load_mean_weights(folders: list[Path], model: nn.Module) -> Position:
    """Load the mean of the weights of several checkpoints. Gives the position of the newest."""
    positions, weights = [], []
    for folder in folders:
        positions.append(load_weights(folder, model))
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(mean_weights(weights))
    return max(positions, key=lambda position: position.step)


def weights_to_bytes(model: nn.Module) -> bytes:
    """The weights alone, as safetensors."""
    return safetensors.torch.save(_contiguous(model.state_dict()))


def fill(model: nn.Module, weights: bytes, name: str) -> None:
    """Give a model the weights that `weights_to_bytes` made of one of the same sizes.

    Raises:
        CheckpointError: they do not fit, or are damaged; `name` is said.
    """
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{name} is damaged: {error}") from None
    _fill(model, tensors, name)


def load_checkpoint(folder: Path, learned: Learned) -> Position:
    """Load all of a training: it goes on as if it had never stopped.

    Raises:
        CheckpointError: a file is damaged, or does not fit the run's configuration.
    """
    state = _read_state(folder)
    _fill(learned.model, _read_tensors(folder, _MODEL, state), folder / _MODEL)
    _restore_optimizer(learned.model, learned.optimizer, _read_tensors(folder, _OPTIMIZER, state))
    if learned.average is not None:
        average = _read_tensors(folder, _AVERAGE, state)
        for name, weight in learned.average.weights.items():
            weight.copy_(average[name])
    if learned.scaler.is_enabled():
        learned.scaler.load_state_dict(state["scaler"])
    return Position(**state["position"])


def _fill(model: nn.Module, weights: dict[str, Tensor], name: object) -> None:
    own = model.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        if key not in weights or key not in own:
            wrong = f"it has {'no' if key in own else 'a'} {key}"
        elif weights[key].shape != own[key].shape:
            wrong = f"{key} is {_size(weights[key])} and would have to be {_size(own[key])}"
        else:
            continue
        raise CheckpointError(f"{name} does not fit the run's configuration and tokenizer: {wrong}")
    model.load_state_dict(weights)


def _size(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape))


def _read_tensors(folder: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file whose hash is right."""
    if name not in state["files"]:
        raise CheckpointError(f"{folder} has no {name}, which the run's configuration asks for")
    try:
        return safetensors.torch.load(_read_checked(folder, name, state))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{folder / name} is damaged: {error}") from None


def has_checkpoint(run: Path) -> bool:
    return bool(_folders(run))


def newest_step(folders: list[Path]) -> int:
    """The step of the newest of several checkpoints."""
    return max(map(_step, folders))


def last_step(run: Path) -> int:
    """The step of the last checkpoint."""
    return _step(checkpoint_folder(run, "last"))


def last_position(run: Path) -> Position:
    """Where the last checkpoint stands."""
    return Position(**_read_state(checkpoint_folder(run, "last"))["position"])


def _folders(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted(
        folder for folder in folders if re.fullmatch(r"step-\d{8,}", folder.name) and folder.is_dir()
    )


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / _STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        Position(**state["position"])
        for name in (_MODEL, _OPTIMIZER):
            str(state["files"][name]["sha256"])
        int(state["position"]["best_step"]), float(state.get("score") or 0)
        return state
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {_instead(folder)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): {_instead(folder)}") from None


def _read_checked(folder: Path, name: str, state: dict[str, Any]) -> bytes:
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {_instead(folder)}") from None
    if sha256(data) != state["files"][name]["sha256"]:
        raise CheckpointError(f"{path} is damaged (its sha256 differs from {_STATE}): {_instead(folder)}")
    return data


def _instead(folder: Path) -> str:
    """How one goes on without a checkpoint."""
    others = [other for other in _folders(folder.parent.parent) if other != folder]
    if others and others[-1] > folder:
        return f"take the last one, step {_step(others[-1]):,}, with --checkpoint last"
    before = f"step {_step(others[-1]):,}" if others else "the beginning"
    return f"move {folder} away to go on from {before}"


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors named after the parameter they belong to."""
    return _contiguous(
        {
            f"{name}.{key}": value
            for name, parameter in model.named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
            if value is not None
        }
    )


def _restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Give the optimizer the state that `_optimizer_tensors` made. On which device and in which type each
    tensor must be is PyTorch's to say: a fused Adam counts its steps on the GPU, another one on the CPU."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    state: dict[int, dict[str, Tensor]] = {}
    for number, parameter in enumerate(parameters):
        prefix = f"{names[parameter]}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if own:
            state[number] = own
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
