"""What is done with the equations of JAX's programs, whatever they are translated into."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.core
from jax.extend import core

# Equations that only hold a program, and the name under which they hold it.
INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}


def evaluated(equation: Any, inputs: Sequence[Any], *, at_once: bool) -> list[Any]:
    """What one equation makes of arrays; `at_once` also within a program that is being traced, where all of them are known."""
    given = {atom: value for atom, value in zip(equation.invars, inputs, strict=True) if not isinstance(atom, core.Literal)}
    kept = [variable for variable in equation.outvars if not isinstance(variable, core.DropVar)]
    program = core.ClosedJaxpr(core.Jaxpr((), list(given), kept, [equation], equation.effects), ())
    known = not any(isinstance(value, jax.core.Tracer) for value in given.values())
    with jax.ensure_compile_time_eval() if known and at_once else nullcontext():
        results = iter(core.jaxpr_as_fun(program)(*given.values()))
    return [None if isinstance(variable, core.DropVar) else next(results) for variable in equation.outvars]


def needed(jaxpr: core.Jaxpr) -> list[Any]:
    """The equations that the outputs of a program depend on, in order."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return kept[::-1]
