"""The check of a bundle's graphs, before ONNX Runtime loads them: creating a session from a malicious graph
may hang or use up all memory.

Bundles are untrusted, even if their hashes are right. So every graph is read by `onnx_file`, and refused
unless it is a plain list of operations in `shape_rules.RULES`, in topological order, in which every value is
made once, all weights are in the file, and inputs and outputs are those in docs/architecture.md. There are no
loops, branches, functions or subgraphs, so every node runs once.

Then the nodes are walked with symbolic shapes, whose sizes are polynomials in B, S, K, M and C. No size
depends on the content of a tensor, except the decoder's input `top_k`, which the host sets to C. So the
results hold for every request:
- No tensor is empty, or has more than `MAX_AXES` axes.
- Nothing grows faster than B*K*S, B*K*C or M. A product of letters that divides none of these is refused.
- The elements of all values, and the multiplications of all nodes, are summed by product of letters. Each sum
  is bounded by what a graph with this vocabulary, state, memory and number of weights needs, with some room
  (`_Budget`). Values without a letter, which ONNX Runtime may compute when it creates the session, are
  bounded by the number of weights, all of which are in the file.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from struct import unpack
from typing import NamedTuple

from .arguments import short_repr
from .errors import BundleError
from .manifest import OPSET, GraphSpec, StateTensor
from .onnx_file import Graph, Node, Tensor, ValueInfo, read_model
from .shape_rules import (
    INT64,
    MAX_AXES,
    MAX_TRACKED_NUMBERS,
    MICROSOFT,
    RULES,
    Call,
    RuleError,
    Value,
    shape_text,
)
from .symbolic_sizes import Polynomial, Size, is_at_least, letter, product, upper_bound

#: The version of the ONNX file format that the graphs use.
IR_VERSION = 8
MAX_NODES = 4096
#: Limit on the vocabulary, on the state of a row, and on the memory of a source token, in numbers.
MAX_ROW_ELEMENTS = 1 << 20
_FLOAT = 1
#: Bytes per element of each TensorProto.DataType that is allowed: float, uint8, int8, int64, float16.
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 7: 8, 10: 2}
#: The types to which Cast is allowed: float, int32, float16.
_CAST_TYPES = (1, 6, 10)
#: The field that holds the value of each AttributeProto.AttributeType.
_ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 7: "ints"}
_FIELDS_THAT_MAY_BE_EMPTY = ("s", "ints")
_OPSET_VERSIONS = {"": OPSET, MICROSOFT: 1}
#: Names of inputs and outputs that tensors of the state map may not have.
_RESERVED_NAMES = ("src", "src_len", "tokens", "parent", "top_k", "cand_ids", "cand_logp", "align", "logp")
B, S, K, M, C = map(letter, "BSKMC")
N = B * K
Shape = tuple[Size, ...]


class _Port(NamedTuple):
    """The required type and shape of an input or output."""

    dtype: int
    shape: Shape
    numbers: Shape | None = None  # its content, if that is a size


def check_graphs(spec: GraphSpec, encoder: bytes, decoder: bytes) -> None:
    """Refuse a pair of graphs that is not safe to run, or does not fit the manifest.

    Raises:
        BundleError: names the file, what in it is wrong, and why.
    """
    encoder_checker = _GraphChecker("encoder.onnx", encoder)
    decoder_checker = _GraphChecker("decoder.onnx", decoder)
    memory = {name: _Port(_FLOAT, encoder_checker.declared_memory(name)) for name in spec.memory}
    _check_spec(spec, memory)
    ids = {"src": _Port(INT64, (B, S)), "src_len": _Port(INT64, (B,))}
    initial_state = {t.input: _Port(_FLOAT, _shape(t, B)) for t in spec.state if t.first == "encoder"}
    encoder_checker.check(ids, {**memory, **initial_state}, spec, memory)
    ids = {"tokens": _Port(INT64, (N,)), "parent": _Port(INT64, (N,)), "top_k": _Port(INT64, (1,), (C,))}
    if decoder_checker.has_input("src"):  # with copy attention
        ids["src"] = _Port(INT64, (B, S))
    before = {t.input: _Port(_FLOAT, _shape(t, M)) for t in spec.state}
    after = {t.output: _Port(_FLOAT, _shape(t, N)) for t in spec.state}
    scores = {
        "cand_ids": _Port(INT64, (N, C)),
        "cand_logp": _Port(_FLOAT, (N, C)),
        "align": _Port(_FLOAT, (N, S)),
        "logp": _Port(_FLOAT, (N, spec.vocab_size)),
    }
    decoder_checker.check({**memory, **before, **ids}, {**after, **scores}, spec, memory)


def _shape(tensor: StateTensor, rows: Size) -> Shape:
    return tuple(rows if size == "M" else size for size in tensor.shape)


def _check_spec(spec: GraphSpec, memory: Mapping[str, _Port]) -> None:
    names = [*spec.memory, *(t.input for t in spec.state), *(t.output for t in spec.state), *_RESERVED_NAMES]
    if len(set(names)) != len(names):
        raise BundleError("edgechat.json names a tensor of the graphs twice")
    for tensor in spec.state:
        if tensor.shape.count("M") != 1:
            raise BundleError(
                f"edgechat.json: the shape of the state {short_repr(tensor.input)} must have one 'M'"
            )
    row, token = _row_and_token_numbers(spec, memory)
    for what, count in (("vocabulary", spec.vocab_size), ("state", row), ("memory", token)):
        if count > MAX_ROW_ELEMENTS:
            raise BundleError(
                f"edgechat.json has a {what} of {count:,} numbers, {MAX_ROW_ELEMENTS:,} are allowed"
            )


def _row_and_token_numbers(spec: GraphSpec, memory: Mapping[str, _Port]) -> tuple[int, int]:
    """The numbers in the state of a row, and in the memory of a source token."""
    row = sum(upper_bound(product(_shape(tensor, N)))["BK"] for tensor in spec.state)
    return row, sum(upper_bound(product(port.shape))["BS"] for port in memory.values())


class _Budget:
    """The total elements and multiplications that a graph may have, by product of letters.

    A row (B*K, or M before the states are reordered) needs a few values per vocabulary entry, per number of
    the state and per number of a token's memory. A source token (B*S) needs some per number of state and
    memory. A pair of row and source token (B*K*S) needs a few per number of memory. Each weight is multiplied
    once per row, or once per source token. The graphs that edgechat exports use at most half of each limit
    (fp32: a third).
    """

    def __init__(self, spec: GraphSpec, memory: Mapping[str, _Port], weights: int) -> None:
        row, token = _row_and_token_numbers(spec, memory)
        self._weights = 4 * weights + 65_536
        self._row = 64 * (spec.vocab_size + row + token + 1024)
        self._token = 64 * (row + token + 1024)
        self._pair = 16 * (token + 64)

    def elements(self, letters: str) -> int:
        if letters == "":
            return self._weights
        if "K" in letters and "S" in letters:
            return self._pair
        if "C" in letters:
            return 64
        return self._token if "S" in letters else self._row

    def multiplications(self, letters: str) -> int:
        """The multiplications allowed: as many as elements, plus those of the weights with each row or source
        token."""
        limit = self.elements(letters)
        return limit if "C" in letters or ("K" in letters and "S" in letters) else limit + self._weights


class _GraphChecker:
    """One graph of a bundle, and what is known about its values so far."""

    def __init__(self, file: str, raw: bytes) -> None:
        self._file, self._model = file, read_model(file, raw)
        self._graph = self._model.graph or Graph()
        self._values: dict[str, Value] = {}
        self._elements: Counter[str] = Counter()
        self._multiplications: Counter[str] = Counter()

    def has_input(self, name: str) -> bool:
        return any(port.name == name for port in self._graph.inputs)

    def declared_memory(self, name: str) -> Shape:
        """The shape [B, S, ..] with the fixed last sizes that the encoder declares for its output `name`."""
        dims = next((port.dims for port in self._graph.outputs if port.name == name), None)
        if dims is None:
            raise self._state_map_error(name)
        rest = tuple(size for size in dims[2:] if isinstance(size, int) and 1 <= size <= MAX_ROW_ELEMENTS)
        if len(dims) < 2 or len(rest) != len(dims) - 2:
            raise self._error(
                f"output {short_repr(name)} must have the shape [B, S, ..] with fixed last sizes"
            )
        self._check_rank(f"output {short_repr(name)}", len(dims))
        return (B, S, *rest)

    def check(
        self,
        inputs: Mapping[str, _Port],
        outputs: Mapping[str, _Port],
        spec: GraphSpec,
        memory: Mapping[str, _Port],
    ) -> None:
        self._check_model()
        weights = self._check_weights()
        budget = _Budget(spec, memory, weights)
        sizes: dict[str, Size] = {}
        self._check_ports(self._graph.inputs, inputs, sizes)
        self._check_ports(self._graph.outputs, outputs, sizes)
        for name, port in inputs.items():
            self._add_value(name, Value(port.shape, port.numbers))
        if len(self._graph.nodes) > MAX_NODES:
            raise self._error(f"it has {len(self._graph.nodes):,} nodes, {MAX_NODES:,} are allowed")
        for node in self._graph.nodes:
            try:
                self._check_node(node, budget)
            except RuleError as error:
                which = short_repr(node.name or next(iter(node.outputs), ""))
                raise self._error(f"node {which} ({short_repr(node.op_type)}) {error}") from None
        for name, port in outputs.items():
            found = self._values.get(name)
            if found is None or found.shape != port.shape:
                what = shape_text(found.shape) if found else "never made"
                raise self._error(
                    f"output {short_repr(name)} must be {shape_text(port.shape)}, but is {what}"
                )

    def _check_model(self) -> None:
        model = self._model
        if model.ir_version != IR_VERSION:
            raise self._error(f"it has the IR version {model.ir_version}, but must have {IR_VERSION}")
        domains = [domain for domain, _ in model.opsets]
        if len(set(domains)) != len(domains) or "" not in domains:
            raise self._error("it must import the standard operators, and each domain once")
        for domain, version in model.opsets:
            allowed = _OPSET_VERSIONS.get(domain)
            if allowed is None:
                raise self._error(
                    f"it imports the operator domain {short_repr(domain)}, which is not allowed"
                )
            if version != allowed:
                raise self._error(f"it imports opset {version}, but must import {allowed}")
        self._refuse_unsupported("the model", model.unsupported)
        self._refuse_unsupported("the graph", self._graph.unsupported)

    def _check_weights(self) -> int:
        """Check the weights; return their total number of elements."""
        count = 0
        for tensor in self._graph.initializers:
            self._add_value(tensor.name, self._constant(f"weight {short_repr(tensor.name)}", tensor))
            count += prod(tensor.dims)
        return count

    def _check_ports(
        self, declared: tuple[ValueInfo, ...], expected: Mapping[str, _Port], sizes: dict[str, Size]
    ) -> None:
        """Check the declared inputs or outputs. A size declared as a number must be that number, and a size
        name must stand for one size only, since ONNX Runtime shares memory between tensors whose declared
        sizes are equal."""
        names = Counter(port.name for port in declared)
        for name in sorted(names.keys() ^ expected.keys()):
            raise self._state_map_error(name)
        for port in declared:
            what, required = short_repr(port.name), expected[port.name]
            self._refuse_unsupported(what, port.unsupported)
            dims = port.dims or ()
            if names[port.name] > 1:
                raise self._error(f"{what} is declared twice")
            if port.dtype != required.dtype or len(dims) != len(required.shape):
                raise self._error(
                    f"{what} must have the type {required.dtype} and the shape {shape_text(required.shape)}, "
                    f"not the type {port.dtype} and rank {len(dims)}"
                )
            for dim, size in zip(dims, required.shape, strict=True):
                named = sizes.setdefault(dim, size) if isinstance(dim, str) and dim else size
                if named != size or (isinstance(dim, int) and dim != size):
                    raise self._error(f"{what} declares {short_repr(str(dim))} where it must have {size}")

    def _check_node(self, node: Node, budget: _Budget) -> None:
        """Compute the shapes of the outputs of `node`, and add its cost."""
        if node.domain not in RULES:
            raise RuleError(f"is of the operator domain {short_repr(node.domain)}, which is not allowed")
        rule = RULES[node.domain].get(node.op_type)
        if rule is None:
            raise RuleError("is of a kind that is not allowed")
        if node.unsupported:
            raise RuleError(f"has {node.unsupported[0]}, which a bundle's graph does not need")
        for name in node.inputs:
            if name and name not in self._values:
                raise RuleError(f"takes {short_repr(name)}, which no earlier node makes")
        inputs = [self._values[name] if name else None for name in node.inputs]
        self._check_attributes(node)
        call = Call(node, inputs)
        made = rule(call)
        if len(node.outputs) > len(made):
            raise RuleError(f"has {len(node.outputs)} outputs")
        elements = call.extra_elements
        for name, value in zip(node.outputs, made, strict=False):
            if name:
                self._add_value(name, value)
                elements = elements + product(value.shape)
        _add_cost(self._elements, elements, budget.elements, "makes")
        _add_cost(self._multiplications, call.multiplications, budget.multiplications, "multiplies")

    def _check_attributes(self, node: Node) -> None:
        if len({attribute.name for attribute in node.attributes}) != len(node.attributes):
            raise RuleError("has an attribute twice")
        for attribute in node.attributes:
            what = f"the attribute {short_repr(attribute.name)}"
            if "g" in attribute.unsupported or "graphs" in attribute.unsupported:
                raise RuleError(f"holds a subgraph in {what}: branches, loops and scans are refused")
            if attribute.unsupported:
                raise RuleError(
                    f"has {attribute.unsupported[0]} in {what}, which a bundle's graph does not need"
                )
            kind = _ATTRIBUTE_FIELDS.get(attribute.type)
            given = [
                name for name in _ATTRIBUTE_FIELDS.values() if getattr(attribute, name) not in (None, ())
            ]
            if kind is None or given not in ([kind], [] if kind in _FIELDS_THAT_MAY_BE_EMPTY else [kind]):
                raise RuleError(f"has {what}, whose value is not of its type")
            if attribute.name == "to" and attribute.i not in _CAST_TYPES:
                raise RuleError(f"casts to the type {attribute.i}, which is not allowed")

    def _constant(self, what: str, tensor: Tensor) -> Value:
        """A weight, which must have exactly the elements of its shape, all of them in the file."""
        if tensor.location or "external_data" in tensor.unsupported:
            raise self._error(f"{what} is outside the file: external data is refused")
        self._refuse_unsupported(what, tensor.unsupported)
        item = _ITEM_BYTES.get(tensor.dtype)
        if item is None:
            raise self._error(f"{what} has the type {tensor.dtype}, which is not allowed")
        self._check_rank(what, len(tensor.dims))
        count = prod(tensor.dims)
        raw = b"" if tensor.raw is None else tensor.raw
        if any(size < 0 for size in tensor.dims) or len(raw) != count * item:
            raise self._error(
                f"{what} does not have exactly the numbers of its shape {shape_text(tensor.dims)}"
            )
        if tensor.dtype != INT64 or len(tensor.dims) > 1 or count > MAX_TRACKED_NUMBERS:
            return Value(tensor.dims)
        return Value(tensor.dims, unpack(f"<{count}q", raw))

    def _add_value(self, name: str, value: Value) -> None:
        if not name or name in self._values:
            raise self._error(f"{short_repr(name)} is made twice, by nodes, inputs or weights")
        self._check_rank(short_repr(name), len(value.shape))
        if not all(is_at_least(size, 1) for size in value.shape):  # operations differ in how they treat these
            raise self._error(
                f"{short_repr(name)} has the shape {shape_text(value.shape)}, which may be empty"
            )
        self._values[name] = value

    def _check_rank(self, what: str, rank: int) -> None:
        """Refuse too many axes. Called before sizes are multiplied: a product of many takes gigabytes."""
        if rank > MAX_AXES:
            raise self._error(f"{what} has {rank:,} axes, {MAX_AXES} are allowed")

    def _refuse_unsupported(self, what: str, unsupported: tuple[str, ...]) -> None:
        if unsupported:
            raise self._error(f"{what} has {unsupported[0]}, which a bundle's graph does not need")

    def _state_map_error(self, name: str) -> BundleError:
        return self._error(f"input or output {short_repr(name)} does not fit the state map of edgechat.json")

    def _error(self, why: str) -> BundleError:
        return BundleError(f"{self._file}: {why}")


def _add_cost(so_far: Counter[str], size: Size, limit: Callable[[str], int], does: str) -> None:
    """Add the cost of a node to the sums so far; refuse it if one is above its limit."""
    for letters, factor in upper_bound(size).items():
        if not _is_allowed_growth(letters):
            steep = Polynomial({letters: factor})
            raise RuleError(f"{does} {steep} numbers, which grows faster than a reply needs")
        so_far[letters] += factor
        if so_far[letters] > limit(letters):
            each = f" per {'*'.join(letters)}" if letters else ""
            raise RuleError(
                f"{does} {factor:,} numbers{each}: with the nodes before it, more than {limit(letters):,}"
            )


@cache
def _is_allowed_growth(letters: str) -> bool:
    kinds = set(letters)
    return len(kinds) == len(letters) and (kinds <= set("BKS") or kinds <= set("BCK") or kinds <= {"M"})
