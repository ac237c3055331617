"""`edgechat train`: from data to a run folder. `training.py` shows what comes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..runtime.files import occupied
from ..train.choices import Amp, AttentionKind, DeviceName, Metric, Optimizer, Schedule, Targets
from .console import INTERRUPTED, check_stdout, check_writable, say
from .options import ForceOption, JsonOption, set_torch_threads, torch_device
from .progress import reading
from .training import compare_environment, find_learning_rate, say_end, show_corpus, train_run

if TYPE_CHECKING:
    from ..train.run import Run

_RUN, _DATA = "Run", "Data"
_MODEL, _OPTIMIZATION, _REGULARIZATION, _LENGTH = (
    f"{panel} (default: the preset's)" for panel in ("Model", "Optimisation", "Regularisation", "Length")
)


def register(app: typer.Typer) -> None:
    app.command()(train)


def _number(help: str, panel: str) -> Any:
    """From where to where it goes is in train/ranges.py, for files too."""
    return typer.Option(help=help, rich_help_panel=panel, show_default=False)


def _switch(name: str, help: str) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=help, rich_help_panel=_MODEL, show_default=False)


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
            readable=False,
            help="A TOML file of settings, on top of the preset that it names, else of --from-run, else of "
            "tiny, and with a section [run] of data and --out too; flags change single ones.",
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
    from_run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Begin with the weights of this run, its tokenizer and its settings, except those that "
            "depend on its length, such as --max-steps and --early-stop, and learn DATA.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Of --from-run: best (on held-out pairs) or last; best:N or last:N averages so many.  "
            "[default: best]",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
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
        DeviceName | None,
        typer.Option(
            help="auto takes CUDA where PyTorch has it.  [default: auto]",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int | None, _number("CPU threads of PyTorch; a resume keeps the run's.", _RUN)] = None,
    json: JsonOption = False,
    source: Annotated[
        Path | None,
        typer.Option(help="Parallel text: one prompt a line.", readable=False, rich_help_panel=_DATA),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(help="Parallel text: one reply a line.", readable=False, rich_help_panel=_DATA),
    ] = None,
    valid: Annotated[
        str | None, typer.Option(help="Held-out data, in place of a fraction of DATA.", rich_help_panel=_DATA)
    ] = None,
    valid_source: Annotated[
        Path | None,
        typer.Option(help="Held out of parallel text: prompts.", readable=False, rich_help_panel=_DATA),
    ] = None,
    valid_target: Annotated[
        Path | None,
        typer.Option(help="Held out of parallel text: replies.", readable=False, rich_help_panel=_DATA),
    ] = None,
    valid_fraction: Annotated[
        float | None, _number("Share of the dialogues that is held out.  [default: 0.05]", _DATA)
    ] = None,
    turns: Annotated[
        int | None,
        _number("Turns of a dialogue that the model sees, the prompt among them.  [default: 1]", _DATA),
    ] = None,
    targets: Annotated[
        Targets | None,
        typer.Option(
            help="Turns that are learned; second: only the bot's, the user having begun.  [default: all]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    lowercase: Annotated[
        bool | None,
        typer.Option(
            "--lowercase/--no-lowercase",
            help="Read prompts in lower case, however they are typed; replies keep their case.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Count and skip lines that cannot be read.", rich_help_panel=_DATA),
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Use this tokenizer.json, such as that of another run; do not train one.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    vocab_size: Annotated[int | None, _number("Tokens of the tokenizer that is trained.", _DATA)] = None,
    max_source: Annotated[int | None, _number("Longest source, in tokens.", _DATA)] = None,
    max_target: Annotated[int | None, _number("Longest reply, in tokens.", _DATA)] = None,
    layers: Annotated[int | None, _number("LSTM layers of encoder and of decoder.", _MODEL)] = None,
    hidden: Annotated[int | None, _number("Size of the LSTM states.", _MODEL)] = None,
    embedding: Annotated[int | None, _number("Size of the token embedding.", _MODEL)] = None,
    attention: Annotated[int | None, _number("Size of the attention keys.", _MODEL)] = None,
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
        AttentionKind | None,
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
            readable=False,
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
        _number(
            "Share of words that become the unknown token in source and fed reply.  [default: 0]",
            _REGULARIZATION,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        _number("Share of the target's probability that all words get.  [default: 0]", _REGULARIZATION),
    ] = None,
    scheduled_sampling: Annotated[
        float | None,
        _number("Share of fed words that are the model's own at the end.  [default: 0]", _REGULARIZATION),
    ] = None,
    bpe_dropout: Annotated[
        float | None,
        _number(
            "Cut training text into other tokens each epoch; 0.1 is usual.  [default: 0]", _REGULARIZATION
        ),
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
        Metric | None,
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
        Optimizer | None,
        typer.Option(help="[default: adam]", rich_help_panel=_OPTIMIZATION, show_default=False),
    ] = None,
    momentum: Annotated[float | None, _number("Of sgd.  [default: 0]", _OPTIMIZATION)] = None,
    learning_rate: Annotated[
        float | None, _number("The highest that the schedule comes to.", _OPTIMIZATION)
    ] = None,
    schedule: Annotated[
        Schedule | None,
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
        _number(
            "Validations without a lower loss (held-out, else training) before plateau cuts.  [default: 2]",
            _OPTIMIZATION,
        ),
    ] = None,
    clip: Annotated[
        float | None, _number("Global norm that gradients are clipped to.", _OPTIMIZATION)
    ] = None,
    amp: Annotated[
        Amp | None,
        typer.Option(
            help="Compute in 16 bits; auto: bf16 where the hardware has it.  [default: off]",
            rich_help_panel=_OPTIMIZATION,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _number("Of split, first weights, order, and all that is drawn.  [default: 0]", _OPTIMIZATION),
    ] = None,
) -> None:
    """Train a model on dialogue data; Ctrl-C keeps what was learned and --resume goes on.

    A .jsonl line is {"prompt": ..., "response": ...}, {"turns": [...]} or {"messages": [...]}; .tsv and .csv
    have two columns; .txt has pairs of lines. The run folder keeps the last and the best checkpoint,
    metrics.jsonl and metrics.png. On the same machine the same command gives the same weights, also through
    kills and resumes.
    """
    from ..runtime.errors import UsageError
    from ..train.begin import new_beginning, open_or_create
    from ..train.distributed import is_first, joined
    from ..train.run import open_run
    from ..train.wanted import Wanted

    wanted = Wanted.of(context.params)
    options = wanted.options
    if (find_lr or dry_run) and not is_first():
        return  # one is enough for it
    if find_lr:
        set_torch_threads(options.threads)
        found = new_beginning(wanted, say=say, reading=reading)
        find_learning_rate(found, torch_device(options.device), json)
        return
    if dry_run:
        shown = new_beginning(wanted, say=say, reading=reading)
        show_corpus(shown.prepared, json)
        for line in shown.remarks():
            say(line)
        return
    if options.out is None:
        raise UsageError("--out is missing: name the run folder to write, as in --out runs/mine")
    if json:
        check_stdout()
    run_folder, chosen = options.out, torch_device(options.device)
    set_torch_threads(options.threads)
    with joined(chosen) as world:

        def begin() -> "Run":
            goes_on = resume or world.begun
            if not (goes_on and run_folder.exists()):
                occupied(run_folder)  # refuses the folder that one stands in
                check_writable(run_folder)
            run = open_or_create(
                run_folder,
                wanted,
                chosen,
                processes=world.size,
                resume=goes_on,
                force=force and not goes_on,
                say=say,
                reading=reading,
            )
            world.remember_begun()
            return run

        run = world.first_does(begin, others=lambda: open_run(run_folder))
        compare_environment(run, chosen, options.threads, world)
        result = train_run(run, chosen, options.max_minutes, world)
        if world.writes:
            say_end(run, result, json)
    if result.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)
