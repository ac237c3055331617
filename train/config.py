"""The configuration of a run: presets are TOML files, the command line changes single values, and what
was in effect is kept in the run folder."""

import dataclasses
import difflib
import tomllib
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..runtime.errors import UsageError
from .dataset import DataOptions
from .model import ModelConfig

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

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "RunConfig":
        """From the sections model, data and training. An unknown key is refused with the nearest known."""
        parts: dict[str, Any] = {}
        kinds = {"model": ModelConfig, "data": DataOptions, "training": TrainingConfig}
        _refuse_unknown(values, kinds, where)
        for name, kind in kinds.items():
            section = values.get(name, {})
            if not isinstance(section, dict):
                raise UsageError(f"{where}: {name} must be a section, [{name}]")
            _refuse_unknown(section, {f.name for f in dataclasses.fields(kind)}, f"{where}, section {name}")
            parts[name] = kind(**section)
        return cls(**parts)


def _refuse_unknown(values: dict[str, Any], known: Any, where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise UsageError(f"{where}: unknown key {key!r}{hint}")


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
