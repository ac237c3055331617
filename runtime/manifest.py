"""`edgechat.json`, the manifest: what a bundle is, the state of its graphs, and the hash of every file.

The manifest seals itself: its `sha256` is that of its own bytes with those 64 digits set to zero.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from .arguments import short_repr
from .atomic_write import sha256
from .errors import BundleError, EdgeChatError, UsageError
from .options import MAX_LENGTH, DecodingOptions
from .strict_json import read_json, replace_nonfinite
from .text import EOS, GO, PAD, SEP, UNK

FORMAT_MAJOR, FORMAT_MINOR = 1, 0
#: Limit on each size of a model. It is far above what any model needs.
MAX_DIMENSION = 1 << 20
#: Limit on the number of memory tensors, and on that of state tensors. Our models have 3 of each.
MAX_TENSORS = 16
#: Limit on the decoder rows of a reply, beam times maximum length, with a bundle's default options. A caller
#: may exceed it with options of its own.
MAX_REPLY_ROWS = 200_000
#: Limit on the log-probabilities of a step, beam times vocabulary, with a bundle's default options.
MAX_STEP_LOGPS = 20_000_000
#: Limits on the characters of the texts of an option times the vocabulary, with a bundle's default options.
#: At the limit, the rules for these texts take about a second when they are created, and at each step.
MAX_TEXT_COSTS = {"banned": 100_000_000, "required": 10_000_000}
PrecisionName = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
#: The opset of ONNX's standard operators that the graphs use.
OPSET = 18
#: Maximum characters of a string, except in the parts that are for people.
_MAX_STRING_LENGTH = 100
_ZERO_SHA256 = "0" * 64
#: How an error message calls the types of values.
_TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    bool: "true or false",
}
_MAX_DEPTH = 20
_SEAL_LINE = '\n  "sha256": "{}"'
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DECODING_OPTIONS = {field.name for field in fields(DecodingOptions)}


@dataclass(frozen=True)
class ModelSpec:
    """The options and sizes of the model."""

    layers: int  # L
    hidden: int  # H
    embedding: int  # E
    attention: int  # A
    memory: int  # D
    vocab_size: int  # V
    reverse_source: bool
    attention_kind: str
    input_feeding: bool
    # A manifest omits the following fields when they are false.
    bidirectional: bool = False
    residual: bool = False
    layer_norm: bool = False
    tied_output: bool = False
    copy_attention: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "embedding", "attention", "memory", "vocab_size"):
            if not 1 <= getattr(self, name) <= MAX_DIMENSION:
                raise BundleError(
                    f"edgechat.json: {name} must be from 1 to {MAX_DIMENSION:,}, not {getattr(self, name):,}"
                )

    @property
    def options(self) -> str:
        """The kind of attention and every option that differs from the default, in words."""
        options = {
            "no input feeding": not self.input_feeding,
            "bidirectional encoder": self.bidirectional,
            "residual connections": self.residual,
            "layer norm": self.layer_norm,
            "output tied to the embedding": self.tied_output,
            "copy attention": self.copy_attention,
        }
        return ", ".join([f"{self.attention_kind} attention", *(name for name, on in options.items() if on)])


@dataclass(frozen=True)
class TextSpec:
    """How text becomes the model's source, and the maximum lengths of source and target in tokens."""

    pad: int
    go: int
    eos: int
    unk: int
    separator: int
    turns: int  # maximum number of turns of a conversation in the source
    speakers: str  # always "alternate": speakers alternate, and turns are not marked with them
    max_source: int
    max_target: int  # end-of-sentence counted
    truncation: str  # always "oldest": the oldest text is cut first
    normalization: str  # always "NFC"
    # A manifest omits the following field when it is false.
    lowercase: bool = False  # whether the source is in lower case; the target never is

    def __post_init__(self) -> None:
        for name in ("turns", "max_source", "max_target"):
            if not 1 <= getattr(self, name) <= MAX_LENGTH:
                raise BundleError(
                    f"edgechat.json: {name} must be from 1 to {MAX_LENGTH}, not {getattr(self, name)}"
                )
        if (self.pad, self.go, self.eos, self.unk, self.separator) != (PAD, GO, EOS, UNK, SEP):
            raise BundleError("edgechat.json: the special ids must be 0 to 4")
        _check_supported("speakers", self.speakers, ("alternate",))
        _check_supported("truncation", self.truncation, ("oldest",))
        _check_supported("normalization", self.normalization, ("NFC",))


@dataclass(frozen=True)
class StateTensor:
    """One recurrent tensor of the decoder, which reads it as `input` and returns it as `output`."""

    input: str
    output: str
    shape: tuple[Literal["M"] | int, ...]  # "M" is the number of rows
    first: str  # the initial value: "encoder" for the encoder's output named `input`, or "zeros"


@dataclass(frozen=True)
class GraphSpec:
    """The part of a manifest that is needed to run the graphs."""

    vocab_size: int  # V
    memory: tuple[str, ...]  # the encoder's outputs that every decoder step is fed
    state: tuple[StateTensor, ...]


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Manifest:
    """The parsed manifest. `provenance`, `proof` and `quality` are for people: they are shown, not used."""

    model: ModelSpec
    text: TextSpec
    precision: PrecisionName
    opset: int
    memory: tuple[str, ...]  # the encoder's outputs that every decoder step is fed
    state: tuple[StateTensor, ...]
    decoding: DecodingOptions
    files: dict[str, FileEntry]
    provenance: dict[str, Any]
    proof: dict[str, Any]
    quality: dict[str, Any]
    calibration: dict[str, Any] | None = None
    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    extra: dict[str, Any] = field(default_factory=dict)  # additions of a newer minor version of the format

    def __post_init__(self) -> None:
        try:
            check_defaults(self.decoding, max_target=self.text.max_target, vocab_size=self.model.vocab_size)
        except UsageError as error:
            raise BundleError(f"edgechat.json: {error}") from None
        _check_supported("precision", self.precision, PRECISIONS)
        _check_supported("opset", self.opset, (OPSET,))
        for name, tensors in (("memory", self.memory), ("state", self.state)):
            if len(tensors) > MAX_TENSORS:
                raise BundleError(
                    f"edgechat.json: {name!r} has {len(tensors):,} tensors, {MAX_TENSORS} are allowed"
                )
        layers, hidden = self.model.layers, self.model.hidden
        for tensor in self.state:
            if tensor.shape not in ((layers, "M", hidden), ("M", hidden)):
                raise BundleError(
                    f"edgechat.json: the 'shape' of {short_repr(tensor.input)} in 'state' does not fit a "
                    f"model with {layers:,} layers of {hidden:,} numbers each"
                )

    @property
    def graphs(self) -> GraphSpec:
        return GraphSpec(self.model.vocab_size, self.memory, self.state)

    def to_json(self) -> dict[str, Any]:
        """Everything except the seal. Additions of a newer minor version are included if they are at the top
        level."""
        values = asdict(self)
        values |= values.pop("extra")
        for part, kind in (("model", ModelSpec), ("text", TextSpec)):
            values[part] = {
                name: value
                for name, value in values[part].items()
                if value is not False or not _is_optional(kind, name)
            }
        return values

    def to_bytes(self) -> bytes:
        """The sealed JSON text; equal manifests give equal bytes. An infinite perplexity becomes null, since
        JSON has no infinity."""
        values = replace_nonfinite(self.to_json())
        values["sha256"] = _ZERO_SHA256
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        # No string value can contain this line, since a JSON string has no raw line break.
        return text.replace(
            _SEAL_LINE.format(_ZERO_SHA256), _SEAL_LINE.format(sha256(text.encode()))
        ).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Manifest":
        """Parse and check `raw`.

        Raises:
            BundleError: it is not JSON, has a duplicate name or another major version of the format, was
                changed after it was sealed, or has a missing or wrong value.
        """
        try:
            values = read_json(raw)
        except ValueError as error:
            raise BundleError(f"edgechat.json cannot be read: {error}") from None
        if _is_nested_deeper(values, _MAX_DEPTH):
            raise BundleError(f"edgechat.json has values nested more than {_MAX_DEPTH} deep")
        if not isinstance(values, dict):
            raise BundleError("edgechat.json must hold one JSON object")
        _check_format(values.get("format"))
        seal = values.pop("sha256", None)
        if not isinstance(seal, str) or not _SHA256.fullmatch(seal) or seal == _ZERO_SHA256:
            raise BundleError("edgechat.json has no valid sha256 of its own")
        if raw.count(seal.encode()) != 1 or sha256(raw.replace(seal.encode(), _ZERO_SHA256.encode())) != seal:
            raise BundleError("edgechat.json was changed after it was sealed: its own sha256 differs")
        try:
            return cls._parse(values)
        except BundleError:
            raise
        except (EdgeChatError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise BundleError(f"edgechat.json has a missing or wrong value: {error}") from error

    @classmethod
    def _parse(cls, values: dict[str, Any]) -> "Manifest":
        parsed: dict[str, Any] = {
            "model": _parse_record(ModelSpec, values, "model"),
            "text": _parse_record(TextSpec, values, "text"),
            "precision": _get_typed(values, "precision", str),
            "opset": _get_typed(values, "opset", int),
            "memory": tuple(_get_names(values, "memory")),
            "state": tuple(_parse_state_tensor(tensor) for tensor in _get_typed(values, "state", list)),
            "decoding": DecodingOptions.from_json(
                {
                    name: value
                    for name, value in _get_typed(values, "decoding", dict).items()
                    if name in _DECODING_OPTIONS
                }
            ),
            "files": {
                name: _parse_record(FileEntry, _get_typed(values, "files", dict), name)
                for name in _get_typed(values, "files", dict)
            },
            "provenance": _get_typed(values, "provenance", dict),
            "proof": _get_typed(values, "proof", dict),
            "quality": _get_typed(values, "quality", dict),
            "calibration": _get_typed(values, "calibration", dict)
            if values.get("calibration") is not None
            else None,
            "format": values["format"],
        }
        return cls(**parsed, extra={k: v for k, v in values.items() if k not in parsed})


def check_defaults(decoding: DecodingOptions, *, max_target: int, vocab_size: int) -> None:
    """Refuse default options with which replies of an untrusted bundle could take too much time or memory.

    Raises:
        UsageError: names the option.
    """
    for name in ("alignments", "trace"):
        if getattr(decoding, name):
            raise UsageError(
                f"{name} cannot be a default of a bundle, since it makes every reply large: "
                "give it with each call that needs it"
            )
    for name, most in MAX_TEXT_COSTS.items():
        if (characters := sum(map(len, getattr(decoding, name)))) > most // vocab_size:
            raise UsageError(
                f"{name} has {characters:,} characters, too many for a vocabulary of {vocab_size:,} tokens: "
                f"in a bundle, characters times vocabulary may be at most {most:,}, not "
                f"{characters * vocab_size:,}"
            )
    longest = decoding.max_reply_length(max_target)
    if (rows := decoding.beam * longest) > MAX_REPLY_ROWS:
        raise UsageError(
            f"beam is {decoding.beam}, too large for replies of up to {longest:,} tokens: in a bundle, beam "
            f"times tokens may be at most {MAX_REPLY_ROWS:,}, not {rows:,}"
        )
    if (numbers := decoding.rows * vocab_size) > MAX_STEP_LOGPS:
        raise UsageError(
            f"beam is {decoding.beam}, too large for a vocabulary of {vocab_size:,} tokens: in a bundle, "
            f"beam times vocabulary may be at most {MAX_STEP_LOGPS:,}, not {numbers:,}"
        )


def _is_nested_deeper(value: object, depth: int) -> bool:
    """Whether `value` has containers nested more than `depth` deep."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_nested_deeper(v, depth - 1) for v in inner)


def _check_format(version: object) -> None:
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version):
        raise BundleError(f"edgechat.json must have a valid format version, not {short_repr(version)}")
    if int(version.split(".")[0]) != FORMAT_MAJOR:
        raise BundleError(
            f"the bundle has format {version}, but this edgechat reads {FORMAT_MAJOR}.x: "
            "use the version of edgechat that made it, or export it again"
        )


def _get_typed(values: dict[str, Any], key: str, kind: type) -> Any:
    value = values.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BundleError(f"edgechat.json: {short_repr(key)} must be {_TYPE_NAMES[kind]}")
    if isinstance(value, str):
        _check_length(key, value)
    return value


def _check_supported(name: str, value: object, known: Sequence[object]) -> None:
    """Refuse an unknown value, even in a newer minor version of the format: ignoring it would change what
    the bundle means."""
    if value not in known:
        choices = ", ".join(map(str, known))
        raise BundleError(
            f"edgechat.json: {name} must be {'one of ' * (len(known) > 1)}{choices}, not "
            f"{short_repr(value)}: a newer version of edgechat may support it"
        )


def _get_names(values: dict[str, Any], key: str) -> list[str]:
    names = _get_typed(values, key, list)
    if not all(isinstance(name, str) for name in names):
        raise BundleError(f"edgechat.json: {key!r} must be a list of strings")
    for name in names:
        _check_length(key, name)
    return list(names)


def _check_length(key: str, value: str) -> None:
    if len(value) > _MAX_STRING_LENGTH:
        raise BundleError(
            f"edgechat.json: {key!r} has {len(value):,} characters, more than the "
            f"{_MAX_STRING_LENGTH} allowed"
        )


def _parse_state_tensor(tensor: object) -> StateTensor:
    if not isinstance(tensor, dict):
        raise BundleError("edgechat.json: 'state' must be a list of objects")
    shape = _get_typed(tensor, "shape", list)
    fixed = [size for size in shape if size != "M"]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in fixed):
        raise BundleError("edgechat.json: a 'shape' in 'state' must hold 'M' and whole numbers above 0")
    first = _get_typed(tensor, "first", str)
    if first not in ("encoder", "zeros"):
        raise BundleError(
            f"edgechat.json: 'first' in 'state' must be encoder or zeros, not {short_repr(first)}"
        )
    return StateTensor(
        _get_typed(tensor, "input", str), _get_typed(tensor, "output", str), tuple(shape), first
    )


def _parse_record(kind: type, values: dict[str, Any], key: str) -> Any:
    """A dataclass of plain numbers, strings and booleans. Unknown keys, from a newer minor version, are
    ignored."""
    raw = _get_typed(values, key, dict)
    known = {}
    for name, annotation in kind.__annotations__.items():
        if name not in raw and _is_optional(kind, name):
            continue
        if name not in raw:
            raise BundleError(f"edgechat.json: {short_repr(key)} has no {name!r}")
        known[name] = _get_typed(raw, name, annotation)
        if annotation is int and not 0 <= known[name] < 1 << 53:  # up to which JSON numbers are exact
            raise BundleError(f"edgechat.json: {name!r} in {short_repr(key)} is out of range")
    return kind(**known)


def _is_optional(kind: type, name: str) -> bool:
    """Whether the field defaults to False. Such fields are newer than the format, and are omitted when false
    so that older manifests keep their bytes."""
    return getattr(kind, name, None) is False
