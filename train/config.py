"""The configuration of a run: a TOML file, which a preset is too, whose single values the command line
changes. What was in effect is kept in the run folder, as such a file again.

A file has a fourth section, `run`: what is read, what is written, and on what it is computed.
"""

import dataclasses
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from ..runtime.errors import UsageError
from .choices import Amp, DeviceName, Metric, Optimizer, Schedule
from .dataset import DataConfig
from .importers import importer
from .model import ModelConfig
from .ranges import check_values
from .toml import either, read_toml, refuse_unknown, section, to_toml

DEFAULT_PRESET = "tiny"

#: Which value does something beside which of another only: given by an option it is refused with another,
#: and never ignored; in a section training, where it is not at its default.
MEANT_FOR: dict[str, tuple[str, tuple[Any, ...]]] = {
    "attention": ("attention_kind", ("bahdanau", "bahdanau-normed", "scaled")),
    "reverse_source": ("bidirectional", (False,)),
    "weight_decay": ("optimizer", ("adamw", "sgd")),
    "momentum": ("optimizer", ("sgd",)),
    "decay": ("schedule", ("plateau", "luong")),
    "decay_start": ("schedule", ("luong",)),
    "decay_every": ("schedule", ("luong",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "patience": ("early_stop", get_args(Metric)),
}

#: What of a layer below is none where a layer names the other of the two, and not it.
GIVES_WAY = {"batch_tokens": "batch_size"}
#: What a resume may change: where a run ends, and how many of its checkpoints stay.
RESUMABLE = ("epochs", "max_steps", "keep")
#: How a step is divided into batches, which a resume may change where the step stays as large.
DIVISION = ("batch_size", "batch_tokens", "accumulate")


def over(below: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of a section that are `given`, on top of those of the layer below."""
    none = {name: None for name, other in GIVES_WAY.items() if other in given and name in below}
    return {**below, **none, **given}


def _does_something(name: str, values: dict[str, Any]) -> bool:
    """Whether a value does, beside the others of its section."""
    mode, kinds = MEANT_FOR.get(name, (name, ()))
    return name == mode or values.get(mode) in kinds


def _refuse_idle(name: str, values: dict[str, Any]) -> None:
    """Raise UsageError where a value does nothing beside the others of its section."""
    if values[name] is False or _does_something(name, values):
        return
    mode, kinds = MEANT_FOR[name]
    value, now = values[name], values[mode]
    if now is None:
        raise UsageError(f"{name} {value} goes with {mode}, which is not set")
    if now is True:
        raise UsageError(f"{name} does not go with {mode}, beside which it does nothing")
    raise UsageError(f"{name} {value} is of {mode} {either(kinds)}, not of {now}")


def without_idle(values: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """The values of a section without those of a training that do nothing beside the others, but for what was
    `given`, which is refused. Those of a model stay: another kind of it may be chosen in a layer above."""
    return {
        name: value
        for name, value in values.items()
        if name in given or not hasattr(TrainingConfig, name) or _does_something(name, values)
    }


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained. Steps are updates of the weights."""

    epochs: int = 30
    max_steps: int | None = None
    """The run ends at this step, also where the epochs are not over."""
    batch_size: int = 64
    """Pairs a batch, over all processes together."""
    batch_tokens: int | None = None
    """In place of `batch_size`: a batch takes as many pairs as have no more tokens on either side, padding
    counted."""
    accumulate: int = 1
    """Batches a step, whose gradients are added up: a larger batch in the memory of a smaller one. The step
    is drawn whole and then divided, with `batch_tokens` at times into a batch more, or less."""
    optimizer: Optimizer = "adam"
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), or plain SGD."""
    learning_rate: float = 1e-3
    """The highest that the schedule comes to."""
    weight_decay: float = 0.0
    """Of matrices, for AdamW (decoupled) and SGD (L2)."""
    momentum: float = 0.0
    """Of SGD."""
    schedule: Schedule = "constant"
    """"cosine" falls to 0 along half a cosine over the planned steps (Loshchilov & Hutter 2017);
    "inverse-sqrt" falls as 1 / sqrt(step) after the warm-up (Vaswani et al. 2017); "plateau" is cut when the
    held-out loss stands still, or that of training where nothing is held out; "luong" is cut at fixed steps
    (Luong et al. 2015)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    decay: float = 0.5
    """What "plateau" and "luong" multiply the rate by."""
    decay_start: int | None = None
    """The step of the first cut of "luong"; half of the planned steps."""
    decay_every: int | None = None
    """Steps between the cuts of "luong"; a tenth of the planned steps."""
    plateau_patience: int = 2
    """Validations in a row without a lower loss after which "plateau" cuts."""
    clip: float = 5.0
    """Gradients are scaled down to this global norm."""
    label_smoothing: float = 0.0
    """Share of the target's probability that goes evenly to the vocabulary (Szegedy et al. 2016)."""
    scheduled_sampling: float = 0.0
    """Share of the fed tokens that are the model's own at the end; it rises from 0 (Bengio et al. 2015)."""
    bpe_dropout: float = 0.0
    """Probability that a merge of the BPE is left out in training pairs (Provilkov et al. 2020)."""
    amp: Amp = "off"
    """Computing in bfloat16 or float16 where that is safe; see precision.py."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is validated and exported; 0 keeps none."""
    save_every: int = 200
    """Steps between validations; each writes a checkpoint."""
    keep: int = 1
    """Checkpoints that are kept of the last and of the best each, to be averaged at export."""
    early_stop: Metric | None = None
    """Ends the run when this has not improved for `patience` validations; the best checkpoint is by it."""
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        for name, value in vars(self).items():
            if value != getattr(TrainingConfig, name):
                _refuse_idle(name, vars(self))
        if self.schedule == "inverse-sqrt" and not self.warmup_steps:
            raise UsageError("schedule inverse-sqrt needs a warm-up: set warmup_steps, 400 for example")


@dataclass(frozen=True)
class RunConfig:
    """Everything that shapes the weights of a run, but for the corpus itself."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        longest = max(self.data.max_source, self.data.max_target)
        if self.training.batch_tokens is not None and self.training.batch_tokens < longest:
            raise UsageError(
                f"batch_tokens must be at least {longest}, the longest source or target, "
                f"not {self.training.batch_tokens}"
            )

    def shape(self) -> dict[str, Any]:
        """All that weights are only worth something with: what of the model they are, and what ids mean."""
        return self.model.shape() | {"lowercase": self.data.lowercase}

    def changed(self, values: dict[str, Any]) -> "RunConfig":
        """A copy in which options have the values given; None leaves one as it is.

        Options of all three parts have names of their own, so none need say whose it is; `seed` sets
        that of the split and that of the training. What then does nothing any more is back at its default.
        """
        parts: dict[str, Any] = {}
        left = {name: value for name, value in values.items() if value is not None}
        for part in dataclasses.fields(self):
            current = getattr(self, part.name)
            names = {f.name for f in dataclasses.fields(current)}
            given = {name: value for name, value in left.items() if name in names}
            together = over(vars(current), given)
            for name in given:
                _refuse_idle(name, together)
            parts[part.name] = type(current)(**without_idle(together))
        return RunConfig(**parts)

    def without_end(self) -> "RunConfig":
        """A copy that ends after its epochs alone: other ends are of the data that it was made for."""
        endless = dataclasses.replace(
            self.training, max_steps=None, early_stop=None, patience=TrainingConfig.patience
        )
        return dataclasses.replace(self, training=endless)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_toml(self) -> str:
        """A file that `ConfigFile.read` reads this configuration from."""
        return to_toml(vars(self), "Everything that was in effect, for edgechat train --config")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "RunConfig":
        """From the sections model, data and training; what is left out keeps its default.

        Raises UsageError for an unknown key, with the nearest known one, and for a value of another type.
        """
        _refuse_unknown_sections(values, _SECTIONS, where)
        parts: dict[str, Any] = {
            name: section(_SECTIONS[name], part, f"{where}, section {name}") for name, part in values.items()
        }
        try:
            return cls(**parts)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None


@dataclass(frozen=True)
class RunOptions:
    """What is read, what is written, and on what it is computed: nothing that shapes the weights but for the
    data. A run folder keeps none of it, so that it holds no path."""

    data: tuple[str, ...] = ()
    """Files or packaged corpora."""
    source: Path | None = None
    """Parallel text, with `target`."""
    target: Path | None = None
    valid: str | None = None
    """Held-out data, a file or a packaged corpus."""
    valid_source: Path | None = None
    """Held-out parallel text, with `valid_target`."""
    valid_target: Path | None = None
    skip_bad: bool = False
    tokenizer: Path | None = None
    pretrained_embeddings: Path | None = None
    from_run: Path | None = None
    """The run whose weights, tokenizer and model this one begins with."""
    checkpoint: str = "best"
    """Of `from_run`, as for `Checkpoints.named`."""
    out: Path | None = None
    preset: str | None = None
    """Gives what the other sections of the file leave out; `DEFAULT_PRESET` where it is None."""
    device: DeviceName = "auto"
    threads: int | None = None
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def given(self) -> frozenset[str]:
        """The names of all options that are not at their default."""
        return frozenset(f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)

    def relative_to(self, folder: Path) -> "RunOptions":
        """With the paths of a file that lies in `folder`."""

        def there(item: str) -> str:
            path = folder / item
            return item if importer(item) is not None and not path.exists() else str(path)

        paths: dict[str, Any] = {
            name: folder / path for name, path in vars(self).items() if isinstance(path, Path)
        }
        return dataclasses.replace(
            self,
            data=tuple(map(there, self.data)),
            valid=None if self.valid is None else there(self.valid),
            **paths,
        )

    def changed(self, values: dict[str, Any]) -> "RunOptions":
        """A copy in which options have the values given; None, false and nothing leave one as it is. Data of
        any kind takes the place of all data, and held-out data of all that is held out."""
        named = {f.name: values.get(f.name) for f in dataclasses.fields(self)}
        given = {k: v for k, v in named.items() if v is not None and v is not False and v != ()}
        kinds: tuple[dict[str, Any], ...] = (
            {"data": (), "source": None, "target": None},
            {"valid": None, "valid_source": None, "valid_target": None},
        )
        for kind in kinds:
            if kind.keys() & given.keys():
                given = kind | given
        return dataclasses.replace(self, **given)


_SECTIONS: dict[str, Any] = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}


def _refuse_unknown_sections(given: Iterable[str], known: dict[str, Any], where: str) -> None:
    """Raise UsageError for a section that there is not, or a value that is in none."""
    for name in given:
        for part, kind in known.items():
            if name not in known and name in {field.name for field in dataclasses.fields(kind)}:
                raise UsageError(f"{where}: {name!r} is in no section: write [{part}] in the line above it")
    refuse_unknown(given, known, where)


def option_names() -> list[str]:
    """The names of all values of a configuration, each once."""
    kinds = (ModelConfig, DataConfig, TrainingConfig)
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


@dataclass(frozen=True)
class ConfigFile:
    """A TOML file of the user's, read once. `sections` are those of the configuration, `options` is `run`."""

    path: Path
    sections: dict[str, Any]
    options: RunOptions

    @classmethod
    def read(cls, path: Path) -> "ConfigFile":
        """Raises UsageError where it cannot be read, or is not such a file."""
        sections = read_toml(path)
        _refuse_unknown_sections(sections, {**_SECTIONS, "run": RunOptions}, str(path))
        options = section(RunOptions, sections.pop("run", {}), f"{path}, section run")
        return cls(path, sections, options.relative_to(path.parent))

    def config(self, below: RunConfig | None = None) -> RunConfig:
        """The configuration, on top of the preset that the file names, else of `below`, else of the default
        one."""
        preset = self.options.preset
        lower = load_preset(preset or DEFAULT_PRESET) if preset or below is None else below
        values = asdict(lower)
        for name, part in self.sections.items():
            values[name] = without_idle(over(values[name], part), part) if isinstance(part, dict) else part
        return RunConfig.from_dict(values, str(self.path))

    @property
    def values(self) -> dict[str, Any]:
        """The values of the configuration that the file gives itself, by name, and not by its preset."""
        parts = (part for part in self.sections.values() if isinstance(part, dict))  # `config` refuses others
        return {name: value for part in parts for name, value in part.items()}
