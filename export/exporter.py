"""From a run to a bundle: weights -> graphs -> proof of equality -> golden vectors -> sealed folder.

What the bundle holds is a function of the checkpoint; dates and times go into a report beside it.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .. import __version__
from ..runtime.bundle import MANIFEST, SIZE_CAPS, Bundle, write_bundle
from ..runtime.errors import UsageError
from ..runtime.files import write_atomic
from ..runtime.golden import make_golden
from ..runtime.manifest import Manifest, ModelSpec, TextSpec
from ..runtime.options import DecodingOptions
from ..runtime.ort import OrtBackend
from ..runtime.scoring import score_targets
from ..runtime.text import EOS, GO, PAD, SEP, UNK
from ..train.backend import TorchBackend
from ..train.checkpoint import last_step
from ..train.dataset import EncodedPairs
from ..train.loss import perplexity_of
from ..train.model import Seq2Seq
from ..train.run import Run, open_run
from .builder import OPSET
from .card import model_card
from .graphs import build_decoder, build_encoder, graph_spec
from .proof import prove

_PROOF_PAIRS = 64
_QUALITY_PAIRS = 2000
_GOLDEN_CASES = 8
#: Licences of the corpora that come as packages.
_LICENCES = {"chitchat": "MIT", "chatterbot": "BSD-3-Clause"}

Told = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    path: Path
    manifest: Manifest
    size: int  # bytes
    seconds: float


def export(
    run_folder: Path,
    out: Path,
    *,
    checkpoint: str = "best",
    decoding: DecodingOptions | None = None,
    data_licence: str | None = None,
    force: bool = False,
    progress: Told = lambda what: None,
) -> Exported:
    """Write the bundle `out` of a run's `best` or `last` checkpoint, or the mean of several such as
    `best:3`, in fp32.

    Raises:
        UsageError: `out` exists and is not to be replaced, or is no bundle.
        CheckpointError: the run has no checkpoint, or it is damaged.
        ProofError: the graphs do not compute what the model computes; nothing is written.
    """
    start = time.perf_counter()
    check_out(out, force)
    run = open_run(run_folder)
    model, position = run.load_model(checkpoint)
    last = last_step(run_folder)
    what = f"mean of the checkpoints {checkpoint}" if ":" in checkpoint else f"{checkpoint} checkpoint"
    progress(f"taking the {what}, step {position.step:,}; the last is step {last:,}")
    progress("building the graphs")
    encoder, decoder = build_encoder(model), build_decoder(model)
    manifest = _manifest(run, model, position.step, decoding or DecodingOptions(), data_licence)
    ort_backend = OrtBackend(manifest.graphs, encoder, decoder, device="cpu", threads=1)
    valid = run.pairs("valid")
    proof = prove(
        TorchBackend(model),
        ort_backend,
        *_some(valid if len(valid) else run.pairs("train"), _PROOF_PAIRS),
        max_length=run.config.data.max_target,
        progress=progress,
    )
    progress("measuring held-out perplexity")
    manifest = replace(manifest, proof=proof.to_json(), quality=_quality(ort_backend, valid))
    progress("making golden vectors")
    golden = make_golden(
        ort_backend,
        seed=run.config.training.seed,
        count=_GOLDEN_CASES,
        max_source=run.config.data.max_source,
        max_length=run.config.data.max_target,
    )
    contents = {
        "tokenizer.json": run.tokenizer,
        "encoder.onnx": encoder,
        "decoder.onnx": decoder,
        "golden.json": golden,
        "MODEL_CARD.md": model_card(manifest).encode(),
    }
    progress("writing the bundle")
    out.parent.mkdir(parents=True, exist_ok=True)
    sealed = write_bundle(out, manifest, contents, replace_existing=force)
    size = Bundle(sealed, contents).size + len(sealed.to_bytes())
    seconds = time.perf_counter() - start
    try:
        _write_report(out, run_folder, checkpoint, seconds)
    except OSError as error:  # the bundle is whole without it
        progress(f"the report beside the bundle could not be written: {error.strerror}")
    return Exported(out, sealed, size, seconds)


def check_out(out: Path, force: bool) -> None:
    """Refuse to overwrite anything, and with `force` anything but a bundle."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise UsageError(f"{out} exists: choose another --out, or give --force to replace it")
    names = {path.name for path in out.iterdir()} if out.is_dir() and not out.is_symlink() else {""}
    if names and not (MANIFEST in names and names <= SIZE_CAPS.keys()):
        raise UsageError(
            f"{out} is not a bundle, or holds other files too, so --force does not replace it: "
            "choose another --out"
        )


def _manifest(
    run: Run, model: Seq2Seq, steps: int, decoding: DecodingOptions, data_licence: str | None
) -> Manifest:
    config, data, spec = model.config, run.config.data, graph_spec(model)
    name = str(run.info["corpus"]["name"])
    known = sorted({_LICENCES.get(part.strip().split(":")[0], "not stated") for part in name.split(", ")})
    return Manifest(
        model=ModelSpec(
            layers=config.layers,
            hidden=config.hidden,
            embedding=config.embedding,
            attention=config.attention,
            memory=config.hidden,
            vocab_size=model.vocab_size,
            reverse_source=config.reverse_source,
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
        ),
        precision="fp32",
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
            "steps": steps,
            "train_pairs": len(run.pairs("train")),
        },
        proof={},
        quality={},
    )


def _some(pairs: EncodedPairs, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """At most `count` sources and targets, spread evenly over the pairs."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, num=min(count, len(pairs)), dtype=np.int64))
    return [pairs.source(i).tolist() for i in chosen], [pairs.target(i).tolist() for i in chosen]


def _quality(backend: OrtBackend, valid: EncodedPairs) -> dict[str, Any]:
    """Held-out perplexity of the graphs themselves."""
    if not len(valid):
        return {"valid_pairs": 0, "valid_perplexity": None}
    sources, targets = _some(valid, _QUALITY_PAIRS)
    measured = perplexity_of(score_targets(backend, sources, targets))
    return {"valid_pairs": len(sources), "valid_perplexity": round(measured, 4)}


def _write_report(out: Path, run_folder: Path, checkpoint: str, seconds: float) -> None:
    report = {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "run": str(run_folder),
        "checkpoint": checkpoint,
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
    }
    write_atomic(out.with_name(out.name + ".report.json"), json.dumps(report, indent=2) + "\n")
