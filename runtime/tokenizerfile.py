"""What a bundle's tokenizer.json may be: checked before `tokenizers` sees it, which on some files panics,
asks for all memory or takes for ever, as it reads them or as it encodes.

It has to be a byte-level BPE that gives back the NFC form of any text, in the one way that those of
`edgechat train` do. Whatever else the format knows is refused: what cuts, pads or varies what is encoded,
what alters text, and patterns of a stranger, whose matching may take for ever.
"""

import functools
from typing import Any

from .arguments import shown
from .errors import BundleError
from .jsonobject import misfit, read_json

#: What no token crosses: a word with the space before it and its apostrophes, digits, signs, spaces.
#: Underscores belong to words, since commands are written with them, and so do combining marks.
#: `\p{White_Space}` and not `\s`, which differs between JavaScript and Rust at U+0085 and U+FEFF.
WORDS = (
    r" ?[\p{L}\p{M}_]+(?:['’][\p{L}\p{M}]+)*"
    r"| ?\p{N}+"
    r"| ?[^\p{White_Space}\p{L}\p{M}\p{N}_]+"
    r"|\p{White_Space}+(?!\P{White_Space})"
    r"|\p{White_Space}+"
)
#: The tokens beside words and bytes, by id: padding, the begin and the end of a reply, unknown, and what
#: stands between turns. None is looked for in a text.
SPECIAL_TOKENS = ("<pad>", "<go>", "<eos>", "<unk>", "<sep>")
#: Bytes that a token stands for at most: each id of a reply may be one of that length.
LONGEST_TOKEN = 256
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_ADDED = [{"id": id, "content": token} | _PLAIN for id, token in enumerate(SPECIAL_TOKENS)]
_SPLIT = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
_PARTS = {
    *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"),
    *("post_processor", "decoder", "model"),
}
#: Options of the BPE that change what is encoded, each of which must be off.
_CHANGES_TOKENS = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


@functools.cache
def byte_of_character() -> dict[str, int]:
    """The byte-level alphabet of GPT-2 (Radford et al. 2019): each byte as one printable character."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def check_tokenizer(raw: bytes) -> None:
    """Refuse a tokenizer.json that is not safe to use.

    Raises:
        BundleError: says what is wrong with it.
    """
    try:
        values = read_json(raw)
        model = values["model"]
        missing = byte_of_character().keys() - model["vocab"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"tokenizer.json cannot be read: {misfit(error)}") from None
    if unknown := values.keys() - _PARTS:
        raise BundleError(f"tokenizer.json has the unknown part {shown(min(unknown))}")
    if values.get("truncation") or values.get("padding"):
        raise BundleError("tokenizer.json truncates or pads what it encodes")
    if missing:
        raise BundleError(
            f"tokenizer.json is not a byte-level tokenizer: {len(missing)} of the 256 bytes have no token"
        )
    _check_model(model)
    _check_ways(values)


def _check_model(model: dict[str, Any]) -> None:
    if model.get("type") != "BPE":
        raise BundleError(f"tokenizer.json is a {shown(model.get('type'))}, not a BPE")
    if model.get("dropout"):
        raise BundleError("tokenizer.json encodes at random: it has a dropout")
    if used := [name for name in _CHANGES_TOKENS if model.get(name)]:
        raise BundleError(f"tokenizer.json has a {used[0]}, which bytes have no use for")

    tokens: dict[str, Any] = model["vocab"]
    merges: Any = model.get("merges")
    if (longest := max(map(len, tokens))) > LONGEST_TOKEN:
        raise BundleError(
            f"tokenizer.json has a token of {longest:,} bytes, more than the {LONGEST_TOKEN} allowed: "
            "train and export it again"
        )
    try:
        if len(merges) > len(tokens):
            raise BundleError(
                f"tokenizer.json has {len(merges):,} merges, more than its {len(tokens):,} tokens"
            )
        pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
        for first, second in pairs:
            if not (first in tokens and second in tokens and first + second in tokens):
                raise ValueError
    except (TypeError, ValueError):
        raise BundleError("tokenizer.json merges what are no two tokens, or into no token") from None
    if len(set(pairs)) < len(pairs):
        raise BundleError("tokenizer.json merges the same two tokens twice")


def _check_ways(values: dict[str, Any]) -> None:
    """How text becomes words, and those bytes."""
    if values.get("added_tokens") != _ADDED:  # one more is cut out of a text, with the spaces around it
        raise BundleError(
            f"tokenizer.json may alter text: its added_tokens are not just {', '.join(SPECIAL_TOKENS)}, "
            "special and without options, as edgechat writes them"
        )
    if _type(values.get("normalizer")) != "NFC":
        raise BundleError(
            "tokenizer.json alters text: it does not give back the NFC form, since its normalizer is "
            f"{_type(values.get('normalizer'))!r}"
        )
    *splits, last = _steps(values.get("pre_tokenizer")) or [None]
    if _type(last) != "ByteLevel":
        raise BundleError("tokenizer.json is not a byte-level tokenizer: its words do not become bytes")
    if last.get("add_prefix_space"):
        raise BundleError("tokenizer.json alters text: its ByteLevel adds a space in front")
    if splits not in ([], [_SPLIT]):
        raise BundleError("tokenizer.json makes words of a text in another way than edgechat does")
    for part in ("post_processor", "decoder"):
        if _type(values.get(part)) not in ("nothing", "ByteLevel"):
            raise BundleError(
                f"tokenizer.json has the {part} {_type(values[part])!r}, but bytes need none or 'ByteLevel'"
            )


def _steps(pre_tokenizer: Any) -> list[Any]:
    """What a pre-tokenizer does, one after the other."""
    if _type(pre_tokenizer) != "Sequence":
        return [pre_tokenizer]
    steps = pre_tokenizer.get("pretokenizers")
    return steps if isinstance(steps, list) else []


def _type(part: Any) -> str:
    if part is None:
        return "nothing"
    return str(part.get("type"))[:60] if isinstance(part, dict) else type(part).__name__
