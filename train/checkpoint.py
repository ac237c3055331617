"""Checkpoints: safetensors plus JSON, each a folder that exists only once it is whole.

    checkpoints/step-00000200/model.safetensors      weights, by their PyTorch names
                              optimizer.safetensors  Adam's moments, and the RNG states
                              state.json             position, scores, and the hash of both files

A checkpoint is written beside its place, synced and renamed, so a kill at any moment leaves the
checkpoints that were there. Only then are older ones removed, the last and the best kept.
"""

import contextlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..runtime.errors import CheckpointError
from ..runtime.files import folder_atomic, remove_leftovers, sha256

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass
class Position:
    """Where a run stands, and the sums that its next row of metrics needs."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    loss_sum: float = 0.0  # natural log, over target tokens since the last validation
    tokens: int = 0  # target tokens since the last validation
    best_step: int = 0
    best_loss: float | None = None


def checkpoint_folder(run: Path, which: str) -> Path:
    """The folder of the `last` or the `best` checkpoint of a run.

    Raises:
        CheckpointError: the run has none yet.
    """
    folders = _folders(run)
    if not folders:
        raise CheckpointError(f"{run} has no checkpoint yet: let it train until its first one")
    last = folders[-1]
    if which == "last":
        return last
    best = _read_state(last)["position"]["best_step"]
    return next((folder for folder in folders if _step(folder) == best), last)


def save_checkpoint(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position
) -> Path:
    """Write the checkpoint of `position` and remove those that are neither the last nor the best."""
    folder = run / "checkpoints" / f"step-{position.step:08d}"
    folder.parent.mkdir(exist_ok=True)
    remove_leftovers(folder.parent)
    contents = {
        _MODEL: safetensors.torch.save(_contiguous(model.state_dict())),
        _OPTIMIZER: safetensors.torch.save(_optimizer_tensors(model, optimizer) | _rng_states()),
    }
    state = {
        "position": asdict(position),
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in contents.items()},
    }
    with folder_atomic(folder, replace=True) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        (temporary / _STATE).write_text(json.dumps(state, indent=2) + "\n")
    for old in _folders(run):
        if _step(old) not in (position.step, position.best_step):
            shutil.rmtree(old, ignore_errors=True)
    return folder


def load_weights(folder: Path, model: nn.Module) -> Position:
    """Load a checkpoint's weights into `model`."""
    state = _read_state(folder)
    try:
        model.load_state_dict(safetensors.torch.load(_read_checked(folder, _MODEL, state)))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder / _MODEL} does not fit the run's configuration: {error}") from None
    return Position(**state["position"])


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Load weights, optimizer and RNG states: the run goes on as if it had never stopped."""
    position = load_weights(folder, model)
    tensors = safetensors.torch.load(_read_checked(folder, _OPTIMIZER, _read_state(folder)))
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda = tensors.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    _restore_optimizer(model, optimizer, tensors)
    return position


def has_checkpoint(run: Path) -> bool:
    return bool(_folders(run))


def last_step(run: Path) -> int:
    """The step of the last checkpoint."""
    return _step(checkpoint_folder(run, "last"))


def _folders(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted(folder for folder in folders if re.fullmatch(r"step-\d{8,}", folder.name))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / _STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        Position(**state["position"])
        for name in (_MODEL, _OPTIMIZER):
            str(state["files"][name]["sha256"])
        return state
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _read_checked(folder: Path, name: str, state: dict[str, Any]) -> bytes:
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if sha256(data) != state["files"][name]["sha256"]:
        raise CheckpointError(
            f"{path} is damaged: its sha256 differs from {_STATE}; move {folder} away to use another"
        )
    return data


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _rng_states() -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors named after the parameter they belong to."""
    return _contiguous(
        {
            f"{name}.{key}": value
            for name, parameter in model.named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
    )


def _restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    for name, parameter in model.named_parameters():
        prefix = f"{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        with contextlib.suppress(KeyError):  # Adam counts its steps on the CPU, whatever the device
            step = state.pop("step")
            state = {key: value.to(parameter.device) for key, value in state.items()}
            optimizer.state[parameter] = {"step": step, **state}
