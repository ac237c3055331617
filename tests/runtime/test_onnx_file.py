"""The reader of ONNX files, compared with the onnx package: it reads the same, and refuses ambiguous
files."""

import random
import tracemalloc

import numpy as np
import onnx
import pytest
from byte_fuzz import mutate_bytes
from google.protobuf.message import DecodeError
from graphs import make_valid_graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgechat.runtime.errors import BundleError
from edgechat.runtime.onnx_file import MAX_FIELDS, MAX_NAME_BYTES, Graph, Model, Tensor, read_model

FUZZED = 10_000


def refused(raw: bytes) -> str:
    with pytest.raises(BundleError) as raised:
        read_model("x.onnx", raw)
    said = str(raised.value)
    assert said.startswith("x.onnx is not an ONNX graph of a bundle: ")
    assert "\n" not in said
    return said


def known(number: int, enum) -> int:
    """Protobuf ignores a number that is not in an enumeration; the reader returns it, to be refused later."""
    return number if number in enum.values() else 0


def same_tensor(ours: Tensor, theirs: onnx.TensorProto) -> None:
    assert (ours.name, ours.dtype, list(ours.dims)) == (theirs.name, theirs.data_type, list(theirs.dims))
    assert bytes(ours.raw or b"") == theirs.raw_data
    assert (ours.raw is not None) == theirs.HasField("raw_data")
    assert known(ours.location, TensorProto.DataLocation) == theirs.data_location
    for what in ("external_data", "int32_data", "int64_data", "float_data"):
        assert (what in ours.unsupported) >= bool(getattr(theirs, what))


def same_dims(ours, theirs: onnx.ValueInfoProto) -> None:
    assert ours.name == theirs.name
    kind = theirs.type.tensor_type
    assert ours.dtype == kind.elem_type
    if ours.unsupported:
        return
    if not kind.HasField("shape"):
        assert ours.dims is None
        return
    expected = [getattr(dim, dim.WhichOneof("value") or "", None) for dim in kind.shape.dim]
    assert list(ours.dims) == expected


def same(ours: Model, theirs: onnx.ModelProto) -> None:
    """All that the reader keeps is what the onnx package finds, and it lists all that it does not follow. (It
    lists it also where the wire type is wrong, which protobuf passes over.)"""
    assert ours.ir_version == theirs.ir_version
    assert list(ours.opsets) == [(opset.domain, opset.version) for opset in theirs.opset_import]
    graph = theirs.graph
    assert (ours.graph is not None) == theirs.HasField("graph")
    for what in ("functions", "training_info", "metadata_props"):
        assert ours.unsupported.count(what) >= len(getattr(theirs, what))
    if ours.graph is None:
        return
    assert ("doc_string" in ours.graph.unsupported) >= bool(graph.doc_string)
    for what in ("sparse_initializer", "quantization_annotation", "value_info"):
        assert ours.graph.unsupported.count(what) >= len(getattr(graph, what))
    for tensor, expected in zip(ours.graph.initializers, graph.initializer, strict=True):
        same_tensor(tensor, expected)
    for port, declared in zip(
        (*ours.graph.inputs, *ours.graph.outputs), (*graph.input, *graph.output), strict=True
    ):
        same_dims(port, declared)
    for node, their_node in zip(ours.graph.nodes, graph.node, strict=True):
        assert (node.op_type, node.domain, node.name) == (
            their_node.op_type,
            their_node.domain,
            their_node.name,
        )
        assert (list(node.inputs), list(node.outputs)) == (list(their_node.input), list(their_node.output))
        for attribute, a in zip(node.attributes, their_node.attribute, strict=True):
            assert (attribute.name, known(attribute.type, onnx.AttributeProto.AttributeType)) == (
                a.name,
                a.type,
            )
            assert (attribute.i or 0, attribute.s or b"") == (a.i, a.s)
            assert np.array_equal(attribute.f or 0.0, a.f, equal_nan=True)
            assert list(attribute.ints) == list(a.ints)
            assert ("t" in attribute.unsupported) >= a.HasField("t")
            for what in ("floats", "strings"):
                assert (what in attribute.unsupported) >= bool(getattr(a, what))
            assert ("g" in attribute.unsupported) >= a.HasField("g")
            assert attribute.unsupported.count("graphs") >= len(a.graphs)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_graphs_of_the_exporter_are_read_as_onnx_reads_them(layers):
    for raw in make_valid_graphs(layers=layers)[1:]:
        same(read_model("x.onnx", raw), onnx.load_from_string(raw))


def test_weights_are_views_of_the_file():
    raw = make_valid_graphs()[2]
    weights = read_model("x.onnx", raw).graph.initializers
    assert all(tensor.raw is None or tensor.raw.obj is raw for tensor in weights)
    assert sum(len(tensor.raw) for tensor in weights) > 1000


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-(1 << 63), (1 << 63) - 1)
FLOATS = st.floats(width=32)


@st.composite
def tensors(draw) -> onnx.TensorProto:
    tensor = TensorProto(
        name=draw(NAMES), data_type=draw(st.integers(0, 28)), dims=draw(st.lists(INTS, max_size=4))
    )
    match draw(st.integers(0, 5)):
        case 0:
            tensor.raw_data = draw(st.binary(max_size=40))
        case 1:
            tensor.int64_data.extend(draw(st.lists(INTS, max_size=5)))
        case 2:
            tensor.int32_data.extend(draw(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=5)))
        case 3:
            tensor.float_data.extend(draw(st.lists(FLOATS, max_size=5)))
        case 4:
            tensor.external_data.add(key="location", value="../weights")
            tensor.data_location = TensorProto.EXTERNAL
    return tensor


VALUES = st.one_of(
    INTS,
    FLOATS,
    st.binary(max_size=20),
    st.lists(INTS, min_size=1, max_size=5),
    st.lists(FLOATS, min_size=1, max_size=5),
    st.lists(st.binary(max_size=9), min_size=1, max_size=3),
    tensors(),
    st.builds(lambda: helper.make_graph([], "inner", [], [])),
)
NODES = st.builds(
    lambda op, inputs, outputs, domain, attributes: helper.make_node(
        op, inputs, outputs, domain=domain, **attributes
    ),
    NAMES,
    st.lists(NAMES, max_size=4),
    st.lists(NAMES, max_size=3),
    NAMES,
    st.dictionaries(st.sampled_from(["alpha", "axis", "to", "value", "body"]), VALUES, max_size=3),
)
PORTS = st.builds(
    helper.make_tensor_value_info,
    NAMES,
    st.integers(0, 28),
    st.none() | st.lists(st.none() | st.integers(-3, 1 << 40) | NAMES.filter(bool), max_size=4),
)


@st.composite
def models(draw) -> onnx.ModelProto:
    graph = helper.make_graph(
        draw(st.lists(NODES, max_size=4)),
        "g",
        draw(st.lists(PORTS, max_size=3)),
        draw(st.lists(PORTS, max_size=3)),
        draw(st.lists(tensors(), max_size=3)),
        doc_string="for people",
        value_info=draw(st.lists(PORTS, max_size=2)),
    )
    opsets = draw(st.lists(st.builds(helper.make_opsetid, NAMES, INTS), min_size=1, max_size=3))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=draw(st.integers(0, 20)))
    if draw(st.booleans()):
        helper.set_model_props(model, {"a": "b"})
    if draw(st.booleans()):
        model.functions.add(name="f", domain="d")
    if draw(st.booleans()):
        model.training_info.add()
    if draw(st.booleans()):
        model.graph.sparse_initializer.add()
    return model


@settings(max_examples=200)
@given(model=models())
def test_any_model_is_read_as_onnx_reads_it(model):
    same(read_model("x.onnx", model.SerializeToString()), model)


def attempt(raw: bytes) -> tuple[Model | None, str]:
    """The model, or the message of its refusal."""
    try:
        return read_model("x.onnx", raw), ""
    except BundleError as error:
        return None, str(error)


def skips(model: Model) -> bool:
    """Whether a field is listed in `other`, which the bundle checks refuse."""
    graph = model.graph or Graph()
    nodes, attributes = graph.nodes, [a for node in graph.nodes for a in node.attributes]
    ports = [*graph.inputs, *graph.outputs]
    return any(part.unsupported for part in (model, graph, *nodes, *attributes, *graph.initializers, *ports))


def check_fuzzed(count: int, seed: int) -> None:
    """Damaged files are refused in one sentence, or read as the onnx package reads them."""
    rng = random.Random(seed)
    originals = [raw for layers in (1, 2) for raw in make_valid_graphs(layers=layers, hidden=1, vocab=5)[1:]]
    originals.append(random_model().SerializeToString())
    read = 0
    for _ in range(count):
        raw = (
            mutate_bytes(rng.choice(originals), rng)
            if rng.random() < 0.95
            else rng.randbytes(rng.randrange(200))
        )
        ours, said = attempt(raw)
        if ours is None:
            assert said
            assert "\n" not in said
            continue
        try:
            theirs = onnx.load_from_string(raw)
        except DecodeError:  # in a field that was not parsed
            assert skips(ours), f"protobuf refuses what was read: {raw!r}"
            continue
        same(ours, theirs)
        read += 1
    assert count // 50 < read < count // 2


def random_model() -> onnx.ModelProto:
    """A model with every kind of field."""
    inner = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "inner", [], [])
    node = helper.make_node(
        "If",
        ["c", ""],
        ["y"],
        "n",
        domain="d",
        then_branch=inner,
        f=1.5,
        fs=[1.0, 2.0],
        i=-1,
        n=[1, -2],
        s="x",
        ss=["p", "q"],
    )
    constant = helper.make_node(
        "Constant", [], ["k"], value=helper.make_tensor("t", TensorProto.INT64, [2], [1, -2])
    )
    ports = [
        helper.make_tensor_value_info("x", 1, ["B", 3, None]),
        helper.make_tensor_sequence_value_info("s", 1, None),
    ]
    weights = [
        numpy_helper.from_array(np.arange(3, dtype=np.float32), "w"),
        helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("u", TensorProto.INT8, [2], [1, -2]),
    ]
    graph = helper.make_graph([node, constant], "g", ports, ports[:1], weights, value_info=ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.functions.add(name="f")
    helper.set_model_props(model, {"a": "b"})
    return model


def test_damaged_files_are_refused_or_read_as_onnx_reads_them():
    check_fuzzed(FUZZED, seed=1)


@pytest.mark.slow
def test_100_000_damaged_files_are_refused_or_read_as_onnx_reads_them():
    check_fuzzed(100_000, seed=2)


# --- files that readers understand differently --------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


GRAPH, NODE, ATTRIBUTE, INITIALIZER = 7, 1, 5, 5
REFUSED = {
    "a number twice": (b"\x08\x08\x08\x0a", "occurs twice"),
    "a message twice, which protobuf merges": (field(GRAPH, b"") * 2, "the graph of a model occurs twice"),
    "an unknown field": (field(99, b""), "field 99 of a model"),
    "field 0": (b"\x00\x00", "field 0"),
    "another wire type": (field(1, b"x"), "field 1 of a model, with wire type 2"),
    "a group": (b"\x3b\x3c", "field 7 of a model, with wire type 3"),
    "a message that goes beyond its end": (b"\x3a\x05ab", "extends beyond its end"),
    "an inner message that goes beyond the outer": (field(GRAPH, b"\x0a\x7f"), "extends beyond its end"),
    "a length of 2**63": (b"\x3a" + varint(1 << 63), "extends beyond its end"),
    "a number without end": (b"\x08" + b"\x80" * 20, "no end or does not fit"),
    "a number that is cut": (b"\x08\x80", "no end"),
    "a number beyond 64 bits": (b"\x08" + b"\xff" * 9 + b"\x02", "does not fit into 64 bits"),
    "a type beyond 32 bits": (
        field(GRAPH, field(INITIALIZER, b"\x10" + varint((1 << 32) + 1))),
        "dtype is out of range",
    ),
    "a fixed number that is cut": (
        field(GRAPH, field(NODE, field(ATTRIBUTE, b"\x15\x00\x00"))),
        "the f of an attribute extends",
    ),
    "a name that is not UTF-8": (field(GRAPH, field(NODE, field(4, b"\xff"))), "a name is not UTF-8"),
    "a long name": (field(GRAPH, field(NODE, field(4, b"a" * (MAX_NAME_BYTES + 1)))), "allowed"),
    "a maker of megabytes": (field(2, b"a" * 2_000_000), "a name has 2,000,000 bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_files_are_refused(kind):
    raw, why = REFUSED[kind]
    assert why in refused(raw)


def test_a_size_with_a_number_and_a_name_is_reported():
    dim = b"\x12\x01B\x08\x05"
    assert onnx.TensorShapeProto.Dimension.FromString(dim).WhichOneof("value") == "dim_value"  # the last
    port = field(1, b"x") + field(2, field(1, b"\x08\x01" + field(2, field(1, dim))))
    [read] = read_model("x.onnx", field(GRAPH, field(11, port))).graph.inputs
    assert read.unsupported == ("dim_value with dim_param",)


def test_numbers_in_a_list_are_read_packed_or_not():
    packed = field(INITIALIZER, field(1, b"\x02\x03"))
    single = field(INITIALIZER, b"\x08\x02\x08\x03")
    for tensor in (packed, single):
        [read] = read_model("x.onnx", field(GRAPH, tensor)).graph.initializers
        assert read.dims == (2, 3)


@pytest.mark.parametrize(
    "raw",
    [
        field(GRAPH, b"\x0a\x00" * 10_000_000),  # empty nodes
        field(GRAPH, field(INITIALIZER, field(1, b"\x01" * 20_000_000))),  # sizes of one weight
        field(GRAPH, field(INITIALIZER, field(7, b"\x01") * 5_000_000)),  # its numbers, in a list
        field(25, b"") * 10_000_000,  # functions
        field(GRAPH, field(NODE, field(ATTRIBUTE, field(6, field(GRAPH, b"\x0a\x00" * 5_000_000))))),
    ],
    ids=["nodes", "sizes", "numbers", "functions", "subgraph"],
)
def test_reading_stops_early_in_a_file_with_too_many_fields(raw):
    tracemalloc.start()
    model, said = attempt(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    if model is None:
        assert f"more than {MAX_FIELDS:,} fields" in said
        assert int(said.partition("(byte ")[2].rstrip(")").replace(",", "")) < 1_000_000
    else:
        # Fields that are not parsed take no time.
        assert model.graph.nodes[0].attributes[0].unsupported == ("g",)


def test_subgraphs_within_subgraphs_are_not_followed():
    inner = b""
    for _ in range(2000):
        inner = field(NODE, field(ATTRIBUTE, field(6, inner)))
    [node] = read_model("x.onnx", field(GRAPH, inner)).graph.nodes
    assert node.attributes[0].unsupported == ("g",)
