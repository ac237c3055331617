"""The check of a bundle's tokenizer.json, before `tokenizers` reads it. Some files make that library panic,
use up all memory, or take forever, when it loads them or when it encodes with them.

The tokenizer must be a byte-level BPE that reproduces the NFC form of any text. It splits text into words as
`edgechat train` does it, or with GPT-2's pattern, or not at all: `--tokenizer` takes such files. Everything
else that the format supports is refused: truncation, padding, random variation, changes of the text, and
unknown patterns, whose matching may take forever.
"""

import functools
from typing import Any

from .arguments import short_repr
from .errors import BundleError
from .strict_json import describe_misfit, read_json

#: No token crosses the boundaries of these matches: a word with its apostrophes and the space before it,
#: digits, signs, whitespace. Underscores and combining marks are part of words; commands use underscores.
#: `\p{White_Space}` is used because `\s` differs between JavaScript and Rust at U+0085 and U+FEFF.
WORD_PATTERN = (
    r" ?[\p{L}\p{M}_]+(?:['’][\p{L}\p{M}]+)*"
    r"| ?\p{N}+"
    r"| ?[^\p{White_Space}\p{L}\p{M}\p{N}_]+"
    r"|\p{White_Space}+(?!\P{White_Space})"
    r"|\p{White_Space}+"
)
#: The special tokens, by id: padding, the start and the end of a reply, unknown, and the separator of turns.
#: They are never matched in a text.
SPECIAL_TOKENS = ("<pad>", "<go>", "<eos>", "<unk>", "<sep>")
#: Maximum number of bytes of a token. It bounds the length of replies in bytes.
MAX_TOKEN_BYTES = 256
_ADDED_TOKEN_FLAGS = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
_ADDED_TOKENS = [{"id": id, "content": token} | _ADDED_TOKEN_FLAGS for id, token in enumerate(SPECIAL_TOKENS)]
_SPLIT = {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated", "invert": False}
_KNOWN_PARTS = {
    *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"),
    *("post_processor", "decoder", "model"),
}
#: Options of the BPE that change how text is encoded; all must be off.
_FORBIDDEN_BPE_OPTIONS = (
    *("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"),
    *("fuse_unk", "ignore_merges"),
)


@functools.cache
def byte_of_character() -> dict[str, int]:
    """The byte-level alphabet of GPT-2 (Radford et al. 2019), which has one printable character per byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def token_bytes(token: str) -> bytes:
    """The bytes that a token stands for. As in the decoder of `tokenizers`, a token with a character that is
    not in the byte-level alphabet is taken literally."""
    alphabet = byte_of_character()
    in_alphabet = all(c in alphabet for c in token)
    return bytes(alphabet[c] for c in token) if in_alphabet else token.encode("utf-8", "surrogatepass")


def check_tokenizer(raw: bytes, vocab_size: int | None = None) -> None:
    """Refuse a tokenizer.json that is not safe to use, or does not have `vocab_size` tokens if that is given.

    Raises:
        BundleError: says what is wrong with it.
    """
    try:
        values = read_json(raw)
        model = values["model"]
        missing = byte_of_character().keys() - model["vocab"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"tokenizer.json cannot be read: {describe_misfit(error)}") from None
    if unknown := values.keys() - _KNOWN_PARTS:
        raise BundleError(f"tokenizer.json has the unknown part {short_repr(min(unknown))}")
    if values.get("truncation") or values.get("padding"):
        raise BundleError("tokenizer.json truncates or pads text")
    if missing:
        raise BundleError(
            f"tokenizer.json is not a byte-level tokenizer: {len(missing)} of the 256 bytes have no token"
        )
    if vocab_size not in (None, len(model["vocab"])):
        raise BundleError(f"tokenizer.json has {len(model['vocab'])} tokens, but the model has {vocab_size}")
    _check_model(model)
    _check_pipeline(values)


def _check_model(model: dict[str, Any]) -> None:
    if model.get("type") != "BPE":
        raise BundleError(f"tokenizer.json is a {short_repr(model.get('type'))}, not a BPE")
    if model.get("dropout"):
        raise BundleError("tokenizer.json encodes at random: it has dropout")
    if used := [name for name in _FORBIDDEN_BPE_OPTIONS if model.get(name)]:
        raise BundleError(f"tokenizer.json has the option {used[0]}, which a byte-level BPE does not use")

    tokens: dict[str, Any] = model["vocab"]
    merges: Any = model.get("merges")
    long = (token for token in tokens if len(token) > MAX_TOKEN_BYTES // 4)  # a character has up to 4 bytes
    if (longest := max((len(token_bytes(token)) for token in long), default=0)) > MAX_TOKEN_BYTES:
        raise BundleError(
            f"tokenizer.json has a token of {longest:,} bytes, more than the {MAX_TOKEN_BYTES} allowed: "
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
        raise BundleError("tokenizer.json has a merge whose parts or result are not tokens") from None
    if len(set(pairs)) < len(pairs):
        raise BundleError("tokenizer.json has the same merge twice")


def _check_pipeline(values: dict[str, Any]) -> None:
    """Check how text is split into words, and these into bytes."""
    if values.get("added_tokens") != _ADDED_TOKENS:  # any other is cut out, with the spaces around it
        raise BundleError(
            f"tokenizer.json may change text: its added_tokens are not just {', '.join(SPECIAL_TOKENS)}, "
            "special and without options, as edgechat writes them"
        )
    if _type_name(values.get("normalizer")) != "NFC":
        raise BundleError(
            "tokenizer.json changes text: its normalizer must be 'NFC', not "
            f"{_type_name(values.get('normalizer'))!r}"
        )
    *splits, last = _pre_tokenizer_steps(values.get("pre_tokenizer")) or [None]
    if _type_name(last) != "ByteLevel":
        raise BundleError("tokenizer.json is not a byte-level tokenizer: it does not split words into bytes")
    if last.get("add_prefix_space"):
        raise BundleError("tokenizer.json changes text: its ByteLevel adds a leading space")
    if splits not in ([], [_SPLIT]):
        raise BundleError("tokenizer.json splits text into words differently from edgechat")
    for part in ("post_processor", "decoder"):
        if _type_name(values.get(part)) not in ("nothing", "ByteLevel"):
            raise BundleError(
                f"tokenizer.json has the {part} {_type_name(values[part])!r}; it must be "
                "'ByteLevel' or absent"
            )


def _pre_tokenizer_steps(pre_tokenizer: Any) -> list[Any]:
    """The steps of a pre-tokenizer, in order."""
    if _type_name(pre_tokenizer) != "Sequence":
        return [pre_tokenizer]
    steps = pre_tokenizer.get("pretokenizers")
    return steps if isinstance(steps, list) else []


def _type_name(part: Any) -> str:
    if part is None:
        return "nothing"
    return str(part.get("type"))[:60] if isinstance(part, dict) else type(part).__name__
