"""What an ONNX graph is built from: values, which are known arrays or names of tensors, and graphs, to which operators are added.

A value may be smaller than what it stands for: axes of size one stand for their repetitions, as in NumPy. Most of what a program
broadcasts is never written out in this way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from polyact.errors import PolyactError

OPSET, IR_VERSION = 18, 8  # what onnxruntime 1.14 (2023) and later run
BATCH = "batch"  # the name of the tensor [1] that holds the size of the batch, and of the free axis in declared shapes
SHORT = {np.dtype(kind) for kind in (np.int8, np.int16, np.uint16, np.uint32)}
Dim = Any  # an int, or jax's symbolic size of the batch
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Value:
    """A tensor: known (`array`) or named."""

    shape: Shape
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None

    @classmethod
    def known(cls, array: Any) -> "Value":
        array = np.asarray(array)
        return cls(array.shape, array.dtype, array=array)


class Graph:
    """Operators in order. Graphs inside (bodies of loops, branches) see the names of those around them; constants are the outermost's."""

    def __init__(self, around: "Graph | None" = None):
        self.nodes: list[onnx.NodeProto] = []
        self.root: Graph = self if around is None else around.root
        if around is None:
            self.constants: dict[Any, onnx.TensorProto] = {}
            self.count = 0

    def fresh(self, hint: str) -> str:
        """A name that nothing else has."""
        self.root.count += 1
        return f"{hint}_{self.root.count}"

    def name(self, value: Value) -> str:
        """The name of a value; known ones become constants of the model."""
        return value.name if value.array is None else self.constant(value.array)

    def constant(self, array: Any) -> str:
        """The name of a constant; equal ones share one."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        constants = self.root.constants
        if key not in constants:
            constants[key] = numpy_helper.from_array(array, self.fresh("constant"))
        return constants[key].name

    def ints(self, *numbers: int | np.integer) -> str:
        """A constant vector of integers, as operators want axes, sizes and places."""
        return self.constant(np.asarray(numbers, np.int64))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output; returns the output's name."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Add an operator; returns the names of its outputs."""
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def named(self, source: str, name: str) -> str:
        """The same tensor under a given name."""
        self.nodes.append(helper.make_node("Identity", [source], [name]))
        return name

    def cast(self, name: str, dtype: Any) -> str:
        return self.op("Cast", name, to=tensor_type(dtype))

    def where(self, condition: str, yes: str, no: str, dtype: Any) -> str:
        """One or the other, of this dtype. onnxruntime's Where has neither truth values nor short integers."""
        if np.dtype(dtype) == bool:
            return self.op("Or", self.op("And", condition, yes), self.op("And", self.op("Not", condition), no))
        if np.dtype(dtype) in SHORT:
            yes, no = self.cast(yes, np.int64), self.cast(no, np.int64)
            return self.cast(self.op("Where", condition, yes, no), dtype)
        return self.op("Where", condition, yes, no)

    def sizes(self, shape: Shape) -> str:
        """A shape as a tensor."""
        if all(isinstance(size, int) for size in shape):
            return self.ints(*shape)
        parts = [self.ints(size) if isinstance(size, int) else check_batch(size) for size in shape]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def reshape(self, name: str, shape: Shape) -> str:
        """The same numbers in another shape."""
        free = [size for size in shape if not isinstance(size, int)]
        if len(free) <= 1:
            return self.op("Reshape", name, self.ints(*(size if isinstance(size, int) else -1 for size in shape)))
        return self.op("Reshape", name, self.sizes(shape))

    def whole(self, value: Value, shape: Shape) -> Value:
        """The value with its repetitions written out."""
        if value.shape == tuple(shape):
            return value
        if value.array is not None and all(isinstance(size, int) for size in shape):
            return Value.known(np.broadcast_to(value.array, shape))
        return Value(tuple(shape), value.dtype, self.op("Expand", self.name(value), self.sizes(shape)))


def check_batch(size: Dim) -> str:
    """The tensor that holds the size of a free axis. PolyactError where it is not the batch itself."""
    if str(size) != BATCH:
        raise PolyactError(f"a policy whose arrays have a size of {size} can't be written as ONNX")
    return BATCH


def tensor_type(dtype: Any) -> int:
    """ONNX's number of a dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def declared(name: str, shape: Shape, dtype: Any) -> onnx.ValueInfoProto:
    """The declaration of an input or output."""
    return helper.make_tensor_value_info(name, tensor_type(dtype), [size if isinstance(size, int) else BATCH for size in shape])


def undeclared(name: str, dtype: Any) -> onnx.ValueInfoProto:
    """The declaration of an output of a graph inside, whose shape follows from its nodes."""
    return helper.make_tensor_value_info(name, tensor_type(dtype), None)
