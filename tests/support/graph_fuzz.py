"""Random changes of the structure of a graph: a type, a shape, an input, an attribute, an operation, a name.

Unlike flipped bytes, they usually give graphs that ONNX can read and that are wrong in one place."""

import random

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from edgechat.runtime.shape_rules import RULES

#: Element types with what NumPy calls them, for the bytes of a weight.
_TYPES = {
    TensorProto.FLOAT: "<f4",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.BOOL: "?",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
}
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    17,
    32,
    127,
    255,
    1 << 31,
    (1 << 31) - 1,
    -(1 << 63),
    (1 << 63) - 1,
)
FLOATS = (0.0, 1.0, -1.0, 1e-30, 3e38, float("inf"), float("-inf"), float("nan"))
STRINGS = ("reverse", "bidirectional", "forward", "Sigmoid", "Tanh", "Affine", "Elu", "none", "add", "")
#: Attributes of the operations in the table of rules.
ATTRIBUTES = (
    "axis", "block_size", "output_dtype", "saturate", "hidden_size", "direction", "activations", "layout",
    "input_forget", "clip", "transA", "transB", "to", "keepdims", "noop_with_empty_axes", "allowzero",
    "largest", "sorted", "exclusive", "reverse", "num_outputs", "perm", "axes", "start", "end", "epsilon",
    "stash_type", "activation_alpha", "activation_beta", "K", "N", "bits", "accuracy_level", "reduction",
    "value", "alpha", "beta", "batch_dims", "precision",
)  # fmt: skip
_OPERATIONS = [(domain, op) for domain, rules in RULES.items() for op in rules]


def mutate_graph(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with one to three changes of random kinds."""
    model = onnx.load_from_string(raw)
    changes = 0
    while changes < rng.choice((1, 1, 1, 2, 3)):
        changes += bool(rng.choice(_CHANGES)(model, rng))
    changed: bytes = model.SerializeToString()
    return changed


def _random_weight(model: ModelProto, rng: random.Random) -> TensorProto:
    held = [a.t for node in model.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    return rng.choice([*model.graph.initializer, *held])


def _random_numbers(count: int, dtype: int, rng: random.Random) -> bytes:
    kind = np.dtype(_TYPES[dtype])
    if kind.kind == "f":
        values = np.array([rng.choice(FLOATS) for _ in range(count)])
    else:
        values = np.array([rng.choice(INTEGERS) for _ in range(count)], dtype=np.int64)
    with np.errstate(all="ignore"):
        return values.astype(kind).tobytes()


def _reinterpret_weight(model: ModelProto, rng: random.Random) -> bool:
    """Another element type, with the bytes cut or repeated so that they fit."""
    weight = _random_weight(model, rng)
    old = onnx.numpy_helper.to_array(weight)
    weight_type = rng.choice(list(_TYPES))
    raw = old.tobytes()
    size = old.size * np.dtype(_TYPES[weight_type]).itemsize
    fitting = (raw * (size // max(1, len(raw)) + 1))[:size]
    _set_weight(weight, list(old.shape), weight_type, fitting)
    return True


def _convert_weight(model: ModelProto, rng: random.Random) -> bool:
    """Another element type, with the same numbers as far as the type can represent them."""
    weight = _random_weight(model, rng)
    old = onnx.numpy_helper.to_array(weight)
    weight_type = rng.choice(list(_TYPES))
    with np.errstate(all="ignore"):
        _set_weight(weight, list(old.shape), weight_type, old.astype(_TYPES[weight_type]).tobytes())
    return True


def _reshape_weight(model: ModelProto, rng: random.Random) -> bool:
    """Other sizes: axes permuted, a size one larger or smaller, an axis added or removed, a scalar."""
    weight = _random_weight(model, rng)
    dims = list(weight.dims)
    match rng.randrange(6):
        case 0:
            rng.shuffle(dims)
        case 1 if dims:
            dims[rng.randrange(len(dims))] += rng.choice((-1, 1, 2))
        case 2:
            dims.insert(rng.randrange(len(dims) + 1), 1)
        case 3 if dims:
            del dims[rng.randrange(len(dims))]
        case 4:
            dims = []
        case _:
            dims = [int(np.prod(dims))]
    old = onnx.numpy_helper.to_array(weight)
    count = int(np.prod(dims))
    if dims == list(weight.dims) or count < 0 or weight.data_type not in _TYPES:
        return False
    _set_weight(weight, dims, weight.data_type, np.resize(old, count).tobytes())
    return True


def _change_values(model: ModelProto, rng: random.Random) -> bool:
    weight = _random_weight(model, rng)
    if weight.data_type not in _TYPES:
        return False
    dims = list(weight.dims)
    _set_weight(weight, dims, weight.data_type, _random_numbers(int(np.prod(dims)), weight.data_type, rng))
    return True


def _set_weight(weight: TensorProto, dims: list[int], dtype: int, raw: bytes) -> None:
    name = weight.name
    weight.Clear()
    weight.name, weight.data_type, weight.raw_data = name, dtype, raw
    weight.dims.extend(dims)


def _value_names(model: ModelProto) -> list[str]:
    graph = model.graph
    names = [port.name for port in graph.input] + [weight.name for weight in graph.initializer]
    return names + [name for node in graph.node for name in node.output]


def _change_inputs(model: ModelProto, rng: random.Random) -> bool:
    """Other inputs of a node: swapped, replaced, omitted, added or cut off."""
    node = rng.choice(model.graph.node)
    inputs = list(node.input)
    at = rng.randrange(len(inputs)) if inputs else 0
    match rng.randrange(5):
        case 0 if len(inputs) > 1:
            other = rng.randrange(len(inputs))
            inputs[at], inputs[other] = inputs[other], inputs[at]
        case 1 if inputs:
            inputs[at] = rng.choice(_value_names(model))
        case 2 if inputs:
            inputs[at] = ""
        case 3:
            inputs.append(rng.choice(_value_names(model)))
        case _:
            del inputs[at:]
    if inputs == list(node.input):
        return False
    del node.input[:]
    node.input.extend(inputs)
    return True


def _change_attribute(model: ModelProto, rng: random.Random) -> bool:
    """An attribute removed, changed or added."""
    nodes = [node for node in model.graph.node if node.attribute] or list(model.graph.node)
    node = rng.choice(nodes if rng.random() < 0.7 else list(model.graph.node))
    if node.attribute and rng.random() < 0.2:
        del node.attribute[rng.randrange(len(node.attribute))]
        return True
    if node.attribute and rng.random() < 0.7:
        attribute = rng.choice(node.attribute)
        if attribute.type == AttributeProto.INT:
            attribute.i = rng.choice(INTEGERS)
            return True
        if attribute.type == AttributeProto.INTS and attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
            return True
    name = rng.choice(ATTRIBUTES)
    if any(attribute.name == name for attribute in node.attribute):
        return False
    node.attribute.append(helper.make_attribute(name, random_attribute_value(rng)))
    return True


def random_attribute_value(rng: random.Random) -> int | float | str | list[int] | list[float] | list[str]:
    """A random value for an attribute."""
    return rng.choice(
        (
            rng.choice(INTEGERS),
            rng.choice(FLOATS),
            rng.choice(STRINGS),
            [rng.choice(INTEGERS) for _ in range(rng.randint(1, 3))],
            [rng.choice(FLOATS) for _ in range(rng.randint(1, 3))],
            [rng.choice(STRINGS) for _ in range(rng.choice((1, 3, 6)))],
        )
    )


def _change_operation(model: ModelProto, rng: random.Random) -> bool:
    node = rng.choice(model.graph.node)
    node.domain, node.op_type = rng.choice(_OPERATIONS)
    return True


def _rename_value(model: ModelProto, rng: random.Random) -> bool:
    """Rename an output of a node, a weight or a port: to an existing name, or to a new one."""
    graph, name = model.graph, rng.choice([*_value_names(model), "new"])
    match rng.randrange(3):
        case 0:
            rng.choice(graph.node).output[0] = name
        case 1:
            rng.choice(graph.initializer).name = name
        case _:
            rng.choice([*graph.input, *graph.output]).name = name
    return True


def _change_node_order(model: ModelProto, rng: random.Random) -> bool:
    nodes = list(model.graph.node)
    at, to = rng.randrange(len(nodes)), rng.randrange(len(nodes))
    match rng.randrange(3):
        case 0:
            del nodes[at]
        case 1:
            nodes[at], nodes[to] = nodes[to], nodes[at]
        case _:
            nodes.insert(to, nodes[at])
    _replace_nodes(model, nodes)
    return True


def _replace_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _insert_operation(model: ModelProto, rng: random.Random) -> bool:
    """Add an operation on existing values, and make a later node use its result."""
    nodes = list(model.graph.node)
    at = rng.randrange(len(nodes))
    before = [port.name for port in model.graph.input] + [weight.name for weight in model.graph.initializer]
    before += [name for node in nodes[:at] for name in node.output]
    domain, op = rng.choice(_OPERATIONS)
    made = NodeProto(op_type=op, domain=domain, output=["inserted"])
    taken = rng.randrange(len(nodes[at].input)) if nodes[at].input else None
    first = nodes[at].input[taken] if taken is not None and rng.random() < 0.6 else rng.choice(before)
    made.input.extend([first, *(rng.choice(before) for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 5))))])
    for name in ("axis", "to", "hidden_size", "K", "N", "bits", "block_size"):
        if rng.random() < 0.3:
            made.attribute.append(helper.make_attribute(name, rng.choice(INTEGERS)))
    if taken is not None:
        nodes[at].input[taken] = "inserted"
    _replace_nodes(model, [*nodes[:at], made, *nodes[at:]])
    return True


def _change_declared_type(model: ModelProto, rng: random.Random) -> bool:
    """Another declared type or size of an input or output."""
    kind = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type
    if rng.random() < 0.5 or not kind.shape.dim:
        kind.elem_type = rng.choice(list(_TYPES))
        return True
    dim = rng.choice(kind.shape.dim)
    if rng.random() < 0.5:
        dim.dim_value = rng.choice(INTEGERS)
    else:
        dim.dim_param = rng.choice(("B", "S", "N", "M", "C", ""))
    return True


def _change_version(model: ModelProto, rng: random.Random) -> bool:
    if rng.random() < 0.5:
        rng.choice(model.opset_import).version = rng.randrange(1, 26)
    else:
        model.ir_version = rng.randrange(3, 14)
    return True


_CHANGES = (
    _reinterpret_weight, _convert_weight, _reshape_weight, _reshape_weight, _change_values, _change_inputs,
    _change_inputs, _change_inputs, _change_attribute, _change_attribute, _change_attribute,
    _change_operation, _rename_value, _change_node_order, _insert_operation, _insert_operation,
    _insert_operation, _change_declared_type, _change_version,
)  # fmt: skip
