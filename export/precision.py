"""How the weights of a graph are stored and multiplied, with a class for each precision.

`graphs.py` defines what is computed; only this module decides with how many bits. The inputs and outputs of a
graph, and everything between the products, stay float32.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ..runtime.backend import Floats
from ..runtime.shape_rules import MICROSOFT
from .graph_builder import FLOAT, FLOAT16, GraphBuilder
from .quantize import MIN_DIVISOR, Levels, quantize_columns


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

    def tied_linear(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        """x [N, E] @ table^T + bias [V] -> [N, V]; `lookup` stored the table [V, E] in the same graph."""
        ...

    def float32_weight(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        """A weight [.., I] as a float32 value, for an operation that requires that type."""
        ...


class Float32:
    """Weights and products in float32, as in PyTorch."""

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        return _add_bias(g, g.op("MatMul", x, g.weight(name, weight)), bias)

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return g.op("Gather", g.weight(name, table), ids, axis=0)

    def tied_linear(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        return _add_bias(g, g.op("MatMul", x, g.op("Transpose", name, perm=[1, 0])), bias)

    def float32_weight(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return g.weight(name, weight)


class Float16:
    """Weights and products in half precision, for CUDA.

    On a CPU, ONNX Runtime converts the weights to float32 when it loads them: the file is half as large, and
    the speed is that of fp32.
    """

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        x_half = g.op("Cast", x, to=FLOAT16)
        return _add_bias(
            g, g.op("Cast", g.op("MatMul", x_half, _half_weight(g, name, weight)), to=FLOAT), bias
        )

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return g.op("Cast", g.op("Gather", _half_weight(g, name, table), ids, axis=0), to=FLOAT)

    def tied_linear(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        x_half = g.op("Cast", x, to=FLOAT16)
        product = g.op("MatMul", x_half, g.op("Transpose", name, perm=[1, 0]))
        return _add_bias(g, g.op("Cast", product, to=FLOAT), bias)

    def float32_weight(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return g.op("Cast", _half_weight(g, name, weight), to=FLOAT)


class Int8:
    """Weights in 8 bits and integer products (see `quantize`), with the `levels` of each linear weight."""

    def __init__(self, levels: Mapping[str, Levels]) -> None:
        self._levels = levels

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        levels = self._levels[name]
        values, scale = quantize_columns(weight, levels.max_weight)
        return self._int8_linear(g, x, levels, g.weight(name, values), g.weight(f"{name}.scale", scale), bias)

    def tied_linear(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        # The rows of the table are the columns of the product, with the same scales.
        weight = g.op("Transpose", name, perm=[1, 0])
        scale = g.op("Reshape", f"{name}.scale", g.constant([-1]))
        return self._int8_linear(g, x, self._levels[name], weight, scale, bias)

    def _int8_linear(
        self, g: GraphBuilder, x: str, levels: Levels, weight: str, scale: str, bias: str | None
    ) -> str:
        """x @ weight + bias, for an int8 weight with a scale per column."""
        zero_point = g.uint8_constant(levels.max_activation)
        if levels.fixed_range is not None:
            step = g.constant(levels.fixed_range / levels.max_activation)
            rows = g.op("QuantizeLinear", x, step, zero_point)
            return _integer_matmul(g, rows, weight, step, scale, zero_point, bias)
        row_max = g.op("ReduceMax", g.op("Abs", x), g.constant([-1]))  # [..,N,1]
        row_scale = g.op(
            "Mul", g.op("Max", row_max, g.constant(MIN_DIVISOR)), g.constant(1 / levels.max_activation)
        )
        # QuantizeLinear takes one scale per row of an axis. It rounds to nearest, ties to even.
        zero_points = g.get_or_add(
            f"zero points {levels.max_activation}",
            lambda: g.op("Expand", zero_point, g.op("Shape", x, start=-2, end=-1)),  # [N]
        )
        rows = g.op("QuantizeLinear", x, g.op("Reshape", row_scale, g.constant([-1])), zero_points, axis=-2)
        # The product takes one scale for all rows of x: here 1, and each row is scaled afterwards.
        product = _integer_matmul(g, rows, weight, g.constant(1.0), scale, zero_point)
        return _add_bias(g, g.op("Mul", product, row_scale), bias)

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        # A table that is also a weight of a product has the levels of that product.
        max_level = self._levels[name].max_weight if name in self._levels else 127
        values, scale = quantize_columns(table.T, max_level)
        rows = g.op("Cast", g.op("Gather", g.weight(name, values.T), ids, axis=0), to=FLOAT)
        return g.op("Mul", rows, g.op("Gather", g.weight(f"{name}.scale", scale[:, None]), ids, axis=0))

    def float32_weight(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        # ONNX Runtime folds this to float32 when it loads the graph. That saves a third of the encoder's time
        # compared with converting at every call, and costs the memory of an fp32 encoder. DequantizeLinear
        # would not be folded.
        rows = weight.reshape(-1, weight.shape[-1])
        values, scale = quantize_columns(rows.T, 127)
        widened = g.op("Cast", g.weight(name, values.T.reshape(weight.shape)), to=FLOAT)
        return g.op("Mul", widened, g.weight(f"{name}.scale", scale.reshape(*weight.shape[:-1], 1)))


class InputRecorder:
    """Float32, with the inputs of each linear weight as additional outputs `input:NAME`, by which levels are
    chosen."""

    def __init__(self) -> None:
        self._float32 = Float32()
        self.weights: dict[str, Floats] = {}

    def linear(self, g: GraphBuilder, x: str, name: str, weight: Floats, bias: str | None = None) -> str:
        self._record(g, x, name, weight)
        return self._float32.linear(g, x, name, weight, bias)

    def tied_linear(self, g: GraphBuilder, x: str, name: str, table: Floats, bias: str) -> str:
        self._record(g, x, name, table.T)
        return self._float32.tied_linear(g, x, name, table, bias)

    def _record(self, g: GraphBuilder, x: str, name: str, weight: Floats) -> None:
        self.weights[name] = weight
        g.output(
            f"input:{name}",
            g.op("Reshape", x, g.constant([-1, weight.shape[0]])),
            FLOAT,
            ["N", weight.shape[0]],
        )

    def lookup(self, g: GraphBuilder, ids: str, name: str, table: Floats) -> str:
        return self._float32.lookup(g, ids, name, table)

    def float32_weight(self, g: GraphBuilder, name: str, weight: Floats) -> str:
        return self._float32.float32_weight(g, name, weight)


def _integer_matmul(
    g: GraphBuilder,
    rows: str,
    weight: str,
    row_scale: str,
    column_scale: str,
    zero_point: str,
    bias: str | None = None,
) -> str:
    """MatMulInteger, Cast, Mul and Add as one operation, which saves a tenth of the time with many rows."""
    bias_inputs = [] if bias is None else ["", bias]  # "": no zero point of the weight
    return g.op(
        "MatMulIntegerToFloat",
        rows,
        weight,
        row_scale,
        column_scale,
        zero_point,
        *bias_inputs,
        domain=MICROSOFT,
    )


def _add_bias(g: GraphBuilder, product: str, bias: str | None) -> str:
    return product if bias is None else g.op("Add", product, bias)


def _half_weight(g: GraphBuilder, name: str, weight: Floats) -> str:
    return g.weight(name, weight.astype(np.float16))
