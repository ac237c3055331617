"""The configuration of a run, in the sections model, data and training.

A preset or a TOML file gives it, and options of the command line change single values. The run folder keeps
the values that were in effect, as a TOML file again. Such a file may have a fourth section, `run`: what is
read, what is written, and where it is computed.
"""

import dataclasses
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from ..runtime.errors import UsageError
from .dataset import DataConfig
from .importers import find_importer
from .model import ModelConfig
from .option_types import AmpMode, DeviceName, MetricName, OptimizerName, ScheduleName
from .ranges import check_values
from .toml import join_with_or, parse_section, read_toml, refuse_unknown, to_toml

DEFAULT_PRESET = "tiny"

#: Values that have an effect only with certain values of another one. With other ones they are refused if an
#: option gives them, and in the section `training` of a file unless they are at their default.
EFFECTIVE_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "attention": ("attention_kind", ("bahdanau", "bahdanau-normed", "scaled")),
    "reverse_source": ("bidirectional", (False,)),
    "weight_decay": ("optimizer", ("adamw", "sgd")),
    "momentum": ("optimizer", ("sgd",)),
    "adam_beta1": ("optimizer", ("adam", "adamw")),
    "adam_beta2": ("optimizer", ("adam", "adamw")),
    "adam_epsilon": ("optimizer", ("adam", "adamw")),
    "decay": ("schedule", ("plateau", "luong")),
    "decay_start": ("schedule", ("luong",)),
    "decay_every": ("schedule", ("luong",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "patience": ("early_stop", get_args(MetricName)),
}

#: A value of a lower layer that is unset where a higher layer gives the other one: preset < file < options.
REPLACED_BY = {"batch_tokens": "batch_size"}
#: What a resume may change: where a run ends, and how many of its checkpoints are kept.
CHANGEABLE_ON_RESUME = ("epochs", "max_steps", "keep")
#: How a step is divided into batches, which a resume may change if the step stays the same size.
STEP_DIVISION = ("batch_size", "batch_tokens", "accumulate")
#: What a new run does not take over from the run that it starts from: values that were chosen for the length
#: of the other run.
NOT_INHERITED = ("max_steps", "early_stop", "patience", "warmup_steps", "decay_start", "decay_every")


def overlay(below: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The `given` values of a section on top of those of the layer below."""
    replaced = {name: None for name, other in REPLACED_BY.items() if other in given and name in below}
    return {**below, **replaced, **given}


def _has_effect(name: str, values: dict[str, Any]) -> bool:
    """Whether a value has an effect, given the other values of its section."""
    mode, kinds = EFFECTIVE_WITH.get(name, (name, ()))
    return name == mode or values.get(mode) in kinds


def _refuse_ineffective(name: str, values: dict[str, Any]) -> None:
    """Raise UsageError if a value has no effect, given the other values of its section."""
    if values[name] is False or _has_effect(name, values):
        return
    mode, kinds = EFFECTIVE_WITH[name]
    value, now = values[name], values[mode]
    if now is None:
        raise UsageError(f"{name} {value} has no effect without {mode}: set {mode} too, or leave it out")
    if now is True:
        raise UsageError(f"{name} has no effect with {mode}: leave it out")
    raise UsageError(f"{name} {value} has no effect with {mode} {now}, only with {join_with_or(kinds)}")


def _drop_ineffective(values: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """A section without the training options that have no effect.

    The `given` ones stay, and are refused later. Options of a model always stay: a higher layer may choose a
    kind of model in which they have an effect.
    """
    return {
        name: value
        for name, value in values.items()
        if name in given or not hasattr(TrainingConfig, name) or _has_effect(name, values)
    }


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained. A step is one update of the weights."""

    epochs: int = 30
    max_steps: int | None = None
    """The run ends at this step, even if the epochs are not over."""
    batch_size: int = 64
    """Pairs per batch, over all processes together."""
    batch_tokens: int | None = None
    """Instead of `batch_size`: a batch takes as many pairs as fit into this many source tokens and this many
    target tokens, padding included."""
    accumulate: int = 1
    """Batches per step, whose gradients are summed: a large batch in the memory of a small one. The step is
    drawn as a whole and then divided, with `batch_tokens` sometimes into a batch more or less."""
    optimizer: OptimizerName = "adam"
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), or plain SGD."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    weight_decay: float = 0.0
    """Of matrices, for AdamW (decoupled) and SGD (L2)."""
    momentum: float = 0.0
    """Of SGD."""
    adam_beta1: float = 0.9
    """Decay of Adam's mean of the gradients."""
    adam_beta2: float = 0.999
    """Decay of Adam's mean of their squares."""
    adam_epsilon: float = 1e-8
    """Added to the root of that mean, by which Adam divides."""
    schedule: ScheduleName = "constant"
    """"cosine" falls to 0 along half a cosine over the planned steps (Loshchilov & Hutter 2017);
    "inverse-sqrt" falls as 1 / sqrt(step) after the warm-up (Vaswani et al. 2017); "plateau" decays when the
    held-out loss stops falling, or the training loss if nothing is held out; "luong" decays at fixed steps
    (Luong et al. 2015)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    decay: float = 0.5
    """Factor by which "plateau" and "luong" multiply the rate."""
    decay_start: int | None = None
    """Step of the first decay of "luong"; None means half of the planned steps."""
    decay_every: int | None = None
    """Steps between decays of "luong"; None means a tenth of the planned steps."""
    plateau_patience: int = 2
    """Validations in a row without a lower loss after which "plateau" decays."""
    clip: float = 5.0
    """Gradients are scaled down to this global norm."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread evenly over the vocabulary (Szegedy et al. 2016)."""
    scheduled_sampling: float = 0.0
    """Share of the fed tokens that the model draws itself, rising from 0 to this (Bengio et al. 2015)."""
    bpe_dropout: float = 0.0
    """Probability that a BPE merge is skipped in training pairs (Provilkov et al. 2020)."""
    amp: AmpMode = "off"
    """Compute in bfloat16 or float16 where that is safe; see precision.py."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is validated and exported; 0 keeps none."""
    save_every: int = 200
    """Steps between validations; each one writes a checkpoint."""
    keep: int = 1
    """How many of the last and how many of the best checkpoints are kept, to be averaged at export."""
    early_stop: MetricName | None = None
    """End the run when this has not improved for `patience` validations. It also decides which checkpoint is
    the best."""
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        for name, value in vars(self).items():
            if value != getattr(TrainingConfig, name):
                _refuse_ineffective(name, vars(self))
        if self.schedule == "inverse-sqrt" and not self.warmup_steps:
            raise UsageError("schedule inverse-sqrt needs a warm-up: set warmup_steps, 400 for example")


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run. Its weights also depend on what `RunOptions` names: the data, a tokenizer,
    initial weights, and the device."""

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

    def architecture_values(self) -> dict[str, Any]:
        """The values without which weights are meaningless: those of the model, and how text becomes ids."""
        return self.model.architecture_values() | {"lowercase": self.data.lowercase}

    def with_values(self, values: dict[str, Any]) -> "RunConfig":
        """A copy with other values, by name; None keeps the present one.

        Names are unique across the sections, except `seed`, which sets that of the split and that of the
        training. Values that no longer have an effect return to their defaults.
        """
        parts: dict[str, Any] = {}
        left = {name: value for name, value in values.items() if value is not None}
        for part in dataclasses.fields(self):
            current = getattr(self, part.name)
            names = {f.name for f in dataclasses.fields(current)}
            given = {name: value for name, value in left.items() if name in names}
            together = overlay(vars(current), given)
            for name in given:
                _refuse_ineffective(name, together)
            parts[part.name] = type(current)(**_drop_ineffective(together))
        return RunConfig(**parts)

    def for_fine_tuning(self) -> "RunConfig":
        """A copy for a run that starts from this one's weights, with the values of `NOT_INHERITED` at their
        defaults. Only inverse-sqrt, which needs a warm-up, keeps its own."""
        defaults = {name: getattr(TrainingConfig, name) for name in NOT_INHERITED}
        if self.training.schedule == "inverse-sqrt":
            del defaults["warmup_steps"]
        return dataclasses.replace(self, training=dataclasses.replace(self.training, **defaults))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_toml(self) -> str:
        """A file that `ConfigFile.read` reads this configuration from."""
        sections = asdict(self)
        if self.training.batch_tokens is not None:
            del sections["training"]["batch_size"]
        return to_toml(sections, "Everything that was in effect, for edgechat train --config")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "RunConfig":
        """From the sections model, data and training; values that are left out keep their defaults.

        Raises UsageError for an unknown key, with the closest known one, and for a value of the wrong type.
        """
        _refuse_unknown_sections(values, _SECTIONS, where)
        parts: dict[str, Any] = {
            name: parse_section(_SECTIONS[name], part, f"{where}, section {name}")
            for name, part in values.items()
        }
        try:
            return cls(**parts)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None


@dataclass(frozen=True)
class RunOptions:
    """What is read, what is written, and where it is computed. A run folder does not store these options, so
    it holds no path."""

    data: tuple[str, ...] = ()
    """Files or packaged corpora."""
    source: Path | None = None
    """Parallel text, with `target`."""
    target: Path | None = None
    valid: str | None = None
    """Held-out data: a file or a packaged corpus."""
    valid_source: Path | None = None
    """Held-out parallel text, with `valid_target`."""
    valid_target: Path | None = None
    skip_bad: bool = False
    tokenizer: Path | None = None
    pretrained_embeddings: Path | None = None
    from_run: Path | None = None
    """The run whose weights, tokenizer and model this one starts from."""
    checkpoint: str = "best"
    """Which checkpoint of `from_run`, as for `Checkpoints.select`."""
    out: Path | None = None
    preset: str | None = None
    """Gives the values that the other sections of the file leave out; None means `DEFAULT_PRESET`."""
    device: DeviceName = "auto"
    threads: int | None = None
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def given_names(self) -> frozenset[str]:
        """The names of the options that are not at their default."""
        return frozenset(f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)

    def with_paths_in(self, folder: Path) -> "RunOptions":
        """A copy whose relative paths start at `folder`; names of packaged corpora stay as they are."""

        def resolved(item: str) -> str:
            path = folder / item
            return item if find_importer(item) is not None and not path.exists() else str(path)

        paths: dict[str, Any] = {
            name: folder / path for name, path in vars(self).items() if isinstance(path, Path)
        }
        return dataclasses.replace(
            self,
            data=tuple(map(resolved, self.data)),
            valid=None if self.valid is None else resolved(self.valid),
            **paths,
        )

    def with_values(self, values: dict[str, Any]) -> "RunOptions":
        """A copy with other values, by name; None, False and an empty tuple keep the present one. Data of any
        kind replaces all data, and held-out data of any kind all held-out data."""
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


#: Options that say what one call of the command does.
_COMMAND_LINE_ONLY = {"config", "dry_run", "find_lr", "force", "json", "resume"}
_SECTIONS: dict[str, Any] = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}


def _refuse_unknown_sections(given: Iterable[str], known: dict[str, Any], where: str) -> None:
    """Raise UsageError for a section that does not exist, or for a value outside a section."""
    for name in given:
        for part, kind in known.items():
            if name not in known and name in {field.name for field in dataclasses.fields(kind)}:
                raise UsageError(f"{where}: {name!r} is in no section: write [{part}] on the line above it")
    refuse_unknown(given, known, where)


def config_value_names() -> list[str]:
    """The names of all values of a configuration, without duplicates."""
    kinds = (ModelConfig, DataConfig, TrainingConfig)
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def preset_names() -> list[str]:
    """The presets that come with the package, smallest first."""
    order = ("tiny", "small", "base", "classic")
    names = [Path(f.name).stem for f in files("edgechat.models").iterdir() if f.name.endswith(".toml")]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def load_preset(name: str) -> RunConfig:
    """A preset by name. Raises UsageError if there is none of that name."""
    if name not in preset_names():
        raise UsageError(f"there is no preset {name!r}: the presets are {', '.join(preset_names())}")
    text = (files("edgechat.models") / f"{name}.toml").read_text(encoding="utf-8")
    return RunConfig.from_dict(tomllib.loads(text), f"preset {name}")


def _refuse_misplaced(given: Iterable[str], section: str, known: dict[str, Any], where: str) -> None:
    """Raise UsageError for the first of the keys `given` in `section` that belongs elsewhere."""
    keys = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in known.items()}
    for key in given:
        if key in keys[section]:
            continue
        if key in _COMMAND_LINE_ONLY:
            raise UsageError(f"{where}, section {section}: {key} is an option of the command line only")
        if homes := [name for name in known if key in keys[name]]:
            raise UsageError(f"{where}, section {section}: {key} belongs in section {join_with_or(homes)}")


@dataclass(frozen=True)
class ConfigFile:
    """A TOML file of the user, read once. `sections` are those of the configuration, `options` is `run`."""

    path: Path
    sections: dict[str, Any]
    options: RunOptions

    @classmethod
    def read(cls, path: Path) -> "ConfigFile":
        """Read a file. Raises UsageError if it cannot be read or is not such a file."""
        sections = read_toml(path)
        known = {**_SECTIONS, "run": RunOptions}
        _refuse_unknown_sections(sections, known, str(path))
        for name, part in sections.items():
            _refuse_misplaced(part if isinstance(part, dict) else {}, name, known, str(path))
        options = parse_section(RunOptions, sections.pop("run", {}), f"{path}, section run")
        return cls(path, sections, options.with_paths_in(path.parent))

    def to_config(self, fallback: RunConfig | None = None) -> RunConfig:
        """The configuration on top of the preset that the file names, or else of `fallback`, or else of
        `DEFAULT_PRESET`."""
        preset = self.options.preset
        lower = load_preset(preset or DEFAULT_PRESET) if preset or fallback is None else fallback
        values = asdict(lower)
        for name, part in self.sections.items():
            values[name] = (
                _drop_ineffective(overlay(values[name], part), part) if isinstance(part, dict) else part
            )
        return RunConfig.from_dict(values, str(self.path))

    @property
    def values(self) -> dict[str, Any]:
        """The values of the configuration that the file itself gives, by name; not those of its preset."""
        parts = (part for part in self.sections.values() if isinstance(part, dict))  # others are refused
        return {name: value for part in parts for name, value in part.items()}
