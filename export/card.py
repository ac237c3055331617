"""MODEL_CARD.md: a description of a bundle, for the people who receive it."""

from collections.abc import Mapping
from typing import Any

from ..runtime.display import plural
from ..runtime.manifest import Manifest
from .quality import perplexity_change


def model_card(manifest: Manifest) -> str:
    """The model card, from the manifest alone, so that two exports of a checkpoint have the same card."""
    model, text, quality = manifest.model, manifest.text, manifest.quality
    provenance, decoding = manifest.provenance, manifest.decoding
    perplexity = quality.get("valid_perplexity")
    vectors = provenance.get("pretrained_tokens")
    pretrained = f", {vectors:,} tokens initialized from pretrained vectors" if vectors else ""
    learned = f"{plural(provenance['steps'], 'step')} on {plural(provenance['train_pairs'], 'pair')}"
    before = provenance.get("begun_at_step")
    continued = "" if before is None else f", after {plural(before, 'step')} of another run"
    held_out = (
        f"{perplexity:.2f} on {plural(quality['valid_pairs'], 'held-out pair')}"
        if perplexity
        else "nothing was held out"
    )
    reply = f"at most {text.max_target} tokens"
    limit = "It repeats and recombines what its training data holds."
    if "closed_set" in quality:
        reply = f"closed set: {plural(quality['closed_set']['replies'], 'reply')}, in `replies.json`"
        limit = "Whatever the prompt, it gives one of the replies of its closed set."
    direction = "read backwards" if model.reverse_source else "read forwards"
    if model.bidirectional:
        direction = "read in both directions"
    case = ", in lower case" if text.lowercase else ""
    context = "the prompt alone" if text.turns == 1 else f"the last {text.turns} turns of the conversation"
    devices = "the CPU" if manifest.precision == "int8" else "the CPU or on CUDA"
    return f"""# edgechat model card

A small sequence-to-sequence model that replies to short prompts. It runs with ONNX Runtime on {devices}:
`edgechat reply BUNDLE "..."`.

## What it is

| | |
|---|---|
| architecture | {model.layers}-layer LSTM encoder and decoder, {model.options} |
| sizes | hidden {model.hidden}, embedding {model.embedding}, attention {model.attention} |
| vocabulary | {model.vocab_size:,} byte-level BPE tokens{pretrained} |
| source | {context}, at most {text.max_source} tokens{case}, {direction} |
| reply | {reply} |
| precision | {manifest.precision} |
| default decoding | beam {decoding.beam}, normalization {decoding.normalize} |
| confidence of a reply | {_confidence(manifest)} |

## What it was trained on

| | |
|---|---|
| data | {provenance["data"]} |
| sha256 of the data | `{provenance["data_sha256"]}` |
| license of the data | {provenance["data_licence"]} |
| training | {learned}{continued} |
| trained with | edgechat {provenance["edgechat"]} |
| perplexity | {held_out} |

## What was proved

{_exact(manifest)}
{_variant(manifest)}
## What it cannot do

{limit} It has no knowledge of facts, does not reason, and may be
wrong or rude where its training data is. Do not use it where a wrong reply does harm.
"""


def _confidence(manifest: Manifest) -> str:
    fitted = manifest.calibration
    if fitted is None:
        return "not calibrated"
    return (
        f"calibrated on {plural(fitted['pairs'], 'held-out pair')}, {fitted['right']:.1%} of them answered "
        f"word for word; calibration error {fitted['ece']:.3f}"
    )


def _exact(manifest: Manifest) -> str:
    proof = manifest.proof
    pairs, steps = plural(proof["pairs"], "pair"), plural(proof["steps"], "decoder step")
    replies, exceptions = plural(proof["replies"], "decoded reply"), _near_ties(proof)
    graphs = "graphs" if manifest.precision == "fp32" else "graphs in fp32"
    return f"""The {graphs} were compared with the PyTorch model on {pairs}
({steps}). Largest differences: log-probabilities {proof["worst_logp"]:.1e}, states
{proof["worst_state"]:.1e}, alignments {proof["worst_align"]:.1e}. {replies} (beams
{_list(proof["beams"])}; batches of {_list(proof["batch_sizes"])}) are the same token by token{exceptions}.
"""


def _variant(manifest: Manifest) -> str:
    """What a precision other than fp32 costs, and that batching does not change replies."""
    quality = manifest.quality.get("against_fp32")
    if quality is None:
        return ""
    batching = manifest.proof[manifest.precision]
    replies, exceptions = plural(batching["replies"], "reply"), _near_ties(batching)
    change = perplexity_change(quality["perplexity"], quality["fp32_perplexity"])
    forced = (
        "\nThis exceeds the declared limits: the bundle was written with --beyond-limits."
        if manifest.quality["forced"]
        else ""
    )
    return f"""The {manifest.precision} graphs of this bundle were compared with those in fp32 on
{quality["tokens"]:,.0f} tokens: {quality["agreement"]:.1%} of the likeliest tokens are the same, perplexity
changes by {change:+.2%}, log-probabilities differ by {quality["mean_logp"]:.3f} on average and
{quality["worst_logp"]:.2f} at most.{forced}
{replies} are the same alone and in batches of {_list(batching["batch_sizes"])}{exceptions}.
"""


def _near_ties(proof: Mapping[str, Any]) -> str:
    """The near ties of a comparison, if there are any."""
    ties = proof["near_ties"]
    return f",\nexcept for {plural(ties, 'near tie')}" if ties else ""


def _list(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, numbers))
