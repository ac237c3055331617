"""`edgechat eval` and `edgechat bench`: how good, and how fast."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import put_json, put_table, say
from .options import (
    BeamOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    LengthPenaltyOption,
    NormalizeOption,
    RequireSignatureOption,
    ThreadsOption,
    set_torch_threads,
    torch_device,
)
from .progress import counting
from .talk import decoding_options

if TYPE_CHECKING:
    from ..runtime import ChatModel
    from ..runtime.bundle import Bundle


def register(app: typer.Typer) -> None:
    app.command(name="eval")(evaluate)
    app.command()(bench)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A run folder (PyTorch) or a bundle.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="File or packaged corpus, as for `edgechat train`.  [default: the run's held-out pairs]"
        ),
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
        Literal["all", "second"] | None,
        typer.Option(
            help="Turns of the dialogues in --data to reply to.  [default: all]", show_default=False
        ),
    ] = None,
    beam: BeamOption = None,
    normalize: NormalizeOption = None,
    length_penalty: LengthPenaltyOption = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Measure a model on pairs: perplexity, exact match, BLEU and chrF (sacrebleu, with its signature),
    distinct-1 and -2, length, how many replies end by themselves, and the share of the commonest reply.
    """
    from ..runtime import ChatModel, UsageError
    from ..train.evaluate import evaluate as run_evaluation
    from ..train.run import is_run, open_run

    if is_run(Path(model)):
        if require_signature is not None:
            raise UsageError("--require-signature is of a bundle: a run is not signed")
        run = open_run(Path(model))
        set_torch_threads(threads)
        chat = run.chat_model(checkpoint or "best", device=torch_device(device))
        pairs = [(pair["turns"], pair["response"]) for pair in run.held_out()] if data is None else None
    else:
        if checkpoint is not None:
            raise UsageError("--checkpoint is of a run: a bundle holds one model")
        chat = ChatModel.load(model, device=device, threads=threads, require_signature=require_signature)
        pairs = None
        if data is None:
            raise UsageError(
                "--data is missing: a bundle holds no held-out pairs, so name a file: --data pairs.jsonl"
            )
    if data is None and targets is not None:
        raise UsageError("--targets goes with --data: held-out pairs are what they are")
    if pairs is None:
        assert data is not None
        pairs = _pairs(data, chat.codec.turns, targets or "all")
    pairs = pairs[:limit]
    options = decoding_options(chat.defaults, beam=beam, normalize=normalize, length_penalty=length_penalty)
    with counting("evaluating", 2 * len(pairs)) as progress:
        result = run_evaluation(
            chat, pairs, options, batch_size=batch_size, tokenize=tokenize, progress=progress
        )
    if json:
        put_json({"model": model, "device": chat.device, **result.to_json()})
        return
    put_table(
        [
            ("pairs", f"{result.pairs:,}"),
            ("perplexity", f"{result.perplexity:.3f}"),
            ("exact match", f"{result.exact_match:.2%}"),
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


def _pairs(data: str, turns: int, targets: Any) -> list[tuple[list[str], str]]:
    from ..train.corpus import open_corpus
    from ..train.dialogue import examples

    corpus = open_corpus([data])
    return [pair for dialogue in corpus for pair in examples(dialogue, turns=turns, targets=targets)]


def bench(
    bundle: BundleArgument,
    repeat: Annotated[int, typer.Option(min=3, help="Replies timed at batch 1.")] = 50,
    beam: BeamOption = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Time a bundle on this machine: load, latency of a reply at batch 1, and replies a second by batch size.

    The prompts are the bundle's golden vectors, which are random tokens, so figures of two bundles compare
    only where their vocabulary and sizes are the same. Let nothing else run meanwhile.
    """
    from ..runtime import ChatModel
    from ..runtime.bundle import find_bundle, read_bundle

    start = time.perf_counter()
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    model = ChatModel.from_bundle(checked, device=device, threads=threads)
    loaded = (time.perf_counter() - start) * 1e3
    options = decoding_options(model.defaults, beam=beam)
    prompts = _golden_prompts(checked, model)
    say(f"timing on {model.device}, {threads} thread(s), beam {options.beam}")
    milliseconds, steps = _latency(lambda i: model.reply(prompts[i % len(prompts)], options), repeat)
    throughput = {}
    for size in (1, 8, 32):
        batch = [prompts[i % len(prompts)] for i in range(size)]
        model.reply_batch(batch, options)  # warm
        start = time.perf_counter()
        for _ in range(3):
            model.reply_batch(batch, options, batch_size=size)
        throughput[size] = 3 * size / (time.perf_counter() - start)
    quantiles = statistics.quantiles(milliseconds, n=100)
    result = {
        "bundle": bundle,
        "device": model.device,
        "threads": threads,
        "beam": options.beam,
        "load_ms": round(loaded, 1),
        "reply_ms": {
            "p50": round(quantiles[49], 2),
            "p90": round(quantiles[89], 2),
            "p99": round(quantiles[98], 2),
        },
        "token_ms": round(sum(milliseconds) / max(1, steps), 3),
        "replies_per_second": {str(size): round(rate, 1) for size, rate in throughput.items()},
    }
    if json:
        put_json(result)
        return
    put_table(
        [
            ("load", f"{loaded:.0f} ms"),
            ("reply, batch 1", "p50 {p50} ms, p90 {p90} ms, p99 {p99} ms".format(**result["reply_ms"])),  # type: ignore[arg-type]
            ("a token", f"{result['token_ms']} ms"),
            *((f"batch {size}", f"{rate:.1f} replies a second") for size, rate in throughput.items()),
        ]
    )


def _golden_prompts(bundle: "Bundle", model: "ChatModel") -> list[str]:
    """The sources of the bundle's golden vectors as text."""
    import json

    from ..runtime import BundleError

    try:
        prompts = [
            model.codec.decode(case["src"]) for case in json.loads(bundle.files["golden.json"])["cases"]
        ]
        return prompts or [""]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError(f"golden.json cannot be used: {error}") from None


def _latency(reply: Callable[[int], Any], repeat: int) -> tuple[list[float], int]:
    """Milliseconds of each reply, after a few that warm up, and the tokens of all."""
    for i in range(3):
        reply(i)
    timed = [reply(i) for i in range(repeat)]
    return [r.ms for r in timed], sum(len(r.tokens) + 1 for r in timed)
