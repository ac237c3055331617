"""A small builder of ONNX graphs: each call adds an operation and returns the names of its outputs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..runtime.backend import Floats
from ..runtime.graph_check import IR_VERSION
from ..runtime.manifest import OPSET
from ..runtime.shape_rules import MICROSOFT

FLOAT, FLOAT16, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
Shape = Sequence[int | str]


def to_float32_array(tensor: Tensor) -> Floats:
    """A PyTorch tensor as a float32 array."""
    array: Floats = tensor.detach().cpu().numpy().astype(np.float32)
    return array


class GraphBuilder:
    """Collects inputs, weights and operations. Names are numbered in order, so the same calls give the same
    bytes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._values_by_key: dict[str, str] = {}
        self._output_values: dict[str, str] = {}  # name of an output -> the value that becomes it

    def input(self, name: str, elem_type: int, shape: Shape) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def output(self, name: str, value: str, elem_type: int, shape: Shape) -> None:
        """Make `value`, the result of an operation, the output `name` of the graph."""
        self._output_values[name] = value
        self._outputs.append(helper.make_tensor_value_info(name, elem_type, shape))

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an initializer. One with the name of an input would silently become that input's default, so
        that raises ValueError."""
        if name in self._weights or name in {i.name for i in self._inputs}:
            raise ValueError(f"the name {name!r} is taken")
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def constant(self, values: int | float | Sequence[int]) -> str:
        """Add a constant: integers (shapes, axes) as int64, a float as a scalar. Equal constants are stored
        once."""
        array = np.array(values, dtype=np.float32 if isinstance(values, float) else np.int64)
        name = f"const_{array.dtype}_{'x'.join(map(str, np.atleast_1d(array)))}_{array.ndim}d"
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def uint8_constant(self, value: int) -> str:
        """Add an unsigned 8-bit scalar."""
        name = f"const_uint8_{value}"
        self._weights.setdefault(name, numpy_helper.from_array(np.array(value, dtype=np.uint8), name))
        return name

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation with one output, and return the name of the output."""
        return self.ops(op_type, *inputs, count=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add an operation with `count` outputs, and return their names."""
        outputs = [f"{op_type.lower()}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))
        return outputs

    def get_or_add(self, key: str, add: Callable[[], str]) -> str:
        """Call `add` only the first time for each `key`, and return the value that it added then."""
        if key not in self._values_by_key:
            self._values_by_key[key] = add()
        return self._values_by_key[key]

    def build(self) -> bytes:
        """The serialized model, checked by ONNX."""
        self._name_outputs()
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._weights.values())
        )
        opset_imports = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self._nodes):
            opset_imports.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(
            graph,
            opset_imports=opset_imports,
            ir_version=IR_VERSION,
            producer_name="edgechat",
        )
        onnx.checker.check_model(model, full_check=True)
        raw: bytes = model.SerializeToString(deterministic=True)
        return raw

    def _name_outputs(self) -> None:
        """Rename each result to the name of its output. An Identity instead would copy, at each run, a result
        that the graph also uses itself."""
        names: dict[str, str] = {}
        for name, value in self._output_values.items():
            if names.setdefault(value, name) != name:
                self._nodes.append(helper.make_node("Identity", [names[value]], [name]))
        for node in self._nodes:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]
