"""`edgechat train`: from data to a run folder. `train_output.py` prints the results."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..runtime.atomic_write import would_overwrite
from ..train.option_types import (
    AmpMode,
    AttentionKind,
    DeviceName,
    MetricName,
    OptimizerName,
    ScheduleName,
    TargetTurns,
)
from .console import print_stderr
from .errors import EXIT_INTERRUPTED
from .options import ForceOption, JsonOption
from .output_path import check_writable
from .progress import reading_progress
from .pytorch import set_torch_threads, torch_device
from .train_output import find_learning_rate, print_training_end, set_up_environment, show_plan, train_run

if TYPE_CHECKING:
    from ..train.run import Run

_RUN, _DATA = "Run", "Data"
_MODEL, _OPTIMIZATION, _REGULARIZATION, _LENGTH = (
    f"{panel} (default: the preset's)"
    for panel in ("Model", "Optimization", "Regularization", "Length of training")
)


def register(app: typer.Typer) -> None:
    app.command()(train)


def _number_option(help: str, panel: str) -> Any:
    """A numeric option. Its range is checked by train/ranges.py, which also checks configuration files."""
    return typer.Option(help=help, rich_help_panel=panel, show_default=False)


def _switch_option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=help, rich_help_panel=_MODEL, show_default=False)


def train(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="Files (.jsonl, .tsv, .csv, .txt, also with .gz) or packaged corpora (chitchat, chatterbot, "
            "chatterbot:german).  [default: chatterbot:english]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", rich_help_panel=_RUN)] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Default sizes and settings: tiny, small, base or classic.  [default: tiny]",
            rich_help_panel=_RUN,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="TOML file of settings. It overrides the preset that it names, else the settings of "
            "--from-run, else tiny; options override the file. Its section [run] may name data and --out.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out from its last checkpoint.", rich_help_panel=_RUN
        ),
    ] = False,
    from_run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Start from the weights, tokenizer and settings of this run, except those that depend on "
            "its length (such as --max-steps, --early-stop and --warmup-steps), and train on DATA.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of --from-run: best (on the held-out pairs) or last; best:N or last:N averages "
            "N of them.  [default: best]",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what was read, the vocabulary and three samples, without training.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Try increasing learning rates (Smith 2017) and suggest one; nothing is saved.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    device: Annotated[
        DeviceName | None,
        typer.Option(
            help="auto: CUDA if PyTorch finds it, else the CPU.  [default: auto]",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        _number_option("CPU threads of PyTorch.  [default: PyTorch's; the run's with --resume]", _RUN),
    ] = None,
    json: JsonOption = False,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Parallel text: file with one prompt per line.", readable=False, rich_help_panel=_DATA
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            help="Parallel text: file with one reply per line.", readable=False, rich_help_panel=_DATA
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(help="Held-out data, instead of a fraction of DATA.", rich_help_panel=_DATA),
    ] = None,
    valid_source: Annotated[
        Path | None,
        typer.Option(
            help="Held-out parallel text: file with one prompt per line.",
            readable=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    valid_target: Annotated[
        Path | None,
        typer.Option(
            help="Held-out parallel text: file with one reply per line.",
            readable=False,
            rich_help_panel=_DATA,
        ),
    ] = None,
    valid_fraction: Annotated[
        float | None, _number_option("Fraction of the dialogues that is held out.  [default: 0.05]", _DATA)
    ] = None,
    turns: Annotated[
        int | None,
        _number_option(
            "Turns of the dialogue that the model reads, including the prompt.  [default: 1]", _DATA
        ),
    ] = None,
    targets: Annotated[
        TargetTurns | None,
        typer.Option(
            help="Turns to learn; second: only every second turn, the bot's.  [default: all]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    lowercase: Annotated[
        bool | None,
        typer.Option(
            "--lowercase/--no-lowercase",
            help="Convert prompts to lower case, in training and in the bundle; replies keep their case.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Skip lines that cannot be read; report how many and the first.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Use this tokenizer.json, such as that of another run, instead of training one.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, _number_option("Vocabulary size of the trained tokenizer.", _DATA)
    ] = None,
    max_source: Annotated[
        int | None, _number_option("Longest source, in tokens; a longer one loses its oldest text.", _DATA)
    ] = None,
    max_target: Annotated[
        int | None, _number_option("Longest reply, in tokens, its end included; longer ones are cut.", _DATA)
    ] = None,
    layers: Annotated[
        int | None, _number_option("LSTM layers of the encoder, and of the decoder.", _MODEL)
    ] = None,
    hidden: Annotated[int | None, _number_option("Size of the LSTM states.", _MODEL)] = None,
    embedding: Annotated[int | None, _number_option("Size of the token embedding.", _MODEL)] = None,
    attention: Annotated[int | None, _number_option("Size of the attention keys.", _MODEL)] = None,
    dropout: Annotated[
        float | None,
        _number_option("Fraction of values dropped between layers and in the output.", _REGULARIZATION),
    ] = None,
    reverse_source: Annotated[
        bool | None,
        typer.Option(
            "--reverse-source/--no-reverse-source",
            help="Encode the source backwards.  [default: reverse-source]",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    attention_kind: Annotated[
        AttentionKind | None,
        typer.Option(
            help="Scoring function of the attention.  [default: bahdanau]",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    input_feeding: Annotated[
        bool | None,
        _switch_option(
            "input-feeding",
            "Feed the decoder its previous attention vector; training is faster without.  "
            "[default: input-feeding]",
        ),
    ] = None,
    bidirectional: Annotated[
        bool | None,
        _switch_option("bidirectional", "Encode the source in both directions, with half of --hidden each."),
    ] = None,
    residual: Annotated[
        bool | None,
        _switch_option("residual", "Residual connections between layers; needs 2 layers or more."),
    ] = None,
    layer_norm: Annotated[
        bool | None,
        _switch_option("layer-norm", "Layer normalization between layers; needs 2 layers or more."),
    ] = None,
    tied_output: Annotated[
        bool | None,
        _switch_option("tied-output", "Use the embedding matrix as the weight of the output layer."),
    ] = None,
    copy_attention: Annotated[
        bool | None,
        _switch_option(
            "copy-attention", "Let replies copy words from their prompt, such as names and numbers."
        ),
    ] = None,
    pretrained_embeddings: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Initialize the embedding from these word vectors of --embedding dimensions: text (GloVe, "
            "word2vec; also .gz) or .safetensors.",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None,
    embedding_dropout: Annotated[
        float | None,
        _number_option("Fraction of embedding values dropped.  [default: --dropout]", _REGULARIZATION),
    ] = None,
    attention_dropout: Annotated[
        float | None, _number_option("Fraction of attention weights dropped.  [default: 0]", _REGULARIZATION)
    ] = None,
    word_dropout: Annotated[
        float | None,
        _number_option(
            "Fraction of source and decoder-input tokens replaced by the unknown token.  [default: 0]",
            _REGULARIZATION,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        _number_option(
            "Fraction of the target probability spread over all tokens.  [default: 0]", _REGULARIZATION
        ),
    ] = None,
    scheduled_sampling: Annotated[
        float | None,
        _number_option(
            "Fraction of decoder inputs that are the model's own by the end of training.  [default: 0]",
            _REGULARIZATION,
        ),
    ] = None,
    bpe_dropout: Annotated[
        float | None,
        _number_option(
            "Probability that a BPE merge is skipped in training text; 0.1 is usual.  [default: 0]",
            _REGULARIZATION,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        _number_option("Weight decay of matrices, for adamw and sgd.  [default: 0]", _REGULARIZATION),
    ] = None,
    ema: Annotated[
        float | None,
        _number_option(
            "Decay of a moving average of the weights, which is validated and exported; 0.999 is usual.  "
            "[default: none]",
            _REGULARIZATION,
        ),
    ] = None,
    epochs: Annotated[int | None, _number_option("Number of passes over the training data.", _LENGTH)] = None,
    max_steps: Annotated[
        int | None, _number_option("Number of steps after which training ends.", _LENGTH)
    ] = None,
    max_minutes: Annotated[
        float | None,
        _number_option("Stop after this many minutes, with a checkpoint that --resume continues.", _LENGTH),
    ] = None,
    early_stop: Annotated[
        MetricName | None,
        typer.Option(
            help="Stop when this metric no longer improves on the held-out pairs; it also selects the best "
            "checkpoint. exact-match, bleu and chrf are of greedy replies to at most 200 of the pairs.",
            rich_help_panel=_LENGTH,
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        _number_option(
            "Validations without improvement before --early-stop ends the run.  [default: 5]", _LENGTH
        ),
    ] = None,
    save_every: Annotated[
        int | None, _number_option("Steps between validations, each of which writes a checkpoint.", _LENGTH)
    ] = None,
    keep: Annotated[
        int | None,
        _number_option(
            "Number of last and of best checkpoints to keep, to average at export.  [default: 1]", _LENGTH
        ),
    ] = None,
    batch_size: Annotated[int | None, _number_option("Pairs per batch.", _OPTIMIZATION)] = None,
    batch_tokens: Annotated[
        int | None,
        _number_option(
            "Most source and most target tokens per batch, including padding; instead of --batch-size.",
            _OPTIMIZATION,
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        _number_option("Batches whose gradients are accumulated for one step.  [default: 1]", _OPTIMIZATION),
    ] = None,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="Optimizer.  [default: adam]", rich_help_panel=_OPTIMIZATION, show_default=False),
    ] = None,
    momentum: Annotated[float | None, _number_option("Momentum of sgd.  [default: 0]", _OPTIMIZATION)] = None,
    adam_beta1: Annotated[
        float | None,
        _number_option("adam, adamw: decay of the mean gradient.  [default: 0.9]", _OPTIMIZATION),
    ] = None,
    adam_beta2: Annotated[
        float | None,
        _number_option("adam, adamw: decay of the mean squared gradient.  [default: 0.999]", _OPTIMIZATION),
    ] = None,
    adam_epsilon: Annotated[
        float | None,
        _number_option("adam, adamw: added to the divisor of a step.  [default: 1e-8]", _OPTIMIZATION),
    ] = None,
    learning_rate: Annotated[
        float | None, _number_option("Highest learning rate of the schedule.", _OPTIMIZATION)
    ] = None,
    schedule: Annotated[
        ScheduleName | None,
        typer.Option(
            help="Schedule of the learning rate.",
            rich_help_panel=_OPTIMIZATION,
            show_default=False,
        ),
    ] = None,
    warmup_steps: Annotated[
        int | None,
        _number_option("Steps over which the learning rate rises linearly at the start.", _OPTIMIZATION),
    ] = None,
    decay: Annotated[
        float | None,
        _number_option("Factor of each decay of plateau and luong.  [default: 0.5]", _OPTIMIZATION),
    ] = None,
    decay_start: Annotated[
        int | None,
        _number_option("Step of luong's first decay.  [default: half of the steps]", _OPTIMIZATION),
    ] = None,
    decay_every: Annotated[
        int | None,
        _number_option("Steps between luong's decays.  [default: a tenth of the steps]", _OPTIMIZATION),
    ] = None,
    plateau_patience: Annotated[
        int | None,
        _number_option(
            "Validations without a lower loss (held-out, else training) before plateau decays.  [default: 2]",
            _OPTIMIZATION,
        ),
    ] = None,
    clip: Annotated[
        float | None,
        _number_option(
            "Largest global norm of the gradients; larger ones are scaled down to it.", _OPTIMIZATION
        ),
    ] = None,
    amp: Annotated[
        AmpMode | None,
        typer.Option(
            help="Mixed precision in 16 bits; auto: bf16 if the hardware supports it.  [default: off]",
            rich_help_panel=_OPTIMIZATION,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _number_option(
            "Seed of the held-out split, initial weights, batch order and everything random.  [default: 0]",
            _OPTIMIZATION,
        ),
    ] = None,
) -> None:
    """Train a model on dialogue data. Ctrl-C stops with a checkpoint, and --resume continues.

    A .jsonl line is {"prompt": ..., "response": ...}, {"turns": [...]} or {"messages": [...]}; .tsv and .csv
    have two columns; .txt has pairs of lines. The run folder holds the last and the best checkpoint,
    metrics.jsonl and metrics.png. On the same machine, the same command gives the same weights, even if it is
    killed and resumed.

    --json prints run, ended (finished, stopped early, out of time or interrupted), step, total_steps,
    total_steps_exact (false: total_steps is an estimate), epoch (passes over the data: 2.5 is half of the
    third), best_step and best_loss. With --dry-run it prints report, weights, steps, steps_exact, config,
    vocabulary and samples, and with --find-lr suggestion and tried.
    """
    from ..runtime.errors import UsageError
    from ..train.distributed import is_first_process, join_process_group
    from ..train.request import TrainingRequest
    from ..train.run import open_run
    from ..train.start_run import open_or_create, prepare_run_inputs

    request = TrainingRequest.from_options(context.params)
    options = request.options
    if (find_lr or dry_run) and not is_first_process():
        return  # one process does it alone
    if find_lr:
        set_torch_threads(options.threads)
        found = prepare_run_inputs(request, say=print_stderr, reading=reading_progress)
        find_learning_rate(found, torch_device(options.device), json)
        return
    if dry_run:
        shown = prepare_run_inputs(request, say=print_stderr, reading=reading_progress)
        show_plan(shown, json)
        for line in shown.remarks():
            print_stderr(line)
        return
    if options.out is None:
        meant = options.data[0] if resume and len(options.data) == 1 else "runs/mine"
        raise UsageError(f"--out is missing: name the run folder to write, as in --out {meant}")
    run_folder, chosen_device = options.out, torch_device(options.device)
    set_torch_threads(options.threads)
    with join_process_group(chosen_device) as world:

        def begin() -> "Run":
            continues = resume or world.run_started
            if not (continues and run_folder.exists()):
                would_overwrite(run_folder)  # raises an error for the current folder
                check_writable(run_folder)
            run = open_or_create(
                run_folder,
                request,
                chosen_device,
                processes=world.size,
                resume=continues,
                force=force and not continues,
                say=print_stderr,
                reading=reading_progress,
            )
            world.record_run_started()
            return run

        run = world.run_first_then_others(begin, others=lambda: open_run(run_folder))
        set_up_environment(run, chosen_device, options.threads, world)
        result = train_run(run, chosen_device, options.max_minutes, world)
        if world.is_first:
            print_training_end(run, result, world, json)
    if result.ended == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)
