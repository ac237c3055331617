"""How the weights of a graph are stored and multiplied, with a class for each precision.

`graphs.py` defines what is computed; only this module decides with how many bits. The inputs and outputs of a
graph, and everything between the products, stay float32.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ..runtime.backend import Floats
from ..runtime.shaperules import MICROSOFT
from .builder import FLOAT, FLOAT16, GraphBuilder
from .quantize import TINY, Levels, quantize_columns


class Precision(Protocol):
    """Adds weights, and operations on them, to a graph. Names are those of the weights in PyTorch."""

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        """x [.., N, I] @ weight [I, O] + bias [O] -> [.., N, O], with at most one leading axis, of size 1.

        N is the same for all products of a graph.
        """
        ...

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        """The rows `ids` of table [V, E]."""
        ...

    def by_table(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        """x [N, E] @ table^T + bias [V] -> [N, V]; `lookup` stored the table [V, E] in the same graph."""
        ...

    def stored(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        """A weight [.., I] as a float32 value, for an operation that requires that type."""
        ...


class Float32:
    """Weights and products in float32, as in PyTorch."""

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        return _plus(g, g.op("MatMul", x, g.weight(name, weight)), bias)

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return g.op("Gather", g.weight(name, table), ids, axis=0)

    def by_table(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        return _plus(g, g.op("MatMul", x, g.op("Transpose", name, perm=[1, 0])), bias)

    def stored(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return g.weight(name, weight)


class Float16:
    """Weights and products in half precision, for CUDA.

    On a CPU, ONNX Runtime converts the weights to float32 when it loads them: the file is half as large, and
    the speed is that of fp32.
    """

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        halves = g.op("Cast", x, to=FLOAT16)
        return _plus(g, g.op("Cast", g.op("MatMul", halves, _half(g, name, weight)), to=FLOAT), bias)

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return g.op("Cast", g.op("Gather", _half(g, name, table), ids, axis=0), to=FLOAT)

    def by_table(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        halves = g.op("Cast", x, to=FLOAT16)
        product = g.op("MatMul", halves, g.op("Transpose", name, perm=[1, 0]))
        return _plus(g, g.op("Cast", product, to=FLOAT), bias)

    def stored(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return g.op("Cast", _half(g, name, weight), to=FLOAT)


class Int8:
    """Weights in 8 bits and integer products (see `quantize`), with the `levels` of each linear weight."""

    def __init__(self, levels: Mapping[str, Levels]) -> None:
        self._levels = levels

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        levels = self._levels[name]
        values, scale = quantize_columns(weight, levels.weight)
        return self._product(g, x, levels, g.weight(name, values), g.weight(f"{name}.scale", scale), bias)

    def by_table(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        # The rows of the table are the columns of the product, with the same scales.
        weight = g.op("Transpose", name, perm=[1, 0])
        scale = g.op("Reshape", f"{name}.scale", g.constant([-1]))
        return self._product(g, x, self._levels[name], weight, scale, bias)

    def _product(
        self, g: GraphBuilder, x: str, levels: Levels, weight: str, scale: str, bias: str | None
    ) -> str:
        """x @ weight + bias, for an int8 weight with a scale per column."""
        zero = g.byte(levels.activation)
        if levels.range is not None:
            step = g.constant(levels.range / levels.activation)
            rows = g.op("QuantizeLinear", x, step, zero)
            return _multiplied(g, rows, weight, step, scale, zero, bias)
        largest = g.op("ReduceMax", g.op("Abs", x), g.constant([-1]))  # [..,N,1]
        row_scale = g.op("Mul", g.op("Max", largest, g.constant(TINY)), g.constant(1 / levels.activation))
        # QuantizeLinear takes one scale per row of an axis. It rounds to nearest, ties to even.
        zeros = g.once(
            f"zeros {levels.activation}",
            lambda: g.op("Expand", zero, g.op("Shape", x, start=-2, end=-1)),  # [N]
        )
        rows = g.op("QuantizeLinear", x, g.op("Reshape", row_scale, g.constant([-1])), zeros, axis=-2)
        # The product takes one scale for all rows of x: here 1, and each row is scaled afterwards.
        product = _multiplied(g, rows, weight, g.constant(1.0), scale, zero)
        return _plus(g, g.op("Mul", product, row_scale), bias)

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        # A table that is also a weight of a product has the levels of that product.
        most = self._levels[name].weight if name in self._levels else 127
        values, scale = quantize_columns(table.T, most)
        rows = g.op("Cast", g.op("Gather", g.weight(name, values.T), ids, axis=0), to=FLOAT)
        return g.op("Mul", rows, g.op("Gather", g.weight(f"{name}.scale", scale[:, None]), ids, axis=0))

    def stored(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        # ONNX Runtime folds this to float32 when it loads the graph. That saves a third of the encoder's time
        # compared with converting at every call, and costs the memory of an fp32 encoder. DequantizeLinear
        # would not be folded.
        rows = weight.reshape(-1, weight.shape[-1])
        values, scale = quantize_columns(rows.T, 127)
        widened = g.op("Cast", g.weight(name, values.T.reshape(weight.shape)), to=FLOAT)
        return g.op("Mul", widened, g.weight(f"{name}.scale", scale.reshape(*weight.shape[:-1], 1)))


class Recording:
    """Float32, with the inputs of each linear weight as additional outputs `input:NAME`, by which levels are
    chosen."""

    def __init__(self) -> None:
        self._exact = Float32()
        self.weights: dict[str, Floats] = {}

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        self._record(g, x, name, weight)
        return self._exact.linear(g, x, name, weight, bias)

    def by_table(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        self._record(g, x, name, table.T)
        return self._exact.by_table(g, x, name, table, bias)

    def _record(self, g: GraphBuilder, x: str, name: str, weight: Floats) -> None:
        self.weights[name] = weight
        g.output(
            f"input:{name}",
            g.op("Reshape", x, g.constant([-1, weight.shape[0]])),
            FLOAT,
            ["N", weight.shape[0]],
        )

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return self._exact.lookup(g, ids, name, table)

    def stored(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return self._exact.stored(g, name, weight)


def _multiplied(
    g: GraphBuilder,
    rows: str,
    weight: str,
    row_scale: str,
    column_scale: str,
    zero: str,
    bias: str | None = None,
) -> str:
    """MatMulInteger, Cast, Mul and Add as one operation, which saves a tenth of the time with many rows."""
    last = [] if bias is None else ["", bias]  # "": no zero point of the weight
    return g.op("MatMulIntegerToFloat", rows, weight, row_scale, column_scale, zero, *last, domain=MICROSOFT)


def _plus(g: GraphBuilder, product: str, bias: str | None) -> str:
    return product if bias is None else g.op("Add", product, bias)


def _half(g: GraphBuilder, name: str, weight: Floats) -> str:
    return g.weight(name, weight.astype(np.float16))
