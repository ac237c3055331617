"""The request for a training: options on top of a file on top of a preset, and which of them go together."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import UsageError
from .config import (
    CHANGEABLE_ON_RESUME,
    DEFAULT_PRESET,
    REPLACED_BY,
    ConfigFile,
    RunConfig,
    RunOptions,
    config_value_names,
    load_preset,
)

if TYPE_CHECKING:
    from .run import Run

#: Options that need another option. Without it they are refused. `config.py` has those among the values of a
#: configuration.
NEEDS = {"checkpoint": "from_run"}
#: Options that exclude each other, and why. They are refused if both are on the command line, both in a file,
#: or one on the command line and the other in the section `run` of a file. The other sections of a file give
#: way to the command line.
EXCLUDES = {
    "dry_run": (("find_lr", "resume", "force"), "{0} only shows what would be learned, and writes nothing"),
    "find_lr": (("resume", "force", "pretrained_embeddings"), "{0} trains a model that is not kept"),
    "resume": (("force",), "{0} continues the run that {1} would replace"),
    "config": (("preset",), "name the preset in the section run of the file"),
    "from_run": (
        ("tokenizer", "vocab_size", "pretrained_embeddings"),
        "{0} takes the tokenizer and all weights from the other run",
    ),
    "tokenizer": (("vocab_size",), "the tokenizer has a vocabulary already"),
    "valid": (("valid_fraction",), "{0} replaces the fraction"),
    "valid_source": (("valid_fraction",), "{0} replaces the fraction"),
    "batch_tokens": (("batch_size",), "{0} replaces {1}"),
}


@dataclass(frozen=True)
class TrainingRequest:
    """A requested configuration: a preset or a file, and the values on top of it."""

    options: RunOptions
    option_values: dict[str, Any]
    """The values of the configuration that options gave, by name."""
    file: ConfigFile | None = None

    @classmethod
    def from_options(cls, given: dict[str, Any]) -> "TrainingRequest":
        """From the options of `edgechat train` by name. An option that is None, or a flag that is False, was
        not given.

        Raises:
            UsageError: an option has an impossible value, two options cannot be used together, or the file
                contradicts itself.
        """
        values = {name: given[name] for name in config_value_names() if given.get(name) is not None}
        file = None if given.get("config") is None else ConfigFile.read(Path(given["config"]))
        file_options = RunOptions() if file is None else file.options
        if file is not None:
            file_names = file_options.given_names | file.values.keys()
            _refuse_conflicts(file_names, str, where=f"{file.path}: ")
        names = {name for name, value in given.items() if value is not None and value is not False}
        names |= file_options.given_names - {"preset"}
        for name, other in NEEDS.items():
            if name in names and other not in names:
                raise UsageError(f"{_option_flag(name)} needs {_option_flag(other)}, which is not given")
        _refuse_conflicts(names, _option_flag)
        return cls(file_options.with_values({**given, "data": tuple(given.get("data") or ())}), values, file)

    def config_of_new_run(self, base: "Run | None" = None) -> RunConfig:
        """The configuration of a new run. If it starts from the run `base`, it keeps that run's model.

        Raises:
            UsageError: a value is impossible, or the model differs from `base`.
        """
        if base is None:
            return self.apply_to(load_preset(DEFAULT_PRESET))
        config = self.apply_to(base.config.for_fine_tuning(), inherit=True)
        # The warm-up of an inverse-sqrt schedule goes with that schedule alone.
        leaves_inverse_sqrt = base.config.training.schedule == "inverse-sqrt" != config.training.schedule
        if leaves_inverse_sqrt and "warmup_steps" not in self.explicit_values:
            config = replace(config, training=replace(config.training, warmup_steps=0))
        base_values = base.config.architecture_values()
        for name, value in config.architecture_values().items():
            if value != base_values[name]:
                given = self.option_that_set(name)
                out = given if name in self.option_values or self.file is None else f"{name}, or its preset,"
                raise UsageError(
                    f"{given} sets {name} to {value}, but the model of {base.folder} has "
                    f"{base_values[name]}: --from-run keeps the model as it is, so leave {out} out"
                )
        return config

    def apply_to(self, config: RunConfig, *, inherit: bool = False) -> RunConfig:
        """`config` with the requested values on top. A preset replaces `config`. So does a file, except that
        with `inherit` the values that a file without a preset leaves out are those of `config`."""
        if self.file is not None:
            config = self.file.to_config(config if inherit else None)
        elif self.options.preset is not None:
            config = load_preset(self.options.preset)
        return config.with_values(self.option_values)

    @property
    def explicit_values(self) -> dict[str, Any]:
        """The values that options or the file itself give, without those of a preset and defaults."""
        return {**({} if self.file is None else self.file.values), **self.option_values}

    @property
    def resumable_values(self) -> dict[str, int]:
        """The explicit values among those that a resume may change."""
        return {name: value for name, value in self.explicit_values.items() if name in CHANGEABLE_ON_RESUME}

    def option_that_set(self, name: str) -> str:
        """The option that gave the value of `name`, or unset it, as typed on the command line."""
        if name not in self.option_values:
            name = REPLACED_BY.get(name, name)
        if name in self.option_values:
            return _option_flag(f"no_{name}" if self.option_values[name] is False else name)
        return f"--preset {self.options.preset}" if self.file is None else f"--config {self.file.path}"


def _refuse_conflicts(given: Collection[str], spell: Callable[[str], str], where: str = "") -> None:
    """Raise UsageError if two of the names that are `given` cannot be used together."""
    for name, (others, why) in EXCLUDES.items():
        for other in others:
            if name in given and other in given:
                reason = why.format(spell(name), spell(other))
                raise UsageError(f"{where}{spell(other)} cannot be used with {spell(name)}: {reason}")


def _option_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
