"""`edgechat verify`, `info` and `doctor`: what a bundle is, and whether this machine can run it."""

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
from ..runtime.bundle import Bundle, find_bundle, read_bundle
from ..runtime.calibration import Calibration
from ..runtime.chat import ChatModel
from ..runtime.device import cuda_state
from ..runtime.display import counted, plural
from ..runtime.golden import TOLERANCE
from ..runtime.manifest import ModelSpec, TextSpec
from ..runtime.replies import REPLIES, bundled_replies
from ..runtime.signature import fingerprint, signing_key
from .console import FAILED, put, put_json, put_table, say
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
            help="Also prove the bundle against the checkpoint of the run that it was made of; needs torch.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Check every file of a bundle, then repeat its golden vectors on this machine.

    Neither torch nor the training data is needed for that. --against RUN repeats the export's proof on the
    run's held-out pairs. Exit code 1 where a reply or a log-probability differs.
    """
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    model = ChatModel.from_bundle(checked, device=device, threads=threads)
    result = model.verify()
    proof = _prove_against(checked, against) if against else None
    if json:
        put_json(
            {
                "bundle": bundle,
                "signature": _signature(checked, require_signature),
                "device": model.device,
                "passed": result.passed,
                **asdict(result),
                **({"against": proof} if proof else {}),
            }
        )
    else:
        put_table(
            [
                ("files", f"{len(checked.files) + 1}, every size and hash as sealed"),
                ("signature", _signature_shown(checked, require_signature)),
                ("golden vectors", f"{result.sources} sources, {result.replies} replies on {model.device}"),
                ("not compared", f"{result.near_ties} replies that were near ties when the bundle was made"),
                (
                    "worst difference",
                    f"{result.worst_difference:.2g} of a log-probability, {TOLERANCE} allowed",
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
                *([("beside fp32", _proved_beside_fp32(proof))] if proof and "against_fp32" in proof else []),
            ]
        )
        put(
            "passed"
            if result.passed
            else "FAILED: this machine gives other replies than the one that made the bundle"
        )
    if not result.passed:
        raise typer.Exit(FAILED)


def _proved_beside_fp32(proof: dict[str, Any]) -> str:
    beyond = ", beyond its limits, and written by force" if proof["beyond_limits"] else ""
    return beside_fp32(proof["against_fp32"]) + beyond


def _prove_against(bundle: Bundle, run: Path) -> dict[str, Any]:
    from ..export.exporter import prove_bundle

    return prove_bundle(bundle, run, progress=say)


def info(
    bundle: BundleArgument,
    json: JsonOption = False,
    require_signature: RequireSignatureOption = None,
) -> None:
    """Show what a bundle is, from its manifest; every file is checked on the way.

    A signature is only checked with --require-signature KEY: without it, its key is what the bundle claims.
    """
    checked = read_bundle(find_bundle(bundle), require_signature=require_signature)
    manifest = checked.manifest
    if json:
        put_json(manifest.to_json() | {"signature": _signature(checked, require_signature)})
        return
    model: ModelSpec = manifest.model
    decoding = manifest.decoding
    # For people, so any of these may be absent, or of another kind than ours.
    quality, source, proof = manifest.quality, manifest.provenance, manifest.proof
    put_table(
        [
            ("format", manifest.format),
            ("precision", manifest.precision),
            (
                "model",
                f"{counted(model.layers, 'layer')}, hidden {model.hidden}, embedding {model.embedding}",
            ),
            ("options", model.options),
            ("vocabulary", f"{model.vocab_size:,} tokens"),
            ("source", _source(manifest.text)),
            ("reply", f"at most {manifest.text.max_target} tokens"),
            ("decoding", f"beam {decoding.beam}, normalize {decoding.normalize}, stop {decoding.stop}"),
            ("data", f"{source.get('data')} (licence: {source.get('data_licence')})"),
            ("made of", checkpoint_shown(manifest.provenance)),
            (
                "training",
                f"{_noted(source.get('steps'), 'step')} on {_noted(source.get('train_pairs'), 'pair')}",
            ),
            (
                "held-out perplexity",
                f"{quality.get('valid_perplexity')} on {_noted(quality.get('valid_pairs'), 'pair')}",
            ),
            *_against_fp32(manifest.quality),
            ("confidence", _confidence(manifest.calibration)),
            *_says(checked),
            (
                "proof",
                f"{_noted(proof.get('replies'), 'reply')}, "
                f"log-probabilities within {proof.get('worst_logp')}",
            ),
            ("signature", _signature_shown(checked, require_signature)),
            *(
                (name, f"{entry.size:>12,} bytes  {entry.sha256[:16]}…")
                for name, entry in manifest.files.items()
            ),
        ]
    )


def _says(bundle: Bundle) -> list[tuple[str, str]]:
    """The closed set, where a bundle has one."""
    if REPLIES not in bundle.files:
        return []
    replies = set(bundled_replies(bundle.files[REPLIES]))
    return [("says", f"nothing but the {counted(len(replies), 'reply')} of {REPLIES}")]


def _source(text: TextSpec) -> str:
    case = ", in lower case" if text.lowercase else ""
    return f"{counted(text.turns, 'turn')}, at most {text.max_source} tokens{case}"


def _against_fp32(quality: dict[str, Any]) -> list[tuple[str, str]]:
    """What the precision costs, where the manifest says."""
    found = quality.get("against_fp32")
    if not isinstance(found, dict):
        return []
    pairs, held_out, learned = found.get("pairs"), quality.get("valid_pairs"), ""
    if isinstance(pairs, int) and isinstance(held_out, int) and pairs > held_out:
        learned = f", {pairs - held_out:,} of them learned ones"
    forced = ", beyond its limits: written by force" if quality.get("forced") is True else ""
    return [
        (
            "beside fp32",
            f"agreement {found.get('agreement')}, perplexity {found.get('perplexity')} for "
            f"{found.get('fp32_perplexity')} on {_noted(pairs, 'pair')}{learned}{forced}",
        )
    ]


def beside_fp32(quality: dict[str, Any]) -> str:
    """What a precision costs, of `quality` as the export and the proof give it."""
    from ..export.quality import perplexity_change

    change = perplexity_change(quality["perplexity"], quality["fp32_perplexity"])
    return (
        f"{quality['agreement']:.1%} of tokens the same, perplexity {change:+.2%}, log-probabilities off by "
        f"{quality['mean_logp']:.3f} in the mean and {quality['worst_logp']:.2f} at worst"
    )


def _signature(bundle: Bundle, required: Path | None) -> dict[str, Any] | None:
    """The signature of a bundle for programs: of which key (its fingerprint), and whether it was checked."""
    if bundle.signature is None:
        return None
    return {"key": fingerprint(signing_key(bundle.signature)), "checked": required is not None}


def _signature_shown(bundle: Bundle, required: Path | None) -> str:
    signature = _signature(bundle, required)
    if signature is None:
        return "none"
    if signature["checked"]:
        return f"right, by the key {signature['key']}"
    return f"not checked (--require-signature KEY does); it claims the key {signature['key']}"


def _confidence(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "not calibrated: --abstain-below cannot be used"
    if Calibration.from_json(calibration) is None:
        return "of a kind that this version does not know: --abstain-below cannot be used"
    return (
        f"calibrated on {_noted(calibration.get('pairs'), 'held-out pair')}, "
        f"expected error {calibration.get('ece_before')} before, {calibration.get('ece')} after"
    )


def checkpoint_shown(provenance: dict[str, Any]) -> str:
    """Which checkpoint of its run a bundle is, or a run was taken at."""
    return f"the {provenance.get('checkpoint')} checkpoint, step {_shown(provenance.get('steps'))}"


def _noted(value: object, noun: str) -> str:
    """So many of something, as the manifest has it for people."""
    return counted(value, noun) if isinstance(value, int) else f"{value} {plural(noun)}"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def doctor(json: JsonOption = False) -> None:
    """Say what edgechat finds on this machine, whether CUDA can really be used, and what to mend."""
    versions = {name: _installed(name) for name in _PACKAGES}
    cuda = cuda_state()
    problems = []
    if versions["onnxruntime-gpu"] and versions["onnxruntime"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        )
    found: dict[str, Any] = {
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
        put_json(found)
    else:
        put_table(
            [
                ("edgechat", __version__),
                ("python", f"{found['python']} ({sys.executable})"),
                ("platform", found["platform"]),
                ("cpus", found["cpus"]),
                *_packages(versions),
                ("device auto", "cuda" if cuda.usable else "cpu"),
                ("cuda", cuda.reason),
                *(("problem", problem) for problem in problems),
            ]
        )
    if problems:
        raise typer.Exit(FAILED)


def _packages(versions: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    """Of ONNX Runtime's two packages only those that are there: one is enough."""
    for name, version in versions.items():
        if version or not name.startswith("onnxruntime"):
            yield name, version or "not installed"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
