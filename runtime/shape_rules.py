"""Shape inference for every operation that a bundle's graph may use: the table `RULES`.

Shapes consist of symbolic `Size`s, so the results hold for every batch, length and beam. A size may depend on
the content of a tensor only if that is known exactly: constants, the decoder's `top_k`, and the results of
Shape, propagated through Gather, Concat, exact arithmetic and the like. If a rule cannot determine a shape,
it raises `RuleError` with the reason. Types are not checked here; ONNX Runtime does that when it creates a
session.

The operations are exactly those that `export/` writes. To add one, add a line to `RULES`, and a function if
no rule here fits. Semantics: https://onnx.ai/onnx/operators/, opset 18.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .arguments import short_repr
from .onnx_file import Node
from .symbolic_sizes import Size, divide, is_at_least, letter, product, terms_of

INT64 = 7  # TensorProto.DataType
#: The domain of ONNX Runtime's own operations.
MICROSOFT = "com.microsoft"
#: Maximum elements of an integer tensor whose content is tracked: shapes, axes, splits.
MAX_TRACKED_NUMBERS = 64
#: Maximum axes of a tensor. The graphs that edgechat exports have at most 4.
MAX_AXES = 8
#: Maximum terms of a number whose value is tracked.
_MAX_TERMS = 4
#: Maximum characters of a shape in a message.
_MAX_SHAPE_TEXT = 100
#: Numbers with larger coefficients are not tracked, so that 64 bits never overflow.
_MAX_COEFFICIENT = 1 << 31
_C = letter("C")


class RuleError(Exception):
    """Why the shapes of an operation are refused or cannot be determined."""


class Value(NamedTuple):
    """A tensor's shape, and its int64 content if that is known and it has at most one axis."""

    shape: tuple[Size, ...]
    numbers: tuple[Size, ...] | None = None


class Call:
    """A node and what is known about its inputs. A rule takes it and returns the outputs."""

    def __init__(self, node: Node, inputs: Sequence[Value | None]) -> None:
        self.node = node
        self.inputs = inputs  # None: an optional input that is omitted
        self.attributes = {attribute.name: attribute for attribute in node.attributes}
        self.multiplications: Size = 0  # set by the rule if they exceed the elements of the outputs
        self.extra_elements: Size = 0  # elements that the operation needs in addition to its outputs

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def value(self, i: int) -> Value:
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise RuleError(f"has no input {i}")
        return value

    def shape(self, i: int = 0) -> tuple[Size, ...]:
        return self.value(i).shape

    def numbers(self, i: int) -> tuple[Size, ...]:
        """The content of input `i`, which must be known because a shape depends on it."""
        numbers = self.value(i).numbers
        if numbers is None:
            raise RuleError(
                f"takes a size from {short_repr(self.node.inputs[i])}, which is known only at run time"
            )
        return numbers

    def constants(self, i: int) -> tuple[int, ...]:
        """Like `numbers`, which must not depend on a letter."""
        numbers = self.numbers(i)
        constants = tuple(number for number in numbers if isinstance(number, int))
        if len(constants) != len(numbers):
            raise RuleError(f"takes {short_repr(self.node.inputs[i])}, which must be constant")
        return constants

    def integer(self, name: str, default: int | None = None) -> int:
        attribute = self.attributes.get(name)
        number = default if attribute is None else attribute.i
        if number is None:
            raise RuleError(f"has no integer attribute {name!r}")
        return number

    def flag(self, name: str, default: int) -> int:
        """An attribute that must be 0 or 1: ONNX Runtime is not consistent in how it reads other numbers."""
        number = self.integer(name, default)
        if number not in (0, 1):
            raise RuleError(f"has {number} as {name!r}, which must be 0 or 1")
        return number

    def integers(self, name: str) -> tuple[int, ...] | None:
        attribute = self.attributes.get(name)
        return attribute.ints if attribute else None

    def axis(self, name: str, default: int | None, rank: int) -> int:
        return _axis(self.integer(name, default), rank)


Rule = Callable[[Call], list[Value]]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise RuleError(f"has axis {axis} of a tensor with {rank} axes")
    return axis % rank


def _axes(axes: Sequence[int], rank: int) -> list[int]:
    positive = [_axis(axis, rank) for axis in axes]
    if len(set(positive)) != len(positive):
        raise RuleError("names an axis twice")
    return positive


def _tracked(shape: tuple[Size, ...], numbers: Sequence[Size]) -> Value:
    """A value whose content is tracked if it has few and small numbers, of few terms, without squares of
    letters."""
    kept = len(shape) < 2 and len(numbers) <= MAX_TRACKED_NUMBERS and all(map(_is_trackable, numbers))
    return Value(shape, tuple(numbers) if kept else None)


def _is_trackable(number: Size) -> bool:
    terms = terms_of(number)
    return len(terms) <= _MAX_TERMS and all(
        abs(factor) <= _MAX_COEFFICIENT and len(set(letters)) == len(letters)
        for letters, factor in terms.items()
    )


def _broadcast(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """NumPy's broadcasting rule. Sizes must be equal for every batch, length and beam."""
    rank = max(map(len, shapes))
    result: list[Size] = [1] * rank
    for shape in shapes:
        for i, size in enumerate(shape, rank - len(shape)):
            if result[i] == 1:
                result[i] = size
            elif size not in (1, result[i]):
                raise RuleError(f"broadcasts {shape_text(result)} with {shape_text(shape)}, which do not fit")
    return tuple(result)


def shape_text(shape: Sequence[Size]) -> str:
    """A shape in a message, such as [B*K, S, 256]; shortened with dots if it is long."""
    whole = f"[{', '.join(map(str, shape))}]"
    return whole if len(whole) <= _MAX_SHAPE_TEXT else f"{whole[:_MAX_SHAPE_TEXT]}..]"


# --- operations whose outputs are as large as their inputs ------------------------------------------------


def _same_shape(call: Call) -> list[Value]:
    return [Value(call.shape())]


def _identity(call: Call) -> list[Value]:
    return [call.value(0)]


def _elementwise(count: int) -> Rule:
    """Elementwise on exactly `count` inputs. ONNX allows any number for Max and Min, and ONNX Runtime
    computes a whole output for each, so the size of the output would not bound the cost of the node."""

    def rule(call: Call) -> list[Value]:
        if len(call.inputs) != count:
            raise RuleError(f"has {len(call.inputs):,} inputs, but must have {count}")
        return [Value(_broadcast(*map(call.shape, range(count))))]

    return rule


def _arithmetic(operation: Callable[[Size, Size], Size | None]) -> Rule:
    """Elementwise on two inputs; the content is tracked if both are known."""

    def rule(call: Call) -> list[Value]:
        a, b = call.value(0), call.value(1)
        shape = _broadcast(a.shape, b.shape)
        if a.numbers is None or b.numbers is None:
            return [Value(shape)]
        count = max(len(a.numbers), len(b.numbers))
        repeated = (n * count if len(n) == 1 else n for n in (a.numbers, b.numbers))
        numbers = [operation(x, y) for x, y in zip(*repeated, strict=False)]
        known = [number for number in numbers if number is not None]
        return [_tracked(shape, known) if len(known) == len(numbers) else Value(shape)]

    return rule


def _scatter_elements(call: Call) -> list[Value]:
    call.multiplications = product(call.shape(2))
    return [Value(call.shape())]


def _gather_elements(call: Call) -> list[Value]:
    return [Value(call.shape(1))]


def _layer_normalization(call: Call) -> list[Value]:
    shape = call.shape()
    axis = call.axis("axis", -1, len(shape))
    for i in range(1, max(2, len(call.inputs))):
        # Scale and bias. A bias that is present with an empty name crashes ONNX Runtime.
        if call.shape(i) != shape[axis:]:
            raise RuleError(f"has {shape_text(call.shape(i))} as input {i}, not {shape_text(shape[axis:])}")
    statistic = Value((*shape[:axis], *[1] * (len(shape) - axis)))
    return [Value(shape), statistic, statistic]


# --- operations that rearrange elements -------------------------------------------------------------------


def _transpose(call: Call) -> list[Value]:
    shape = call.shape()
    perm = call.integers("perm")
    if perm is None:
        perm = tuple(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(shape))):
        raise RuleError(f"transposes {shape_text(shape)} by {shape_text(perm)}")
    return [Value(tuple(shape[i] for i in perm))]


def _reshape(call: Call) -> list[Value]:
    value, target = call.value(0), call.numbers(1)
    if len(target) > MAX_AXES:  # before they are multiplied
        raise RuleError(f"reshapes to {len(target)} axes, {MAX_AXES} are allowed")
    shape: list[Size] = []
    for i, size in enumerate(target):
        if size == 0 and not call.flag("allowzero", 0):
            if i >= len(value.shape):
                raise RuleError("copies a size that its input does not have")
            size = value.shape[i]
        elif size != -1 and not is_at_least(size, 1):  # it could become 0 or -1, which have special meanings
            raise RuleError(f"reshapes to {shape_text(target)}")
        shape.append(size)
    total = product(value.shape)
    if -1 in shape:
        i = shape.index(-1)
        rest = product([*shape[:i], *shape[i + 1 :]])
        left = divide(total, rest) if is_at_least(rest, 1) and is_at_least(total, 1) else None
        if left is None:
            raise RuleError(
                f"reshapes {shape_text(value.shape)} to {shape_text(target)}, which does not always fit"
            )
        shape[i] = left
    if product(shape) != total:
        raise RuleError(f"reshapes {shape_text(value.shape)} to {shape_text(target)}, which does not fit")
    return [_tracked(tuple(shape), value.numbers) if value.numbers is not None else Value(tuple(shape))]


def _squeeze(call: Call) -> list[Value]:
    value = call.value(0)
    shape = value.shape
    axes = _axes(call.constants(1), len(shape)) if call.has(1) else []
    if not axes:  # an empty list means the same as no list
        if not all(isinstance(size, int) for size in shape):
            raise RuleError(f"squeezes {shape_text(shape)} without naming the axes")
        axes = [i for i, size in enumerate(shape) if size == 1]
    if any(shape[axis] != 1 for axis in axes):
        raise RuleError(f"squeezes {shape_text(shape)} along {axes}")
    return [Value(tuple(size for i, size in enumerate(shape) if i not in axes), value.numbers)]


def _unsqueeze(call: Call) -> list[Value]:
    value, axes = call.value(0), call.constants(1)
    rank = len(value.shape) + len(axes)
    new = _axes(axes, rank)
    old = iter(value.shape)
    shape = tuple(1 if i in new else next(old) for i in range(rank))
    return [_tracked(shape, value.numbers) if value.numbers is not None else Value(shape)]


def _concat(call: Call) -> list[Value]:
    values = [call.value(i) for i in range(max(1, len(call.inputs)))]
    first = values[0].shape
    axis = call.axis("axis", None, len(first))
    length: Size = 0
    for value in values:
        shape = value.shape
        if len(shape) != len(first) or any(shape[i] != first[i] for i in range(len(first)) if i != axis):
            raise RuleError(f"joins {shape_text(first)} and {shape_text(value.shape)} along axis {axis}")
        length = length + value.shape[axis]
    shape = (*first[:axis], length, *first[axis + 1 :])
    numbers: list[Size] = []
    for value in values:
        if value.numbers is None:
            return [Value(shape)]
        numbers += value.numbers
    return [_tracked(shape, numbers)]


def _split(call: Call) -> list[Value]:
    shape, count = call.shape(), len(call.node.outputs)
    axis = call.axis("axis", 0, len(shape))
    size = shape[axis]
    parts: Sequence[Size]
    if call.has(1):
        parts = call.numbers(1)
    elif isinstance(size, int):
        part = -(-size // max(1, call.integer("num_outputs", count)))
        parts = [max(0, min(part, size - i * part)) for i in range(count)]
    else:
        raise RuleError(f"splits {size} without giving the sizes of the parts")
    total: Size = 0
    for part_size in parts:
        total = total + part_size
    if total != size or len(parts) != count or not all(is_at_least(part, 0) for part in parts):
        raise RuleError(f"splits {size} into {shape_text(parts)}")
    return [Value((*shape[:axis], part, *shape[axis + 1 :])) for part in parts]


def _gather(call: Call) -> list[Value]:
    data, indices = call.value(0), call.value(1)
    axis = call.axis("axis", 0, len(data.shape))
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    if data.numbers is None or indices.numbers is None:
        return [Value(shape)]
    places = call.constants(1)
    if any(not -len(data.numbers) <= i < len(data.numbers) for i in places):
        raise RuleError(f"takes {shape_text(places)} of {len(data.numbers)} numbers")
    return [_tracked(shape, [data.numbers[i] for i in places])]


# --- operations that return shapes, or whose output shape is an input ---------------------------------------


def _shape_of(call: Call) -> list[Value]:
    shape = call.shape()
    sizes = shape[call.integer("start", 0) : call.integer("end", len(shape))]
    return [_tracked((len(sizes),), sizes)]


def _constant_of_shape(call: Call) -> list[Value]:
    return [Value(_checked_shape(call.numbers(0), 0))]


def _checked_shape(numbers: tuple[Size, ...], minimum: int) -> tuple[Size, ...]:
    if not all(is_at_least(number, minimum) for number in numbers):
        raise RuleError(f"asks for the shape {shape_text(numbers)}")
    return numbers


def _expand(call: Call) -> list[Value]:
    return [Value(_broadcast(call.shape(), _checked_shape(call.numbers(1), 1)))]


def _range(call: Call) -> list[Value]:
    ends = [call.numbers(i)[0] for i in range(3) if call.shape(i) == ()]
    if len(ends) != 3:
        raise RuleError("has a range whose ends are not single numbers")
    start, limit, delta = ends
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int) and delta:
        length = max(0, -((start - limit) // delta))
        places = [start + i * delta for i in range(min(length, MAX_TRACKED_NUMBERS + 1))]
        return [_tracked((length,), places)]
    if delta not in (1, -1) or not is_at_least((limit - start) * delta, 0):
        raise RuleError(f"counts from {start} to {limit} by {delta}")
    return [Value(((limit - start) * delta,))]


# --- operations that compute --------------------------------------------------------------------------------


def _reduce(call: Call) -> list[Value]:
    shape = call.shape()
    call.multiplications = product(shape)
    axes = _axes(call.constants(1), len(shape)) if call.has(1) else []
    if not axes and not call.flag("noop_with_empty_axes", 0):
        axes = list(range(len(shape)))
    if call.flag("keepdims", 1):
        return [Value(tuple(1 if i in axes else size for i, size in enumerate(shape)))]
    return [Value(tuple(size for i, size in enumerate(shape) if i not in axes))]


def _top_k(call: Call) -> list[Value]:
    """TopK. k is a constant, or C, the content of the decoder's input `top_k`, which is at most V."""
    shape = call.shape()
    axis = call.axis("axis", -1, len(shape))
    if call.shape(1) != (1,):
        raise RuleError("does not take a single number of candidates")
    [k] = call.numbers(1)
    if k != _C and not (isinstance(k, int) and k >= 0 and is_at_least(shape[axis] - k, 0)):
        raise RuleError(f"takes the first {k} of {shape[axis]}")
    call.multiplications = product(shape)
    result = Value((*shape[:axis], k, *shape[axis + 1 :]))
    return [result, result]


def _matmul(call: Call) -> list[Value]:
    a, b = call.shape(0), call.shape(1)
    if not a or not b:
        raise RuleError("multiplies a matrix with a number")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise RuleError(f"multiplies {shape_text(a)} with {shape_text(b)}, which do not fit")
    shape = (*_broadcast(a[:-2], b[:-2]), *rows, *columns)
    call.multiplications = product(shape) * inner
    return [Value(shape)]


def _matmul_integer_to_float(call: Call) -> list[Value]:
    """A [.., K] and B [K, N], with a scale for A and one per column of B, a zero point for A, none for B, and
    a bias [N]."""
    made = _matmul(call)
    columns = call.shape(1)[-1:]
    expected = ((), columns, (), None, columns)
    for i, shape in enumerate(expected, 2):
        given = call.shape(i) if call.has(i) else None
        if given != shape and not (given is None and i > 3):
            raise RuleError(f"has {'nothing' if given is None else shape_text(given)} as input {i}")
    return made


def _lstm(call: Call) -> list[Value]:
    """X [S,B,I], W [D,4H,I], R [D,4H,H], B [D,8H], sequence_lens [B], first h and c [D,B,H], P [D,3H] ->
    Y [S,D,B,H], h, c [D,B,H]; D is 2 if it is bidirectional, else 1."""
    if len(call.shape()) != 3 or call.flag("layout", 0):
        raise RuleError(f"takes {shape_text(call.shape())}, not [S, B, I]")
    S, B, inputs = call.shape()
    H = call.integer("hidden_size")
    direction = call.attributes.get("direction")
    D = 2 if direction and direction.s == b"bidirectional" else 1
    state = (D, B, H)
    expected = ((D, 4 * H, inputs), (D, 4 * H, H), (D, 8 * H), (B,), state, state, (D, 3 * H))
    for i, shape in enumerate(expected, 1):
        if (i < 3 or call.has(i)) and call.shape(i) != shape:
            raise RuleError(f"has {shape_text(call.shape(i))} as input {i}, not {shape_text(shape)}")
    call.extra_elements = S * B * (4 * D * H)  # gates of all time steps
    call.multiplications = call.extra_elements * (inputs + H)
    return [Value((S, D, B, H)), Value(state), Value(state)]


def _same_rule(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_STANDARD: dict[str, Rule] = {
    **_same_rule(_same_shape, "Abs Cast Exp Log LogSoftmax Neg QuantizeLinear Sigmoid Softmax Tanh"),
    **_same_rule(_elementwise(2), "Greater Less Max Min"),
    **_same_rule(_reduce, "ReduceMax ReduceSum"),
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Identity": _identity,
    "LSTM": _lstm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "Shape": _shape_of,
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(3),
}
#: The rule of each operation that a bundle's graph may use, by operator domain.
RULES: dict[str, dict[str, Rule]] = {
    "": _STANDARD,
    MICROSOFT: {"MatMulIntegerToFloat": _matmul_integer_to_float},
}
