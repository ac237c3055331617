"""What a training was asked for: options over a file over a preset, and which of them go together."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import UsageError
from .config import (
    DEFAULT_PRESET,
    GIVES_WAY,
    RESUMABLE,
    ConfigFile,
    RunConfig,
    RunOptions,
    load_preset,
    option_names,
)

if TYPE_CHECKING:
    from .run import Run

#: Which option needs which other; given without it, it is refused, never ignored. Of the values of a
#: configuration, `config.py` says so.
NEEDS = {"checkpoint": "from_run"}
#: Which options do not go together, and why; given together on the command line, there and in the section
#: `run` of a file, or in a file, they are refused. What a file says else gives way to the command line.
EXCLUDES = {
    "dry_run": (("find_lr", "resume", "force"), "that shows what would be learned, and writes nothing"),
    "find_lr": (("resume", "force", "pretrained_embeddings"), "that trains a model that is not kept"),
    "resume": (("force",), "that continues a run, which would be replaced"),
    "config": (("preset",), "that is a whole configuration, whose section run may name a preset"),
    "from_run": (("tokenizer", "vocab_size", "pretrained_embeddings"), "that begins with all of a run"),
    "tokenizer": (("vocab_size",), "that has its vocabulary already"),
    "valid": (("valid_fraction",), "that takes its place"),
    "valid_source": (("valid_fraction",), "that takes its place"),
    "batch_tokens": (("batch_size",), "that takes its place"),
}


@dataclass(frozen=True)
class Wanted:
    """A configuration and where it is from: a preset or a file, and the values that change it."""

    options: RunOptions
    values: dict[str, Any]
    """Of the configuration, by name, that options gave."""
    file: ConfigFile | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Wanted":
        """From the options of `edgechat train` by their names; None, and of what is only switched on False,
        is what was not given.

        Raises:
            UsageError: names an option that cannot be so, or two that do not go together.
        """
        values = {name: given[name] for name in option_names() if given.get(name) is not None}
        file = None if given.get("config") is None else ConfigFile.read(Path(given["config"]))
        begun = RunOptions() if file is None else file.options
        if file is not None:
            _refuse_company(begun.given, str, where=f"{file.path}: ")
        asked = {name for name, value in given.items() if value is not None and value is not False}
        asked |= begun.given - {"preset"}
        for name, other in NEEDS.items():
            if name in asked and other not in asked:
                raise UsageError(f"{_option(name)} goes with {_option(other)}, which is not given")
        _refuse_company(asked, _option)
        return cls(begun.changed({**given, "data": tuple(given.get("data") or ())}), values, file)

    def fresh(self, base: "Run | None" = None) -> RunConfig:
        """For a new run, which has the model of `base`, if one, and all else of it but its end.

        Raises:
            UsageError: it cannot be so, or the file contradicts itself, which was let pass once.
        """
        if self.file is not None:
            # A run's config.toml has batch_size beside batch_tokens, which takes its place.
            names = self.file.options.given | self.file.values.keys() - {"batch_size"}
            _refuse_company(names, str, where=f"{self.file.path}: ")
        if base is None:
            return self.on(load_preset(DEFAULT_PRESET))
        config = self.on(base.config.without_end(), goes_on=True)
        of_base = base.config.shape()
        for name, value in config.shape().items():
            if value != of_base[name]:
                given = self.source(name)
                out = given if name in self.values or self.file is None else f"{name}, or its preset,"
                raise UsageError(
                    f"{given} gives {name} {value}, but the model of {base.folder} has {of_base[name]}: "
                    f"with --from-run it stays as it is, so leave {out} out"
                )
        return config

    def on(self, begun: RunConfig, *, goes_on: bool = False) -> RunConfig:
        """What `begun` becomes: it is the start only where neither a preset nor a file is given, or where the
        run `goes_on` from another one, and the file leaves something out."""
        if self.file is not None:
            begun = self.file.config(begun if goes_on else None)
        elif self.options.preset is not None:
            begun = load_preset(self.options.preset)
        return begun.changed(self.values)

    @property
    def resumable(self) -> dict[str, int]:
        """What a resume may change, as an option or the file itself says, not what is so by default."""
        given = {**({} if self.file is None else self.file.values), **self.values}
        return {name: given[name] for name in RESUMABLE if name in given}

    def source(self, name: str) -> str:
        """What gave the value of `name`, or took it, as it stands on the command line."""
        if name not in self.values:
            name = GIVES_WAY.get(name, name)
        if name in self.values:
            return _option(f"no_{name}" if self.values[name] is False else name)
        return f"--preset {self.options.preset}" if self.file is None else f"--config {self.file.path}"


def _refuse_company(given: Collection[str], spelled: Callable[[str], str], where: str = "") -> None:
    """Raise UsageError where two of the names that are `given` do not go together."""
    for name, (others, why) in EXCLUDES.items():
        for other in others:
            if name in given and other in given:
                raise UsageError(f"{where}{spelled(other)} does not go with {spelled(name)}: {why}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
