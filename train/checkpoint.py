"""A checkpoint: safetensors plus JSON, in a folder that exists only once it is complete.

    step-00000200/model.safetensors      weights, by their PyTorch names
                  optimizer.safetensors  the optimizer's moments
                  average.safetensors    with --ema: the moving average of the weights
                  state.json             position, score, and the hash of these files

It is written to a temporary folder, synced and renamed, so a kill at any moment leaves the existing ones
intact. It has no state of a random number generator: the random numbers of a step are a function of the seed
and the step (updates.py).
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import safetensors.torch
import torch
from torch import Tensor, nn

from ..runtime.atomic_write import atomic_folder, sha256, write_atomic
from ..runtime.errors import CheckpointError, UsageError
from .averaging import MovingAverage, mean_weights
from .optimizer import Optimizer
from .toml import check_type

_MODEL, _OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_AVERAGE = "average.safetensors"


@dataclass
class Position:
    """The position of a run, and the sums that its next row of metrics needs."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0  # steps of this epoch that are done
    loss_sum: float = 0.0  # natural log, over the target tokens since the last validation
    tokens: int = 0  # target tokens since the last validation
    norm_sum: float = 0.0  # gradient norms before clipping, over the updates since the last validation
    updates: int = 0  # since the last validation
    best_step: int = 0
    best_loss: float | None = None  # at the best validation: held out, or of training if nothing is
    best_score: float | None = None  # decides which is best, lower is better: the loss, or minus a metric
    waited: int = 0  # validations since the best one
    validated_step: int = 0  # step of the last validation
    skipped: int = 0  # steps without an update since the last validation
    skipped_in_row: int = 0
    lowest_loss: float | None = None  # of all validations, for the plateau schedule
    plateau: int = 0  # validations since the lowest loss, or since the last decay
    rate_scale: float = 1.0  # product of the decays of the plateau schedule


@dataclass(frozen=True)
class CheckpointState:
    """The contents of `state.json`."""

    position: Position
    score: float | None  # of a validation at this step, lower is better; None if there was none
    loss: float | None  # of that validation, which decides between equal scores
    scaler: dict[str, Any]  # that of float16, as `torch.amp.GradScaler.state_dict` gives it
    files: dict[str, dict[str, Any]]  # the sha256 and the size of each file, by name

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class TrainingState:
    """The contents of a checkpoint besides the position."""

    model: nn.Module
    optimizer: Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler


def write_checkpoint(folder: Path, training_state: TrainingState, position: Position) -> None:
    """Write a checkpoint without a score, all or nothing."""
    contents = {
        _MODEL: weights_to_bytes(training_state.model),
        _OPTIMIZER: safetensors.torch.save(_to_contiguous_cpu(training_state.optimizer.state_tensors())),
    }
    if training_state.average is not None:
        contents[_AVERAGE] = safetensors.torch.save(_to_contiguous_cpu(training_state.average.weights))
    state = CheckpointState(
        position,
        None,
        None,
        training_state.scaler.state_dict(),
        {name: {"sha256": sha256(data), "size": len(data)} for name, data in contents.items()},
    )
    with atomic_folder(folder, replace=True) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        (temporary / STATE).write_text(state.to_json())


def write_validation(folder: Path, position: Position, score: float | None, loss: float | None) -> None:
    """Put the position after a validation, its score (lower is better) and its loss into a checkpoint of this
    step."""
    state = replace(read_state(folder), position=position, score=score, loss=loss)
    write_atomic(folder / STATE, state.to_json())


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoint_step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = folder.glob("step-*")
    return sorted(one for one in found if re.fullmatch(r"step-\d{8,}", one.name) and one.is_dir())


def load_weights(folder: Path, model: nn.Module) -> Position:
    """Load the weights to use into `model`: the moving average if the run keeps one."""
    state = read_state(folder)
    name = _AVERAGE if _AVERAGE in state.files else _MODEL
    _load_into(model, _read_tensors(folder, name, state), folder / name)
    return state.position


def load_mean_weights(folders: list[Path], model: nn.Module) -> Position:
    """Load the mean of the weights of several checkpoints. Returns the position of the newest."""
    positions, weights = [], []
    for folder in folders:
        positions.append(load_weights(folder, model))
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(mean_weights(weights))
    return max(positions, key=lambda position: position.step)


def weights_to_bytes(model: nn.Module) -> bytes:
    """The weights alone, as safetensors."""
    return safetensors.torch.save(_to_contiguous_cpu(model.state_dict()))


def load_weights_from_bytes(model: nn.Module, weights: bytes, name: str) -> None:
    """Load weights that `weights_to_bytes` made of a model of the same sizes.

    Raises:
        CheckpointError: they do not fit or are damaged; the message names `name`.
    """
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{name} is damaged: {error}") from None
    _load_into(model, tensors, name)


def load_checkpoint(folder: Path, training_state: TrainingState) -> Position:
    """Load everything that a training needs to continue as if it had never stopped.

    Raises:
        CheckpointError: a file is damaged, or does not fit the run's configuration.
    """
    state = read_state(folder)
    _load_into(training_state.model, _read_tensors(folder, _MODEL, state), folder / _MODEL)
    training_state.optimizer.load_state_tensors(_read_tensors(folder, _OPTIMIZER, state))
    if training_state.average is not None:
        average = _read_tensors(folder, _AVERAGE, state)
        for name, weight in training_state.average.weights.items():
            weight.copy_(average[name])
    if state.scaler:  # empty if the precision, or the device of the run until now, needs none
        training_state.scaler.load_state_dict(state.scaler)
    return state.position


def _load_into(model: nn.Module, weights: dict[str, Tensor], name: object) -> None:
    own = model.state_dict()
    for key in sorted(own.keys() | weights.keys()):
        if key not in weights or key not in own:
            wrong = f"it has {'no' if key in own else 'a'} {key}"
        elif weights[key].shape != own[key].shape:
            wrong = f"{key} is {_format_shape(weights[key])}, not {_format_shape(own[key])}"
        else:
            continue
        raise CheckpointError(f"{name} does not fit the run's configuration and tokenizer: {wrong}")
    model.load_state_dict(weights)


def _format_shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape))


def _read_tensors(folder: Path, name: str, state: CheckpointState) -> dict[str, Tensor]:
    """The tensors of a file, checked against its hash."""
    if name not in state.files:
        raise CheckpointError(f"{folder} has no {name}, which the run's configuration requires")
    try:
        return safetensors.torch.load(_read_checked(folder, name, state))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{folder / name} is damaged: {error}") from None


def read_state(folder: Path) -> CheckpointState:
    """The content of `state.json`. Raises CheckpointError if it is missing or damaged."""
    path = folder / STATE
    try:
        return _parse_state(json.loads(path.read_text()))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): {_advice_without(folder)}"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, UsageError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): {_advice_without(folder)}") from None


def _parse_state(state: Any) -> CheckpointState:
    """The state in this JSON. Raises UsageError, or an exception of Python, for a value that is missing or of
    the wrong type."""
    types = get_type_hints(Position)
    position = Position(**{name: check_type(state["position"][name], types[name], name) for name in types})
    for name, value in state["scaler"].items():
        check_type(value, float, f"scaler {name}")
    for name in {_MODEL, _OPTIMIZER, *state["files"]}:
        check_type(state["files"][name]["sha256"], str, f"sha256 of {name}")
    score, loss = (check_type(state[name], float | None, name) for name in ("score", "loss"))
    return CheckpointState(position, score, loss, state["scaler"], state["files"])


def _read_checked(folder: Path, name: str, state: CheckpointState) -> bytes:
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): {_advice_without(folder)}"
        ) from None
    if sha256(data) != state.files[name]["sha256"]:
        raise CheckpointError(
            f"{path} is damaged (its sha256 differs from {STATE}): {_advice_without(folder)}"
        )
    return data


def _advice_without(folder: Path) -> str:
    """How to continue without the checkpoint `folder`."""
    others = [other for other in complete_checkpoints(folder.parent) if other != folder]
    if others and others[-1] > folder:
        return f"use the last one, step {checkpoint_step(others[-1]):,}, with --checkpoint last"
    before = f"step {checkpoint_step(others[-1]):,}" if others else "the beginning"
    return f"move {folder} away to continue from {before}"


def _to_contiguous_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
