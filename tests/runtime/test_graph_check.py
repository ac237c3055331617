"""Graphs from an attacker, in bundles with right hashes: each is refused before a session is created."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import damage_graph, make_valid_graphs
from onnx import TensorProto, helper, numpy_helper

from edgechat.export.graph_builder import FLOAT
from edgechat.runtime import ChatModel, graph_check, ort
from edgechat.runtime.bundle import read_bundle, write_bundle
from edgechat.runtime.errors import BundleError
from edgechat.runtime.graph_check import check_graphs
from edgechat.runtime.manifest import GraphSpec, StateTensor
from edgechat.runtime.symbolic_sizes import terms_of

Spoil = Callable[[onnx.ModelProto], None]


def weight(model: onnx.ModelProto, name: str, array) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def node(
    model: onnx.ModelProto, kind: str, inputs: list[str], *outputs: str, first: bool = True, **more
) -> str:
    """Insert a node before or after all others; return its first output."""
    made = helper.make_node(kind, inputs, outputs or ("evil",), "culprit", **more)
    nodes = [made, *model.graph.node] if first else [*model.graph.node, made]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return made.output[0] if made.output else ""


def inner(kind: str = "Identity") -> onnx.GraphProto:
    return helper.make_graph([helper.make_node(kind, ["a"], ["b"])], "inner", [], [])


# --- attacks on the encoder -------------------------------------------------------------------------------


def endless_loop(model):
    value = helper.make_tensor_value_info
    going = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, [])],
        [value("d", TensorProto.BOOL, [])],
    )
    node(model, "Loop", ["", ""], "", body=going)
    model.graph.node[0].output[:] = []


def giant_constant_of_shape(model):
    node(model, "ConstantOfShape", [weight(model, "wanted", np.array([1 << 40]))])


def giant_expand(model):
    one = weight(model, "one", np.ones(1, np.float32))
    node(model, "Expand", [one, weight(model, "wanted", np.array([1 << 20, 1 << 20]))])


def giant_broadcast(model):
    tall, wide = (
        weight(model, name, np.zeros(shape, np.int8))
        for name, shape in (("t", (30_000, 1)), ("w", (1, 30_000)))
    )
    node(model, "Add", [tall, wide])


def giant_product(model):
    tall, wide = (
        weight(model, name, np.zeros(shape, np.float32))
        for name, shape in (("t", (9999, 1)), ("w", (1, 9999)))
    )
    node(model, "MatMul", [tall, wide])


def giant_tile(model):
    one = weight(model, "one", np.ones(1, np.float32))
    node(model, "Tile", [one, weight(model, "times", np.array([1 << 40]))])


def giant_range(model):
    ends = [weight(model, str(i), np.array(i)) for i in (0, 1 << 40, 1)]
    node(model, "Range", ends)


def doubling(model):
    """Each node doubles its input: 60 of them make 2**60."""
    last = weight(model, "d0", np.ones(4, np.float32))
    made = [helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(60)]
    model.graph.node.extend(made)
    assert last == "d0"


def square_of_the_source(model):
    """[B, S, S]: harmless for a prompt, gigabytes for a long one."""
    node(model, "Unsqueeze", ["src", weight(model, "a1", np.array([1]))], "u1")
    node(model, "Unsqueeze", ["src", weight(model, "a2", np.array([2]))], "u2")
    node(model, "Less", ["u1", "u2"], "e", first=False)


def steep_growth(model):
    """Nothing for one token: the size is (S - 1) * 2**30 + 1."""
    node(model, "Shape", ["src"], "s", start=1, end=2)
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["s", weight(model, "c1", np.array([1]))], ["less"]),
            helper.make_node("Mul", ["less", weight(model, "c2", np.array([1 << 30]))], ["more"]),
            helper.make_node("Add", ["more", "c1"], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["evil"], "culprit"),
        ]
    )


def late_growth(model):
    """max(S, 40) - 40 times much: nothing for sources below 41 tokens."""
    node(model, "Shape", ["src"], "s", start=1, end=2)
    model.graph.node.extend(
        [
            helper.make_node("Max", ["s", weight(model, "c40", np.array([40]))], ["m"]),
            helper.make_node("Sub", ["m", "c40"], ["over"]),
            helper.make_node("Mul", ["over", weight(model, "much", np.array([1 << 30]))], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["evil"], "culprit"),
        ]
    )


def size_of_a_token(model):
    """A size from the ids of the prompt."""
    node(model, "ReduceMax", ["src"], "largest", keepdims=0)
    model.graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["largest", weight(model, "a0", np.array([0]))], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["evil"], "culprit"),
        ]
    )


def size_of_a_weight(model):
    node(model, "Cast", [weight(model, "f", np.array([1e12], np.float32))], "size", to=6)
    node(model, "ConstantOfShape", ["size"], first=False)


def empty_weight(model):
    """Operations differ in how they treat empty tensors, ReduceMax and Squeeze among them."""
    node(model, "Shape", [weight(model, "none", np.zeros(0, np.float32))])


def empty_for_one_token(model):
    node(model, "Shape", ["src"], "s", start=1, end=2)
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["s", weight(model, "c1", np.array([1]))], ["less"]),
            helper.make_node("ConstantOfShape", ["less"], ["evil"], "culprit"),
        ]
    )


def many_products(model):
    """A thousand products of all the rows with the embedding: no large tensor, but it takes forever."""
    wide = weight(model, "wide", np.zeros((4, 4096), np.float32))
    back = weight(model, "back", np.zeros((4096, 4), np.float32))
    made = []
    for i in range(1000):
        made.append(helper.make_node("MatMul", [f"p{i}" if i else "values", wide], [f"q{i}"], "culprit"))
        made.append(helper.make_node("MatMul", [f"q{i}", back], [f"p{i + 1}"], "culprit"))
    model.graph.node.extend(made)


def maximum_of_many(model):
    """Ninety thousand passes over a value for each row, of which only the last is a value of the graph."""
    node(model, "Max", ["values"] * 90_000, first=False)


def minimum_of_many(model):
    node(model, "Min", ["values"] * 90_000, first=False)


def concatenation_of_many(model):
    """Each input is counted, since it is a part of the output."""
    node(model, "Concat", ["values"] * 90_000, first=False, axis=2)


def external_data(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_data_in_an_attribute(model):
    tensor = TensorProto(name="t", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node(model, "ConstantOfShape", [weight(model, "one", np.array([1]))], value=tensor)


def external_data_without_saying_so(model):
    model.graph.initializer[0].external_data.add(key="location", value="weights")


def unknown_domain(model):
    model.opset_import.add(domain="com.evil", version=1)
    node(model, "Identity", ["src"], domain="com.evil")


def unknown_domain_not_imported(model):
    node(model, "Identity", ["src"], domain="com.evil")


def unknown_operation(model):
    node(model, "RandomNormal", [], shape=[1 << 20, 1 << 20])


def operation_of_microsoft(model):
    model.opset_import.add(domain="com.microsoft", version=1)
    node(model, "Tokenizer", ["src"], domain="com.microsoft")


def domain_within_the_name(model):
    node(model, "com.microsoft.MatMulNBits", ["src"])


def branch(model):
    node(model, "If", ["src"], then_branch=inner("Loop"), else_branch=inner())


def subgraph_in_a_harmless_operation(model):
    node(model, "Identity", ["src"], body=inner("Loop"))


def subgraphs_in_a_harmless_operation(model):
    node(model, "Identity", ["src"], bodies=[inner("Loop")])


def subgraph_under_another_type(model):
    node(model, "Identity", ["src"])
    attribute = helper.make_attribute("body", inner("Loop"))
    attribute.type, attribute.i = onnx.AttributeProto.INT, 1
    model.graph.node[0].attribute.append(attribute)


def function(model):
    made = helper.make_function(
        "",
        "Relu",
        ["a"],
        ["b"],
        [helper.make_node("Loop", ["", ""], ["b"], body=inner())],
        model.opset_import,
    )
    model.functions.append(made)


def local_function_by_overload(model):
    node(model, "Identity", ["src"])
    model.graph.node[0].overload = "evil"


def sparse_weight(model):
    values = helper.make_tensor("sparse", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [1 << 40])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 41]))


def sparse_constant(model):
    values = helper.make_tensor("v", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [7])
    node(model, "Identity", ["src"], sparse_value=helper.make_sparse_tensor(values, indices, [1 << 41]))


def training(model):
    model.training_info.add().algorithm.CopyFrom(inner("Loop"))


def quantization_annotation(model):
    model.graph.quantization_annotation.add(tensor_name="x")


def metadata(model):
    helper.set_model_props(model, {"ort_config": '{"session_options": {}}'})


def a_text_about_it(model):
    model.doc_string = "x" * 100


def a_text_about_a_node(model):
    model.graph.node[0].doc_string = "x"


def lying_inner_shape(model):
    model.graph.value_info.append(helper.make_tensor_value_info("cast_0_0", TensorProto.INT32, [1 << 40]))


def reference_of_an_attribute(model):
    node(model, "Identity", ["src"])
    model.graph.node[0].attribute.add(name="a", ref_attr_name="b", type=onnx.AttributeProto.INT)


def weight_with_an_inputs_name(model):
    weight(model, "src_len", np.array([1]))


def weight_twice(model):
    model.graph.initializer.append(model.graph.initializer[0])


def weight_larger_than_its_bytes(model):
    model.graph.initializer[0].dims[0] = 1 << 40


def weight_of_many_axes(model):
    tensor = TensorProto(name="many", data_type=TensorProto.FLOAT, dims=[1 << 62] * 9, raw_data=bytes(4))
    model.graph.initializer.append(tensor)


def more_axes_by_a_node(model):
    wide = weight(model, "wide", np.zeros((1, 1, 1, 1, 1, 1, 1, 1), np.float32))
    node(model, "Unsqueeze", [wide, weight(model, "a0", np.array([0]))])


def memory_of_many_axes(model):
    """Its product has 4,816 digits."""
    [shape] = [port.type.tensor_type.shape for port in model.graph.output if port.name == "keys"]
    shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=1 << 20) for _ in range(800))


def permutation_of_thousands(model):
    node(model, "Transpose", ["src"], perm=list(range(10_000)))


def weight_of_negative_sizes(model):
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [-size for size in tensor.dims]
    assert len(tensor.dims) == 2


def weight_of_another_type(model):
    model.graph.initializer[0].data_type = TensorProto.FLOAT16


def weight_of_strings(model):
    weight(model, "text", np.array([b"x"], dtype=object))


def weight_in_two_places(model):
    model.graph.initializer[0].float_data.append(1.0)


def weight_in_the_list_of_another_type(model):
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.INT64, dims=[1], int32_data=[1])
    )


def constant_of_a_node(model):
    node(model, "Constant", [], value_ints=[1 << 40])


def cast_to_strings(model):
    node(model, "Cast", ["src"], to=TensorProto.STRING)


def cycle(model):
    node(model, "Add", ["evil2", "src_len"], "evil1")
    node(model, "Identity", ["evil1"], "evil2", first=False)


def unsorted(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def value_made_twice(model):
    node(model, "Identity", ["src"], model.graph.node[0].output[0])


def input_made_again(model):
    node(model, "Identity", ["src_len"], "src")


def another_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", FLOAT, [1]))


def input_twice(model):
    model.graph.input.append(model.graph.input[0])


def missing_input(model):
    del model.graph.input[1]


def another_output(model):
    model.graph.output.append(helper.make_tensor_value_info("more", FLOAT, [1]))
    node(model, "Identity", ["src"], "more", first=False)


def input_of_another_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def input_of_another_rank(model):
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


def input_of_no_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def input_of_a_fixed_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def one_name_for_two_sizes(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "B"


def input_that_is_a_sequence(model):
    element = helper.make_tensor_type_proto(TensorProto.INT64, ["B", "S"])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(element))


def output_of_another_shape(model):
    [last] = [n for n in model.graph.node if "h" in n.output]
    last.output[0] = "old"
    node(model, "Concat", ["old", "old"], "h", first=False, axis=2)


def output_of_a_declared_shape_it_has_not(model):
    [h] = [port for port in model.graph.output if port.name == "h"]
    h.type.tensor_type.shape.dim[2].dim_value = 7


def old_opset(model):
    model.opset_import[0].version = 9


def future_opset(model):
    model.opset_import[0].version = 19


def two_opsets(model):
    model.opset_import.add(domain="", version=18)


def standard_opset_by_its_other_name(model):
    model.opset_import[0].domain = "ai.onnx"


def old_ir(model):
    model.ir_version = 3


def no_graph(model):
    model.ClearField("graph")


def many_nodes(model):
    model.graph.node.extend(
        helper.make_node("Identity", [f"i{i}" if i else "src_len"], [f"i{i + 1}"]) for i in range(5000)
    )


def attribute_twice(model):
    node(model, "Cast", ["src"], to=1)
    model.graph.node[0].attribute.append(helper.make_attribute("to", 7))


def attribute_of_no_type(model):
    node(model, "Cast", ["src"], to=1)
    model.graph.node[0].attribute[0].ClearField("type")


def bias_left_out(model):
    """It crashes a session of ONNX Runtime 1.31."""
    scale = weight(model, "scale", np.ones(model.graph.initializer[0].dims[1], np.float32))
    node(model, "LayerNormalization", [model.graph.initializer[0].name, scale, ""])


def scale_of_another_size(model):
    scale = weight(model, "scale", np.ones(1, np.float32))
    node(model, "LayerNormalization", [model.graph.initializer[0].name, scale])


def length_by_the_name_of_the_hosts(model):
    """`top_k` is not an input of the encoder; here it is the length of the prompt."""
    node(model, "TopK", [model.graph.initializer[0].name, "top_k"], "best", "places", axis=0)
    node(model, "Shape", ["src"], "top_k", start=1, end=2)


def least_number_by_minus_one(model):
    """Constant folding in ONNX Runtime raises SIGFPE when it creates the session."""
    least, minus = weight(model, "least", np.iinfo(np.int64).min), weight(model, "minus", np.int64(-1))
    node(model, "Div", [least, minus])


def division_by_what_a_prompt_holds(model):
    node(model, "Div", ["src", "src"])


#: Attacks on the encoder, with part of the message of the refusal.
ATTACKS: dict[Spoil, str] = {
    endless_loop: "node 'culprit' ('Loop') is of a kind that is not allowed",
    giant_constant_of_shape: "node 'culprit' ('ConstantOfShape') makes 1,099,511,627,776 numbers",
    giant_expand: "node 'culprit' ('Expand') makes",
    giant_broadcast: "node 'culprit' ('Add') makes 900,000,000 numbers",
    giant_product: "node 'culprit' ('MatMul') makes 99,980,001 numbers",
    giant_tile: "node 'culprit' ('Tile') is of a kind that is not allowed",
    giant_range: "node 'culprit' ('Range') makes",
    doubling: "('Concat') makes",
    square_of_the_source: "('Less') makes B*S*S numbers, which grows faster",
    steep_growth: "node 'culprit' ('ConstantOfShape') makes",
    late_growth: "('ConstantOfShape') takes a size from 'size', which is known only at run time",
    size_of_a_token: "node 'culprit' ('ConstantOfShape') takes a size from 'size'",
    size_of_a_weight: "node 'culprit' ('ConstantOfShape') takes a size from 'size'",
    empty_weight: "'none' has the shape [0], which may be empty",
    empty_for_one_token: "'evil' has the shape [S - 1], which may be empty",
    maximum_of_many: "node 'culprit' ('Max') has 90,000 inputs, but must have 2",
    minimum_of_many: "node 'culprit' ('Min') has 90,000 inputs, but must have 2",
    concatenation_of_many: "node 'culprit' ('Concat') makes 4,320,000 numbers per B*S",
    many_products: "node 'culprit' ('MatMul') multiplies",
    external_data: "is outside the file: external data is refused",
    external_data_in_an_attribute: "('ConstantOfShape') has t in the attribute 'value', which a",
    external_data_without_saying_so: "is outside the file: external data is refused",
    unknown_domain: "imports the operator domain 'com.evil', which is not allowed",
    unknown_domain_not_imported: "node 'culprit' ('Identity') is of the operator domain 'com.evil'",
    unknown_operation: "node 'culprit' ('RandomNormal') is of a kind that is not allowed",
    operation_of_microsoft: "node 'culprit' ('Tokenizer') is of a kind that is not allowed",
    domain_within_the_name: "('com.microsoft.MatMulNBits') is of a kind that is not allowed",
    branch: "node 'culprit' ('If') is of a kind that is not allowed",
    subgraph_in_a_harmless_operation: "holds a subgraph in the attribute 'body'",
    subgraphs_in_a_harmless_operation: "holds a subgraph in the attribute 'bodies'",
    subgraph_under_another_type: "holds a subgraph in the attribute 'body'",
    function: "the model has functions",
    local_function_by_overload: "has overload",
    sparse_weight: "the graph has sparse_initializer",
    sparse_constant: "has sparse_tensor in the attribute 'sparse_value'",
    training: "the model has training_info",
    quantization_annotation: "the graph has quantization_annotation",
    metadata: "the model has metadata_props",
    a_text_about_it: "the model has doc_string, which a bundle's graph does not need",
    a_text_about_a_node: "has doc_string, which a bundle's graph does not need",
    lying_inner_shape: "the graph has value_info",
    reference_of_an_attribute: "has ref_attr_name",
    weight_with_an_inputs_name: "'src_len' is made twice, by nodes, inputs or weights",
    weight_twice: "'embedding.weight' is made twice",
    weight_larger_than_its_bytes: "weight 'embedding.weight' does not have exactly the numbers of its shape",
    weight_of_negative_sizes: "weight 'embedding.weight' does not have exactly the numbers of its shape",
    weight_of_many_axes: "weight 'many' has 9 axes, 8 are allowed",
    more_axes_by_a_node: "'evil' has 9 axes, 8 are allowed",
    memory_of_many_axes: "output 'keys' has 803 axes, 8 are allowed",
    permutation_of_thousands: "transposes [B, S] by [0, 1, 2, ",
    weight_of_another_type: "weight 'embedding.weight' does not have exactly the numbers of its shape",
    weight_of_strings: "weight 'text' has string_data",
    weight_in_two_places: "weight 'embedding.weight' has float_data, which a bundle's graph does not need",
    weight_in_the_list_of_another_type: "weight 'w' has int32_data, which a bundle's graph does not need",
    constant_of_a_node: "node 'culprit' ('Constant') is of a kind that is not allowed",
    cast_to_strings: "casts to the type 8, which is not allowed",
    cycle: "takes 'evil2', which no earlier node makes",
    unsorted: "which no earlier node makes",
    value_made_twice: "is made twice",
    input_made_again: "'src' is made twice",
    another_input: "input or output 'more' does not fit the state map",
    input_twice: "'src' is declared twice",
    missing_input: "input or output 'src_len' does not fit the state map",
    another_output: "input or output 'more' does not fit the state map",
    input_of_another_type: "'src' must have the type 7 and the shape [B, S], not the type 6 and rank 2",
    input_of_another_rank: "'src' must have the type 7 and the shape [B, S], not the type 7 and rank 3",
    input_of_no_shape: "'src' must have the type 7 and the shape [B, S]",
    input_of_a_fixed_size: "'src' declares '1' where it must have B",
    one_name_for_two_sizes: "'src' declares 'B' where it must have S",
    input_that_is_a_sequence: "'src' has sequence_type",
    output_of_another_shape: "output 'h' must be [1, B, 48], but is [1, B, 96]",
    output_of_a_declared_shape_it_has_not: "'h' declares '7' where it must have 48",
    old_opset: "imports opset 9, but must import 18",
    future_opset: "imports opset 19, but must import 18",
    two_opsets: "must import the standard operators, and each domain once",
    standard_opset_by_its_other_name: "must import the standard operators",
    old_ir: "the IR version 3, but must have 8",
    no_graph: "does not fit the state map",
    many_nodes: "nodes, 4,096 are allowed",
    attribute_twice: "has an attribute twice",
    attribute_of_no_type: "whose value is not of its type",
    bias_left_out: "node 'culprit' ('LayerNormalization') has no input 2",
    length_by_the_name_of_the_hosts: "node 'culprit' ('TopK') takes the first S of 320",
    least_number_by_minus_one: "node 'culprit' ('Div') is of a kind that is not allowed",
    division_by_what_a_prompt_holds: "node 'culprit' ('Div') is of a kind that is not allowed",
    scale_of_another_size: "node 'culprit' ('LayerNormalization') has [1] as input 1, not [24]",
}


@pytest.fixture(scope="module")
def sealed(bundle_folder, tmp_path_factory) -> Callable[..., Path]:
    """Writes a bundle with replaced files and right hashes."""
    read = read_bundle(bundle_folder)
    folder = tmp_path_factory.mktemp("hostile")

    def write(**changed: bytes) -> Path:
        contents = {**read.files, **{f"{name}.onnx": data for name, data in changed.items()}}
        write_bundle(folder / "bundle", read.manifest, contents, replace_existing=True)
        return folder / "bundle"

    return write


@pytest.fixture
def no_session(monkeypatch) -> None:
    def made(*_: object, **__: object) -> None:
        pytest.fail("ONNX Runtime has seen the graph")

    monkeypatch.setattr(ort.ort, "InferenceSession", made)


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as raised:
        ChatModel.load(path, device="cpu")
    where, said = str(raised.value).split(": ", 1)
    assert where == str(path)
    assert "\n" not in said
    assert len(said) < 400
    return said


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_in_one_sentence_before_a_session_is_created(sealed, bundle_folder, attack):
    graph = read_bundle(bundle_folder).files["encoder.onnx"]
    said = refused(sealed(encoder=damage_graph(graph, attack)))
    assert said.startswith("encoder.onnx: ")
    assert ATTACKS[attack] in said


def test_the_command_line_says_the_sentence(sealed, bundle_folder, edgechat):
    graph = read_bundle(bundle_folder).files["encoder.onnx"]
    path = sealed(encoder=damage_graph(graph, endless_loop))
    for command in (("reply", path, "hello"), ("verify", path)):
        done = edgechat(*command, timeout=60)
        assert done.returncode == 1
        assert done.stdout == ""
        assert (
            done.stderr
            == f"edgechat: {path}: encoder.onnx: node 'culprit' ('Loop') is of a kind that is not allowed\n"
        )


# --- the decoder and the state map ------------------------------------------------------------------------


def most_candidates_from_a_weight(model):
    [top] = [n for n in model.graph.node if n.op_type == "TopK"]
    top.input[1] = weight(model, "many", np.array([1 << 40]))


def square_of_the_candidates(model):
    node(model, "Concat", ["top_k", "top_k"], "cc", axis=0, first=True)
    model.graph.node.insert(1, helper.make_node("ConstantOfShape", ["cc"], ["evil"], "culprit"))


def one_candidate_more_than_the_host_asks_for(model):
    """More candidates than the vocabulary may have."""
    node(model, "Add", ["top_k", weight(model, "one", np.array([1]))], "more")
    [top] = [n for n in model.graph.node if n.op_type == "TopK"]
    top.input[1] = "more"


def rows_for_each_row(model):
    """[N, N]: harmless for one sentence."""
    node(model, "Shape", ["tokens"], "n")
    model.graph.node.insert(1, helper.make_node("Concat", ["n", "n"], ["nn"], axis=0))
    model.graph.node.insert(2, helper.make_node("ConstantOfShape", ["nn"], ["evil"], "culprit"))


def vocabulary_for_each_source_token(model):
    """[B, K, S, A] times 1,000 columns, with only as many weights as that takes."""
    [tanh] = [n for n in model.graph.node if n.op_type == "Tanh" and n.output[0] not in ("",)][-1:]
    wide = weight(model, "wide", np.zeros((24, 5000), np.float32))
    at = list(model.graph.node).index(tanh)
    model.graph.node.insert(at + 1, helper.make_node("MatMul", [tanh.output[0], wide], ["evil"], "culprit"))


def everything_for_each_candidate(model):
    [top] = [n for n in model.graph.node if n.op_type == "TopK"]
    at = list(model.graph.node).index(top)
    column = weight(model, "a2", np.array([2]))
    row = weight(model, "row", np.zeros(1000, np.float32))
    model.graph.node.insert(at + 1, helper.make_node("Unsqueeze", [top.output[0], column], ["u"]))
    model.graph.node.insert(at + 2, helper.make_node("Add", ["u", row], ["evil"], "culprit"))


def sum_of_letters(model, terms: int, count: int) -> str:
    """The name of a list of `count` equal numbers, each the sum of `terms` letters."""
    letters = (("keys", 0), ("keys", 1), ("h", 1), ("tokens", 0))[:terms]
    nodes = [
        helper.make_node("Shape", [name], [f"n{i}"], start=at, end=at + 1)
        for i, (name, at) in enumerate(letters)
    ]
    for i in range(1, terms):
        nodes.append(helper.make_node("Add", [f"s{i - 1}" if i > 1 else "n0", f"n{i}"], [f"s{i}"]))
    same = weight(model, "same", np.zeros(count, np.int64))
    nodes.append(helper.make_node("Gather", [f"s{terms - 1}", same], ["sums"], axis=0))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return "sums"


def insert_last_of(model, kind: str, inputs: list[str]) -> None:
    """Insert the culprit after the sums."""
    at = 1 + [n.output[0] for n in model.graph.node].index("sums")
    model.graph.node.insert(at, helper.make_node(kind, inputs, ["evil"], "culprit"))


def power_of_a_sum(model):
    """(B + S + M + B*K)**64 has 67 * 66 * 65 / 6 = 47,905 terms, which take half a minute to compute."""
    insert_last_of(model, "ConstantOfShape", [sum_of_letters(model, 4, 64)])


def power_of_a_sum_by_reshape(model):
    insert_last_of(model, "Reshape", ["tokens", sum_of_letters(model, 4, 64)])


def power_of_a_sum_as_a_sentence(model):
    insert_last_of(model, "ConstantOfShape", [sum_of_letters(model, 4, 8)])


def sum_of_too_many_letters(model):
    """So many that multiplying such numbers takes seconds."""
    name = sum_of_letters(model, 4, 2)
    insert_last_of(model, "ConstantOfShape", ["more"])
    model.graph.node.insert(
        1 + [n.output[0] for n in model.graph.node].index("sums"),
        helper.make_node("Add", [name, "top_k"], ["more"]),
    )


DECODER_ATTACKS: dict[Spoil, str] = {
    most_candidates_from_a_weight: "takes the first 1099511627776 of 320",
    square_of_the_candidates: "makes C*C numbers, which grows faster",
    one_candidate_more_than_the_host_asks_for: "takes the first C + 1 of 320",
    rows_for_each_row: "makes B*B*K*K numbers, which grows faster",
    vocabulary_for_each_source_token: "makes 5,000 numbers per B*K*S: with the nodes before it, more than",
    power_of_a_sum: "'evil' has 64 axes, 8 are allowed",
    power_of_a_sum_by_reshape: "node 'culprit' ('Reshape') reshapes to 64 axes, 8 are allowed",
    power_of_a_sum_as_a_sentence: "node 'culprit' ('ConstantOfShape') makes ",
    sum_of_too_many_letters: "takes a size from 'more', which is known only at run time",
    everything_for_each_candidate: "makes 1,000 numbers per B*C*K: with the nodes before it, more than 64",
}


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("attack", DECODER_ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_in_the_decoder_is_refused_before_a_session_is_created(sealed, bundle_folder, attack):
    graph = read_bundle(bundle_folder).files["decoder.onnx"]
    said = refused(sealed(decoder=damage_graph(graph, attack)))
    assert said.startswith("decoder.onnx: ")
    assert DECODER_ATTACKS[attack] in said


SPECS = {
    "a vocabulary of millions": (lambda s: {"vocab_size": 1 << 24}, "has a vocabulary of 16,777,216"),
    "a name twice": (lambda s: {"memory": ("keys", "keys")}, "names a tensor of the graphs twice"),
    "a name of the format": (
        lambda s: {"state": (StateTensor("h", "logp", (1, "M", 4), "zeros"),)},
        "names a tensor of the graphs twice",
    ),
    "rows by rows": (
        lambda s: {"state": (StateTensor("h", "next_h", ("M", "M"), "zeros"),)},
        "the shape of the state 'h' must have one 'M'",
    ),
    "a state of millions": (
        lambda s: {"state": tuple(StateTensor(f"h{i}", f"n{i}", ("M", 1 << 20), "zeros") for i in range(2))},
        "has a state of 2,097,152 numbers",
    ),
    "another vocabulary": (lambda s: {"vocab_size": 13}, "'logp' declares '12' where it must have 13"),
    "memory that the encoder has not": (
        lambda s: {"memory": ("keys", "values", "more")},
        "encoder.onnx: input or output 'more' does not fit the state map",
    ),
    "memory that is no [B, S, ..]": (lambda s: {"memory": ("c",)}, "'c' must have the shape [B, S, ..]"),
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_state_map_that_does_not_fit_is_refused(kind):
    spec, *graphs = make_valid_graphs()
    if kind == "memory that is no [B, S, ..]":
        graphs[0] = damage_graph(
            graphs[0], lambda model: model.graph.output[-1].type.tensor_type.shape.dim.pop()
        )
        graphs[0] = damage_graph(
            graphs[0], lambda model: model.graph.output[-1].type.tensor_type.shape.dim.pop()
        )
    change, why = SPECS[kind]
    with pytest.raises(BundleError) as raised:
        check_graphs(dataclasses.replace(spec, **change(spec)), *graphs)
    assert why in str(raised.value)


# --- valid graphs pass ------------------------------------------------------------------------------------

SIZES = [
    *itertools.product((1, 2, 3), (True, False), ((4, 3, 5, 12), (256, 128, 128, 2000))),
    (1, True, (1, 1, 1, 6)),
    (2, True, (8, 4096, 8, 20)),
    (2, True, (8, 8, 4096, 20)),
    (4, False, (512, 16, 16, 20)),
]


def most_used(monkeypatch, **options) -> float:
    """The largest share of any limit that a valid graph uses."""
    used = []

    def count(so_far, size, most, does):
        real(so_far, size, most, does)
        used.extend(so_far[letters] / most(letters) for letters in so_far)

    real = graph_check._add_cost
    monkeypatch.setattr(graph_check, "_add_cost", count)
    check_graphs(*make_valid_graphs(**options))
    return max(used)


@pytest.mark.parametrize(("layers", "reverse", "sizes"), SIZES, ids=str)
def test_graphs_of_the_exporter_pass_and_need_at_most_a_third(layers, reverse, sizes, monkeypatch):
    named = dict(zip(("hidden", "embedding", "attention", "vocab"), sizes, strict=True))
    assert 0 < most_used(monkeypatch, layers=layers, reverse_source=reverse, **named) < 1 / 3


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("hidden", [4, 64, 512])
def test_graphs_of_other_precisions_pass_and_need_at_most_half(precision, hidden, monkeypatch):
    assert 0 < most_used(monkeypatch, layers=2, hidden=hidden, vocab=500, precision=precision) < 1 / 2


@pytest.mark.parametrize("layers", [1, 2])
def test_the_inferred_sizes_are_those_of_ONNX_Runtime(layers):  # noqa: N802
    """Compared for every value in the graphs, with several batches, lengths, beams and numbers of
    candidates."""
    spec, *graphs = make_valid_graphs(layers=layers)
    found = [shapes_of(spec, *graphs, which) for which in (0, 1)]
    sessions = [watched(graph, shapes) for graph, shapes in zip(graphs, found, strict=True)]
    random = np.random.default_rng(0)
    for B, S, K, C in ((1, 1, 1, 1), (1, 1, 2, 3), (2, 5, 3, 4), (3, 2, 2, 12), (4, 7, 1, 1)):
        src = random.integers(5, 12, (B, S))
        letters = {"B": B, "S": S, "K": K, "C": C, "M": B}
        made = see(sessions[0], {"src": src, "src_len": np.full(B, S)}, found[0], letters)
        feeds = {name: made[name] for name in (*spec.memory, "h", "c")}
        feeds |= {"attn": np.zeros((B, 4), np.float32), "top_k": np.array([C])}
        feeds |= {"tokens": np.ones(B * K, np.int64), "parent": np.repeat(np.arange(B), K)}
        see(sessions[1], feeds, found[1], letters)


def test_graphs_in_8_bits_pass_and_run():
    spec, encoder, decoder = make_valid_graphs(
        layers=2, hidden=64, embedding=32, attention=32, vocab=200, precision="int8"
    )
    assert b"MatMulIntegerToFloat" in decoder
    backend = ort.OrtBackend(spec, encoder, decoder, device="cpu", threads=1)
    state = backend.encode(np.full((2, 3), 5), np.array([3, 2]))
    out, _ = backend.step(state, np.ones(4, np.int64), np.array([0, 0, 1, 1]), 3)
    assert out.cand_ids.shape == (4, 3)


def shapes_of(spec: GraphSpec, encoder: bytes, decoder: bytes, which: int) -> dict[str, graph_check.Value]:
    kept = []
    real = graph_check._GraphChecker.__init__

    def init(self, *arguments):
        real(self, *arguments)
        kept.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_check._GraphChecker, "__init__", init)
        check_graphs(spec, encoder, decoder)
    made = {name for n in kept[which]._graph.nodes for name in n.outputs}
    return {name: value for name, value in kept[which]._values.items() if name in made}


def watched(graph: bytes, names: dict[str, graph_check.Value]) -> onnxruntime.InferenceSession:
    """A session with all values as outputs."""

    def give(model: onnx.ModelProto) -> None:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)

    return onnxruntime.InferenceSession(damage_graph(graph, give), providers=["CPUExecutionProvider"])


def see(session, feeds, found, letters) -> dict[str, np.ndarray]:
    made = dict(zip(found, session.run(list(found), feeds), strict=True))
    for name, array in made.items():
        assert array.shape == tuple(at(size, letters) for size in found[name].shape), name
        if found[name].numbers is not None:
            assert array.ravel().tolist() == [at(size, letters) for size in found[name].numbers], name
    return made


def at(size, letters) -> int:
    """The size for these values of the letters."""
    return sum(
        factor * int(np.prod([letters[x] for x in product])) for product, factor in terms_of(size).items()
    )
