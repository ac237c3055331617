"""Facts about bundles in words and JSON, as several commands show them."""

from pathlib import Path
from typing import Any

from ..runtime.bundle import Bundle
from ..runtime.signature import claimed_key, fingerprint


def signature_json(bundle: Bundle, *, checked_with: Path | None) -> dict[str, Any] | None:
    """The signature of a bundle: the fingerprint of its key, and whether it was checked. None if unsigned."""
    if bundle.signature is None:
        return None
    return {"key": fingerprint(claimed_key(bundle.signature)), "checked": checked_with is not None}


def describe_signature(bundle: Bundle, *, checked_with: Path | None) -> str:
    """The signature of a bundle in words."""
    signature = signature_json(bundle, checked_with=checked_with)
    if signature is None:
        return "none"
    if signature["checked"]:
        return f"valid, by the key {signature['key']}"
    return f"not checked (--require-signature KEY checks it); claims the key {signature['key']}"


def format_perplexity(value: float) -> str:
    return f"{value:.3f}" if value < 1e6 else f"{value:.2e}"


def describe_checkpoint(provenance: dict[str, Any]) -> str:
    """The checkpoint that a bundle was exported from, or that is evaluated."""
    step = provenance.get("steps")
    shown = f"{step:,}" if isinstance(step, int) else step
    return f"the {provenance.get('checkpoint')} checkpoint, step {shown}"


def describe_fp32_comparison(quality: dict[str, Any]) -> str:
    """What a precision costs, from `against_fp32` as the export and the proof give it."""
    from ..export.quality import perplexity_change

    change = perplexity_change(quality["perplexity"], quality["fp32_perplexity"])
    return (
        f"{quality['agreement']:.1%} of tokens agree, perplexity {change:+.2%}, log-probability error "
        f"{quality['mean_logp']:.3f} mean, {quality['worst_logp']:.2f} worst"
    )
