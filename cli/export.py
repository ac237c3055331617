"""`edgechat export`: from a run to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..runtime.calibration import IDENTITY_CALIBRATION, Calibration
from ..runtime.closed_set import read_replies
from ..runtime.signature import load_signer
from .console import print_json, print_stderr
from .describe import describe_fp32_comparison, format_perplexity
from .options import ForceOption, JsonOption, SignOption
from .output_path import check_writable
from .passphrase import make_passphrase_prompt
from .search_options import (
    DEFAULTS,
    LengthPenaltyOption,
    Normalization,
    beam_option,
    decoding_options,
    normalize_option,
)

#: Share of held-out pairs answered word for word, below which confidences are hardly informative.
_MIN_RIGHT_SHARE = 0.02


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `edgechat train` wrote.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to write, or a single file if the name ends with .edgechat; replaced only with "
            "--force."
        ),
    ],
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="int8: a quarter of the size and up to four times as fast on CPUs, most for large models; "
            "fp16: for CUDA; fp32: computes what PyTorch computes."
        ),
    ] = "int8",
    checkpoint: Annotated[
        str,
        typer.Option(
            help="best (on the held-out pairs) or last; best:N or last:N averages the weights of N of them."
        ),
    ] = "best",
    data_licence: Annotated[
        str | None, typer.Option(help="License of the training data, for the model card.", show_default=False)
    ] = None,
    replies: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Closed set: the only replies of the bundle; a .json list of texts, or a text file with one "
            "per line.",
            show_default=False,
        ),
    ] = None,
    beam: Annotated[int | None, beam_option(str(DEFAULTS.beam))] = None,
    normalize: Annotated[Normalization | None, normalize_option(DEFAULTS.normalize)] = None,
    length_penalty: LengthPenaltyOption = None,
    sign: SignOption = None,
    beyond_limits: Annotated[
        bool,
        typer.Option("--beyond-limits", help="Write int8 or fp16 even if it changes the model too much."),
    ] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Build the ONNX graphs of a run, prove that they equal the PyTorch model, and write the bundle.

    The proof compares states, alignments, log-probabilities and replies along the run's held-out pairs, and
    training pairs if few are held out. If it fails, nothing is written. int8 and fp16 are then compared with
    fp32 on such pairs, and refused if they change the model too much. --beyond-limits writes them
    nevertheless, and the bundle records it.

    --beam, --normalize and --length-penalty become the bundle's defaults. If the run holds out at least 30
    pairs, the confidence of replies is calibrated on them.

    OUT.report.json, beside the bundle, records the time, the run, the machine and the speed of a decoder
    step. It is for you; do not ship it.

    --json prints bundle, size (bytes), seconds, proof and quality.
    """
    from ..export import export as export_run

    defaults = decoding_options(DEFAULTS, beam=beam, normalize=normalize, length_penalty=length_penalty)
    check_writable(out)
    signer = None if sign is None else load_signer(sign, make_passphrase_prompt(sign))
    result = export_run(
        run,
        out,
        precision=precision,
        checkpoint=checkpoint,
        decoding=defaults,
        data_licence=data_licence,
        sign=signer,
        replies=None if replies is None else read_replies(replies),
        replace_existing=force,
        allow_beyond_limits=beyond_limits,
        progress=print_stderr,
    )
    proof, quality = result.manifest.proof, result.manifest.quality
    if json:
        print_json(
            {
                "bundle": str(out),
                "size": result.size,
                "seconds": round(result.seconds, 2),
                "proof": proof,
                "quality": quality,
            }
        )
    print_stderr(
        f"proved: {proof['replies'] - proof['near_ties']:,} replies are the same token by token "
        f"({proof['near_ties']} near ties), "
        f"log-probabilities agree within {proof['worst_logp']:.1e} over {proof['steps']:,} steps"
    )
    if quality["valid_perplexity"] is not None:
        print_stderr(
            f"held-out perplexity {format_perplexity(quality['valid_perplexity'])} on "
            f"{quality['valid_pairs']:,} pairs"
        )
    if "against_fp32" in quality:
        print_stderr(f"{precision} compared with fp32: {describe_fp32_comparison(quality['against_fp32'])}")
    if (fitted := result.manifest.calibration) is not None:
        after = f"{fitted['ece']:.3f}"
        error = f"calibration error {fitted['ece_before']:.3f} before, {after} after"
        if Calibration.from_json(fitted) == IDENTITY_CALIBRATION:
            error = f"calibration error {after}, which fitting does not lower: probabilities are kept"
        print_stderr(
            f"confidence calibrated on {fitted['pairs']:,} held-out pairs, {fitted['right']:.1%} answered "
            f"word for word: {error}"
        )
        if fitted["right"] < _MIN_RIGHT_SHARE:
            print_stderr(
                "hint: hardly any reply equals the held-out one word for word, as is usual in open chat: "
                "all confidences will be near 0, and --abstain-below of little use"
            )
    if result.beyond_limits:
        print_stderr(
            f"warning: {precision} exceeds its limits ({'; '.join(result.beyond_limits)}): written because "
            "of --beyond-limits, and the bundle records it"
        )
    signed = "" if sign is None else f", signed with {sign}"
    print_stderr(f"wrote {out}, {result.size / 1e6:.1f} MB, in {result.seconds:.1f} s{signed}")
    print_stderr(f'next: edgechat reply {out} "YOUR TEXT", or edgechat tui {out}')
