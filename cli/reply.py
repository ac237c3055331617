"""`edgechat reply`: prompts in, replies out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime import ChatModel, DecodingOptions, Reply
from ..runtime.atomic_write import write_atomic
from ..runtime.display import plural
from ..runtime.errors import UsageError
from ..runtime.trace import trace_json
from .console import json_line, one_line, print_json, print_stderr, print_stdout, read_lines
from .options import BundleArgument, DeviceOption, JsonOption, RequireSignatureOption, ThreadsOption
from .output_path import check_file
from .search_options import (
    DEFAULTS,
    SEARCH,
    AlignmentsOption,
    decoding_options,
    given_options,
    with_search_options,
)

#: The first values of a trace file.
_TRACE_HEADER = {"format": 1}


def register(app: typer.Typer) -> None:
    app.command()(reply)


@with_search_options
def reply(
    context: typer.Context,
    bundle: BundleArgument,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="Prompts. Without TEXT, each line of stdin is a prompt.", show_default=False
        ),
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option(
            help=f"Replies to show for each prompt, best first.  [default: {DEFAULTS.n_best}]",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    alignments: AlignmentsOption = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Print an empty line instead of a reply whose confidence is below this probability; needs "
            "a calibrated bundle.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write each step of the search to this file, as JSON: its rows, their attention, and what "
            "became of each candidate.",
            show_default=False,
        ),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            help="Another bundle with the same tokenizer, whose probabilities are averaged with BUNDLE's; "
            "repeatable.",
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print each reply piece by piece, while the search goes on.")
    ] = False,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Reply to prompts: one line per reply on stdout, in the order of the prompts.

    With --n-best N, each prompt gets up to N lines of score, tab and text. Scores are natural-log
    probabilities, normalized by length as --normalize selects.

    --json prints one object per prompt and line: prompt, reply, score, tokens, candidates (reply, score,
    logp, tokens), confidence (the probability that the reply is right, or null), finished (false if the
    maximum length cut the reply off), truncated (whether only the end of the prompt was read) and ms; with
    --abstain-below also abstained, with --alignments also source (tokens).
    """
    if stream and (json or (n_best or 1) > 1):
        raise UsageError(
            "--stream cannot be used with --json or --n-best: it prints one reply piece by piece"
        )
    if abstain_below is not None and (stream or ((n_best or 1) > 1 and not json)):
        raise UsageError(
            "--abstain-below cannot be used with --stream, nor with --n-best unless --json is given: it "
            "judges one whole reply"
        )
    if abstain_below is not None and ensemble:
        raise UsageError(
            "--abstain-below cannot be used with --ensemble: confidence is calibrated for a single bundle"
        )
    if alignments and not json:
        raise UsageError("--alignments needs --json: plain lines cannot show them")
    if trace is not None:
        _check_trace_path(trace)
    bundles = [bundle, *(ensemble or [])]
    with ChatModel.load_ensemble(
        bundles, device=device, threads=threads, require_signature=require_signature
    ) as model:
        if device == "auto" and sys.stderr.isatty():
            print_stderr(f"{bundle} on {model.device}")
        options = decoding_options(model.defaults, **given_options(context))
        if abstain_below is not None:
            _check_gives_confidence(model, options)
        trace_entries = []
        for prompt in text or _read_prompts():
            result = _stream_reply(model, prompt, options) if stream else model.reply(prompt, options)
            if result.truncated:
                print_truncation_notice(model)
            if not result.finished:
                print_cut_off_notice(result)
            if trace:
                trace_entries.append(_trace_entry(model, prompt, result))
            if stream:
                continue
            if json:
                values = reply_json(prompt, result) | _abstention_json(result, abstain_below)
                print_json(values | ({"source": list(result.source)} if alignments else {}))
            elif abstain_below is not None and _abstains(result, abstain_below):
                print_stdout("")
            else:
                _print_reply(result, n_best or 1)
        if trace:
            write_atomic(trace, json_line({**_TRACE_HEADER, "replies": trace_entries}) + "\n")


def print_truncation_notice(model: ChatModel) -> None:
    print_stderr(f"only the end of a prompt was read: it has more than {model.codec.max_source} tokens")


def print_cut_off_notice(reply: Reply) -> None:
    print_stderr(f"a reply was cut off after {plural(len(reply.tokens), 'token')}")


def reply_json(prompt: str, reply: Reply) -> dict[str, Any]:
    """The JSON object that --json prints for a reply."""
    return {
        "prompt": prompt,
        "reply": reply.text,
        "score": reply.score,
        "tokens": list(reply.tokens),
        "candidates": [
            {"reply": c.text, "score": c.score, "logp": c.logp, "tokens": list(c.tokens)}
            | ({} if c.alignments is None else {"alignments": [list(row) for row in c.alignments]})
            for c in reply.candidates
        ],
        "confidence": reply.confidence,
        "finished": reply.finished,
        "truncated": reply.truncated,
        "ms": round(reply.ms, 3),
    }


def _check_gives_confidence(model: ChatModel, options: DecodingOptions) -> None:
    """Raise UsageError where `model` gives no confidence to replies found with `options`."""
    if model.maker.calibration is None:
        raise UsageError(
            "--abstain-below needs a calibrated bundle: train with more held-out pairs (a larger "
            "--valid-fraction, or --valid FILE), and export again"
        )
    if model.maker.confidence(0.0, options) is None:
        raise UsageError(
            "--abstain-below cannot be used with options that change which replies are possible or how they "
            "are scored: the bundle was calibrated without them"
        )


def _abstains(reply: Reply, minimum: float) -> bool:
    """Whether the confidence is below `minimum`. A reply that was cut off has none, and counts as below."""
    return reply.confidence is None or reply.confidence < minimum


def _abstention_json(reply: Reply, minimum: float | None) -> dict[str, Any]:
    """What --abstain-below adds to the JSON of a reply. The text of an abstained reply becomes empty; it is
    still the first of the candidates."""
    if minimum is None:
        return {}
    abstained = _abstains(reply, minimum)
    return {"abstained": abstained} | ({"reply": ""} if abstained else {})


def _print_reply(reply: Reply, n_best: int) -> None:
    """Print a reply on one line, with line breaks as spaces, so that line n answers prompt n; with `n_best`
    above 1, print each candidate on a line of its own."""
    if n_best == 1:
        print_stdout(one_line(reply.text))
    else:
        for candidate in reply.candidates:
            print_stdout(f"{candidate.score:.4f}\t{one_line(candidate.text)}")
    sys.stdout.flush()


def _stream_reply(model: ChatModel, prompt: str, options: DecodingOptions) -> Reply:
    stream = model.stream(prompt, options)
    for piece in stream:
        print_stdout(one_line(piece), end="")
        sys.stdout.flush()
    print_stdout("")
    return stream.reply


def _check_trace_path(path: Path) -> None:
    """Raise an error, before the work, where the trace cannot be written. Only an older trace is replaced."""
    check_file("--trace", path)
    if path.exists() and not (path.is_file() and _is_trace(path)):
        raise UsageError(f"--trace is {path}, which exists and is not a trace: choose another file")


def _is_trace(path: Path) -> bool:
    """Whether a file is a trace, or empty."""
    header = json_line(_TRACE_HEADER).rstrip("}").encode()
    with path.open("rb") as file:
        return file.read(len(header)) in (header, b"")


def _trace_entry(model: ChatModel, prompt: str, reply: Reply) -> dict[str, Any]:
    assert reply.trace is not None
    source = model.codec.encode_source([prompt]).ids
    return {"prompt": prompt, "reply": reply.text, **trace_json(reply.trace, source, model.codec)}


def _read_prompts() -> Iterator[str]:
    """Prompts from stdin, one per line."""
    if sys.stdin is None:
        raise UsageError("there is no TEXT, and stdin is closed: give prompts as arguments")
    if sys.stdin.isatty():
        print_stderr("type one prompt per line; Ctrl-D ends")
    yield from read_lines(sys.stdin.buffer)
