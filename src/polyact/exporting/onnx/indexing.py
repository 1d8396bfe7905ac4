"""Reading and writing at computed places, in ONNX: (graph, values, equation) -> values.

XLA's gather and scatter say for every axis of the operand whether it is indexed, walked through as a window, or goes along with an axis
of the indices. Here the place of every entry along every such axis is one array of integers; together they are what GatherND and
ScatterND want.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from polyact.errors import PolyactError
from polyact.exporting.onnx.arrange import counted, reshaped, transposed
from polyact.exporting.onnx.graph import Graph, Shape, Value

Mode = jax.lax.GatherScatterMode


def gather(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """Axes of the operand that are read whole stay out of the indices; the others come first."""
    parameters, shape = equation.params, equation.outvars[0].aval.shape
    numbers, sizes, extent = parameters["dimension_numbers"], parameters["slice_sizes"], equation.invars[0].aval.shape
    operand = graph.whole(values[0], extent)
    indexed, along = numbers.start_index_map, numbers.operand_batching_dims
    gone = {*numbers.collapsed_slice_dims, *along}
    axes = [axis for axis in range(len(extent)) if axis in indexed or axis in gone]
    rest = [axis for axis in range(len(extent)) if axis not in axes]
    windows = [axis for axis in range(len(extent)) if axis not in gone]  # in the order of offset_dims
    starts = graph.whole(values[1], equation.invars[1].aval.shape)
    batch = starts.shape[:-1]
    inner = [axis for axis in axes if axis not in gone]
    frame = (*batch, *(sizes[axis] for axis in inner))
    places, valid = [], []
    for axis in axes:
        if axis in along:
            where = numbers.start_indices_batching_dims[along.index(axis)]
            places.append(_counting(graph, extent[axis], where, len(frame)))
            continue
        place = _component(graph, starts, indexed.index(axis), len(frame)) if axis in indexed else None
        if place is not None and parameters["mode"] != Mode.PROMISE_IN_BOUNDS:
            place, inside = _inside(graph, place, extent[axis] - sizes[axis])
            valid.append(inside)
        if axis in inner:
            window = _counting(graph, sizes[axis], len(batch) + inner.index(axis), len(frame))
            place = window if place is None else graph.op("Add", place, window)
        places.append(place)
    name = graph.name(transposed(graph, operand, [*axes, *rest]))
    found = graph.op("GatherND", name, _joined(graph, places, frame)) if axes else graph.op("Identity", name)
    if parameters["mode"] == Mode.FILL_OR_DROP and valid:
        found = _filled(graph, found, valid, len(frame), len(rest), operand.dtype, parameters["fill_value"])
    order = _output_order([int(axis) for axis in numbers.offset_dims], len(shape), len(batch), inner, rest, windows)
    now = (*frame, *(extent[axis] for axis in rest))
    return transposed(graph, Value(now, operand.dtype, found), order)


def _output_order(offsets: list[int], rank: int, batch: int, inner: list[int], rest: list[int], windows: list[int]) -> list[int]:
    """Which axis of [batch.., inner.., rest..] each axis of the output is."""
    present = {axis: batch + place for place, axis in enumerate([*inner, *rest])}
    order, next_batch = [], 0
    for axis in range(rank):
        if axis in offsets:
            order.append(present[windows[offsets.index(axis)]])
        else:
            order.append(next_batch)
            next_batch += 1
    return order


def scatter(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """Every entry of the updates has a place of its own along every axis of the operand."""
    parameters, extent = equation.params, equation.invars[0].aval.shape
    numbers, shape = parameters["dimension_numbers"], equation.invars[2].aval.shape
    operand, starts, updates = (graph.whole(value, atom.aval.shape) for value, atom in zip(values, equation.invars, strict=True))
    indexed, along = numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims
    windows = [int(axis) for axis in numbers.update_window_dims]
    batch = [axis for axis in range(len(shape)) if axis not in windows]
    walked = [axis for axis in range(len(extent)) if axis not in (*numbers.inserted_window_dims, *along)]
    places, valid = [], []
    for axis in range(len(extent)):
        if axis in along:
            where = batch[numbers.scatter_indices_batching_dims[along.index(axis)]]
            places.append(_counting(graph, extent[axis], where, len(shape)))
            continue
        size = shape[windows[walked.index(axis)]] if axis in walked else 1
        place = None
        if axis in indexed:
            component = Value(starts.shape, starts.dtype, graph.name(starts))
            place = _spread(graph, component, indexed.index(axis), batch, len(shape))
            if parameters["mode"] != Mode.PROMISE_IN_BOUNDS:
                place, inside = _inside(graph, place, extent[axis] - size)
                valid.append(inside)
        if axis in walked:
            window = _counting(graph, size, windows[walked.index(axis)], len(shape))
            place = window if place is None else graph.op("Add", place, window)
        places.append(place)
    joined = _joined(graph, places, shape)
    return _written(graph, operand, joined, updates, valid if parameters["mode"] == Mode.FILL_OR_DROP else [], equation)


def _written(graph: Graph, operand: Value, places: str, updates: Value, valid: list[str], equation: Any) -> Value:
    kind = {
        "scatter": "none",
        "scatter-add": "add",
        "scatter_mul": "mul",
        "scatter-mul": "mul",
        "scatter-max": "max",
        "scatter-min": "min",
    }
    reduction = kind.get(equation.primitive.name.replace("_", "-"), "none")
    names = [graph.name(operand), graph.name(updates)]
    if operand.dtype == bool:
        names = [graph.cast(name, np.int32) for name in names]
    if valid:  # what would be written outside leaves what is there
        there = graph.op("GatherND", names[0], places) if reduction != "add" else graph.op("Sub", names[1], names[1])
        names[1] = graph.where(_all(graph, valid), names[1], there, np.int32 if operand.dtype == bool else operand.dtype)
    result = graph.op("ScatterND", names[0], places, names[1], reduction=reduction)
    return Value(operand.shape, operand.dtype, graph.cast(result, bool) if operand.dtype == bool else result)


def dynamic_slice(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """A window of fixed size that begins where scalars say, moved inside where it would stick out."""
    extent, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
    operand = graph.whole(values[0], extent)
    axes = [axis for axis in range(len(extent)) if extent[axis] != sizes[axis]]
    name = graph.name(operand)
    for axis in axes:
        start = _start(graph, values[1 + axis], extent[axis] - sizes[axis])
        end = graph.op("Add", start, graph.ints(sizes[axis]))
        name = graph.op("Slice", name, start, end, graph.ints(axis))
    return Value(equation.outvars[0].aval.shape, operand.dtype, name)


def dynamic_update_slice(graph: Graph, values: Sequence[Value], equation: Any) -> Value:
    """The array with a window replaced: what lies before it, the new, what lies after, axis by axis."""
    extent, shape = equation.invars[0].aval.shape, equation.invars[1].aval.shape
    operand, update = graph.whole(values[0], extent), graph.whole(values[1], shape)
    axes = [axis for axis in range(len(extent)) if extent[axis] != shape[axis]]
    starts = {axis: _start(graph, values[2 + axis], extent[axis] - shape[axis]) for axis in axes}
    return Value(extent, operand.dtype, _replaced(graph, graph.name(operand), graph.name(update), axes, starts, shape))


def _replaced(graph: Graph, name: str, update: str, axes: list[int], starts: dict[int, str], shape: Shape) -> str:
    if not axes:
        return graph.op("Identity", update)
    axis, *others = axes
    place, end = graph.ints(axis), graph.op("Add", starts[axis], graph.ints(shape[axis]))
    before = graph.op("Slice", name, graph.ints(0), starts[axis], place)
    middle = graph.op("Slice", name, starts[axis], end, place)
    after = graph.op("Slice", name, end, graph.ints(np.iinfo(np.int64).max), place)
    return graph.op("Concat", before, _replaced(graph, middle, update, others, starts, shape), after, axis=axis)


def _start(graph: Graph, value: Value, last: Any) -> str:
    """A scalar as a vector of one, between 0 and `last`."""
    if not isinstance(last, int):
        raise PolyactError("a window that moves along the batch can't be written as ONNX")
    place = graph.cast(graph.name(reshaped(graph, value, (1,))), np.int64)
    return graph.op("Min", graph.op("Max", place, graph.ints(0)), graph.ints(last))


def _component(graph: Graph, starts: Value, which: int, rank: int) -> str:
    """One entry of index vectors [batch.., N], as [batch.., 1..] of this rank."""
    return _spread(graph, starts, which, list(range(len(starts.shape) - 1)), rank)


def _spread(graph: Graph, starts: Value, which: int, axes: list[int], rank: int) -> str:
    """One entry of index vectors [batch.., N], its axes at these places among `rank`."""
    single = graph.op("Gather", graph.name(starts), graph.constant(np.int64(which)), axis=len(starts.shape) - 1)
    shape: list[Any] = [1] * rank
    for axis, size in zip(axes, starts.shape[:-1], strict=True):
        shape[axis] = size
    return graph.cast(graph.reshape(single, tuple(shape)), np.int64)


def _counting(graph: Graph, size: Any, axis: int, rank: int) -> str:
    return graph.name(counted(graph, size, tuple(size if place == axis else 1 for place in range(rank))))


def _inside(graph: Graph, place: str, last: Any) -> tuple[str, str]:
    """Places moved between 0 and `last`, and which of them were there."""
    if not isinstance(last, int):
        raise PolyactError("reading and writing at computed places along the batch can't be written as ONNX")
    moved = graph.op("Min", graph.op("Max", place, graph.constant(np.int64(0))), graph.constant(np.int64(last)))
    return moved, graph.op("Equal", moved, place)


def _all(graph: Graph, conditions: list[str]) -> str:
    result = conditions[0]
    for other in conditions[1:]:
        result = graph.op("And", result, other)
    return result


def _joined(graph: Graph, places: list[str], frame: Shape) -> str:
    """Places along each axis as index vectors [frame.., axes]."""
    one = graph.ints(-1)
    whole = [graph.op("Unsqueeze", graph.op("Expand", place, graph.sizes(frame)), one) for place in places]
    return graph.op("Concat", *whole, axis=-1)


def _filled(graph: Graph, found: str, valid: list[str], rank: int, rest: int, dtype: np.dtype, filler: Any) -> str:
    """What was read outside is NaN, or the smallest integer (the largest without sign), or what was asked for."""
    filler = _outside(dtype) if filler is None else filler
    inside = _all(graph, valid)
    if rest:
        inside = graph.op("Unsqueeze", inside, graph.ints(*range(rank, rank + rest)))
    return graph.where(inside, found, graph.constant(np.asarray(filler, dtype)), dtype)


def _outside(dtype: np.dtype) -> Any:
    if dtype.kind == "f":
        return np.nan
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


INDEXING = {
    "gather": gather,
    "scatter": scatter,
    "scatter-add": scatter,
    "scatter-mul": scatter,
    "scatter-max": scatter,
    "scatter-min": scatter,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}
