"""Operations on every entry of arrays by itself, in ONNX. `ELEMENTWISE` has a function (graph, names, equation) -> name for each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyact.exporting.onnx.graph import Graph

Rule = Callable[[Graph, Sequence[str], Any], str]


def _plain(kind: str, **attributes: Any) -> Rule:
    return lambda graph, names, equation: graph.op(kind, *names, **attributes)


def _same(graph: Graph, names: Sequence[str], equation: Any) -> str:
    return names[0]


def _not_of(kind: str) -> Rule:
    return lambda graph, names, equation: graph.op("Not", graph.op(kind, *names))


def _kind_of(boolean: str, integer: str) -> Rule:
    def rule(graph: Graph, names: Sequence[str], equation: Any) -> str:
        return graph.op(boolean if _dtype(equation).kind == "b" else integer, *names)

    return rule


def _dtype(equation: Any) -> np.dtype:
    return np.dtype(equation.invars[0].aval.dtype)


def _number(graph: Graph, equation: Any, value: float) -> str:
    return graph.constant(np.asarray(value, _dtype(equation)))


def _compare(kind: str) -> Rule:
    def rule(graph: Graph, names: Sequence[str], equation: Any) -> str:
        if _dtype(equation).kind == "b" or _dtype(equation).itemsize < 4:
            names = [graph.cast(name, np.int32) for name in names]
        return graph.op(kind, *names)

    return rule


def _cast(graph: Graph, names: Sequence[str], equation: Any) -> str:
    new = np.dtype(equation.params["new_dtype"])
    return names[0] if new == _dtype(equation) else graph.cast(names[0], new)


def _extreme(kind: str) -> Rule:
    """The larger or smaller; of truth values or and and."""
    boolean = {"Max": "Or", "Min": "And"}[kind]
    return lambda graph, names, equation: graph.op(boolean if _dtype(equation).kind == "b" else kind, *names)


def _rsqrt(graph: Graph, names: Sequence[str], equation: Any) -> str:
    return graph.op("Reciprocal", graph.op("Sqrt", names[0]))


def _square(graph: Graph, names: Sequence[str], equation: Any) -> str:
    return graph.op("Mul", names[0], names[0])


def _integer_pow(graph: Graph, names: Sequence[str], equation: Any) -> str:
    """By repeated squaring, which is exact where the result is."""
    power, base, result = abs(equation.params["y"]), names[0], ""
    while power:
        if power & 1:
            result = graph.op("Mul", result, base) if result else base
        power >>= 1
        base = graph.op("Mul", base, base) if power else base
    result = result or graph.op("Add", graph.op("Sub", base, base), _number(graph, equation, 1))
    return graph.op("Reciprocal", result) if equation.params["y"] < 0 else result


def _pow(graph: Graph, names: Sequence[str], equation: Any) -> str:
    base, power = names
    return graph.op(
        "Pow", base, power if equation.invars[1].aval.dtype == _dtype(equation) else graph.cast(power, _dtype(equation))
    )


def _log1p(graph: Graph, names: Sequence[str], equation: Any) -> str:
    """log(1 + x) without the loss of small x: x log(u) / (u - 1) with u = 1 + x as it was rounded (Kahan)."""
    x, one = names[0], _number(graph, equation, 1)
    u = graph.op("Add", x, one)
    log = graph.op("Log", u)
    better = graph.op("Mul", log, graph.op("Div", x, graph.op("Sub", u, one)))
    chosen = graph.op("Where", graph.op("IsInf", u), log, better)
    return graph.op("Where", graph.op("Equal", u, one), x, chosen)


def _expm1(graph: Graph, names: Sequence[str], equation: Any) -> str:
    """exp(x) - 1 without the loss of small x: (u - 1) x / log(u) with u = exp(x) as it was rounded (Kahan)."""
    x, one = names[0], _number(graph, equation, 1)
    u = graph.op("Exp", x)
    less = graph.op("Sub", u, one)
    better = graph.op("Mul", less, graph.op("Div", x, graph.op("Log", u)))
    extreme = graph.op("Or", graph.op("IsInf", u), graph.op("Equal", less, _number(graph, equation, -1)))
    return graph.op("Where", graph.op("Equal", u, one), x, graph.op("Where", extreme, less, better))


def _atan2(graph: Graph, names: Sequence[str], equation: Any) -> str:
    """From atan of the smaller over the larger, moved to the right eighth of the circle. At (0, 0) it is 0, or pi for x = -0."""
    y, x = names
    zero, one = _number(graph, equation, 0), _number(graph, equation, 1)
    high, low = graph.op("Max", *(sides := [graph.op("Abs", y), graph.op("Abs", x)])), graph.op("Min", *sides)
    safe = graph.op("Where", graph.op("Equal", high, zero), one, high)
    both = graph.op("And", graph.op("IsInf", low), graph.op("IsInf", high))
    angle = graph.op("Atan", graph.op("Where", both, one, graph.op("Div", low, safe)))
    steep = graph.op("Greater", sides[0], sides[1])
    angle = graph.op("Where", steep, graph.op("Sub", _number(graph, equation, np.pi / 2), angle), angle)
    left = graph.op("Less", graph.op("Where", graph.op("Equal", x, zero), graph.op("Reciprocal", x), x), zero)
    angle = graph.op("Where", left, graph.op("Sub", _number(graph, equation, np.pi), angle), angle)
    below = graph.op("Less", graph.op("Where", graph.op("Equal", y, zero), graph.op("Reciprocal", y), y), zero)
    return graph.op("Where", below, graph.op("Neg", angle), angle)


def _finite(graph: Graph, names: Sequence[str], equation: Any) -> str:
    return graph.op("Not", graph.op("Or", graph.op("IsInf", names[0]), graph.op("IsNaN", names[0])))


def _select(graph: Graph, names: Sequence[str], equation: Any) -> str:
    which, *cases = names
    dtype = equation.outvars[0].aval.dtype
    if _dtype(equation).kind == "b":
        return graph.where(which, cases[1], cases[0], dtype)
    chosen = cases[0]
    for number, case in enumerate(cases[1:], 1):
        chosen = graph.where(graph.op("Equal", which, graph.constant(np.asarray(number, _dtype(equation)))), case, chosen, dtype)
    return chosen


def _clamp(graph: Graph, names: Sequence[str], equation: Any) -> str:
    low, x, high = names
    return graph.op("Min", graph.op("Max", x, low), high)


def _round(graph: Graph, names: Sequence[str], equation: Any) -> str:
    if "EVEN" in str(equation.params["rounding_method"]):
        return graph.op("Round", names[0])
    half = graph.op("Floor", graph.op("Add", graph.op("Abs", names[0]), _number(graph, equation, 0.5)))
    return graph.op("Mul", graph.op("Sign", names[0]), half)


ELEMENTWISE: dict[str, Rule] = {
    "add": _plain("Add"),
    "add_any": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "rem": _plain("Mod", fmod=1),
    "max": _extreme("Max"),
    "min": _extreme("Min"),
    "neg": _plain("Neg"),
    "abs": _plain("Abs"),
    "sign": _plain("Sign"),
    "floor": _plain("Floor"),
    "ceil": _plain("Ceil"),
    "round": _round,
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "log1p": _log1p,
    "expm1": _expm1,
    "sqrt": _plain("Sqrt"),
    "rsqrt": _rsqrt,
    "square": _square,
    "pow": _pow,
    "integer_pow": _integer_pow,
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "tan": _plain("Tan"),
    "asin": _plain("Asin"),
    "acos": _plain("Acos"),
    "atan": _plain("Atan"),
    "atan2": _atan2,
    "tanh": _plain("Tanh"),
    "logistic": _plain("Sigmoid"),
    "erf": _plain("Erf"),
    "is_finite": _finite,
    "eq": _plain("Equal"),
    "ne": _not_of("Equal"),
    "lt": _compare("Less"),
    "lt_to": _compare("Less"),
    "le": _compare("LessOrEqual"),
    "le_to": _compare("LessOrEqual"),
    "gt": _compare("Greater"),
    "ge": _compare("GreaterOrEqual"),
    "and": _kind_of("And", "BitwiseAnd"),
    "or": _kind_of("Or", "BitwiseOr"),
    "xor": _kind_of("Xor", "BitwiseXor"),
    "not": _kind_of("Not", "BitwiseNot"),
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _cast,
    "stop_gradient": _same,
    "copy": _same,
    "copy_p": _same,
    "optimization_barrier": _same,
    "reduce_precision": _same,
}
