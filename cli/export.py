"""`edgechat export`: from a run to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import check_writable, put_json, say
from .options import (
    BeamOption,
    ForceOption,
    JsonOption,
    LengthPenaltyOption,
    NormalizeOption,
    OutOption,
)
from .talk import decoding_options


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder that `edgechat train` wrote.", show_default=False)],
    out: OutOption,
    precision: Annotated[Literal["fp32"], typer.Option(help="Of the graphs' weights.")] = "fp32",
    checkpoint: Annotated[
        str,
        typer.Option(
            help="best (on held-out pairs) or last; best:N or last:N averages the weights of so many.",
        ),
    ] = "best",
    data_licence: Annotated[
        str | None, typer.Option(help="Licence of the training data, for the model card.", show_default=False)
    ] = None,
    beam: BeamOption = None,
    normalize: NormalizeOption = None,
    length_penalty: LengthPenaltyOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Build the ONNX graphs of a run, prove that they equal the PyTorch model, and seal the bundle.

    The proof compares states, alignments, log-probabilities and the replies to held-out prompts; where it
    fails, nothing is written. --beam, --normalize and --length-penalty become the bundle's defaults.
    """
    from ..export import export as export_run
    from ..runtime.options import DecodingOptions

    defaults = decoding_options(
        DecodingOptions(), beam=beam, normalize=normalize, length_penalty=length_penalty
    )
    check_writable(out)
    exported = export_run(
        run,
        out,
        checkpoint=checkpoint,
        decoding=defaults,
        data_licence=data_licence,
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
    say(f"wrote {out}, {exported.size / 1e6:.1f} MB, in {exported.seconds:.1f} s")
    say(f'next: edgechat reply {out} "YOUR TEXT", or edgechat tui {out}')
