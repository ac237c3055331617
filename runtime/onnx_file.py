"""A small reader of untrusted ONNX files. It shows what is in a file before ONNX Runtime loads it. ONNX
Runtime itself shows a graph only after it has created a session, when it may already have folded a giant
constant.

It reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) of those messages of
onnx.proto that the graphs of bundles use. A file that another reader could understand differently is refused:
a repeated singular field, an unknown field or wire type, groups, numbers out of range.

Features of ONNX that bundles do not use are not parsed: functions, subgraphs, sparse and external tensors,
tensors in attributes or with listed numbers, training information, metadata, descriptions. The names of such
fields are listed in `unsupported` of the message that contains them. So the nesting depth is fixed, the work
is bounded by `MAX_FIELDS`, and the bytes of weights are views, never copies.

The records are named tuples because that many dataclasses would take 10 ms to define at every start.
"""

import struct
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from .errors import BundleError

#: Maximum fields and list elements in a file. The largest graphs that edgechat exports have about 3,000.
MAX_FIELDS = 100_000
#: Maximum bytes of a name, including those that are only for people.
MAX_NAME_BYTES = 1024


class Tensor(NamedTuple):
    """A constant tensor."""

    name: str = ""
    dtype: int = 0  # TensorProto.DataType
    dims: tuple[int, ...] = ()
    raw: memoryview | None = None  # little-endian
    location: int = 0  # 0: in this file
    unsupported: tuple[str, ...] = ()


class Attribute(NamedTuple):
    """An attribute of a node. `type` says which of its values is used."""

    name: str = ""
    type: int = 0  # AttributeProto.AttributeType
    f: float | None = None
    i: int | None = None
    s: bytes | None = None
    ints: tuple[int, ...] = ()
    unsupported: tuple[str, ...] = ()


class Node(NamedTuple):
    op_type: str = ""
    domain: str = ""
    name: str = ""
    inputs: tuple[str, ...] = ()  # "" is an optional input that is omitted
    outputs: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    unsupported: tuple[str, ...] = ()


class ValueInfo(NamedTuple):
    """A declared input or output. `dims` is None if no shape is declared; a size is None if it has neither a
    number nor a name."""

    name: str = ""
    dtype: int = 0
    dims: tuple[int | str | None, ...] | None = None
    unsupported: tuple[str, ...] = ()


class Graph(NamedTuple):
    nodes: tuple[Node, ...] = ()
    initializers: tuple[Tensor, ...] = ()
    inputs: tuple[ValueInfo, ...] = ()
    outputs: tuple[ValueInfo, ...] = ()
    unsupported: tuple[str, ...] = ()


class Model(NamedTuple):
    ir_version: int = 0
    opsets: tuple[tuple[str, int], ...] = ()  # domain, version
    graph: Graph | None = None
    unsupported: tuple[str, ...] = ()


def read_model(name: str, raw: bytes) -> Model:
    """Parse the ONNX model in the file `name`, whose content is `raw`.

    Raises:
        BundleError: it is not an ONNX model, or another reader could understand it differently.
    """
    model: Model = _Reader(name, raw).message(_MODEL, 0, len(raw))
    return model


class _Kind(Enum):
    """How a field is parsed."""

    INT64 = auto()
    INT32 = auto()
    INT64S = auto()  # repeated, packed or not
    FLOAT = auto()
    NAME = auto()
    NAMES = auto()
    BYTES = auto()
    VIEW = auto()
    MESSAGE = auto()  # a message
    MESSAGES = auto()  # messages
    IGNORED = auto()  # a name for people
    UNSUPPORTED = auto()  # listed in `unsupported`


class _Field(NamedTuple):
    name: str  # the field of the record here; for IGNORED and UNSUPPORTED, the name in onnx.proto
    kind: _Kind
    message: "_Message | None" = None


class _Message(NamedTuple):
    name: str  # with its article, for error messages
    make: Callable[..., Any]
    fields: Mapping[int, _Field]  # by their numbers in onnx.proto


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_REPEATED = {_Kind.INT64S, _Kind.NAMES, _Kind.MESSAGES}
_WIRE_TYPES = {
    _Kind.INT64: (_VARINT,),
    _Kind.INT32: (_VARINT,),
    _Kind.INT64S: (_VARINT, _BYTES),
    _Kind.FLOAT: (_FIXED32,),
    _Kind.UNSUPPORTED: (_VARINT, _FIXED64, _BYTES, _FIXED32),
}


class _Reader:
    """Parses the messages of one file. Positions are byte offsets in the file."""

    def __init__(self, name: str, raw: bytes) -> None:
        self._name, self._raw, self._view = name, raw, memoryview(raw)
        self._fields_left = MAX_FIELDS

    def message(self, message: _Message, at: int, end: int) -> Any:
        """Parse the message in the bytes from `at` to `end`."""
        raw, fields = self._raw, message.fields
        values: dict[str, Any] = {}
        while at < end:
            start = at
            self._count_fields(1, start)
            tag = raw[at]
            at += 1
            if tag > 127:
                tag, at = self._varint(start, end)
            field = fields.get(tag >> 3)
            wire = tag & 7
            if field is None or wire not in _WIRE_TYPES.get(field.kind, (_BYTES,)):
                raise self._error(
                    f"field {tag >> 3} of {message.name}, with wire type {wire}, is not known", start
                )
            if wire == _VARINT:
                number, at = self._varint(at, end)
                value: Any = number - (1 << 64) if number >> 63 else number
            else:
                length = 4 if wire == _FIXED32 else 8
                if wire == _BYTES:
                    length, at = self._varint(at, end)
                if length > end - at:
                    raise self._error(f"the {field.name} of {message.name} extends beyond its end", start)
                value, at = (at, at + length), at + length
            self._store_field(values, message, field, wire, value, start)
        for name, value in values.items():
            if type(value) is list:
                values[name] = tuple(value)
        return message.make(**values)

    def _store_field(
        self, values: dict[str, Any], message: _Message, field: _Field, wire: int, value: Any, at: int
    ) -> None:
        """Store the value of a field in `values`. `value` is a number, or the start and end of its bytes."""
        kind = field.kind
        if kind is _Kind.IGNORED:
            self._name_bytes(*value)
            return
        if kind is _Kind.UNSUPPORTED:
            values.setdefault("unsupported", []).append(field.name)
        elif kind in _REPEATED:
            kept: list[Any] = values.setdefault(field.name, [])
            if wire == _BYTES and kind is _Kind.INT64S:
                kept += self._packed_ints(*value)
            else:
                kept.append(self._parse_value(field, value, at))
        elif field.name in values:
            raise self._error(f"the {field.name} of {message.name} occurs twice", at)
        else:
            values[field.name] = self._parse_value(field, value, at)

    def _parse_value(self, field: _Field, value: Any, at: int) -> Any:
        kind = field.kind
        if kind is _Kind.NAME or kind is _Kind.NAMES:
            return self._text(*value)
        if field.message:
            return self.message(field.message, *value)
        if kind is _Kind.INT32 and not -(1 << 31) <= value < 1 << 31:
            raise self._error(f"a {field.name} is out of range", at)
        if kind is _Kind.FLOAT:
            return struct.unpack_from("<f", self._raw, value[0])[0]
        if kind is _Kind.VIEW:
            return self._view[slice(*value)]
        if kind is _Kind.BYTES:
            return self._name_bytes(*value)
        return value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """An unsigned number of at most 64 bits, and the position after it."""
        number = shift = 0
        while at < end and shift < 70:
            byte = self._raw[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                if number >> 64:
                    break
                return number, at
            shift += 7
        raise self._error("a number has no end or does not fit into 64 bits", at)

    def _packed_ints(self, at: int, end: int) -> list[int]:
        numbers = []
        while at < end:
            self._count_fields(1, at)
            number, at = self._varint(at, end)
            numbers.append(number - (1 << 64) if number >> 63 else number)
        return numbers

    def _text(self, at: int, end: int) -> str:
        try:
            return self._name_bytes(at, end).decode()
        except UnicodeDecodeError:
            raise self._error("a name is not UTF-8", at) from None

    def _name_bytes(self, at: int, end: int) -> bytes:
        if end - at > MAX_NAME_BYTES:
            raise self._error(f"a name has {end - at:,} bytes, more than the {MAX_NAME_BYTES:,} allowed", at)
        return self._raw[at:end]

    def _count_fields(self, fields: int, at: int) -> None:
        self._fields_left -= fields
        if self._fields_left < 0:
            raise self._error(f"it has more than {MAX_FIELDS:,} fields", at)

    def _error(self, why: str, at: int) -> BundleError:
        return BundleError(f"{self._name} is not an ONNX graph of a bundle: {why} (byte {at:,})")


def _dim(value: int | None = None, param: str | None = None) -> tuple[int | str | None, bool]:
    """A size, and whether it is given both as a number and as a name, where the later one would count."""
    return param if value is None else value, value is not None and param is not None


def _shape(dims: tuple[tuple[int | str | None, bool], ...] = ()) -> tuple[Any, tuple[str, ...]]:
    twice = ("dim_value with dim_param",) if any(twice for _, twice in dims) else ()
    return tuple(size for size, _ in dims), twice


def _tensor_type(dtype: int = 0, shape: Any = (None, ())) -> tuple[int, Any, tuple[str, ...]]:
    return (dtype, *shape)


def _type(tensor: Any = (0, None, ()), unsupported: tuple[str, ...] = ()) -> tuple[int, Any, tuple[str, ...]]:
    dtype, dims, twice = tensor
    return dtype, dims, twice + unsupported


def _value_info(name: str = "", type: Any = (0, None, ()), unsupported: tuple[str, ...] = ()) -> ValueInfo:
    dtype, dims, others = type
    return ValueInfo(name, dtype, dims, others + unsupported)


def _opset(domain: str = "", version: int = 0) -> tuple[str, int]:
    return domain, version


def _fields_by_number(
    *fields: tuple[int, str, _Kind] | tuple[int, str, _Kind, _Message],
) -> dict[int, _Field]:
    return {number: _Field(*rest) for number, *rest in fields}  # type: ignore[arg-type]


_DOC_STRING = "doc_string"
_METADATA_PROPS = "metadata_props"
_TENSOR = _Message(
    "a tensor",
    Tensor,
    _fields_by_number(
        (1, "dims", _Kind.INT64S),
        (2, "dtype", _Kind.INT32),
        (3, "segment", _Kind.UNSUPPORTED),
        (4, "float_data", _Kind.UNSUPPORTED),
        (5, "int32_data", _Kind.UNSUPPORTED),
        (6, "string_data", _Kind.UNSUPPORTED),
        (7, "int64_data", _Kind.UNSUPPORTED),
        (8, "name", _Kind.NAME),
        (9, "raw", _Kind.VIEW),
        (10, "double_data", _Kind.UNSUPPORTED),
        (11, "uint64_data", _Kind.UNSUPPORTED),
        (12, _DOC_STRING, _Kind.UNSUPPORTED),
        (13, "external_data", _Kind.UNSUPPORTED),
        (14, "location", _Kind.INT32),
        (16, _METADATA_PROPS, _Kind.UNSUPPORTED),
    ),
)
_ATTRIBUTE = _Message(
    "an attribute",
    Attribute,
    _fields_by_number(
        (1, "name", _Kind.NAME),
        (2, "f", _Kind.FLOAT),
        (3, "i", _Kind.INT64),
        (4, "s", _Kind.BYTES),
        (5, "t", _Kind.UNSUPPORTED),
        (6, "g", _Kind.UNSUPPORTED),
        (7, "floats", _Kind.UNSUPPORTED),
        (8, "ints", _Kind.INT64S),
        (9, "strings", _Kind.UNSUPPORTED),
        (10, "tensors", _Kind.UNSUPPORTED),
        (11, "graphs", _Kind.UNSUPPORTED),
        (13, _DOC_STRING, _Kind.UNSUPPORTED),
        (14, "tp", _Kind.UNSUPPORTED),
        (15, "type_protos", _Kind.UNSUPPORTED),
        (20, "type", _Kind.INT32),
        (21, "ref_attr_name", _Kind.UNSUPPORTED),
        (22, "sparse_tensor", _Kind.UNSUPPORTED),
        (23, "sparse_tensors", _Kind.UNSUPPORTED),
    ),
)
_NODE = _Message(
    "a node",
    Node,
    _fields_by_number(
        (1, "inputs", _Kind.NAMES),
        (2, "outputs", _Kind.NAMES),
        (3, "name", _Kind.NAME),
        (4, "op_type", _Kind.NAME),
        (5, "attributes", _Kind.MESSAGES, _ATTRIBUTE),
        (6, _DOC_STRING, _Kind.UNSUPPORTED),
        (7, "domain", _Kind.NAME),
        (8, "overload", _Kind.UNSUPPORTED),
        (9, _METADATA_PROPS, _Kind.UNSUPPORTED),
        (10, "device_configurations", _Kind.UNSUPPORTED),
    ),
)
_DIM = _Message(
    "a dimension",
    _dim,
    _fields_by_number((1, "value", _Kind.INT64), (2, "param", _Kind.NAME), (3, "denotation", _Kind.IGNORED)),
)
_SHAPE = _Message("a shape", _shape, _fields_by_number((1, "dims", _Kind.MESSAGES, _DIM)))
_TENSOR_TYPE = _Message(
    "a tensor type",
    _tensor_type,
    _fields_by_number((1, "dtype", _Kind.INT32), (2, "shape", _Kind.MESSAGE, _SHAPE)),
)
_TYPE = _Message(
    "a type",
    _type,
    _fields_by_number(
        (1, "tensor", _Kind.MESSAGE, _TENSOR_TYPE),
        (4, "sequence_type", _Kind.UNSUPPORTED),
        (5, "map_type", _Kind.UNSUPPORTED),
        (6, "denotation", _Kind.IGNORED),
        (7, "opaque_type", _Kind.UNSUPPORTED),
        (8, "sparse_tensor_type", _Kind.UNSUPPORTED),
        (9, "optional_type", _Kind.UNSUPPORTED),
    ),
)
_VALUE_INFO = _Message(
    "a declared value",
    _value_info,
    _fields_by_number(
        (1, "name", _Kind.NAME),
        (2, "type", _Kind.MESSAGE, _TYPE),
        (3, _DOC_STRING, _Kind.UNSUPPORTED),
        (4, _METADATA_PROPS, _Kind.UNSUPPORTED),
    ),
)
_GRAPH = _Message(
    "a graph",
    Graph,
    _fields_by_number(
        (1, "nodes", _Kind.MESSAGES, _NODE),
        (2, "name", _Kind.IGNORED),
        (5, "initializers", _Kind.MESSAGES, _TENSOR),
        (10, _DOC_STRING, _Kind.UNSUPPORTED),
        (11, "inputs", _Kind.MESSAGES, _VALUE_INFO),
        (12, "outputs", _Kind.MESSAGES, _VALUE_INFO),
        (13, "value_info", _Kind.UNSUPPORTED),
        (14, "quantization_annotation", _Kind.UNSUPPORTED),
        (15, "sparse_initializer", _Kind.UNSUPPORTED),
        (16, _METADATA_PROPS, _Kind.UNSUPPORTED),
    ),
)
_OPSET = _Message(
    "an opset", _opset, _fields_by_number((1, "domain", _Kind.NAME), (2, "version", _Kind.INT64))
)
_MODEL = _Message(
    "a model",
    Model,
    _fields_by_number(
        (1, "ir_version", _Kind.INT64),
        (2, "producer_name", _Kind.IGNORED),
        (3, "producer_version", _Kind.IGNORED),
        (4, "domain", _Kind.IGNORED),
        (5, "model_version", _Kind.UNSUPPORTED),
        (6, _DOC_STRING, _Kind.UNSUPPORTED),
        (7, "graph", _Kind.MESSAGE, _GRAPH),
        (8, "opsets", _Kind.MESSAGES, _OPSET),
        (14, _METADATA_PROPS, _Kind.UNSUPPORTED),
        (20, "training_info", _Kind.UNSUPPORTED),
        (25, "functions", _Kind.UNSUPPORTED),
        (26, "configuration", _Kind.UNSUPPORTED),
    ),
)
