"""Loops and branches, in ONNX: Scan for loops of known length, Loop for others, If for branches.

What a body reads from around it, it sees there: ONNX's inner graphs know the names of outer ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from polyact.exporting.onnx.arrange import reshaped
from polyact.exporting.onnx.graph import Graph, Shape, Value, declared, undeclared

Run = Callable[[Graph, Any, Sequence[Value]], list[Value]]  # the outputs of a closed program


def scan(graph: Graph, values: Sequence[Value], equation: Any, run: Run) -> list[Value]:
    consts, carries = equation.params["num_consts"], equation.params["num_carry"]
    inner, reverse = equation.params["jaxpr"], int(equation.params["reverse"])
    start = [graph.whole(value, atom.aval.shape) for value, atom in zip(values, equation.invars, strict=True)][consts:]
    body = Graph(graph)
    avals = [variable.aval for variable in inner.jaxpr.invars][consts:]
    given = [Value(aval.shape, np.dtype(aval.dtype), graph.fresh("step")) for aval in avals]
    results = run(body, inner, [*values[:consts], *given])
    names = [_output(body, value, variable.aval) for value, variable in zip(results, inner.jaxpr.outvars, strict=True)]
    if len(given) == carries:  # the length of a Scan is that of what it walks along: here of a row of numbers that nothing reads
        start.append(Value.known(np.arange(equation.params["length"])))
        given.append(Value((), start[-1].dtype, graph.fresh("step")))
    inputs = [declared(value.name, value.shape, value.dtype) for value in given]
    outputs = [undeclared(name, variable.aval.dtype) for name, variable in zip(names, inner.jaxpr.outvars, strict=True)]
    rows, columns = len(given) - carries, len(results) - carries
    made = graph.ops(
        "Scan",
        [graph.name(value) for value in start],
        len(results),
        body=helper.make_graph(body.nodes, graph.fresh("body"), inputs, outputs),
        num_scan_inputs=rows,
        scan_input_directions=[reverse] * rows,
        **({"scan_output_directions": [reverse] * columns} if columns else {}),
    )
    return _values(equation, made)


def loop(graph: Graph, values: Sequence[Value], equation: Any, run: Run) -> list[Value]:
    asks, does = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    cond, inner = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    asked, fixed = values[:asks], values[asks : asks + does]
    carried = equation.invars[asks + does :]
    start = [graph.whole(value, atom.aval.shape) for value, atom in zip(values[asks + does :], carried, strict=True)]
    each = cond.jaxpr.outvars[0].aval.shape  # of a batch whose rows go on for different times, whether each does
    (first,) = run(graph, cond, [*asked, *start])
    body = Graph(graph)
    count, going = graph.fresh("count"), graph.fresh("going")
    given = [Value(atom.aval.shape, np.dtype(atom.aval.dtype), graph.fresh("state")) for atom in carried]
    results = run(body, inner, [*fixed, *given])
    if each:
        results = _still(body, run(body, cond, [*asked, *given])[0], each, results, given)
    (again,) = run(body, cond, [*asked, *results])
    names = [_any(body, again, each), *(_output(body, value, atom.aval) for value, atom in zip(results, carried, strict=True))]
    inputs = [declared(count, (), np.int64), declared(going, (), bool), *(declared(v.name, v.shape, v.dtype) for v in given)]
    outputs = [undeclared(name, dtype) for name, dtype in zip(names, [bool, *(v.dtype for v in given)], strict=True)]
    inside = helper.make_graph(body.nodes, graph.fresh("body"), inputs, outputs)
    return _values(equation, graph.ops("Loop", ["", _any(graph, first, each), *map(graph.name, start)], len(given), body=inside))


def _any(graph: Graph, value: Value, shape: Shape) -> str:
    """Whether any entry is true, as a name of the graph's own."""
    name = graph.name(graph.whole(value, shape))
    if not shape:
        return graph.op("Identity", name)
    return graph.cast(graph.op("ReduceMax", graph.cast(name, np.int32), keepdims=0), bool)


def _still(body: Graph, goes: Value, shape: Shape, after: Sequence[Value], before: Sequence[Value]) -> list[Value]:
    """The states of the rows that go on after a step, of the others before it."""
    kept = []
    for new, old in zip(after, before, strict=True):
        rows = reshaped(body, body.whole(goes, shape), (*shape, *[1] * (len(old.shape) - len(shape))))
        name = body.where(body.name(rows), body.name(body.whole(new, old.shape)), old.name, old.dtype)
        kept.append(Value(old.shape, old.dtype, name))
    return kept


def branch(graph: Graph, values: Sequence[Value], equation: Any, run: Run) -> list[Value]:
    which, *operands = values
    return _values(equation, _chosen(graph, which, equation.params["branches"], operands, equation, run))


def _chosen(graph: Graph, which: Value, branches: Sequence[Any], operands: list[Value], equation: Any, run: Run) -> list[str]:
    """The first branch where `which` is at most 0, else one of the others."""
    zero = graph.constant(np.zeros((), which.dtype)) if which.dtype != bool else ""
    first = graph.op("LessOrEqual", graph.name(which), zero) if zero else graph.op("Not", graph.name(which))
    graphs = []
    for later in (False, True):
        body = Graph(graph)
        if later and len(branches) > 2:
            lower = Value((), which.dtype, body.op("Sub", body.name(which), body.constant(np.ones((), which.dtype))))
            names = _chosen(body, lower, branches[1:], operands, equation, run)
        else:
            results = run(body, branches[int(later)], operands)
            names = [_output(body, value, variable.aval) for value, variable in zip(results, equation.outvars, strict=True)]
        outputs = [undeclared(name, variable.aval.dtype) for name, variable in zip(names, equation.outvars, strict=True)]
        graphs.append(helper.make_graph(body.nodes, graph.fresh("branch"), [], outputs))
    return graph.ops("If", [first], len(equation.outvars), then_branch=graphs[0], else_branch=graphs[1])


def _output(body: Graph, value: Value, aval: Any) -> str:
    """A name of the body's own for one of its outputs."""
    return body.op("Identity", body.name(body.whole(value, aval.shape)))


def _values(equation: Any, names: Sequence[str]) -> list[Value]:
    return [Value(v.aval.shape, np.dtype(v.aval.dtype), name) for v, name in zip(equation.outvars, names, strict=True)]


CONTROL = {"scan": scan, "while": loop, "cond": branch}
