"""`edgechat eval`: how good a model is."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..runtime import ChatModel, UsageError
from ..runtime.atomic_write import write_atomic
from ..runtime.bundle import is_run
from ..runtime.display import plural
from ..train.option_types import TargetTurns
from .console import json_line, print_json, print_stderr, print_table
from .describe import describe_checkpoint, format_perplexity
from .options import DeviceOption, ForceOption, JsonOption, RequireSignatureOption
from .output_path import check_file
from .progress import progress_bar
from .pytorch import set_torch_threads, torch_device
from .search_options import (
    DEFAULTS,
    LengthPenaltyOption,
    Normalization,
    RepliesOption,
    beam_option,
    decoding_options,
    given_options,
    normalize_option,
)

if TYPE_CHECKING:
    from ..train.corpus import Corpus
    from ..train.dialogue import Pair
    from ..train.evaluation import Evaluation

#: With fewer pairs, a note says how little the figures tell.
_MIN_INFORMATIVE_PAIRS = 20
_DATA_HINT = "name the pairs with --data pairs.jsonl, or with --source and --target"
#: The longest n-grams that BLEU counts, in words.
_BLEU_ORDER = 4


def register(app: typer.Typer) -> None:
    app.command(name="eval")(evaluate)


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A run folder (PyTorch) or a bundle.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="File or packaged corpus, as for `edgechat train`; may be given more than once.  "
            "[default: the run's held-out pairs]",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Parallel text: file with one prompt per line.", readable=False),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Parallel text: file with one reply per line.", readable=False)
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of a run: best or last; best:N or last:N averages N of them.  [default: best]",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most pairs to use, from the first on.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    tokenize: Annotated[
        Literal["13a", "none", "intl", "char", "zh"],
        typer.Option(help="Tokenizer of sacrebleu; none: the text is tokenized already."),
    ] = "13a",
    targets: Annotated[
        TargetTurns | None,
        typer.Option(
            help="Turns of the dialogues to predict; second: only every second turn, the bot's.  "
            "[default: the run's; all for a bundle]",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Skip lines of the data that cannot be read; report how many and the first."
        ),
    ] = False,
    beam: Annotated[int | None, beam_option(f"the bundle's; {DEFAULTS.beam} for a run")] = None,
    normalize: Annotated[
        Normalization | None, normalize_option(f"the bundle's; {DEFAULTS.normalize} for a run")
    ] = None,
    length_penalty: LengthPenaltyOption = None,
    replies: RepliesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the replies to this .jsonl file: turns, reference, reply, score and confidence "
            "of each pair.",
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Threads of ONNX Runtime, or of PyTorch for a run."),
    ] = 1,
) -> None:
    """Measure a run or a bundle on pairs of prompt and reply.

    Shown are perplexity, exact match, BLEU and chrF (with sacrebleu's signature), distinct-1 and -2, the mean
    length of the replies, the share of replies that were not cut at the length limit, and the most common
    reply.

    For a calibrated bundle, also how good its confidence is: for each threshold 0.5, 0.8, 0.9 and 0.95, how
    many replies reach it and how many of those are right; and the expected calibration error.
    """
    from ..train.corpus import open_corpus
    from ..train.evaluation import evaluate as run_evaluation

    if out is not None:
        _check_out(out, force)
    elif force:
        raise UsageError("--force needs --out, which is not given")
    if model != "demo" and not os.path.lexists(model):
        raise UsageError(
            f"there is no run or bundle {model or repr(model)}: give a folder or file that exists"
        )
    has_data = bool(data) or source is not None or target is not None
    if is_run(Path(model)):
        from ..train.run import open_run

        if require_signature is not None:
            raise UsageError(f"--require-signature needs a bundle, but {model} is a run: a run is not signed")
        run = open_run(Path(model))
        set_torch_threads(threads)
        checkpoint = checkpoint or "best"
        chat, position = run.load_chat_model(checkpoint, device=torch_device(device))
        provenance = {"checkpoint": checkpoint, "steps": position.step}
        targets_of_model = run.config.data.targets
        pairs = None if has_data else run.valid_texts()
        if not has_data and not pairs:
            raise UsageError(f"--data is missing, and {model} held out no pairs: {_DATA_HINT}")
    else:
        if checkpoint is not None:
            raise UsageError(f"--checkpoint needs a run, but {model} is a bundle, which holds one model")
        chat = ChatModel.load(model, device=device, threads=threads, require_signature=require_signature)
        provenance = chat.manifest.provenance if chat.manifest else {}
        targets_of_model, pairs = "all", None
        if not has_data:
            raise UsageError(f"--data is missing, and a bundle holds no held-out pairs: {_DATA_HINT}")
    if not has_data and targets is not None:
        raise UsageError("--targets needs --data: the targets of held-out pairs were chosen in training")
    if not has_data and skip_bad:
        raise UsageError("--skip-bad needs --data: held-out pairs have no bad lines")
    if pairs is None:
        corpus = open_corpus(data or [], source=source, target=target, skip_bad=skip_bad)
        pairs = _read_pairs(corpus, chat.codec.turns, targets or targets_of_model)
    pairs = pairs[:limit]
    if 0 < len(pairs) < _MIN_INFORMATIVE_PAIRS:
        print_stderr(f"note: only {plural(len(pairs), 'pair')}: the figures say little about other data")
    options = decoding_options(chat.defaults, **given_options(context))
    with progress_bar("evaluating", 2 * len(pairs)) as progress:
        result = run_evaluation(
            chat, pairs, options, batch_size=batch_size, tokenize=tokenize, progress=progress
        )
    if out is not None:
        write_atomic(out, "".join(f"{json_line(asdict(reply))}\n" for reply in result.replies), replace=force)
        print_stderr(f"wrote {out}, {plural(len(result.replies), 'reply')}")
    if json:
        which = {name: provenance.get(name) for name in ("checkpoint", "steps")}
        print_json({"model": model, **which, "device": chat.device, **result.to_json()})
        return
    confidence = []
    if result.confidence is not None:
        confidence = [
            (f"confidence ≥ {each.at_least}", _describe_answered(each.answered, each.right, result.pairs))
            for each in result.confidence.answered
        ]
        confidence.append(("calibration error", f"{result.confidence.expected_error:.3f}"))
    print_table(
        [
            ("model", f"{model}, {describe_checkpoint(provenance)}"),
            ("pairs", f"{result.pairs:,}"),
            ("perplexity", format_perplexity(result.perplexity)),
            ("exact match", f"{result.exact_match:.2%}"),
            *confidence,
            ("BLEU", f"{_bleu(result)}  ({result.bleu_signature})"),
            ("chrF", f"{result.chrf:.2f}  ({result.chrf_signature})"),
            ("distinct-1, -2", f"{result.distinct_1:.4f}, {result.distinct_2:.4f}"),
            ("mean length", f"{result.mean_length:.1f} words"),
            ("not cut", f"{result.eos_rate:.1%} of replies"),
            ("most common reply", f"{result.most_common_share:.1%}: {result.most_common_reply!r}"),
            (
                "truncated",
                f"{result.truncated_prompts:,} prompts, {result.truncated_targets:,} reference replies",
            ),
            ("device", chat.device),
            ("time", f"{result.seconds:.1f} s"),
        ]
    )


def _check_out(out: Path, force: bool) -> None:
    """Raise an error, before the work, where the replies cannot be written to `out`."""
    check_file("--out", out)
    if out.exists() and not force:
        raise UsageError(f"{out} exists: choose another --out, or give --force to replace it")


def _bleu(result: "Evaluation") -> str:
    if result.bleu == 0 and result.mean_length < _BLEU_ORDER:
        return f"not meaningful for replies of fewer than {_BLEU_ORDER} words"
    return f"{result.bleu:.2f}"


def _describe_answered(answered: int, right: int, pairs: int) -> str:
    """How many replies `--abstain-below` would print, and how many of those are right."""
    right_note = f", {right:,} of them right ({right / answered:.1%})" if answered else ""
    return f"{answered:,} of {pairs:,} answered{right_note}"


def _read_pairs(corpus: "Corpus", turns: int, targets: TargetTurns) -> "list[Pair]":
    """The pairs of a corpus. What was dropped or ignored is printed to stderr."""
    from ..train.dialogue import extract_pairs

    pairs = [pair for dialogue in corpus for pair in extract_pairs(dialogue, turns=turns, targets=targets)]
    for line in corpus.report.dropped_lines():
        print_stderr(f"dropped  {line}")
    for key, count in corpus.report.ignored_keys.items():
        print_stderr(f"ignored  {count:,} × the key {key}")
    return pairs
