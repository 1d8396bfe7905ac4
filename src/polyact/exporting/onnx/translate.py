"""A JAX program as an ONNX model: each of its equations becomes an operator or a few, by the tables of this folder."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from polyact.errors import PolyactError
from polyact.exporting.equations import INLINED, evaluated, needed
from polyact.exporting.onnx.arrange import ARRANGE
from polyact.exporting.onnx.control import CONTROL
from polyact.exporting.onnx.elementwise import ELEMENTWISE
from polyact.exporting.onnx.graph import BATCH, IR_VERSION, OPSET, Graph, Value, declared
from polyact.exporting.onnx.indexing import INDEXING
from polyact.exporting.onnx.summarise import SUMMARISE
from polyact.exporting.program import Program, Slot

WIDE = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}


def model_of(program: Program) -> onnx.ModelProto:
    """The ONNX model of a policy; its batch is free. PolyactError names the operation that has no counterpart."""
    (batch,) = jax.export.symbolic_shape(BATCH)
    structs = [jax.ShapeDtypeStruct((batch, *slot.shape), slot.dtype) for slot in program.inputs]
    closed: Any = jax.make_jaxpr(program.function)(structs)
    graph = Graph()
    given = [Value((batch, *slot.shape), slot.dtype, slot.name) for slot in program.inputs]
    sizes = graph.op("Shape", given[0].name)
    graph.named(graph.op("Slice", sizes, graph.ints(0), graph.ints(1)), BATCH)
    results = run(graph, closed, given)
    for value, slot in zip(results, program.outputs, strict=True):
        graph.named(graph.name(graph.whole(value, (batch, *slot.shape))), slot.name)
    inputs, outputs = ([_declared(slot) for slot in slots] for slots in (program.inputs, program.outputs))
    whole = helper.make_graph(graph.nodes, "policy", inputs, outputs, initializer=list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="polyact")
    onnx.checker.check_model(model)
    return model


def _declared(slot: Slot) -> onnx.ValueInfoProto:
    return declared(slot.name, (None, *slot.shape), slot.dtype)


def run(graph: Graph, closed: Any, given: Sequence[Value]) -> list[Value]:
    """Add a program to a graph; returns its outputs. Equations that nothing needs are left out, known ones computed."""
    jaxpr: Any = closed.jaxpr
    values = dict(zip(jaxpr.invars, given, strict=True))
    values |= {variable: Value.known(_narrow(const)) for variable, const in zip(jaxpr.constvars, closed.consts, strict=True)}

    def read(atom: Any) -> Value:
        literal = isinstance(atom, core.Literal)
        return Value.known(np.asarray(atom.val, _dtype_of(atom))) if literal else values[atom]

    for equation in needed(jaxpr):
        results = _translated(graph, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _dtype_of(atom: Any) -> Any:
    return atom.aval.dtype


def _narrow(const: Any) -> np.ndarray:
    if jnp.issubdtype(const.dtype, jax.dtypes.prng_key):
        raise PolyactError("a policy that holds random keys of its own has no counterpart in ONNX; export as stablehlo instead")
    array = np.asarray(const)
    return array.astype(WIDE.get(array.dtype, array.dtype))


def _translated(graph: Graph, equation: Any, values: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if name in INLINED:
        inner = equation.params[INLINED[name]]
        return run(graph, inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ()), values)
    known = all(value.array is not None for value in values)
    if name in ELEMENTWISE:
        return [_elementwise(graph, equation, values, known)]
    if known and _fixed(equation):
        arrays = [_full(value, atom) for value, atom in zip(values, equation.invars, strict=True)]
        return [Value.known(np.asarray(result)) for result in evaluated(equation, arrays, at_once=True)]
    if name in CONTROL:
        return CONTROL[name](graph, values, equation, run)
    for table in (ARRANGE, SUMMARISE, INDEXING):
        if name in table:
            result = table[name](graph, values, equation)
            return result if isinstance(result, list) else [result]
    raise PolyactError(f"the operation '{name}' has no counterpart in ONNX; export as stablehlo instead")


def _elementwise(graph: Graph, equation: Any, values: list[Value], known: bool) -> Value:
    dtype = np.dtype(equation.outvars[0].aval.dtype)
    if known:
        arrays = np.broadcast_arrays(*(value.array for value in values if value.array is not None))
        return Value.known(np.asarray(evaluated(equation, arrays, at_once=True)[0], dtype))
    shape = _joint([value.shape for value in values])
    return Value(shape, dtype, ELEMENTWISE[equation.primitive.name](graph, [graph.name(value) for value in values], equation))


def _joint(shapes: list[Any]) -> Any:
    """The shape of what is computed from values that may stand for their repetitions."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((size for size in sizes if not (isinstance(size, int) and size == 1)), 1) for sizes in zip(*padded, strict=True)
    )


def _fixed(equation: Any) -> bool:
    """Whether no size depends on the batch."""
    atoms = [*equation.invars, *equation.outvars]
    return all(isinstance(size, int) for atom in atoms for size in atom.aval.shape)


def _full(value: Value, atom: Any) -> np.ndarray:
    assert value.array is not None
    return np.broadcast_to(value.array, atom.aval.shape)
