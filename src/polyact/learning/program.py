"""From one step to a compiled program over an interval, and from that to a fleet of seeds."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from polyact.learning.fleet import (
    BatchFleet,
    Carry,
    Driver,
    Fleet,
    Summary,
    ThreadFleet,
    accumulate,
    empty_summary,
    one_program_each,
)

Count = Int[Array, ""]
Advance = Callable[[PyTree, Carry, PRNGKeyArray, Count, Count], tuple[Carry, Summary]]


def repeat(one: Callable[[Any, Carry], tuple[Carry, Any]], state: Carry, first: Count, count: Count) -> tuple[Carry, Summary]:
    """`state, metrics = one(i, state)` for i = first .. first + count - 1, as a loop in one program."""
    arrays, static = eqx.partition(state, eqx.is_array)

    @jax.jit  # traced once for the metrics' names and for the loop
    def step(i: Any, arrays: Carry) -> tuple[Carry, Any]:
        state, metrics = one(i, eqx.combine(arrays, static))
        return eqx.filter(state, eqx.is_array), metrics

    structure = jax.eval_shape(step, first, arrays)[1]

    def body(i: Any, carry: Any) -> Any:
        arrays, metrics = step(i, carry[0])
        return arrays, accumulate(carry[1], metrics, i)

    arrays, summary = jax.lax.fori_loop(first, first + count, body, (arrays, empty_summary(structure)))
    return eqx.combine(arrays, static), summary


def fleet_of(advance: Advance, problem: PyTree, states: list[Carry], keys: list[PRNGKeyArray]) -> Fleet:
    """Every seed carried by `advance(problem, state, key, first, count)`, compiled once, and not again for another run of these shapes."""
    if one_program_each(len(keys)):
        compiled = program(advance, problem, states[0], keys[0], as_count(0), as_count(0))

        def driver(key: PRNGKeyArray) -> Driver:
            return lambda state, first, count: compiled(problem, state, key, as_count(first), as_count(count))

        return ThreadFleet([driver(key) for key in keys], states)
    together = eqx.filter_jit(eqx.filter_vmap(advance, in_axes=(None, eqx.if_array(0), 0, None, None)))
    stacked = jnp.stack(keys)
    return BatchFleet(lambda state, first, count: together(problem, state, stacked, as_count(first), as_count(count)), states)


_PROGRAMS: OrderedDict[Any, Any] = OrderedDict()
_KEPT = 64
_COMPILING = Lock()


def program(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` compiled for arguments like these; kept, so that a second run of the same shapes and settings starts at once."""
    arrays, still = pack(arguments)
    like = function, still, tuple(jax.typeof(array) for array in arrays)
    with _COMPILING:
        if like not in _PROGRAMS:
            _PROGRAMS[like] = _compiled(eqx.filter_jit(function).lower(*arguments))
        _PROGRAMS.move_to_end(like)
        while len(_PROGRAMS) > _KEPT:
            _PROGRAMS.popitem(last=False)
        return _PROGRAMS[like]


# In jaxlib 0.10 matrix products on a CPU go to YNNPACK; here only convolutions do. In loops of updates its products keep one core busy:
# without it an update of CQL, TD3+BC and IQL takes 0.81, 0.82 and 0.88 of the time (width 256, batch 256, two cores).
WITHOUT_YNN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}


def _compiled(lowered: Any) -> Any:
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=WITHOUT_YNN)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()  # an older jaxlib, which has no such library


def release_programs(unless_fewer_maps_than: int = 0) -> None:
    """Drop the compiled programs of this process. Linux allows a process 65,530 memory maps, every program takes about six, and XLA
    crashes when none is left: whoever compiles thousands of programs calls this now and then, here only from so many maps on.
    """
    maps = Path("/proc/self/maps")
    if unless_fewer_maps_than and (not maps.exists() or maps.read_bytes().count(b"\n") < unless_fewer_maps_than):
        return
    with _COMPILING:
        _PROGRAMS.clear()
    jax.clear_caches()


def as_count(number: int) -> Count:
    """A Python number as what a compiled program takes, so that another number is not another program."""
    return jnp.asarray(np.int32(number))


class Still:
    """All of a pytree that is not an array, hashed once: as a static argument of `jax.jit` it costs nothing per call."""

    def __init__(self, treedef: Any, leaves: tuple[Any, ...]):
        self.treedef, self.leaves = treedef, leaves
        self.hash = hash((treedef, leaves))

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Still) and (self.treedef, self.leaves) == (other.treedef, other.leaves))


def pack(tree: PyTree) -> tuple[list[Array], Still]:
    """The arrays of a pytree as a list, and the rest: for loops on the host, where flattening modules at every call is what takes time."""
    leaves, treedef = jax.tree.flatten(tree)
    return [x for x in leaves if eqx.is_array(x)], Still(treedef, tuple(None if eqx.is_array(x) else x for x in leaves))


def unpack(arrays: list[Array], still: Still) -> PyTree:
    """Inverse of `pack`."""
    rest = iter(arrays)
    return jax.tree.unflatten(still.treedef, [next(rest) if leaf is None else leaf for leaf in still.leaves])
