"""The request for a training: options on top of a file on top of a preset, and which of them go together."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import UsageError
from .config import (
    DEFAULT_PRESET,
    REPLACED_BY,
    RESUMABLE,
    ConfigFile,
    RunConfig,
    RunOptions,
    load_preset,
    option_names,
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
class Wanted:
    """A requested configuration: a preset or a file, and the values on top of it."""

    options: RunOptions
    values: dict[str, Any]
    """The values of the configuration that options gave, by name."""
    file: ConfigFile | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Wanted":
        """From the options of `edgechat train` by name. An option that is None, or a flag that is False, was
        not given.

        Raises:
            UsageError: an option has an impossible value, or two options cannot be used together.
        """
        values = {name: given[name] for name in option_names() if given.get(name) is not None}
        file = None if given.get("config") is None else ConfigFile.read(Path(given["config"]))
        of_file = RunOptions() if file is None else file.options
        if file is not None:
            _refuse_conflicts(of_file.given, str, where=f"{file.path}: ")
        names = {name for name, value in given.items() if value is not None and value is not False}
        names |= of_file.given - {"preset"}
        for name, other in NEEDS.items():
            if name in names and other not in names:
                raise UsageError(f"{_option(name)} needs {_option(other)}, which is not given")
        _refuse_conflicts(names, _option)
        return cls(of_file.changed({**given, "data": tuple(given.get("data") or ())}), values, file)

    def fresh(self, base: "Run | None" = None) -> RunConfig:
        """The configuration of a new run. If it starts from the run `base`, it keeps that run's model.

        Raises:
            UsageError: a value is impossible, the file contradicts itself, or the model differs from `base`.
        """
        # Not in `of`, since a resume has to accept the contradictions that older versions accepted.
        if self.file is not None:
            # The config.toml of a run has batch_size even if batch_tokens replaces it.
            names = self.file.options.given | self.file.values.keys() - {"batch_size"}
            _refuse_conflicts(names, str, where=f"{self.file.path}: ")
        if base is None:
            return self.on(load_preset(DEFAULT_PRESET))
        config = self.on(base.config.for_other_data(), goes_on=True)
        # The warm-up of an inverse-sqrt schedule goes with that schedule alone.
        left = base.config.training.schedule == "inverse-sqrt" != config.training.schedule
        if left and "warmup_steps" not in self.named:
            config = replace(config, training=replace(config.training, warmup_steps=0))
        of_base = base.config.shape()
        for name, value in config.shape().items():
            if value != of_base[name]:
                given = self.source(name)
                out = given if name in self.values or self.file is None else f"{name}, or its preset,"
                raise UsageError(
                    f"{given} gives {name} {value}, but the model of {base.folder} has {of_base[name]}: "
                    f"--from-run keeps the model as it is, so leave {out} out"
                )
        return config

    def on(self, begun: RunConfig, *, goes_on: bool = False) -> RunConfig:
        """The requested values on top of `begun`. A preset replaces `begun`. So does a file, except that with
        `goes_on` the values that a file without a preset leaves out are those of `begun`."""
        if self.file is not None:
            begun = self.file.config(begun if goes_on else None)
        elif self.options.preset is not None:
            begun = load_preset(self.options.preset)
        return begun.changed(self.values)

    @property
    def named(self) -> dict[str, Any]:
        """The values that options or the file itself give, without those of a preset and defaults."""
        return {**({} if self.file is None else self.file.values), **self.values}

    @property
    def resumable(self) -> dict[str, int]:
        """The named values among those that a resume may change."""
        return {name: value for name, value in self.named.items() if name in RESUMABLE}

    def source(self, name: str) -> str:
        """The option that gave the value of `name`, or unset it, as typed on the command line."""
        if name not in self.values:
            name = REPLACED_BY.get(name, name)
        if name in self.values:
            return _option(f"no_{name}" if self.values[name] is False else name)
        return f"--preset {self.options.preset}" if self.file is None else f"--config {self.file.path}"


def _refuse_conflicts(given: Collection[str], spelled: Callable[[str], str], where: str = "") -> None:
    """Raise UsageError if two of the names that are `given` cannot be used together."""
    for name, (others, why) in EXCLUDES.items():
        for other in others:
            if name in given and other in given:
                reason = why.format(spelled(name), spelled(other))
                raise UsageError(f"{where}{spelled(other)} cannot be used with {spelled(name)}: {reason}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
