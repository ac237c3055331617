"""`edgechat verify`, `info` and `doctor`: what a bundle is, and whether this machine runs it correctly."""

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import onnxruntime as ort
import typer

from .. import __version__
from ..runtime.atomic_write import sha256
from ..runtime.bundle import MANIFEST_FILE, Bundle, find_bundle, read_bundle
from ..runtime.calibration import Calibration
from ..runtime.chat import ChatModel
from ..runtime.closed_set import REPLIES_FILE, parse_bundle_replies
from ..runtime.device import check_cuda
from ..runtime.display import plural, plural_form
from ..runtime.golden import MIN_MARGIN, TOLERANCE
from ..runtime.manifest import ModelSpec, TextSpec
from .console import print_json, print_stderr, print_stdout, print_table
from .describe import describe_checkpoint, describe_fp32_comparison, describe_signature, signature_json
from .errors import EXIT_FAILURE
from .options import BundleArgument, DeviceOption, JsonOption, RequireSignatureOption, ThreadsOption

_PACKAGES = (
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "tokenizers",
    "torch",
    "onnx",
    "safetensors",
    "typer",
    "textual",
)


def register(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(info)
    app.command()(doctor)


def verify(
    bundle: BundleArgument,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Also prove the bundle against the checkpoint that it was exported from; needs torch.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Check every file of a bundle, then reproduce its golden vectors on this machine.

    This needs neither torch nor the training data. --against RUN also repeats the proof of the export, on the
    run's held-out pairs. The exit code is 1 if a reply or a log-probability differs.
    """
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    model = ChatModel.from_bundle(checked, device=device, threads=threads)
    result = model.verify()
    proof = _prove_against(checked, against) if against else None
    if json:
        print_json(
            {
                "bundle": bundle,
                "signature": signature_json(checked, checked_with=require_signature),
                "device": model.device,
                "passed": result.passed,
                **asdict(result),
                **({"against": proof} if proof else {}),
            }
        )
    else:
        print_table(
            [
                ("files", f"{len(checked.files) + 1}, all sizes and hashes match"),
                ("signature", describe_signature(checked, checked_with=require_signature)),
                (
                    "golden vectors",
                    f"{plural(result.sources, 'source')}, {plural(result.replies, 'reply')} on "
                    f"{model.device}",
                ),
                ("not compared", f"{plural(result.near_ties, 'reply')} within {MIN_MARGIN} of the next best"),
                (
                    "worst difference",
                    f"{result.worst_difference:.2g} in log-probability, {TOLERANCE} allowed",
                ),
                ("mismatches", result.mismatches),
                *(
                    [
                        (
                            f"against {against}",
                            f"{proof['replies']:,} replies, {proof['near_ties']} near ties, "
                            f"log-probabilities within {proof['worst_logp']:.1e}",
                        )
                    ]
                    if proof
                    else []
                ),
                *(
                    [("compared with fp32", _describe_precision_cost(proof))]
                    if proof and "against_fp32" in proof
                    else []
                ),
            ]
        )
        print_stdout(
            "passed"
            if result.passed
            else "FAILED: this machine does not give the replies of the machine that made the bundle"
        )
    if not result.passed:
        raise typer.Exit(EXIT_FAILURE)


def _describe_precision_cost(proof: dict[str, Any]) -> str:
    forced = "; exceeds its limits, written with --beyond-limits" if proof["beyond_limits"] else ""
    return describe_fp32_comparison(proof["against_fp32"]) + forced


def _prove_against(bundle: Bundle, run: Path) -> dict[str, Any]:
    from ..export.exporter import prove_bundle

    return prove_bundle(bundle, run, progress=print_stderr)


def info(
    bundle: BundleArgument,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Show what a bundle is, from its manifest, after checking every file.

    A signature is checked only with --require-signature KEY. Without it, the key shown is what the bundle
    claims. --json prints the manifest, with signature added (key, and checked).
    """
    path = find_bundle(bundle)
    checked = read_bundle(path, require_signature=require_signature)
    manifest = checked.manifest
    if json:
        signature = signature_json(checked, checked_with=require_signature)
        print_json(manifest.to_json() | {"signature": signature})
        return
    model: ModelSpec = manifest.model
    decoding = manifest.decoding
    # These are for people: any value in them may be absent or of an unexpected type.
    quality, provenance, proof = manifest.quality, manifest.provenance, manifest.proof
    print_table(
        [
            ("bundle", path),
            ("format", manifest.format),
            ("precision", manifest.precision),
            (
                "model",
                f"{plural(model.layers, 'layer')}, hidden {model.hidden}, embedding {model.embedding}",
            ),
            ("options", model.options),
            ("vocabulary", f"{model.vocab_size:,} tokens"),
            ("source", _describe_source(manifest.text)),
            ("reply", f"at most {manifest.text.max_target} tokens"),
            ("decoding", f"beam {decoding.beam}, normalize {decoding.normalize}, stop {decoding.stop}"),
            ("data", f"{provenance.get('data')} (license: {provenance.get('data_licence')})"),
            ("exported from", describe_checkpoint(manifest.provenance)),
            (
                "training",
                f"{_untrusted_count(provenance.get('steps'), 'step')} on "
                f"{_untrusted_count(provenance.get('train_pairs'), 'pair')}",
            ),
            ("held-out perplexity", _describe_perplexity(quality)),
            *_fp32_rows(manifest.quality),
            ("confidence", _describe_confidence(manifest.calibration)),
            *_closed_set_rows(checked),
            (
                "proof",
                f"{_untrusted_count(proof.get('replies'), 'reply')}, "
                f"log-probabilities within {proof.get('worst_logp')}",
            ),
            ("signature", describe_signature(checked, checked_with=require_signature)),
            *(
                (name, f"{len(data):>12,} bytes  {sha256(data)[:16]}…")
                for name, data in {MANIFEST_FILE: checked.manifest_bytes, **checked.files}.items()
            ),
        ]
    )


def _closed_set_rows(bundle: Bundle) -> list[tuple[str, str]]:
    """The row about the closed set, where a bundle has one."""
    if REPLIES_FILE not in bundle.files:
        return []
    replies = set(parse_bundle_replies(bundle.files[REPLIES_FILE]))
    return [("closed set", f"{plural(len(replies), 'reply')}, in {REPLIES_FILE}; nothing else is replied")]


def _describe_source(text: TextSpec) -> str:
    case = ", in lower case" if text.lowercase else ""
    return f"{plural(text.turns, 'turn')}, at most {text.max_source} tokens{case}"


def _fp32_rows(quality: dict[str, Any]) -> list[tuple[str, str]]:
    """The row about the cost of the precision, where the manifest states it."""
    comparison = quality.get("against_fp32")
    if not isinstance(comparison, dict):
        return []
    pairs, held_out, learned = comparison.get("pairs"), quality.get("valid_pairs"), ""
    if isinstance(pairs, int) and isinstance(held_out, int) and pairs > held_out:
        learned = f", {pairs - held_out:,} of them training pairs"
    forced = "; exceeds its limits, written with --beyond-limits" if quality.get("forced") is True else ""
    agreement = comparison.get("agreement")
    agreeing = f"{agreement:.1%}" if isinstance(agreement, float) else agreement
    return [
        (
            "compared with fp32",
            f"{agreeing} of tokens agree, perplexity {comparison.get('perplexity')} instead of "
            f"{comparison.get('fp32_perplexity')} on {_untrusted_count(pairs, 'pair')}{learned}{forced}",
        )
    ]


def _describe_confidence(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "not calibrated: --abstain-below cannot be used"
    if Calibration.from_json(calibration) is None:
        return "of a kind unknown to this version: --abstain-below cannot be used"
    return (
        f"calibrated on {_untrusted_count(calibration.get('pairs'), 'held-out pair')}, "
        f"calibration error {calibration.get('ece_before')} before, {calibration.get('ece')} after"
    )


def _describe_perplexity(quality: dict[str, Any]) -> str:
    perplexity, pairs = quality.get("valid_perplexity"), quality.get("valid_pairs")
    if not pairs:
        return "nothing was held out"
    return f"{'infinite' if perplexity is None else perplexity} on {_untrusted_count(pairs, 'pair')}"


def _untrusted_count(value: object, noun: str) -> str:
    """A count from the manifest with its noun; the value may be of any type."""
    return plural(value, noun) if isinstance(value, int) else f"{value} {plural_form(noun)}"


def doctor(json: JsonOption = False) -> None:
    """Show what edgechat finds on this machine, whether CUDA works, and how to fix problems.

    The exit code is 1 if there is a problem.
    """
    versions = {name: _installed_version(name) for name in _PACKAGES}
    cuda = check_cuda()
    problems = []
    if versions["onnxruntime-gpu"] and versions["onnxruntime"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        )
    report: dict[str, Any] = {
        "edgechat": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "providers": ort.get_available_providers(),
        "cuda": {"usable": cuda.usable, "reason": cuda.reason},
        "problems": problems,
    }
    if json:
        print_json(report)
    else:
        print_table(
            [
                ("edgechat", __version__),
                ("python", f"{report['python']} ({sys.executable})"),
                ("platform", report["platform"]),
                ("cpus", report["cpus"]),
                *_package_rows(versions),
                ("device auto", "cuda, for int8 bundles cpu" if cuda.usable else "cpu"),
                ("cuda", cuda.reason),
                *(("problem", problem) for problem in problems),
            ]
        )
    if problems:
        raise typer.Exit(EXIT_FAILURE)


def _package_rows(versions: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    """The rows about packages. Of ONNX Runtime's two packages, a missing one is left out: one is enough."""
    for name, version in versions.items():
        if version or not name.startswith("onnxruntime"):
            yield name, version or "not installed"


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
