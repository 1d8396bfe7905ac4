"""Sums, extremes, orders and products over axes, in ONNX: (graph, values, equation) -> values."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from polyact.errors import PolyactError
from polyact.exporting.onnx.arrange import reshaped, transposed
from polyact.exporting.onnx.graph import Graph, Value

Rule = Callable[[Graph, Sequence[Value], Any], Any]


def _reduce(kind: str) -> Rule:
    def rule(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
        value, axes = graph.whole(values[0], equation.invars[0].aval.shape), equation.params["axes"]
        name = graph.name(value)
        if value.dtype == bool:
            name = graph.cast(name, np.int32)
        name = graph.op(kind, name, graph.ints(*axes), keepdims=0) if axes else name
        name = graph.cast(name, bool) if value.dtype == bool else name
        return Value(equation.outvars[0].aval.shape, value.dtype, name)

    return rule


def _best(kind: str) -> Rule:
    def rule(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
        value, (axis,) = graph.whole(values[0], equation.invars[0].aval.shape), equation.params["axes"]
        name = graph.cast(graph.name(value), np.int32) if value.dtype == bool else graph.name(value)
        place = graph.op(kind, name, axis=axis, keepdims=0)
        dtype = np.dtype(equation.params["index_dtype"])
        return Value(equation.outvars[0].aval.shape, dtype, graph.cast(place, dtype))

    return rule


def _cumulative(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    value = graph.whole(values[0], equation.invars[0].aval.shape)
    axis = graph.constant(np.int64(equation.params["axis"]))
    return Value(value.shape, value.dtype, graph.op("CumSum", graph.name(value), axis, reverse=int(equation.params["reverse"])))


def _sort(graph: Graph, values: Sequence[Value], equation: Any) -> list[Value]:
    """By the first operand, smallest first; the others in its order."""
    axis, shape = equation.params["dimension"], equation.invars[0].aval.shape
    whole = [graph.whole(value, shape) for value in values]
    if equation.params["num_keys"] != 1 or not isinstance(shape[axis], int):
        raise PolyactError("sorting by several keys or along the batch can't be written as ONNX")
    inputs = [graph.name(whole[0]), graph.ints(shape[axis])]
    _, order = graph.ops("TopK", inputs, 2, axis=axis, largest=0, sorted=1)
    return [Value(shape, v.dtype, graph.op("GatherElements", graph.name(v), order, axis=axis)) for v in whole]


def _product(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """Any product of two arrays as a product of (batches of) matrices."""
    (contract_left, contract_right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    shapes = [atom.aval.shape for atom in equation.invars]
    left, right = (graph.whole(value, shape) for value, shape in zip(values, shapes, strict=True))
    free_left = [axis for axis in range(len(shapes[0])) if axis not in (*contract_left, *batch_left)]
    free_right = [axis for axis in range(len(shapes[1])) if axis not in (*contract_right, *batch_right)]
    batch = tuple(shapes[0][axis] for axis in batch_left)
    rows, columns = (tuple(shape[axis] for axis in free) for shape, free in zip(shapes, (free_left, free_right), strict=True))
    inner = prod(shapes[0][axis] for axis in contract_left)
    left = transposed(graph, left, [*batch_left, *free_left, *contract_left])
    right = transposed(graph, right, [*batch_right, *contract_right, *free_right])
    kept = rows if len(contract_left) == 1 and rows and not batch else (prod(rows),)  # [.., K] @ [K, N] is a product as it stands
    left = reshaped(graph, left, (*batch, *kept, inner))
    right = reshaped(graph, right, (*batch, inner, prod(columns)))
    product = graph.op("MatMul", graph.name(left), graph.name(right))
    result = Value((*batch, *kept, prod(columns)), left.dtype, product)
    return reshaped(graph, result, equation.outvars[0].aval.shape)


SUMMARISE: dict[str, Rule] = {
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_and": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax"),
    "argmax": _best("ArgMax"),
    "argmin": _best("ArgMin"),
    "cumsum": _cumulative,
    "sort": _sort,
    "dot_general": _product,
}
