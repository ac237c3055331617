"""The configuration of a run: a TOML file, which a preset is too, whose single values the command line
changes. What was in effect is kept in the run folder, as such a file again."""

import dataclasses
import tomllib
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..runtime.errors import UsageError
from .dataset import DataOptions
from .model import ModelConfig
from .toml import read_toml, refuse_unknown, section, to_toml

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained. Steps are updates of the weights."""

    epochs: int = 30
    max_steps: int | None = None
    """The run ends at this step, also where the epochs are not over."""
    batch_size: int = 64
    """Pairs a step."""
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    """"cosine" falls to 0 along half a cosine over the planned steps (Loshchilov & Hutter 2017)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    clip: float = 5.0
    """Gradients are scaled down to this global norm."""
    save_every: int = 200
    """Steps between validations; each writes a checkpoint."""
    seed: int = 0


@dataclass(frozen=True)
class RunConfig:
    """Everything that shapes the weights of a run, but for the corpus itself."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataOptions = field(default_factory=DataOptions)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        m, t = self.model, self.training
        for name, value in (
            ("layers", m.layers),
            ("hidden", m.hidden),
            ("embedding", m.embedding),
            ("attention", m.attention),
            ("epochs", t.epochs),
            ("batch_size", t.batch_size),
            ("save_every", t.save_every),
        ):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if t.max_steps is not None and t.max_steps < 1:
            raise UsageError(f"max_steps must be at least 1, not {t.max_steps}")
        if not 0 <= m.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, not {m.dropout}")
        if not t.learning_rate > 0 or not t.clip > 0:
            raise UsageError(f"learning_rate and clip must be above 0, not {t.learning_rate} and {t.clip}")
        if t.warmup_steps < 0:
            raise UsageError(f"warmup_steps must be at least 0, not {t.warmup_steps}")
        if t.schedule not in ("constant", "cosine"):
            raise UsageError(f"schedule must be constant or cosine, not {t.schedule!r}")

    def changed(self, values: dict[str, Any]) -> "RunConfig":
        """A copy in which options have the values given; None leaves one as it is.

        Options of all three parts have names of their own, so none need say whose it is; `seed` sets
        that of the split and that of the training.
        """
        parts: dict[str, Any] = {}
        left = {name: value for name, value in values.items() if value is not None}
        for part in dataclasses.fields(self):
            current = getattr(self, part.name)
            names = {f.name for f in dataclasses.fields(current)}
            parts[part.name] = dataclasses.replace(current, **{k: v for k, v in left.items() if k in names})
        return RunConfig(**parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_toml(self) -> str:
        """The file that `load_config` reads this configuration from."""
        return to_toml(vars(self), "Everything that was in effect, for edgechat train --config")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "RunConfig":
        """From the sections model, data and training; what is left out keeps its default.

        Raises UsageError for an unknown key, with the nearest known one, and for a value of another type.
        """
        kinds: dict[str, Any] = {"model": ModelConfig, "data": DataOptions, "training": TrainingConfig}
        refuse_unknown(values, kinds, where)
        parts: dict[str, Any] = {
            name: section(kinds[name], part, f"{where}, section {name}") for name, part in values.items()
        }
        try:
            return cls(**parts)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None


def option_names() -> list[str]:
    """The names of all values of a configuration, each once."""
    kinds = (ModelConfig, DataOptions, TrainingConfig)
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def preset_names() -> list[str]:
    """The presets that come with the package, smallest first."""
    order = ("tiny", "small", "base", "classic")
    names = [Path(f.name).stem for f in files("edgechat.models").iterdir() if f.name.endswith(".toml")]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def load_preset(name: str) -> RunConfig:
    """A preset by name."""
    if name not in preset_names():
        raise UsageError(f"there is no preset {name!r}: known are {', '.join(preset_names())}")
    text = (files("edgechat.models") / f"{name}.toml").read_text(encoding="utf-8")
    return RunConfig.from_dict(tomllib.loads(text), f"preset {name}")


def load_config(path: Path) -> RunConfig:
    """The configuration of a TOML file of the user's."""
    return RunConfig.from_dict(read_toml(path), str(path))
