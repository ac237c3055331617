"""`edgechat reply`: prompts in, replies out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime import ChatModel, DecodingOptions, Reply
from ..runtime.errors import UsageError
from ..runtime.files import write_atomic
from ..runtime.trace import trace_json
from .console import check_file, json_line, lines_of, one_line, put, put_json, say
from .options import (
    PLAIN,
    SEARCH,
    AlignmentsOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    RequireSignatureOption,
    ThreadsOption,
    decoding_options,
    given_options,
    with_search_options,
)

#: What a trace begins with.
_TRACE = {"format": 1}


def register(app: typer.Typer) -> None:
    app.command()(reply)


@with_search_options
def reply(
    context: typer.Context,
    bundle: BundleArgument,
    text: Annotated[
        list[str] | None,
        typer.Argument(help="Prompts. Without any: one a line on stdin.", show_default=False),
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option(help=f"Replies to show, best first.  [default: {PLAIN.n_best}]", rich_help_panel=SEARCH),
    ] = None,
    alignments: AlignmentsOption = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Print an empty line where the confidence is below this probability; needs a bundle that "
            "was calibrated.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="File for what each step of the search did, as JSON: the rows, what they looked at, their "
            "candidates and what became of each.",
            show_default=False,
        ),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            help="A further bundle of the same tokenizer, whose probabilities are averaged with BUNDLE's; "
            "may be given many times.",
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print each reply while it is searched.")] = False,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Reply to prompts, one line each on stdout, in order.

    With --n-best N each reply is N lines of score, tab, text. --json prints one object a line: prompt, reply,
    score, tokens, candidates (reply, score, logp, tokens), confidence (the probability that the reply is
    right, or null), truncated (only the end of the prompt was read) and ms. Scores are natural-log
    probabilities, normalized by length as --normalize says.
    """
    if stream and (json or (n_best or 1) > 1):
        raise UsageError("--stream prints one reply as it comes: it does not go with --json or --n-best")
    if abstain_below is not None and (stream or ((n_best or 1) > 1 and not json)):
        raise UsageError(
            "--abstain-below judges one whole reply: it does not go with --stream, and with --n-best "
            "in --json only"
        )
    if abstain_below is not None and ensemble:
        raise UsageError(
            "--abstain-below does not go with --ensemble: a bundle's confidence was calibrated for it alone"
        )
    if alignments and not json:
        raise UsageError("--alignments goes with --json: a line of text has no place for them")
    if trace is not None:
        _check_trace(trace)
    bundles = [bundle, *(ensemble or [])]
    with ChatModel.load_ensemble(
        bundles, device=device, threads=threads, require_signature=require_signature
    ) as model:
        if device == "auto" and sys.stderr.isatty():
            say(f"{bundle} on {model.device}")
        options = decoding_options(model.defaults, **given_options(context))
        if abstain_below is not None:
            _check_confident(model, options)
        traced = []
        for prompt in text or _lines():
            given = _stream(model, prompt, options) if stream else model.reply(prompt, options)
            if given.truncated:
                say_truncated(model)
            if trace:
                traced.append(_traced(model, prompt, given))
            if stream:
                continue
            if json:
                values = reply_json(prompt, given) | _abstaining(given, abstain_below)
                put_json(values | ({"source": list(given.source)} if alignments else {}))
            elif abstain_below is not None and _abstains(given, abstain_below):
                put("")
            else:
                _put_reply(given, n_best or 1)
        if trace:
            write_atomic(trace, json_line({**_TRACE, "replies": traced}) + "\n")


def say_truncated(model: ChatModel) -> None:
    say(f"only the end of a prompt was read: it has more than {model.codec.max_source} tokens")


def reply_json(prompt: str, reply: Reply) -> dict[str, Any]:
    """A reply in the form that --json prints."""
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
        "truncated": reply.truncated,
        "ms": round(reply.ms, 3),
    }


def _check_confident(model: ChatModel, options: DecodingOptions) -> None:
    """Refuse to abstain by a confidence that there is not."""
    if model.maker.calibration is None:
        raise UsageError(
            "--abstain-below needs a bundle that was calibrated: export it from a run that holds out more "
            "pairs, a larger part of its data or a file of their own (--valid-fraction, --valid)"
        )
    if model.maker.confidence(0.0, options) is None:
        raise UsageError(
            "--abstain-below does not go with options that change which replies may come: the bundle was "
            "calibrated without them"
        )


def _abstains(reply: Reply, least: float) -> bool:
    """A reply that was cut has no confidence."""
    return reply.confidence is None or reply.confidence < least


def _abstaining(reply: Reply, least: float | None) -> dict[str, Any]:
    """What --abstain-below adds to the JSON of a reply. An abstained one says nothing; what it would have
    said stands among the candidates."""
    if least is None:
        return {}
    abstained = _abstains(reply, least)
    return {"abstained": abstained} | ({"reply": ""} if abstained else {})


def _put_reply(reply: Reply, n_best: int) -> None:
    """One line a reply: a line break within it is shown as a space, so that line n answers prompt n."""
    if n_best == 1:
        put(one_line(reply.text))
    else:
        for candidate in reply.candidates:
            put(f"{candidate.score:.4f}\t{one_line(candidate.text)}")
    sys.stdout.flush()


def _stream(model: ChatModel, prompt: str, options: DecodingOptions) -> Reply:
    stream = model.stream(prompt, options)
    for piece in stream:
        put(one_line(piece), end="")
        sys.stdout.flush()
    put("")
    return stream.reply


def _check_trace(path: Path) -> None:
    """Fail before the work where the trace could not be written; only another trace is replaced."""
    check_file("--trace", path)
    if path.exists() and not (path.is_file() and _is_trace(path)):
        raise UsageError(f"--trace is {path}, which exists and is no trace: choose another file")


def _is_trace(path: Path) -> bool:
    """Whether a file is a trace, or empty."""
    begins = json_line(_TRACE).rstrip("}").encode()
    with path.open("rb") as file:
        return file.read(len(begins)) in (begins, b"")


def _traced(model: ChatModel, prompt: str, reply: Reply) -> dict[str, Any]:
    assert reply.trace is not None
    source = model.codec.encode_source([prompt]).ids
    return {"prompt": prompt, "reply": reply.text, **trace_json(reply.trace, source, model.codec)}


def _lines() -> Iterator[str]:
    """Prompts on stdin."""
    if sys.stdin is None:
        raise UsageError("there is no TEXT, and stdin is closed: give prompts as arguments")
    if sys.stdin.isatty():
        say("a prompt a line; Ctrl-D ends")
    yield from lines_of(sys.stdin.buffer)
