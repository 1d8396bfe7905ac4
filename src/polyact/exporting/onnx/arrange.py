"""Operations that move entries without changing them, in ONNX: (graph, values, equation) -> values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyact.errors import PolyactError
from polyact.exporting.onnx.graph import Graph, Shape, Value

END = np.iinfo(np.int64).max


def broadcast(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """New axes of size one; repetitions stay unwritten."""
    (value,), places, rank = values, equation.params["broadcast_dimensions"], len(equation.params["shape"])
    shape: list[Any] = [1] * rank
    for place, size in zip(places, value.shape, strict=True):
        shape[place] = size
    return reshaped(graph, value, tuple(shape))


def reshape(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    value = graph.whole(values[0], equation.invars[0].aval.shape)
    return reshaped(graph, value, equation.outvars[0].aval.shape)


def reshaped(graph: Graph, value: Value, shape: Shape) -> Value:
    """The same numbers in another shape."""
    if value.shape == shape:
        return value
    if value.array is not None:
        return Value.known(value.array.reshape(shape))
    return Value(shape, value.dtype, graph.reshape(value.name, shape))


def squeeze(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    gone = equation.params["dimensions"]
    return reshaped(graph, values[0], tuple(size for axis, size in enumerate(values[0].shape) if axis not in gone))


def transpose(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    return transposed(graph, values[0], equation.params["permutation"])


def transposed(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    """Axes in another order."""
    shape = tuple(value.shape[axis] for axis in order)
    if list(order) == list(range(len(order))):
        return value
    if value.array is not None:
        return Value.known(value.array.transpose(order))
    return Value(shape, value.dtype, graph.op("Transpose", value.name, perm=list(order)))


def concatenate(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    axis, shape = equation.params["dimension"], equation.outvars[0].aval.shape
    parts = [graph.whole(value, atom.aval.shape) for value, atom in zip(values, equation.invars, strict=True)]
    return Value(shape, parts[0].dtype, graph.op("Concat", *map(graph.name, parts), axis=axis))


def stack(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [reshaped(graph, graph.whole(value, atom.aval.shape), one) for value, atom in zip(values, equation.invars, strict=True)]
    return Value(shape, parts[0].dtype, graph.op("Concat", *map(graph.name, parts), axis=axis))


def split(graph: Graph, values: Sequence[Value], equation: Any) -> list[Value]:
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    value = graph.whole(values[0], equation.invars[0].aval.shape)
    names = graph.ops("Split", [graph.name(value), graph.ints(*sizes)], len(sizes), axis=axis)
    return [Value(variable.aval.shape, value.dtype, name) for variable, name in zip(equation.outvars, names, strict=True)]


def cut(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    parameters, shape = equation.params, equation.outvars[0].aval.shape
    value = graph.whole(values[0], equation.invars[0].aval.shape)
    starts, ends, steps = parameters["start_indices"], parameters["limit_indices"], parameters["strides"] or [1] * len(shape)
    ends = [end if isinstance(end, int) else END for end in ends]
    places = (graph.ints(*numbers) for numbers in (starts, ends, range(len(shape)), steps))
    return Value(shape, value.dtype, graph.op("Slice", graph.name(value), *places))


def reverse(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    axes = equation.params["dimensions"]
    value = graph.whole(values[0], equation.invars[0].aval.shape)
    places = (graph.ints(*numbers) for numbers in ([-1] * len(axes), [-END] * len(axes), axes, [-1] * len(axes)))
    return Value(value.shape, value.dtype, graph.op("Slice", graph.name(value), *places))


def pad(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    value, filler = graph.whole(values[0], equation.invars[0].aval.shape), values[1]
    sides = equation.params["padding_config"]
    if any(inner or low < 0 or high < 0 for low, high, inner in sides):
        raise PolyactError("padding between entries or by less than nothing can't be written as ONNX")
    pads = graph.ints(*(low for low, _, _ in sides), *(high for _, high, _ in sides))
    return Value(equation.outvars[0].aval.shape, value.dtype, graph.op("Pad", graph.name(value), pads, graph.name(filler)))


def iota(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """0, 1, 2 ... along one axis; the others stay unwritten."""
    axis, shape, dtype = (equation.params[name] for name in ("dimension", "shape", "dtype"))
    return counted(graph, shape[axis], tuple(shape[axis] if place == axis else 1 for place in range(len(shape))), dtype)


def counted(graph: Graph, size: Any, shape: Shape, dtype: Any = np.int64) -> Value:
    """0 .. size - 1 in a shape whose other axes have size one."""
    if isinstance(size, int):
        return Value.known(np.arange(size, dtype=dtype).reshape(shape))
    end = graph.op("Squeeze", graph.sizes((size,)))
    numbers = graph.op("Range", graph.constant(np.int64(0)), end, graph.constant(np.int64(1)))
    return reshaped(graph, Value((size,), np.dtype(dtype), graph.cast(numbers, dtype)), shape)


ARRANGE = {
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": squeeze,
    "expand_dims": reshape,
    "transpose": transpose,
    "concatenate": concatenate,
    "stack": stack,
    "split": split,
    "slice": cut,
    "rev": reverse,
    "pad": pad,
    "iota": iota,
}
