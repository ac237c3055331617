"""`edgechat eval`: how good a model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..runtime import ChatModel, UsageError
from ..runtime.bundle import is_run
from ..train.choices import Targets
from .console import put_json, put_table, say
from .inspect import checkpoint_shown
from .options import (
    PLAIN,
    DeviceOption,
    JsonOption,
    LengthPenaltyOption,
    Normalization,
    RepliesOption,
    RequireSignatureOption,
    beam_option,
    decoding_options,
    given_options,
    normalize_option,
    set_torch_threads,
    torch_device,
)
from .progress import counting

if TYPE_CHECKING:
    from ..train.corpus import Corpus
    from ..train.dialogue import Pair

_FEW = 20
_AS_IN = "--data pairs.jsonl, or --source and --target"
#: Words in a row that BLEU counts.
_BLEU_WORDS = 4


def register(app: typer.Typer) -> None:
    app.command(name="eval")(evaluate)


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A run folder (PyTorch) or a bundle.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="File or packaged corpus, as for `edgechat train`.  [default: the run's held-out pairs]"
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Parallel text: one prompt a line.", readable=False),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Parallel text: one reply a line.", readable=False)
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Of a run: best, last, or an average, best:N or last:N.  [default: best]", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use the first pairs only.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    tokenize: Annotated[
        Literal["13a", "none", "intl", "char", "zh"],
        typer.Option(help="sacrebleu's tokenizer; none is for text that is tokenised already."),
    ] = "13a",
    targets: Annotated[
        Targets | None,
        typer.Option(
            help="Turns of the dialogues in the data to reply to.  [default: all]", show_default=False
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count and skip lines of the data that cannot be read.")
    ] = False,
    beam: Annotated[int | None, beam_option(f"the bundle's, of a run {PLAIN.beam}")] = None,
    normalize: Annotated[
        Normalization | None, normalize_option(f"the bundle's, of a run {PLAIN.normalize}")
    ] = None,
    length_penalty: LengthPenaltyOption = None,
    replies: RepliesOption = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Threads of ONNX Runtime; for a run of PyTorch."),
    ] = 1,
) -> None:
    """Measure a model on pairs: perplexity, exact match, BLEU and chrF (sacrebleu, with its signature),
    distinct-1 and -2, length, how many replies end by themselves, and the share of the commonest reply.

    Of a calibrated bundle also what its confidence is worth here: how many replies have at least 0.5, 0.8,
    0.9 and 0.95, how many of these are right, and the expected calibration error.
    """
    from ..train.corpus import open_corpus
    from ..train.evaluate import evaluate as run_evaluation

    named = data is not None or source is not None or target is not None
    if is_run(Path(model)):
        from ..train.run import open_run

        if require_signature is not None:
            raise UsageError("--require-signature is of a bundle: a run is not signed")
        run = open_run(Path(model))
        set_torch_threads(threads)
        checkpoint = checkpoint or "best"
        chat = run.chat_model(checkpoint, device=torch_device(device))
        made_of = {"checkpoint": checkpoint, "steps": run.step(checkpoint)}
        pairs = None if named else run.held_out()
        if not named and not pairs:
            raise UsageError(f"--data is missing: {model} held out no pairs, so name a file: {_AS_IN}")
    else:
        if checkpoint is not None:
            raise UsageError("--checkpoint is of a run: a bundle holds one model")
        chat = ChatModel.load(model, device=device, threads=threads, require_signature=require_signature)
        made_of = chat.manifest.provenance if chat.manifest else {}
        pairs = None
        if not named:
            raise UsageError(f"--data is missing: a bundle holds no held-out pairs, so name a file: {_AS_IN}")
    if not named and targets is not None:
        raise UsageError("--targets goes with --data: held-out pairs are what they are")
    if not named and skip_bad:
        raise UsageError("--skip-bad goes with --data: held-out pairs were read already")
    if pairs is None:
        corpus = open_corpus([] if data is None else [data], source=source, target=target, skip_bad=skip_bad)
        pairs = _pairs(corpus, chat.codec.turns, targets or "all")
    pairs = pairs[:limit]
    if 0 < len(pairs) < _FEW:
        say(f"with so few pairs ({len(pairs)}) the figures say little of others")
    options = decoding_options(chat.defaults, **given_options(context))
    with counting("evaluating", 2 * len(pairs)) as progress:
        result = run_evaluation(
            chat, pairs, options, batch_size=batch_size, tokenize=tokenize, progress=progress
        )
    if result.bleu == 0 and result.mean_length < _BLEU_WORDS:
        say(f"BLEU counts {_BLEU_WORDS} words in a row: of replies as short as these it says nothing")
    if json:
        which = {name: made_of.get(name) for name in ("checkpoint", "steps")}
        put_json({"model": model, **which, "device": chat.device, **result.to_json()})
        return
    trust = []
    if result.confidence is not None:
        trust = [
            (f"confidence ≥ {each.at_least}", _answered(each.answered, each.right, result.pairs))
            for each in result.confidence.answered
        ]
        trust.append(("expected error", f"{result.confidence.expected_error:.3f}"))
    put_table(
        [
            ("model", f"{model}, {checkpoint_shown(made_of)}"),
            ("pairs", f"{result.pairs:,}"),
            ("perplexity", f"{result.perplexity:.3f}"),
            ("exact match", f"{result.exact_match:.2%}"),
            *trust,
            ("BLEU", f"{result.bleu:.2f}  ({result.bleu_signature})"),
            ("chrF", f"{result.chrf:.2f}  ({result.chrf_signature})"),
            ("distinct-1, -2", f"{result.distinct_1:.4f}, {result.distinct_2:.4f}"),
            ("mean length", f"{result.mean_length:.1f} words"),
            ("end by themselves", f"{result.eos_rate:.1%}"),
            ("commonest reply", f"{result.most_common_share:.1%}: {result.most_common_reply!r}"),
            (
                "truncated",
                f"{result.truncated_prompts:,} prompts, {result.truncated_targets:,} given replies",
            ),
            ("device", chat.device),
            ("time", f"{result.seconds:.1f} s"),
        ]
    )


def _answered(answered: int, right: int, pairs: int) -> str:
    """What `--abstain-below` would let pass of the replies to these pairs."""
    right_of_them = f", {right:,} of them right ({right / answered:.1%})" if answered else ""
    return f"{answered:,} of {pairs:,} answered{right_of_them}"


def _pairs(corpus: "Corpus", turns: int, targets: Targets) -> "list[Pair]":
    """The pairs of a corpus; what of it is left out is said."""
    from ..train.dialogue import examples

    pairs = [pair for dialogue in corpus for pair in examples(dialogue, turns=turns, targets=targets)]
    for reason, count in corpus.report.dropped.items():
        say(f"dropped  {count:,} × {reason}")
    for key, count in corpus.report.ignored_keys.items():
        say(f"ignored  {count:,} × the key {key}")
    return pairs
