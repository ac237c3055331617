"""`edgechat export`: from a run to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..runtime.calibration import AS_IT_IS, Calibration
from ..runtime.signature import load_signer
from .console import check_writable, put_json, say
from .inspect import beside_fp32
from .options import (
    PLAIN,
    JsonOption,
    LengthPenaltyOption,
    Normalization,
    SignOption,
    ask_passphrase,
    beam_option,
    decoding_options,
    normalize_option,
    read_replies_option,
)

#: Share of held-out pairs that are answered word for word, below which a confidence tells little.
_HARDLY_ANY = 0.02


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder that `edgechat train` wrote.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to write, or one file if it ends with .edgechat; only replaced with --replace."
        ),
    ],
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="int8 is a quarter of the size and up to four times as fast on CPUs, the larger the "
            "model the more; fp16 is for CUDA; fp32 computes what PyTorch computes."
        ),
    ] = "int8",
    checkpoint: Annotated[
        str,
        typer.Option(
            help="best (on held-out pairs) or last; best:N or last:N averages the weights of so many.",
        ),
    ] = "best",
    data_licence: Annotated[
        str | None, typer.Option(help="Licence of the training data, for the model card.", show_default=False)
    ] = None,
    replies: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="The only replies that the bundle gives: a .json list of texts, or one a line.",
            show_default=False,
        ),
    ] = None,
    beam: Annotated[int | None, beam_option(str(PLAIN.beam))] = None,
    normalize: Annotated[Normalization | None, normalize_option(PLAIN.normalize)] = None,
    length_penalty: LengthPenaltyOption = None,
    sign: SignOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace --out if it is there.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Write int8 or fp16 although it is beyond its limits; replaces --out, too.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Build the ONNX graphs of a run, prove that they equal the PyTorch model, and seal the bundle.

    The proof compares states, alignments, log-probabilities and the replies to held-out prompts; where it
    fails, nothing is written. int8 and fp16 are then judged against fp32 on held-out text, and refused where
    they change what the model says; --force writes them all the same, and the bundle says so.
    OUT.report.json beside the bundle says when, of which run and on which machine it was made, and how fast
    a step was there: it is for you, and need not be shipped.
    --beam, --normalize and --length-penalty become the bundle's defaults. Where the run holds out 30 pairs or
    more, the confidence of replies is calibrated on them.
    """
    from ..export import export as export_run

    defaults = decoding_options(PLAIN, beam=beam, normalize=normalize, length_penalty=length_penalty)
    check_writable(out)
    signer = None if sign is None else load_signer(sign, ask_passphrase(sign))
    exported = export_run(
        run,
        out,
        precision=precision,
        checkpoint=checkpoint,
        decoding=defaults,
        data_licence=data_licence,
        sign=signer,
        replies=read_replies_option(replies),
        replace_existing=replace,
        force=force,
        progress=say,
    )
    proof, quality = exported.manifest.proof, exported.manifest.quality
    if json:
        put_json(
            {
                "bundle": str(out),
                "size": exported.size,
                "seconds": round(exported.seconds, 2),
                "proof": proof,
                "quality": quality,
            }
        )
    say(
        f"proved: {proof['replies']:,} replies the same token by token ({proof['near_ties']} near ties), "
        f"log-probabilities within {proof['worst_logp']:.1e} over {proof['steps']:,} steps"
    )
    if quality["valid_perplexity"] is not None:
        say(f"held-out perplexity {quality['valid_perplexity']:.3f} on {quality['valid_pairs']:,} pairs")
    if "against_fp32" in quality:
        say(f"{precision} beside fp32: {beside_fp32(quality['against_fp32'])}")
    if (fitted := exported.manifest.calibration) is not None:
        right, after = f"{fitted['right']:.1%} right", f"{fitted['ece']:.3f}"
        error = f"expected error {fitted['ece_before']:.3f} before, {after} after"
        if Calibration.from_json(fitted) == AS_IT_IS:
            error = f"the model's own is kept, whose expected error of {after} a fit does not lower"
        say(f"confidence calibrated on {fitted['pairs']:,} held-out pairs, {right}: {error}")
        if fitted["right"] < _HARDLY_ANY:
            say(
                "hint: hardly any reply is word for word the held-out one, as is usual in open chat: "
                "all confidences will be near 0, and --abstain-below of little use"
            )
    if exported.beyond_limits:
        say(
            f"warning: {precision} is beyond its limits ({'; '.join(exported.beyond_limits)}): written by "
            "force all the same, and the bundle says so"
        )
    signed = "" if sign is None else f", signed with {sign}"
    say(f"wrote {out}, {exported.size / 1e6:.1f} MB, in {exported.seconds:.1f} s{signed}")
    say(f'next: edgechat reply {out} "YOUR TEXT", or edgechat tui {out}')
