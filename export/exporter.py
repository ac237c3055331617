"""Export of a run: weights -> graphs -> proof of equality -> golden vectors -> sealed bundle.

The bundle is a function of the checkpoint and the options. Dates and times go into a report beside it.
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .. import __version__
from ..runtime.arguments import short_repr
from ..runtime.atomic_write import write_atomic
from ..runtime.bundle import Bundle, check_bundle_target, write_bundle
from ..runtime.chat import ChatModel
from ..runtime.closed_set import (
    REPLIES_FILE,
    ClosedSet,
    check_replies_argument,
    encode_replies,
    make_closed_set,
)
from ..runtime.errors import ProofError, QualityError, UsageError
from ..runtime.golden import make_golden
from ..runtime.manifest import (
    OPSET,
    Manifest,
    ModelSpec,
    PrecisionName,
    TextSpec,
    check_defaults,
)
from ..runtime.options import DecodingOptions
from ..runtime.ort import OrtBackend
from ..runtime.reply_maker import ReplyMaker
from ..runtime.signature import Signer
from ..runtime.teacher_forcing import score_targets
from ..runtime.text import EOS, GO, PAD, SEP, UNK
from ..train.dataset import EncodedPairs
from ..train.model import Seq2Seq
from ..train.perplexity import perplexity_of
from ..train.run import Run, open_run
from .bundle_graphs import BundleGraphs, build_graphs, load_graphs, prove_graphs
from .calibrate import CalibrationError, calibrate
from .card import model_card
from .closed_set import ClosedSetFit, measure_closed_set_fit
from .graphs import graph_spec
from .proof import ProgressCallback
from .quality import LIMITS, compare_with_fp32, measure_step_ms, reasons_against

#: Maximum numbers of pairs that the proof, the choice of int8 levels and the quality figures use: see
#: `_evaluation_pairs`.
_MAX_PROOF_PAIRS = 64
_MAX_LEVEL_PAIRS = 64
_MAX_QUALITY_PAIRS = 2000
#: With fewer held-out pairs, training pairs are added up to this number, but not beyond the maximum.
_MIN_PAIRS = 500
_GOLDEN_CASES = 8
#: Licenses of the corpora that come as packages.
_CORPUS_LICENCES = {"chitchat": "MIT", "chatterbot": "BSD-3-Clause"}


@dataclass(frozen=True)
class ExportResult:
    path: Path
    manifest: Manifest
    size: int  # bytes
    seconds: float
    beyond_limits: list[str]  # how the precision exceeds its limits; empty without `allow_beyond_limits`


def export(
    run_folder: Path,
    out: Path,
    *,
    precision: PrecisionName = "int8",
    checkpoint: str = "best",
    decoding: DecodingOptions | None = None,
    data_licence: str | None = None,
    replies: Sequence[str] | None = None,
    sign: Signer | None = None,
    replace_existing: bool = False,
    allow_beyond_limits: bool = False,
    progress: ProgressCallback = lambda what: None,
) -> ExportResult:
    """Export a checkpoint of a run as the bundle `out`.

    The fp32 graphs are proved against PyTorch whatever the precision; int8 and fp16 are then compared with
    them.

    Args:
        run_folder: the run.
        out: the folder to write, or the file if the name ends with .edgechat.
        precision: how weights and products are stored and computed.
        checkpoint: "best" or "last", or the mean of several, such as "best:3".
        decoding: the default options of the bundle.
        data_licence: the license of the training data, for the model card; None takes what is known.
        replies: the closed set of the bundle: it replies nothing else.
        sign: signs the bundle.
        replace_existing: replace a bundle at `out`.
        allow_beyond_limits: write the bundle even if the precision exceeds its limits.
        progress: called with a line of text before each stage, and for each hint.

    Raises:
        UsageError: `out` exists and is not to be replaced, or is not a bundle; the closed set is empty, or a
            reply in it is empty or too long for the model; a bundle may not have `decoding` as its defaults,
            or no reply can satisfy them; or `data_licence` is not valid text.
        CheckpointError: the run has no checkpoint, or the checkpoint is damaged.
        ProofError: the graphs do not compute what the model computes; nothing is written.
        QualityError: the precision exceeds its limits; nothing is written.
    """
    start = time.perf_counter()
    check_bundle_target(out, replace_existing)
    _check_licence(data_licence)
    replies = None if replies is None else check_replies_argument(replies)
    run = open_run(run_folder)
    model, position = run.load_model(checkpoint)
    decoding = decoding or DecodingOptions()
    closed = None if replies is None else make_closed_set(replies, run.codec)
    check_defaults(decoding, max_target=run.codec.max_target, vocab_size=run.codec.vocab_size)
    ReplyMaker(run.codec, decoding, closed_set=closed).check_options(decoding)
    last = run.step("last")
    what = f"mean of the checkpoints {checkpoint}" if ":" in checkpoint else f"{checkpoint} checkpoint"
    last_step_note = f"; the last is step {last:,}" if position.step != last else ""
    progress(f"taking the {what}, step {position.step:,}{last_step_note}")
    fit = None if replies is None else _report_closed_set_fit(run, replies, progress)
    data = run.config.data
    manifest = _make_manifest(run, model, checkpoint, position.step, precision, decoding, data_licence)
    built = build_graphs(model, precision, _evaluation_pairs(run, _MAX_LEVEL_PAIRS), progress=progress)
    proof = prove_graphs(
        model, built, *_evaluation_pairs(run, _MAX_PROOF_PAIRS), max_length=data.max_target, progress=progress
    )
    progress("measuring held-out perplexity")
    quality, exceeded, ms = _measure_quality(built, run, allow_beyond_limits=allow_beyond_limits)
    if fit is not None:
        quality["closed_set"] = asdict(fit)
    manifest = replace(manifest, proof=proof, quality=quality)
    manifest = replace(manifest, calibration=_fit_calibration(run, built.backend, manifest, closed, progress))
    progress("making golden vectors")
    golden = make_golden(
        built.backend,
        seed=run.config.training.seed,
        count=_GOLDEN_CASES,
        max_source=data.max_source,
        max_length=data.max_target,
    )
    contents = {
        "tokenizer.json": run.tokenizer,
        "encoder.onnx": built.encoder,
        "decoder.onnx": built.decoder,
        "golden.json": golden,
        "MODEL_CARD.md": model_card(manifest).encode(),
        **({} if replies is None else {REPLIES_FILE: encode_replies(replies)}),
    }
    progress("writing the bundle")
    out.parent.mkdir(parents=True, exist_ok=True)
    sealed = write_bundle(out, manifest, contents, replace_existing=replace_existing, sign=sign)
    size = sum(path.stat().st_size for path in ([out] if out.is_file() else out.iterdir()))
    seconds = time.perf_counter() - start
    try:
        _write_report(out, run_folder, checkpoint, seconds, ms)
    except OSError as error:  # the bundle is complete without the report
        progress(f"warning: the report beside the bundle could not be written: {error.strerror}")
    return ExportResult(out, sealed, size, seconds, exceeded)


def _report_closed_set_fit(run: Run, replies: Sequence[str], progress: ProgressCallback) -> ClosedSetFit:
    """How the closed set fits the run's data. Hints about what does not fit are passed to `progress`."""
    fit = measure_closed_set_fit(replies, run.codec, run.train_pairs, run.valid_pairs)
    for hint in fit.hints():
        progress(hint)
    return fit


def prove_bundle(
    bundle: Bundle, run_folder: Path, *, progress: ProgressCallback = lambda what: None
) -> dict[str, Any]:
    """Repeat the proof with the bundle's own graphs, against the checkpoint that they were exported from.

    Raises:
        UsageError: the run has no checkpoint of the bundle's step, or a different tokenizer.
        ProofError: the graphs do not compute what the model computes, or their precision exceeds its limits.
    """
    manifest = bundle.manifest
    run, model = load_exported_checkpoint(bundle, run_folder)
    built = load_graphs(model, manifest.precision, bundle.files["encoder.onnx"], bundle.files["decoder.onnx"])
    proof = prove_graphs(
        model,
        built,
        *_evaluation_pairs(run, _MAX_PROOF_PAIRS),
        max_length=run.config.data.max_target,
        progress=progress,
    )
    if built.precision != "fp32":
        quality = compare_with_fp32(
            built.fp32_backend, built.backend, *_evaluation_pairs(run, _MAX_QUALITY_PAIRS)
        )
        reasons = quality.exceeded_limits(LIMITS[built.precision])
        if reasons and manifest.quality.get("forced") is not True:
            raise ProofError(
                f"the {built.precision} graphs differ too much from those in fp32: {'; '.join(reasons)}"
            )
        proof |= {"against_fp32": quality.to_json(), "beyond_limits": reasons}
    return proof


def load_exported_checkpoint(bundle: Bundle, run_folder: Path) -> tuple[Run, Seq2Seq]:
    """The run that a bundle was exported from, and the model of its checkpoint.

    Raises:
        UsageError: the run has no checkpoint of the bundle's step, or a different tokenizer.
    """
    run, provenance = open_run(run_folder), bundle.manifest.provenance
    if bundle.files["tokenizer.json"] != run.tokenizer:
        raise UsageError(
            f"{run_folder} has another tokenizer than the bundle, which was exported from a different run"
        )
    checkpoint, step = str(provenance.get("checkpoint", "best")), provenance.get("steps")
    model, position = run.load_model(checkpoint)
    if position.step != step:
        raise UsageError(
            f"the bundle was exported from the {checkpoint} checkpoint at step {step}, but in {run.folder} "
            f"that is now step {position.step:,}: export the run again"
        )
    return run, model


def _check_licence(text: str | None) -> None:
    """Raise UsageError for text that UTF-8 cannot encode, as an argument that is not UTF-8 becomes."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise UsageError(f"data_licence must be valid Unicode text, not {short_repr(text)}") from None


def _make_manifest(
    run: Run,
    model: Seq2Seq,
    checkpoint: str,
    steps: int,
    precision: PrecisionName,
    decoding: DecodingOptions,
    data_licence: str | None,
) -> Manifest:
    config, data, spec = model.config, run.config.data, graph_spec(model)
    name = run.data_name
    known = sorted(
        {_CORPUS_LICENCES.get(part.strip().split(":")[0], "not stated") for part in name.split(", ")}
    )
    return Manifest(
        model=ModelSpec(
            layers=config.layers,
            hidden=config.hidden,
            embedding=config.embedding,
            attention=model.attention.size,
            memory=config.hidden,
            vocab_size=model.vocab_size,
            reverse_source=config.reverse_source and not config.bidirectional,
            attention_kind=config.attention_kind,
            input_feeding=config.input_feeding,
            bidirectional=config.bidirectional,
            residual=config.residual,
            layer_norm=config.layer_norm,
            tied_output=config.tied_output,
            copy_attention=config.copy_attention,
        ),
        text=TextSpec(
            pad=PAD,
            go=GO,
            eos=EOS,
            unk=UNK,
            separator=SEP,
            turns=data.turns,
            speakers="alternate",
            max_source=data.max_source,
            max_target=data.max_target,
            truncation="oldest",
            normalization="NFC",
            lowercase=data.lowercase,
        ),
        precision=precision,
        opset=OPSET,
        memory=spec.memory,
        state=spec.state,
        decoding=decoding,
        files={},
        provenance={
            "data": name,
            "data_sha256": run.corpus_sha256,
            "data_licence": data_licence or ", ".join(known),
            "edgechat": __version__,
            "checkpoint": checkpoint,
            "steps": steps,
            "train_pairs": len(run.train_pairs),
            **({} if run.pretrained is None else {"pretrained_tokens": run.pretrained["found"]}),
            **({} if run.base_info is None else {"begun_at_step": run.base_info["step"]}),
        },
        proof={},
        quality={},
    )


def _evenly_spaced_pairs(pairs: EncodedPairs, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """At most `count` sources and targets, spread evenly over the pairs."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, num=min(count, len(pairs)), dtype=np.int64))
    return [pairs.source(i).tolist() for i in chosen], [pairs.target(i).tolist() for i in chosen]


def _evaluation_pairs(run: Run, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """At most `count` sources and targets to test a bundle on. Held-out pairs come first. If they are fewer
    than both `count` and `_MIN_PAIRS`, training pairs are added, since a handful of pairs says little."""
    sources, targets = _evenly_spaced_pairs(run.valid_pairs, count)
    more = _evenly_spaced_pairs(run.train_pairs, max(0, min(count, _MIN_PAIRS) - len(sources)))
    return sources + more[0], targets + more[1]


def _measure_quality(
    built: BundleGraphs, run: Run, *, allow_beyond_limits: bool
) -> tuple[dict[str, Any], list[str], dict[PrecisionName, float]]:
    """Figures for the manifest; the limits that are exceeded; and the CPU milliseconds of a decoder step on
    this machine."""
    held_out = _evenly_spaced_pairs(run.valid_pairs, _MAX_QUALITY_PAIRS)
    logps = score_targets(built.backend, *held_out)
    figures: dict[str, Any] = {
        "valid_pairs": len(logps),
        "valid_perplexity": round(perplexity_of(logps), 4) if logps else None,
    }
    sources, targets = _evaluation_pairs(run, _MAX_QUALITY_PAIRS)
    backends: dict[PrecisionName, OrtBackend] = {"fp32": built.fp32_backend, built.precision: built.backend}
    ms = measure_step_ms(backends, sources[0])
    if built.precision == "fp32":
        return figures, [], ms
    quality = compare_with_fp32(built.fp32_backend, built.backend, sources, targets)
    reasons = reasons_against(built.precision, quality, size=built.size, fp32_size=built.fp32_size, ms=ms)
    if reasons and not allow_beyond_limits:
        raise QualityError(
            f"{built.precision} is not good enough for this model: {'; '.join(reasons)}: "
            "train longer if the model has hardly learned, use --precision fp32, or write it with "
            "--beyond-limits"
        )
    limits = asdict(LIMITS[built.precision])
    figures |= {"against_fp32": quality.to_json(), "limits": limits, "forced": bool(reasons)}
    return figures, reasons, ms


def _fit_calibration(
    run: Run, backend: OrtBackend, manifest: Manifest, closed: ClosedSet | None, progress: ProgressCallback
) -> dict[str, Any] | None:
    """The calibration for the manifest; None, with a line to `progress`, where there can be none."""
    model = ChatModel(backend, run.codec, manifest.decoding, device="cpu", closed_set=closed)
    progress("calibrating the confidence")
    try:
        return calibrate(model, run.valid_texts())
    except CalibrationError as error:
        progress(f"the bundle gives no confidence: {error}")
        return None


def _write_report(
    out: Path, run_folder: Path, checkpoint: str, seconds: float, ms: dict[PrecisionName, float]
) -> None:
    report = {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "run": str(run_folder),
        "checkpoint": checkpoint,
        "machine": platform.machine(),
        "step_cpu_ms": {name: round(value, 4) for name, value in ms.items()},
        "onnxruntime": ort.__version__,
    }
    write_atomic(out.with_name(out.name + ".report.json"), json.dumps(report, indent=2) + "\n")
