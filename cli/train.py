"""`edgechat train`: from dialogue data to a run folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import INTERRUPTED, check_writable, put, put_json, say, stop_request
from .options import ForceOption, JsonOption, set_torch_threads, torch_device
from .progress import TrainingProgress, counting

if TYPE_CHECKING:
    from ..runtime.text import TextCodec
    from ..train.config import RunConfig
    from ..train.corpus import Corpus
    from ..train.dataset import Prepared
    from ..train.distributed import World
    from ..train.pretrained import Pretrained
    from ..train.report import CorpusReport
    from ..train.run import Run
    from ..train.trainer import Result

_RUN, _DATA = "Run", "Data"
_MODEL, _OPTIMIZATION, _REGULARIZATION, _LENGTH = (
    f"{panel} (default: the preset's)" for panel in ("Model", "Optimisation", "Regularisation", "Length")
)
_WIDEST, _LARGEST = 1 << 16, (1 << 31) - 1  # what the libraries below can count


def register(app: typer.Typer) -> None:
    app.command()(train)


def _number(help: str, panel: str, **bounds: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, show_default=False, **bounds)


def _switch(name: str, help: str) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=help, rich_help_panel=_MODEL, show_default=False)


@dataclass(frozen=True)
class _Data:
    """Where the corpus comes from."""

    names: list[str]
    source: Path | None
    target: Path | None
    valid: str | None
    tokenizer: Path | None
    skip_bad: bool
    pretrained: Path | None

    @property
    def given(self) -> bool:
        return bool(self.names or self.source or self.target)

    def open(self) -> "Corpus":
        from ..train.corpus import open_corpus

        return open_corpus(self.names, source=self.source, target=self.target, skip_bad=self.skip_bad)

    def open_valid(self) -> "Corpus | None":
        from ..train.corpus import open_corpus

        return open_corpus([self.valid], skip_bad=self.skip_bad) if self.valid else None


@dataclass(frozen=True)
class _Wanted:
    """The configuration that was asked for: a preset or a file, and the options that change single values."""

    preset: str | None
    file: Path | None
    parameters: dict[str, Any]  # of the command, by name

    def fresh(self) -> "RunConfig":
        """For a new run."""
        from ..train.config import load_preset

        return self.on(load_preset("tiny"))

    def on(self, begun: "RunConfig") -> "RunConfig":
        """What `begun` becomes: it is the start only where neither a preset nor a file is given."""
        from ..train.config import load_config, load_preset

        if self.file is not None:
            begun = load_config(self.file)
        elif self.preset is not None:
            begun = load_preset(self.preset)
        return begun.changed(self.options)

    @property
    def options(self) -> dict[str, Any]:
        """The values of the configuration that options gave."""
        from ..train.config import option_names

        given = {name: self.parameters[name] for name in option_names() if name in self.parameters}
        return {name: value for name, value in given.items() if value is not None}

    def source(self, name: str) -> str:
        """What gave the value of `name`, as it stands on the command line."""
        if name in self.options:
            return f"--{name.replace('_', '-')}"
        return f"--config {self.file}" if self.file is not None else f"--preset {self.preset}"


def train(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files (.jsonl, .tsv, .csv, .txt, each also .gz) or packaged corpora: chitchat, chatterbot, "
            "chatterbot:german. Without any: chatterbot:english.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to write.", rich_help_panel=_RUN)] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Sizes and settings: tiny, small, base, classic.  [default: tiny]", rich_help_panel=_RUN
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of such settings, as the config.toml of a run; flags change single ones.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in --out from its last checkpoint.", rich_help_panel=_RUN
        ),
    ] = False,
    force: ForceOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what was read, the vocabulary and three samples; train nothing.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Try growing learning rates (Smith 2017) and suggest one; keep nothing.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(
            help="auto takes CUDA where PyTorch has it.",
            rich_help_panel=_RUN,
        ),
    ] = "auto",
    threads: Annotated[
        int | None, _number("CPU threads of PyTorch; a resume keeps the run's.", _RUN, min=1, max=1024)
    ] = None,
    json: JsonOption = False,
    source: Annotated[
        Path | None, typer.Option(help="Parallel text: one prompt a line.", rich_help_panel=_DATA)
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Parallel text: one reply a line.", rich_help_panel=_DATA)
    ] = None,
    valid: Annotated[
        str | None, typer.Option(help="Held-out data, in place of a fraction of DATA.", rich_help_panel=_DATA)
    ] = None,
    valid_fraction: Annotated[
        float | None, _number("Share of the dialogues that is held out.  [default: 0.05]", _DATA)
    ] = None,
    turns: Annotated[
        int | None,
        _number("Turns of a dialogue that the model sees, the prompt among them.  [default: 1]", _DATA),
    ] = None,
    targets: Annotated[
        Literal["all", "second"] | None,
        typer.Option(
            help="Turns that are learned; second: only the bot's, the user having begun.  [default: all]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Count and skip lines that cannot be read.", rich_help_panel=_DATA),
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Use this tokenizer.json; do not train one.", rich_help_panel=_DATA)
    ] = None,
    vocab_size: Annotated[
        int | None, _number("Tokens of the tokenizer that is trained.", _DATA, max=_LARGEST)
    ] = None,
    max_source: Annotated[int | None, _number("Longest source, in tokens.", _DATA)] = None,
    max_target: Annotated[int | None, _number("Longest reply, in tokens.", _DATA)] = None,
    layers: Annotated[int | None, _number("LSTM layers of encoder and of decoder.", _MODEL, max=64)] = None,
    hidden: Annotated[int | None, _number("Size of the LSTM states.", _MODEL, max=_WIDEST)] = None,
    embedding: Annotated[int | None, _number("Size of the token embedding.", _MODEL, max=_WIDEST)] = None,
    attention: Annotated[int | None, _number("Size of the attention keys.", _MODEL, max=_WIDEST)] = None,
    dropout: Annotated[
        float | None, _number("Share of values dropped between layers, and of the output.", _REGULARIZATION)
    ] = None,
    reverse_source: Annotated[
        bool | None,
        typer.Option(
            "--reverse-source/--no-reverse-source",
            help="Read the source backwards.  [default: reverse]",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    attention_kind: Annotated[
        Literal["bahdanau", "bahdanau-normed", "luong-dot", "luong-general", "scaled"] | None,
        typer.Option(
            help="How source words are weighed.  [default: bahdanau]",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    input_feeding: Annotated[
        bool | None,
        _switch(
            "input-feeding",
            "Feed the decoder its last attention vector; without, training is faster.  [default: feed]",
        ),
    ] = None,
    bidirectional: Annotated[
        bool | None, _switch("bidirectional", "Read the source both ways, half of --hidden each.")
    ] = None,
    residual: Annotated[
        bool | None, _switch("residual", "Add what a layer gives to what the next gives; from 2 layers on.")
    ] = None,
    layer_norm: Annotated[
        bool | None, _switch("layer-norm", "Normalize what goes from layer to layer; from 2 layers on.")
    ] = None,
    tied_output: Annotated[
        bool | None, _switch("tied-output", "Use the embedding as the output's weight, too.")
    ] = None,
    copy_attention: Annotated[
        bool | None, _switch("copy-attention", "Let replies take words from their prompt: names, numbers.")
    ] = None,
    pretrained_embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Begin with these word vectors, of --embedding numbers each: text (GloVe, word2vec), .gz, "
            ".safetensors.",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    embedding_dropout: Annotated[
        float | None, _number("Share of embedding values dropped.  [default: --dropout]", _REGULARIZATION)
    ] = None,
    attention_dropout: Annotated[
        float | None, _number("Share of the attention's weights dropped.  [default: 0]", _REGULARIZATION)
    ] = None,
    word_dropout: Annotated[
        float | None,
        _number("Share of words that become <unk> in source and fed reply.  [default: 0]", _REGULARIZATION),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        _number("Share of the target's probability that all words get.  [default: 0]", _REGULARIZATION),
    ] = None,
    scheduled_sampling: Annotated[
        float | None,
        _number("Share of fed words that are the model's own at the end.  [default: 0]", _REGULARIZATION),
    ] = None,
    weight_decay: Annotated[
        float | None, _number("Of matrices, for adamw and sgd.  [default: 0]", _REGULARIZATION)
    ] = None,
    ema: Annotated[
        float | None,
        _number(
            "Validate and export a moving average of this decay, as 0.999.  [default: none]", _REGULARIZATION
        ),
    ] = None,
    epochs: Annotated[int | None, _number("Passes over the training pairs.", _LENGTH)] = None,
    max_steps: Annotated[int | None, _number("End at this step.", _LENGTH)] = None,
    max_minutes: Annotated[
        float | None, _number("Stop after this time with a checkpoint that --resume continues.", _LENGTH)
    ] = None,
    early_stop: Annotated[
        Literal["loss", "perplexity", "exact-match", "bleu"] | None,
        typer.Option(
            help="End when this has not improved on the held-out pairs; it decides which checkpoint is best.",
            rich_help_panel=_LENGTH,
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None, _number("Validations that --early-stop waits.  [default: 5]", _LENGTH)
    ] = None,
    save_every: Annotated[
        int | None, _number("Steps between validations; each writes a checkpoint.", _LENGTH)
    ] = None,
    keep: Annotated[
        int | None,
        _number(
            "Checkpoints kept of the last, and of the best, to average at export.  [default: 1]", _LENGTH
        ),
    ] = None,
    batch_size: Annotated[int | None, _number("Pairs a batch.", _OPTIMIZATION)] = None,
    batch_tokens: Annotated[
        int | None,
        _number("Most tokens of a batch a side, padded; in place of --batch-size.", _OPTIMIZATION),
    ] = None,
    accumulate: Annotated[
        int | None, _number("Batches whose gradients make one step.  [default: 1]", _OPTIMIZATION)
    ] = None,
    optimizer: Annotated[
        Literal["adam", "adamw", "sgd"] | None,
        typer.Option(help="[default: adam]", rich_help_panel=_OPTIMIZATION, show_default=False),
    ] = None,
    momentum: Annotated[float | None, _number("Of sgd.  [default: 0]", _OPTIMIZATION)] = None,
    learning_rate: Annotated[
        float | None, _number("The highest that the schedule comes to.", _OPTIMIZATION)
    ] = None,
    schedule: Annotated[
        Literal["constant", "cosine", "inverse-sqrt", "plateau", "luong"] | None,
        typer.Option(
            help="How the learning rate goes on.",
            rich_help_panel=_OPTIMIZATION,
            show_default=False,
        ),
    ] = None,
    warmup_steps: Annotated[int | None, _number("Steps over which it rises.", _OPTIMIZATION)] = None,
    decay: Annotated[
        float | None, _number("Factor of a cut, for plateau and luong.  [default: 0.5]", _OPTIMIZATION)
    ] = None,
    decay_start: Annotated[
        int | None, _number("Step of luong's first cut.  [default: half of the steps]", _OPTIMIZATION)
    ] = None,
    decay_every: Annotated[
        int | None, _number("Steps between luong's cuts.  [default: a tenth of the steps]", _OPTIMIZATION)
    ] = None,
    plateau_patience: Annotated[
        int | None,
        _number("Validations without a lower loss before plateau cuts.  [default: 2]", _OPTIMIZATION),
    ] = None,
    clip: Annotated[
        float | None, _number("Global norm that gradients are clipped to.", _OPTIMIZATION)
    ] = None,
    amp: Annotated[
        Literal["auto", "off", "bf16", "fp16"] | None,
        typer.Option(
            help="Compute in 16 bits; auto: bf16 where the hardware has it.  [default: off]",
            rich_help_panel=_OPTIMIZATION,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _number("Of split, first weights and order.  [default: 0]", _OPTIMIZATION, min=0, max=_LARGEST),
    ] = None,
) -> None:
    """Train a model on dialogue data; Ctrl-C keeps what was learned and --resume goes on.

    A .jsonl line is {"prompt": ..., "response": ...} or {"turns": [...]}; .tsv and .csv have two columns;
    .txt has pairs of lines. The run folder keeps the last and the best checkpoint, metrics.jsonl and
    metrics.png. On the same machine the same command gives the same weights, also through kills and resumes.
    """
    from ..runtime.errors import UsageError
    from ..train.distributed import joined
    from ..train.run import is_run, open_run

    wanted = _Wanted(preset, config, context.params)
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"--max-minutes must be above 0, not {max_minutes}")
    if preset is not None and config is not None:
        raise UsageError(
            f"--preset {preset} and --config {config} are both a whole configuration: give one of them"
        )
    from_data = _Data(data or [], source, target, valid, tokenizer, skip_bad, pretrained_embeddings)
    if find_lr:
        if resume or dry_run or pretrained_embeddings:
            raise UsageError(
                "--find-lr trains a model that is not kept: it goes with DATA and settings alone"
            )
        set_torch_threads(threads)
        _find_learning_rate(wanted.fresh(), from_data, torch_device(device), json)
        return
    if dry_run:
        _show(_prepare(wanted.fresh(), from_data), json)
        return
    if out is None:
        raise UsageError("--out is missing: name the run folder to write, as in --out runs/mine")
    chosen = torch_device(device)
    set_torch_threads(threads)
    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: give one of them")
    if tokenizer and vocab_size is not None:
        raise UsageError("--vocab-size is of a tokenizer that is trained: it does not go with --tokenizer")
    if batch_size is not None and batch_tokens is not None:
        raise UsageError("--batch-tokens takes the place of --batch-size: give one of them")
    with joined(chosen) as world:
        goes_on = resume or (world.restarted and is_run(out))
        run = world.first_does(
            lambda: _open_or_create(
                out, wanted, from_data, chosen, world, resume=goes_on, force=force and not goes_on
            ),
            others=lambda: open_run(out),
        )
        _compare_environment(run, chosen, threads, world)
        result = _train(run, chosen, max_minutes, world)
        if world.writes:
            _report(run, result, json)
    if result.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _open_or_create(
    out: Path,
    wanted: _Wanted,
    data: _Data,
    device: str,
    world: "World",
    *,
    resume: bool,
    force: bool,
) -> "Run":
    """The run to train: continued with --resume, else new. Nothing is overwritten unasked."""
    from ..runtime.errors import UsageError
    from ..train.lock import RunLock
    from ..train.run import create_run, is_only_a_run, is_run

    there = out.exists() or out.is_symlink()
    if is_run(out):
        RunLock(out).release()  # nobody trains in it, so that it may be changed or replaced
    if resume and there:
        return _resumed(out, wanted, data)
    if resume and not data.given:
        raise UsageError(f"there is no run {out} to resume: give DATA to start one")
    if there:
        if not force:
            raise UsageError(
                f"{out} exists: --resume continues it, --force replaces it, or choose another --out"
            )
        if not is_only_a_run(out) and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"{out} is not a run, or holds other files too, so --force does not replace it: "
                "choose another --out"
            )
    config = wanted.fresh()
    check_writable(out)
    prepared = _prepare(config, data)
    for line in prepared.report.lines():
        say(line)
    corpus = {
        "name": ", ".join(source.name for source in prepared.report.sources),
        "sha256": prepared.report.sha256,
        "valid_sha256": _valid_sha256(prepared.report) if data.valid else None,
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
        replace=force,
    )


def _read_pretrained(config: "RunConfig", data: _Data, codec: "TextCodec") -> "Pretrained | None":
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


def _resumed(out: Path, wanted: _Wanted, data: _Data) -> "Run":
    """The run in `out`, if the options and the data given are those it was begun with. Only how long it
    goes on may change."""
    from ..runtime.errors import UsageError
    from ..train.checkpoint import has_checkpoint, last_step
    from ..train.pretrained import file_sha256
    from ..train.run import open_run
    from ..train.tokenizer import load_tokenizer

    run = open_run(out)
    changed = wanted.on(run.config).to_json()
    for part, values in run.config.to_json().items():
        for name, value in values.items():
            if changed[part][name] != value and name not in ("epochs", "max_steps"):
                given = wanted.source(name)
                raise UsageError(
                    f"{given} gives {name} {changed[part][name]}, but the run was begun with {value}: "
                    f"resume without {given}, or start another run"
                )
    valid = data.open_valid()
    for name, same in (
        ("DATA", not data.given or data.open().read().sha256 == run.corpus_sha256),
        ("--valid", valid is None or valid.read().sha256 == run.info["corpus"].get("valid_sha256")),
        (
            "--pretrained-embeddings",
            not data.pretrained or file_sha256(data.pretrained) == (run.pretrained or {}).get("sha256"),
        ),
        ("--tokenizer", not data.tokenizer or load_tokenizer(data.tokenizer) == run.tokenizer),
    ):
        if not same:
            raise UsageError(
                f"{name} is not what {out} was begun with: resume without it, or start another run"
            )
    length = {name: wanted.options.get(name) for name in ("epochs", "max_steps")}
    if has_checkpoint(out) and length["max_steps"] is not None:
        done = last_step(out)
        if length["max_steps"] < done:
            raise UsageError(f"--max-steps is {length['max_steps']}, but the run is at step {done} already")
    return run.with_length(**length) if any(length.values()) else run


def _prepare(config: "RunConfig", data: _Data) -> "Prepared":
    """Read, split, tokenize and encode the corpus, with a live count where stderr is a terminal."""
    from rich.console import Console

    from ..train.dataset import prepare
    from ..train.tokenizer import load_tokenizer

    console = Console(stderr=True)
    ready = load_tokenizer(data.tokenizer) if data.tokenizer else None
    with console.status("reading") as status:
        return prepare(
            data.open(),
            config.data,
            tokenizer=ready,
            valid=data.open_valid(),
            progress=lambda what, count: status.update(f"{what} {count:,}"),
        )


def _show(prepared: "Prepared", json: bool) -> None:
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


def _find_learning_rate(config: "RunConfig", data: _Data, device: str, json: bool) -> None:
    """The result of --find-lr: some of the rates that were tried, and the suggestion."""
    from ..train.finder import STEPS, find_learning_rate

    prepared = _prepare(config, data)
    with counting("trying", STEPS) as progress:
        found = find_learning_rate(
            config,
            prepared.train,
            prepared.codec.vocab_size,
            device,
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


def _compare_environment(run: "Run", device: str, threads: int | None, world: "World") -> None:
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


def _train(run: "Run", device: str, max_minutes: float | None, world: "World") -> "Result":
    from ..train.trainer import Trainer

    with stop_request() as should_stop, TrainingProgress(shown=world.writes) as display:
        trainer = Trainer(
            run,
            device=device,
            world=world,
            on_step=display.step,
            on_validation=display.validated,
            should_stop=should_stop,
            max_minutes=max_minutes,
        )
        display.begin(trainer, device)
        return trainer.train()


def _report(run: "Run", result: "Result", json: bool) -> None:
    """Say how it ended, and what comes next."""
    position = result.position
    say(f"{result.ended} at step {position.step:,} of {result.total_steps:,}")
    if json:
        put_json(
            {
                "run": str(run.folder),
                "ended": result.ended,
                "total_steps": result.total_steps,
                **asdict(position),
            }
        )
    if result.ended in ("finished", "stopped early"):
        say(f"next: edgechat export {run.folder} --out BUNDLE")
    else:
        say(f"go on with: edgechat train --resume --out {run.folder}")
