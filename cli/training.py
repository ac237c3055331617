"""What `edgechat train` does with what it was given: the configuration and the data, the run, its end."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import EdgeChatError, UsageError
from ..runtime.files import sha256
from .console import check_writable, put, put_json, say, stop_request
from .options import set_torch_threads
from .progress import TrainingProgress, counting, reading

if TYPE_CHECKING:
    from ..runtime.device import Device
    from ..runtime.text import TextCodec
    from ..train.config import RunConfig, RunOptions
    from ..train.corpus import Corpus
    from ..train.dataset import Prepared
    from ..train.distributed import World
    from ..train.pretrained import Pretrained
    from ..train.report import CorpusReport
    from ..train.run import Run
    from ..train.trainer import Result


#: Training pairs for each token of more than a byte, below which copying is warned of.
_PAIRS_A_TOKEN = 10


@dataclass(frozen=True)
class Data:
    """Where the corpus comes from."""

    names: list[str]
    source: Path | None
    target: Path | None
    valid: str | None
    tokenizer: Path | None
    skip_bad: bool
    pretrained: Path | None
    base: Path | None
    checkpoint: str  # of `base`

    @classmethod
    def of(cls, options: "RunOptions") -> "Data":
        return cls(
            list(options.data),
            options.source,
            options.target,
            options.valid,
            options.tokenizer,
            options.skip_bad,
            options.pretrained_embeddings,
            options.from_run,
            options.checkpoint or "best",
        )

    @property
    def given(self) -> bool:
        return bool(self.names or self.source or self.target)

    def open(self) -> "Corpus":
        from ..train.corpus import open_corpus

        return open_corpus(self.names, source=self.source, target=self.target, skip_bad=self.skip_bad)

    def open_base(self) -> "Run | None":
        """The run to begin with, which gives the tokenizer."""
        from ..train.run import open_run

        if self.base is None:
            return None
        for option, value in (("tokenizer", self.tokenizer), ("pretrained-embeddings", self.pretrained)):
            if value is not None:
                raise UsageError(f"--from-run begins with all of a run, so --{option} does not go with it")
        base = open_run(self.base)
        base.step(self.checkpoint)  # refuses what is none
        return base

    def open_valid(self) -> "Corpus | None":
        from ..train.corpus import open_corpus

        return open_corpus([self.valid], skip_bad=self.skip_bad) if self.valid else None


@dataclass(frozen=True)
class Wanted:
    """The configuration that was asked for: a preset or a file, and the options that change single values."""

    preset: str | None
    file: Path | None
    parameters: dict[str, Any]  # of the command, by name

    def fresh(self, base: "Run | None" = None) -> "RunConfig":
        """For a new run, which has the model of `base`, and reads as that does, where it begins with it."""
        from ..train.config import load_preset

        if base is None:
            return self.on(load_preset("tiny"))
        config = self.on(base.config, goes_on=True)
        of_base = base.config.shape()
        for name, value in config.shape().items():
            if value != of_base[name]:
                given = self.source(name)
                out = given if name in self.options or self.file is None else f"{name}, or its preset,"
                raise UsageError(
                    f"{given} gives {name} {value}, but the model of {base.folder} has {of_base[name]}: "
                    f"with --from-run it stays as it is, so leave {out} out"
                )
        return config

    def on(self, begun: "RunConfig", *, goes_on: bool = False) -> "RunConfig":
        """What `begun` becomes: it is the start only where neither a preset nor a file is given, or where the
        run `goes_on` from another one, and the file leaves something out."""
        from ..train.config import load_config, load_preset

        if self.file is not None:
            begun = load_config(self.file, begun if goes_on else None)
        elif self.preset is not None:
            begun = load_preset(self.preset)
        try:
            return begun.changed(self.options)
        except UsageError as error:
            raise UsageError(self._as_options(str(error))) from None

    @property
    def options(self) -> dict[str, Any]:
        """The values of the configuration that options gave."""
        from ..train.config import option_names

        given = {name: self.parameters[name] for name in option_names() if name in self.parameters}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def length(self) -> dict[str, int | None]:
        """How long a run is to go on: what an option or the file itself says, not what is so by default."""
        from ..train.config import given_values

        given = {**({} if self.file is None else given_values(self.file)), **self.options}
        return {name: given.get(name) for name in ("epochs", "max_steps")}

    def run_options(self) -> "RunOptions":
        """What is read, what is written, and on what it is computed: options over the file."""
        from ..train.config import RunOptions, load_run_options

        begun = RunOptions() if self.file is None else load_run_options(self.file)
        try:
            return begun.changed({**self.parameters, "data": tuple(self.parameters["data"] or ())})
        except UsageError as error:
            raise UsageError(self._as_options(str(error))) from None

    def _as_options(self, message: str) -> str:
        """With names of values as the options that set them, where no file did."""
        from ..train.config import option_names

        for name in ["threads", "max_minutes", *(option_names() if self.file is None else self.options)]:
            # "layers" and its like are words of a sentence too, but not where it begins or says what to set.
            before = r"\b" if "_" in name else r"(?:^|(?<=set ))"
            message = re.sub(rf"{before}{name}\b", "--" + name.replace("_", "-"), message)
        return message

    def source(self, name: str) -> str:
        """What gave the value of `name`, as it stands on the command line."""
        if name in self.options:
            return f"--{name.replace('_', '-')}"
        return f"--config {self.file}" if self.file is not None else f"--preset {self.preset}"


def open_or_create(
    out: Path,
    wanted: Wanted,
    data: Data,
    device: str,
    world: "World",
    *,
    resume: bool,
    force: bool,
) -> "Run":
    """The run to train: continued with --resume, else new. Nothing is overwritten unasked."""
    from ..train.bpe_dropout import BpeDropout
    from ..train.lock import RunLock
    from ..train.run import create_run, is_only_a_run, is_run
    from ..train.tokenizer import SMALLEST_VOCABULARY
    from ..train.trainer import check_early_stop

    there = out.exists() or out.is_symlink()
    if is_run(out):
        RunLock(out).release()  # nobody trains in it, so that it may be changed or replaced
    if resume and there:
        return _resumed(out, wanted, data)
    if resume and not data.given:
        raise UsageError(f"there is no run {out} to resume: give DATA to start one")
    if resume:
        say(f"there is no run {out} to resume: this begins it")
    base = data.open_base()
    if base is not None and out.exists() and base.folder.samefile(out):
        raise UsageError(f"--from-run and --out are both {out}: name another --out, the run stays as it is")
    if there:
        go_on = "--resume continues it, or " if is_run(out) and not force else ""
        if not is_only_a_run(out) and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"{out} is not a run, or holds other files too, so --force does not replace it: "
                f"{go_on}choose another --out"
            )
        if not force:
            raise UsageError(f"{out} exists: {go_on}--force replaces it, or choose another --out")
    config = wanted.fresh(base)
    check_writable(out)
    prepared = prepare(config, data, base)
    BpeDropout.wanted(config.training, prepared.tokenizer, prepared.codec)  # refuses what is no plain BPE
    check_early_stop(config.training, len(prepared.valid))
    for line in prepared.report.lines():
        say(line)
    merged = prepared.codec.vocab_size - SMALLEST_VOCABULARY  # tokens of more than a byte
    if config.model.copy_attention and merged * _PAIRS_A_TOKEN > prepared.report.train_pairs:
        say(
            f"hint: --copy-attention copies token by token, and with so few pairs most of {merged:,} tokens "
            f"are hardly learned: a --vocab-size nearer to {SMALLEST_VOCABULARY} copies new values better"
        )
    if base is not None:
        step = base.step(data.checkpoint)
        say(f"begins with the {data.checkpoint} weights of {base.folder}, step {step:,}")
    corpus = {
        "name": ", ".join(source.name for source in prepared.report.sources),
        "sha256": prepared.report.sha256,
        "valid_sha256": _valid_sha256(prepared.report) if data.valid else None,
        "sources": [asdict(source) for source in prepared.report.sources],
    }
    pretrained = _read_pretrained(config, data, prepared.codec)
    return create_run(
        out,
        config,
        prepared,
        corpus,
        device=device,
        processes=world.size,
        pretrained=pretrained,
        base=base,
        checkpoint=data.checkpoint,
        replace=force,
    )


def _read_pretrained(config: "RunConfig", data: Data, codec: "TextCodec") -> "Pretrained | None":
    """The vectors that --pretrained-embeddings gives; how many of the tokens have one is said."""
    from ..train.pretrained import read_pretrained

    if data.pretrained is None:
        return None
    found = read_pretrained(data.pretrained, codec, config.model.embedding)
    say(f"pretrained          {found.found:,} of {found.vocab_size:,} tokens have a vector")
    return found


def _valid_sha256(report: "CorpusReport") -> str:
    """The digest of the held-out data that --valid gave, as if it were a corpus of its own."""
    return replace(report, sources=report.valid_sources).sha256


def _resumed(out: Path, wanted: Wanted, data: Data) -> "Run":
    """The run in `out`, if the options and the data given are those it was begun with. Only how long it
    goes on may change."""
    from ..train.checkpoint import has_checkpoint, last_position
    from ..train.pretrained import file_sha256
    from ..train.run import open_run
    from ..train.tokenizer import load_tokenizer

    run = open_run(out)
    changed = wanted.on(run.config, goes_on=run.begun_from is not None).to_json()
    for part, values in run.config.to_json().items():
        for name, value in values.items():
            if changed[part][name] != value and name not in ("epochs", "max_steps"):
                given = wanted.source(name)
                raise UsageError(
                    f"{given} gives {name} {changed[part][name]}, but the run was begun with {value}: "
                    f"resume without {given}, or start another run"
                )
    try:
        base = data.open_base()
    except EdgeChatError as error:
        raise type(error)(f"{error} (a resume does not need --from-run: leave it out)") from None
    valid = data.open_valid()
    for name, same in (
        ("DATA", not data.given or data.open().read().sha256 == run.corpus_sha256),
        ("--valid", valid is None or valid.read().sha256 == run.info["corpus"].get("valid_sha256")),
        (
            "--pretrained-embeddings",
            not data.pretrained or file_sha256(data.pretrained) == (run.pretrained or {}).get("sha256"),
        ),
        ("--tokenizer", not data.tokenizer or load_tokenizer(data.tokenizer) == run.tokenizer),
        (
            "--from-run",
            base is None or sha256(base.weights(data.checkpoint)) == (run.begun_from or {}).get("sha256"),
        ),
    ):
        if not same:
            raise UsageError(
                f"{name} is not what {out} was begun with: resume without it, or start another run"
            )
    config = run.config.changed(wanted.length)
    if config == run.config:
        return run
    if has_checkpoint(out):
        done = last_position(out)
        for name, reached, where in (
            ("max_steps", done.step, "at step"),
            ("epochs", done.epoch + (done.batch > 0), "in epoch"),
        ):
            length = wanted.length[name]
            if length is not None and length < reached:
                raise UsageError(
                    f"{wanted.source(name)} gives {name} {length}, but the run is {where} {reached} already"
                )
    return run.with_length(**wanted.length)


def prepare(config: "RunConfig", data: Data, base: "Run | None" = None) -> "Prepared":
    """Read, split, tokenize and encode the corpus. The tokenizer is that of `base`, if one is given."""
    from ..train import dataset
    from ..train.corpus import DEFAULT_CORPUS
    from ..train.tokenizer import load_tokenizer

    if base is not None and not data.given:
        raise UsageError(
            "--from-run learns more from DATA: name it, as in edgechat train DATA --from-run RUN"
        )
    if not data.given:
        say(f"no DATA was named: this learns {DEFAULT_CORPUS}")
    ready = base.tokenizer if base else load_tokenizer(data.tokenizer) if data.tokenizer else None
    with reading() as progress:
        return dataset.prepare(
            data.open(),
            config.data,
            tokenizer=ready,
            valid=data.open_valid(),
            progress=progress,
        )


def show_corpus(prepared: "Prepared", json: bool) -> None:
    """The result of --dry-run."""
    from ..train.dataset import samples

    shown = samples(prepared, 3)
    if json:
        report = prepared.report.to_json()
        put_json(
            {
                "report": report,
                "vocabulary": _vocabulary(prepared.codec),
                "samples": [asdict(s) for s in shown],
            }
        )
        return
    for line in prepared.report.lines():
        put(line)
    put("")
    put(f"vocabulary  {prepared.codec.vocab_size:,} tokens, among them the longest and the last learned:")
    put("            " + " ".join(map(repr, _vocabulary(prepared.codec))))
    for number, sample in enumerate(shown, 1):
        put("")
        put(f"sample {number}")
        put(f"  source  {' <sep> '.join(sample.source)}")
        put(f"          {' '.join(map(str, sample.source_ids))}")
        put(f"          {'|'.join(sample.source_pieces)}")
        put(f"  target  {sample.target}")
        put(f"          {' '.join(map(str, sample.target_ids))}")
        put(f"          {'|'.join(sample.target_pieces)}")


def find_learning_rate(wanted: Wanted, data: Data, device: str, json: bool) -> None:
    """The result of --find-lr: some of the rates that were tried, and the suggestion."""
    from ..train import finder
    from ..train.bpe_dropout import BpeDropout
    from ..train.run import first_model

    base = data.open_base()
    config = wanted.fresh(base)
    prepared = prepare(config, data, base)
    model = first_model(config, prepared.codec.vocab_size, base.weights(data.checkpoint) if base else None)
    with counting("trying", finder.STEPS) as progress:
        found = finder.find_learning_rate(
            config,
            model,
            prepared.train,
            device,
            dropout=BpeDropout.wanted(config.training, prepared.tokenizer, prepared.codec),
            progress=progress,
        )
    if json:
        put_json({"suggestion": found.suggestion, "tried": [asdict(one) for one in found.tried]})
        return
    put("learning rate     loss")
    for one in found.tried[:: max(1, len(found.tried) // 20)]:
        put(f"{one.rate:>13.1e}  {one.loss:7.4f}")
    put(f"suggestion: --learning-rate {found.suggestion:g}")


def _vocabulary(codec: "TextCodec") -> list[str]:
    """A few tokens that show what the tokenizer learned."""
    tokens = [codec.decode([id]) for id in range(codec.vocab_size)]
    longest = sorted(tokens, key=len, reverse=True)[:6]
    return [*longest, *(token for token in tokens[-6:] if token not in longest)]


def compare_environment(run: "Run", device: str, threads: int | None, world: "World") -> None:
    """Train with the threads that the run was begun with unless others are asked for. What rounds in
    another way than it did then is said."""
    from ..train.run import environment

    begun = {"precision": "fp32", "processes": 1, **run.info.get("environment", {})}
    set_torch_threads(threads or begun.get("threads"))
    for name, now in environment(device, run.config.training.amp, world.size).items():
        if begun.get(name) != now and world.writes:
            say(
                f"warning: {name} is {now}, the run was begun with {begun.get(name)}: it goes on, but its "
                "weights may differ in the last digits from an uninterrupted run's"
            )


def train_run(run: "Run", device: "Device", max_minutes: float | None, world: "World") -> "Result":
    from ..train.trainer import Trainer

    display = TrainingProgress(shown=world.writes)
    trainer = Trainer(
        run,
        device=device,
        world=world,
        on_step=display.step,
        on_validation=display.validated,
        should_stop=lambda: should_stop(),
        max_minutes=max_minutes,
    )
    # Only now is Ctrl-C kept for the end of a step: to count the steps of many epochs may take long.
    with stop_request() as should_stop, display:
        display.begin(trainer, device)
        return trainer.train()


def say_end(run: "Run", result: "Result", json: bool) -> None:
    """Say how it ended, and what comes next."""
    position = result.position
    say(f"{result.ended} at step {position.step:,} of {result.total_steps:,}")
    if json:
        put_json(
            {
                "run": str(run.folder),
                "ended": result.ended,
                "step": position.step,
                "total_steps": result.total_steps,
                "epoch": position.epoch,
                "best_step": position.best_step,
                "best_loss": position.best_loss,
            }
        )
    if result.ended in ("finished", "stopped early"):
        say(f"next: edgechat export {run.folder} --out BUNDLE")
    else:
        say(f"go on with: edgechat train --resume --out {run.folder}")
