"""The shape rules, compared with ONNX Runtime."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
from graph_fuzz import ATTRIBUTES, INTEGERS, random_attribute_value
from model_options import OPTIONS as OPTIONS_OF_MODELS
from model_options import model_with
from onnx import helper

from edgechat.export.graphs import build_decoder, build_encoder
from edgechat.export.precision import Float16, Float32, Int8
from edgechat.export.quantize import Levels
from edgechat.runtime.onnx_file import Node, read_model
from edgechat.runtime.shape_rules import MICROSOFT, RULES, Call, RuleError, Value
from edgechat.runtime.symbolic_sizes import (
    Polynomial,
    divide,
    is_at_least,
    letter,
    product,
    terms_of,
    upper_bound,
)

Feeds = dict[str, np.ndarray]

B, S, K = map(letter, "BSK")


def test_sizes_are_polynomials():
    assert B * S + S * B == 2 * B * S
    assert (B * K * 6) - B * K * 6 == 0
    assert divide(6 * B * K, 2 * B) == 3 * K
    assert divide(B * S + S, S) == B + 1
    assert divide(B, S) is None
    assert divide(3 * B, 2 * B) is None
    assert divide(B * S, B + S) is None
    assert divide(12, 5) is None
    assert divide(12, 0) is None
    assert str(4 * B * S + 1) == "4*B*S + 1"
    assert str(3 - B) == "3 - B"
    assert upper_bound(3 * S - 2) == {"S": 3}
    assert product([]) == 1


def test_a_size_is_at_least_its_value_with_all_letters_1():
    assert is_at_least(S - 1, 0)
    assert not is_at_least(S - 1, 1)
    assert not is_at_least(2 - S, 0)
    assert not is_at_least(B * S - S, 0)  # it is, but the rules do not detect that
    assert is_at_least(3, 3)


FIXED = Levels(127, 64, 1.0)


class Limited(dict[str, Levels]):
    """The same levels for every weight."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels

    def __missing__(self, name: str) -> Levels:
        return self.levels


def read_node(node: onnx.NodeProto) -> Node:
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    read = read_model("x.onnx", model.SerializeToString())
    assert read.graph
    return read.graph.nodes[0]


def f(*shape: int) -> np.ndarray:
    return np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def i(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def q(*shape: int) -> np.ndarray:
    return np.ones(shape, np.uint8)


def b(*shape: int) -> np.ndarray:
    return np.ones(shape, bool)


NUMBER = np.array
#: Operation, inputs (None is left out), attributes, number of outputs.
CASES = [
    *((op, [f(2, 3)], {}, 1) for op in ("Abs", "Exp", "Log", "Neg", "Sigmoid", "Tanh")),
    *((op, [f(2, 3)], {}, 1) for op in ["LogSoftmax", "Softmax", "Identity", "Transpose", "Shape"]),
    *((op, [f(2, 1, 3), f(4, 1)], {}, 1) for op in ["Add", "Sub", "Mul", "Max", "Min"]),
    *((op, [f(3), f(2, 3)], {}, 1) for op in ["Greater", "Less"]),
    *((op, [f(2, 3, 4), i(-1)], {}, 1) for op in ("ReduceMax", "ReduceSum")),
    ("ReduceSum", [f(2, 3, 4), i(0, 2)], {"keepdims": 0}, 1),
    ("ReduceSum", [f(2, 3, 4)], {}, 1),
    ("ReduceSum", [f(2, 3, 4)], {"keepdims": 0}, 1),
    ("ReduceSum", [f(2, 3, 4)], {"noop_with_empty_axes": 1}, 1),
    ("Max", [f(2, 1), f(3)], {}, 1),
    ("Add", [i(1, 2), i(3)], {}, 1),
    ("Sub", [i(1, 2), i(3, 4)], {}, 1),
    ("Mul", [NUMBER(3), i(3, -4)], {}, 1),
    ("Where", [b(2, 1), f(3), f(1)], {}, 1),
    ("Cast", [i(1, 2)], {"to": 7}, 1),
    ("Cast", [i(1, 2)], {"to": 1}, 1),
    ("QuantizeLinear", [f(2, 3), NUMBER(np.float32(0.5)), NUMBER(np.uint8(1))], {}, 1),
    ("LayerNormalization", [f(2, 3, 4), f(4), f(4)], {}, 3),
    ("LayerNormalization", [f(2, 3, 4), f(3, 4)], {"axis": 1}, 1),
    ("ScatterElements", [f(2, 5), np.array([[1, 4]]), f(1, 2)], {"axis": 1}, 1),
    ("GatherElements", [f(2, 5), np.array([[1], [2]])], {"axis": 1}, 1),
    ("Gather", [f(4, 5), np.array([[1], [2]])], {"axis": 1}, 1),
    ("Gather", [i(4, 5, 6), NUMBER(-1)], {}, 1),
    ("Gather", [i(4, 5, 6), i(2, 0)], {}, 1),
    ("Transpose", [f(2, 3, 4)], {"perm": [1, 2, 0]}, 1),
    ("Reshape", [f(2, 3, 4), i(0, -1, 2)], {}, 1),
    ("Reshape", [f(2, 3, 4), i(24)], {}, 1),
    ("Reshape", [f(1), np.array([], np.int64)], {}, 1),
    ("Squeeze", [f(1, 3, 1)], {}, 1),
    ("Squeeze", [f(1, 3, 1), i(-1)], {}, 1),
    ("Squeeze", [i(5), i(0)], {}, 1),
    ("Unsqueeze", [f(3, 4), i(0, -1)], {}, 1),
    ("Unsqueeze", [NUMBER(5), i(0)], {}, 1),
    ("Concat", [i(1), i(2, 3)], {"axis": 0}, 1),
    ("Concat", [f(2, 1), f(2, 3)], {"axis": -1}, 1),
    ("Split", [f(2, 7), i(3, 4)], {"axis": 1}, 2),
    ("Split", [f(2, 7)], {"axis": 1, "num_outputs": 3}, 3),
    ("Shape", [f(2, 3, 4)], {"start": -2, "end": 3}, 1),
    ("ConstantOfShape", [i(2, 0, 3)], {}, 1),
    ("Expand", [f(3, 1), i(2, 1, 4)], {}, 1),
    ("Range", [NUMBER(2), NUMBER(9), NUMBER(3)], {}, 1),
    ("Range", [NUMBER(9), NUMBER(2), NUMBER(-1)], {}, 1),
    ("Range", [NUMBER(9), NUMBER(2), NUMBER(1)], {}, 1),
    ("TopK", [f(2, 5), i(3)], {}, 2),
    ("TopK", [f(5, 2), i(0)], {"axis": 0}, 2),
    ("MatMul", [f(2, 3), f(3, 4)], {}, 1),
    ("MatMul", [f(5, 1, 2, 3), f(6, 3, 4)], {}, 1),
    ("MatMul", [f(3), f(3, 4)], {}, 1),
    ("MatMul", [f(2, 3), f(3)], {}, 1),
    ("MatMul", [f(3), f(3)], {}, 1),
    (
        "LSTM",
        [f(5, 2, 3), f(1, 16, 3), f(1, 16, 4), f(1, 32), np.array([5, 2], np.int32)],
        {"hidden_size": 4},
        3,
    ),
    (
        "LSTM",
        [f(5, 2, 3), f(2, 16, 3), f(2, 16, 4), None, None, f(2, 2, 4), f(2, 2, 4)],
        {"hidden_size": 4, "direction": "bidirectional"},
        3,
    ),
    (
        f"{MICROSOFT}.MatMulIntegerToFloat",
        [q(2, 3), q(3, 4).astype(np.int8), NUMBER(np.float32(0.5)), f(4), NUMBER(np.uint8(1)), None, f(4)],
        {},
        1,
    ),
]


def kind_of(case: str) -> tuple[str, str]:
    domain, _, op = case.rpartition(".")
    return domain, op


def known(array: np.ndarray) -> Value:
    """What the checks know about a constant."""
    follow = array.dtype == np.int64 and array.ndim < 2
    return Value(array.shape, tuple(array.ravel().tolist()) if follow else None)


def make(case: str, inputs: list, attributes: dict, count: int) -> onnx.NodeProto:
    domain, op = kind_of(case)
    names = [f"i{n}" if array is not None else "" for n, array in enumerate(inputs)]
    return helper.make_node(op, names, [f"o{n}" for n in range(count)], domain=domain, **attributes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_rule_agrees_with_onnx_runtime(case):
    _, inputs, *_ = case
    node = make(*case)
    read = read_node(node)
    rule = RULES[read.domain][read.op_type]
    said = rule(Call(read, [None if x is None else known(x) for x in inputs]))
    feeds = {f"i{n}": array for n, array in enumerate(inputs) if array is not None}
    made = list(run_graph([node], {}, feeds).values())
    for value, array in zip(said, made, strict=False):
        assert value.shape == array.shape
        if value.numbers is not None:
            assert list(value.numbers) == array.ravel().tolist()


@pytest.mark.parametrize(
    ("which", "shape"), [(2, (3,)), (3, ()), (3, (3,)), (4, (2,)), (5, ()), (6, ()), (6, (3,)), (6, (1, 4))]
)
def test_an_8_bit_product_with_scales_or_a_bias_of_another_shape_is_refused(which, shape):
    shapes = [(2, 3), (3, 4), (), (4,), (), None, (4,)]
    shapes[which] = shape
    names = ["" if s is None else f"i{n}" for n, s in enumerate(shapes)]
    node = read_node(helper.make_node("MatMulIntegerToFloat", names, ["o"], domain=MICROSOFT))
    inputs = [None if s is None else Value(s) for s in shapes]
    with pytest.raises(RuleError, match=f"as input {which}"):
        RULES[MICROSOFT]["MatMulIntegerToFloat"](Call(node, inputs))


@pytest.mark.parametrize(
    ("op", "shapes", "flag"),
    [
        ("ReduceSum", [(2, 3)], "keepdims"),
        ("ReduceSum", [(2, 3)], "noop_with_empty_axes"),
        ("LSTM", [(5, 2, 3), (1, 16, 3), (1, 16, 4)], "layout"),
    ],
)
@pytest.mark.parametrize("number", [2, -1, (1 << 63) - 1])
def test_a_flag_other_than_0_or_1_is_refused(op, shapes, flag, number):
    """ONNX Runtime treats 2 as 0 for some flags, and as 1 for others."""
    node = read_node(helper.make_node(op, [f"i{n}" for n in range(len(shapes))], ["o"], **{flag: number}))
    with pytest.raises(RuleError, match=f"'{flag}', which must be 0 or 1"):
        RULES[""][op](Call(node, [Value(shape) for shape in shapes]))


@pytest.mark.parametrize(("op", "count"), [("Max", 2), ("Min", 2), ("Greater", 2), ("Less", 2), ("Where", 3)])
@pytest.mark.parametrize("more", [-1, 1, 90_000])
def test_an_elementwise_operation_on_another_number_of_inputs_is_refused(op, count, more):
    """ONNX Runtime computes as many outputs of Max as it has inputs, but a graph holds only one of them."""
    names = ["i"] * (count + more)
    node = read_node(helper.make_node(op, names, ["o"]))
    with pytest.raises(RuleError, match=f"^has {count + more:,} inputs, but must have {count}$"):
        RULES[""][op](Call(node, [Value((2, 3))] * len(names)))


@pytest.fixture(scope="module")
def written() -> set[tuple[str, str]]:
    """The operations of all graphs that the exporter writes."""
    found = set()
    for option in OPTIONS_OF_MODELS:
        model = model_with(option, 12)
        for precision in (Float32(), Float16(), Int8(Limited(Levels(90, 91))), Int8(Limited(FIXED))):
            for build in (build_encoder, build_decoder):
                nodes = onnx.load_from_string(build(model, precision)).graph.node
                found |= {(node.domain, node.op_type) for node in nodes}
    return found


def test_there_are_rules_for_exactly_the_operations_that_the_exporter_writes(written):
    assert {(domain, op) for domain, rules in RULES.items() for op in rules} == written


def test_every_rule_is_compared():
    assert {kind_of(case[0]) for case in CASES} == {(d, op) for d, rules in RULES.items() for op in rules}


# --- damaged operations --------------------------------------------------------------------------------

TYPES = (np.float32, np.uint8, np.int8, np.int32, np.int64, np.bool_, np.float16, np.float64)


def changed_input(array: np.ndarray, rng: random.Random) -> np.ndarray | None:
    """Another type, another shape, other whole numbers, or nothing."""
    match rng.randrange(8):
        case 0 | 1:
            with np.errstate(all="ignore"):
                return array.astype(rng.choice(TYPES))
        case 2:
            return array.reshape(-1)
        case 3:
            return array[None]
        case 4 if array.ndim:
            return array[..., :1]
        case 5 if array.ndim:
            return np.concatenate([array, array], axis=rng.randrange(array.ndim))
        case 6 if array.dtype == np.int64:
            return np.array([rng.choice(INTEGERS) for _ in range(array.size)]).reshape(array.shape)
        case 7:
            return None
    return array


def known_attributes(case: str) -> list[str]:
    """Those that ONNX knows for an operation, most of which are whole numbers."""
    domain, op = kind_of(case)
    return [*(() if domain else onnx.defs.get_schema(op, 18).attributes)] or list(ATTRIBUTES)


def check_changed_operations(count: int, seed: int) -> tuple[int, int]:
    """Operations that are wrong in one to three places are refused, or make what their rules say. Gives how
    many ran, and how many only ONNX Runtime refused."""
    rng = random.Random(seed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    ran = refused = 0
    for _ in range(count):
        case, arrays, attributes, outputs = rng.choice(CASES)
        arrays, attributes = list(arrays), dict(attributes)
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(arrays)) if arrays and rng.random() < 0.7 else None
            if at is None:
                name = rng.choice(known_attributes(case))
                attributes[name] = rng.choice((random_attribute_value(rng), rng.choice(INTEGERS)))
            elif arrays[at] is not None:
                arrays[at] = changed_input(arrays[at], rng)
        node = make(case, arrays, attributes, outputs)
        read = read_node(node)
        try:
            inputs = [None if array is None else known(array) for array in arrays]
            said = RULES[read.domain][read.op_type](Call(read, inputs))
        except RuleError:
            continue
        if any(not 0 < product(value.shape) < 1_000_000 for value in said):
            continue  # the checks of graphs see to that too
        feeds = {f"i{n}": array for n, array in enumerate(arrays) if array is not None}
        made = run_one(node, feeds, options)
        if made is None:
            refused += 1
            continue
        ran += 1
        assert [v.shape for v, _ in zip(said, made, strict=False)] == [a.shape for a in made], node
    return ran, refused


def run_one(node: onnx.NodeProto, feeds: Feeds, options=None) -> list[np.ndarray] | None:
    """The outputs of one node; None if ONNX Runtime refuses it."""
    try:
        return list(run_graph([node], {}, feeds, options).values())
    except Exception:
        return None


def run_graph(
    nodes: list[onnx.NodeProto], constants: Feeds, feeds: Feeds, options=None
) -> dict[str, np.ndarray]:
    """Every value that the nodes make, with inputs of free sizes, as those of a bundle's graphs are."""
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in feeds.items()
    ]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    names = [name for node in nodes for name in node.output]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph(nodes, "g", ports, outputs, weights)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(None, feeds), strict=True))


def test_a_damaged_operation_is_refused_or_agrees_with_its_rule():
    ran, refused = check_changed_operations(1500, seed=1)
    assert ran > 200
    assert refused > 200


@pytest.mark.slow
def test_many_damaged_operations_are_refused_or_agree_with_their_rules():
    check_changed_operations(50_000, seed=2)


# --- random graphs that make shapes --------------------------------------------------------------------

FAR = (1 << 31) - 1
OPTIONS = {
    "Shape": lambda r: {"start": r.choice((0, 0, 1, -1)), "end": r.choice((1, 2, 9, -1))},
    "Gather": lambda r: {"axis": r.choice((0, 0, 0, 1))},
    "Concat": lambda r: {"axis": r.choice((0, 0, 1))},
    "Transpose": lambda r: {},
    "Cast": lambda r: {"to": 7},
    "TopK": lambda r: {"axis": r.choice((0, -1))},
    "Split": lambda r: {"axis": r.choice((0, -1))},
    "ReduceMax": lambda r: {"keepdims": r.choice((0, 1))},
}
TAKES = {
    "Shape": 1, "Transpose": 1, "Cast": 1, "Identity": 1, "ConstantOfShape": 1, "Neg": 1, "Squeeze": 2,
    "Unsqueeze": 2, "Gather": 2, "Concat": 2, "Add": 2, "Sub": 2, "Mul": 2, "Max": 2, "Min": 2,
    "Reshape": 2, "Expand": 2, "Range": 3, "Split": 2, "TopK": 2, "ReduceMax": 2,
    "MatMul": 2, "Where": 3, "GatherElements": 2,
}  # fmt: skip


def random_program(
    rng: random.Random,
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray], dict[str, Value]]:
    """Up to 25 nodes that the rules let pass, constants, and what is said of every value. All is int64."""
    values = {"x": Value((B, S)), "y": Value((B * K, 4))}
    constants = {
        f"c{n}": array
        for n, array in enumerate(
            (i(0), i(1), i(2), i(-1), i(3), i(-1, 4), i(0, 1), i(FAR), i(-FAR), i(2, 2), i(1, 3))
        )
    } | {f"n{n}": np.array(n) for n in (-1, 0, 1, 2, 5)}
    values |= {name: known(array) for name, array in constants.items()}
    nodes = []
    for step in range(150):
        op = rng.choice(list(TAKES))
        names = [pick(rng, values, contents=n > 0 and rng.random() < 0.7) for n in range(TAKES[op])]
        count = 2 if op in ("TopK", "Split") else 1
        node = helper.make_node(
            op, names, [f"v{step}_{n}" for n in range(count)], **OPTIONS.get(op, lambda r: {})(rng)
        )
        try:
            made = RULES[""][op](Call(read_node(node), [values[name] for name in names]))
        except RuleError:
            continue
        if any(sum(map(abs, terms_of(product(v.shape)).values())) > 2000 for v in made):
            continue
        if not all(is_at_least(size, 1) for v in made for size in v.shape):
            continue  # the checks refuse what may be empty
        if any(len(letters) > 6 for v in made for letters in terms_of(product(v.shape))):
            continue
        nodes.append(node)
        values |= dict(zip(node.output, made, strict=True))
        if len(nodes) == 25:
            break
    return nodes, constants, values


def has_letters(value: Value) -> bool:
    return any(isinstance(size, Polynomial) for size in (*value.shape, *(value.numbers or ())))


def pick(rng: random.Random, values: dict[str, Value], *, contents: bool) -> str:
    """A random value, half of the time one with letters; with `contents`, one whose content is known."""
    names = [name for name, value in values.items() if value.numbers is not None or not contents]
    lettered = [name for name in names if has_letters(values[name])]
    return rng.choice(lettered if lettered and rng.random() < 0.5 else names)


def at(size: int | Polynomial, letters: dict[str, int]) -> int:
    total = 0
    for names, factor in terms_of(size).items():
        for name in names:
            factor *= letters[name]
        total += factor
    return total


def check_programs(count: int, seed: int) -> tuple[int, int]:
    """Run random graphs at small sizes; return how many values were compared, and how many had letters."""
    rng = random.Random(seed)
    compared = free = 0
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for _ in range(count):
        nodes, constants, values = random_program(rng)
        for letters in ({"B": 1, "S": 1, "K": 1}, {"B": 2, "S": 3, "K": 1}, {"B": 1, "S": 4, "K": 2}):
            feeds = {
                "x": np.zeros((letters["B"], letters["S"]), np.int64),
                "y": np.zeros((letters["B"] * letters["K"], 4), np.int64),
            }
            for name, array in run_what_can(nodes, constants, feeds, options).items():
                value = values[name]
                assert array.shape == tuple(at(size, letters) for size in value.shape), (name, letters, nodes)
                if value.numbers is not None:
                    expected = [at(number, letters) for number in value.numbers]
                    assert array.ravel().tolist() == expected, (name, letters, nodes)
                compared += 1
                free += has_letters(value)
    return compared, free


def run_what_can(nodes, constants, feeds, options) -> dict[str, np.ndarray]:
    """The values of the nodes, without those that fail (an index out of range) and those that depend on
    them."""
    made = run_all(nodes, constants, feeds, options)
    if made is not None:
        return made
    works: list[onnx.NodeProto] = []
    have = {*constants, *feeds}
    made = {}
    for node in nodes:
        if have.issuperset(node.input):
            more = run_all([*works, node], constants, feeds, options)
            if more is not None:
                works, made = [*works, node], more
                have.update(node.output)
    return made


def run_all(nodes, constants, feeds, options) -> dict[str, np.ndarray] | None:
    try:
        return run_graph(nodes, constants, feeds, options)
    except Exception:
        return None


def test_inferred_shapes_of_random_graphs_hold_at_every_size():
    compared, free = check_programs(40, seed=1)
    assert compared > 1500
    assert free > 750


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_inferred_shapes_of_many_random_graphs_hold(seed):
    check_programs(100, seed=100 + seed)
