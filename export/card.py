"""MODEL_CARD.md: what a bundle is, for people who are handed one."""

from ..runtime.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """The card, from the manifest alone: nothing is in it that differs between two exports."""
    model, text, proof, quality = manifest.model, manifest.text, manifest.proof, manifest.quality
    provenance, decoding = manifest.provenance, manifest.decoding
    perplexity = quality.get("valid_perplexity")
    held_out = (
        f"{perplexity:.2f} on {quality['valid_pairs']:,} held-out pairs"
        if perplexity
        else "nothing was held out"
    )
    direction = "reversed" if model.reverse_source else "read forwards"
    context = "the prompt alone" if text.turns == 1 else f"the last {text.turns} turns of the conversation"
    return f"""# edgechat model card

A small sequence-to-sequence model that replies to short prompts. It runs with ONNX Runtime on the CPU or
on CUDA: `edgechat reply BUNDLE "..."`.

## What it is

| | |
|---|---|
| architecture | {model.layers}-layer LSTM encoder and decoder, {model.attention_kind} attention |
| sizes | hidden {model.hidden}, embedding {model.embedding}, attention {model.attention} |
| vocabulary | {model.vocab_size:,} byte-level BPE tokens |
| source | {context}, at most {text.max_source} tokens, {direction} |
| reply | at most {text.max_target} tokens |
| precision | {manifest.precision} |
| default decoding | beam {decoding.beam}, normalization {decoding.normalize} |

## What it learned from

| | |
|---|---|
| data | {provenance["data"]} |
| sha256 of the data | `{provenance["data_sha256"]}` |
| licence of the data | {provenance["data_licence"]} |
| training | {provenance["steps"]:,} steps on {provenance["train_pairs"]:,} pairs |
| trained with | edgechat {provenance["edgechat"]} |
| perplexity | {held_out} |

## What was proved

The graphs were compared with the PyTorch model on {proof["pairs"]} pairs ({proof["steps"]:,} decoder steps).
Worst differences: log-probabilities {proof["worst_logp"]:.1e}, states {proof["worst_state"]:.1e}, alignments
{proof["worst_align"]:.1e}. {proof["replies"]:,} decoded replies (beams {_list(proof["beams"])}; batches of
{_list(proof["batch_sizes"])}) are the same token by token, but for {proof["near_ties"]} near ties.

## What it cannot do

It repeats and recombines what its training data holds. It knows no facts, does not reason, and may be wrong
or rude where its data was. Do not use it where a wrong reply does harm.
"""


def _list(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, numbers))
