"""Random numbers as inputs: a function of a key becomes a function of the numbers that it would draw.

A runtime that knows nothing of JAX's keys can then run it, with numbers of its own making; zeros for normal numbers are often the most
likely action. Keys are followed through the function as expressions of the one it was given, so that two draws from one key stay one
input, as they are one value in the original.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.exporting.equations import INLINED, evaluated

Path = tuple[int, ...]  # where an equation stands: its number, after the numbers of the equations that it stands in
Expression = tuple[Any, ...]
MOST_BOUNDS = 64
ROOT: Expression = ("root",)


@dataclass(frozen=True)
class Keys:
    """An array of keys, each as an expression of the key that the function was given."""

    expressions: np.ndarray  # of objects

    @classmethod
    def of(cls, shape: tuple[int, ...], expressions: Sequence[Expression]) -> "Keys":
        array = np.empty(len(expressions), object)
        array[:] = expressions
        return cls(array.reshape(shape))

    @property
    def flat(self) -> tuple[Expression, ...]:
        return tuple(self.expressions.reshape(-1))


@dataclass(frozen=True)
class Draw:
    """Random numbers that a function asks for: independent ones, "normal" (standard) or "uniform" in [0, 1).

    keys: what they are drawn from, one expression per leading entry of `shape` (of `own` entries each). Numbers of a loop's steps have
    a further leading axis: `each` says what a step's own keys are.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype
    keys: tuple[Expression, ...]
    own: tuple[int, ...]
    bounds: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # of the integers that uniform numbers are turned into
    each: tuple[tuple[Path, tuple[tuple[Expression, ...], ...]], ...] = field(default=())


class Source:
    """What answers draws: the first pass notes them, the second hands out what it was given."""

    def __init__(self, given: dict[Draw, Array] | None = None):
        self.given = given
        self.draws: dict[Draw, None] = {}

    def take(self, draw: Draw) -> Array:
        self.draws[draw] = None
        return jnp.zeros(draw.shape, draw.dtype) if self.given is None else self.given[draw]


def draws_of(function: Callable, *arguments: Any) -> list[Draw]:
    """What `function(key, *arguments)` draws, in the order in which it does; arguments are arrays or their shapes.

    Raises PolyactError when it does with keys what no input can stand for.
    """
    source = Source()
    jax.eval_shape(lambda *values: _evaluate(function, source, *values), *arguments)
    return list(source.draws)


def with_noise(function: Callable, noise: dict[Draw, Array], *arguments: Any) -> Any:
    """`function(key, *arguments)` with these numbers in place of what it draws from a key."""
    return _evaluate(function, Source(noise), *arguments)


def drawn(draw: Draw, key: PRNGKeyArray) -> Array:
    """The numbers that the original would have drawn from this key. PolyactError when that depends on more than the key."""
    return _drawn(draw, len(draw.each), {ROOT: key})


def _drawn(draw: Draw, depth: int, known: dict[Expression, PRNGKeyArray]) -> Array:
    if depth:
        path, steps = draw.each[depth - 1]
        names = list(_names(draw, path))
        rows = []
        for step in steps:
            own = {name: _value(step[name[2]], known) for name in names}
            rows.append(_drawn(draw, depth - 1, known | own))
        return jnp.stack(rows)
    values = [_sample(draw, _value(expression, known)) for expression in draw.keys]
    count = len(draw.each)
    return jnp.stack(values).reshape(draw.shape[count:])


def _names(draw: Draw, path: Path) -> Iterator[Expression]:
    seen = set()
    expressions = [*draw.keys, *(e for _, steps in draw.each for step in steps for e in step)]
    for expression in expressions:
        for part in _parts(expression):
            if part[0] == "each" and part[1] == path and part not in seen:
                seen.add(part)
                yield part


def _sample(draw: Draw, key: PRNGKeyArray) -> Array:
    if draw.kind == "normal":
        return jax.random.normal(key, draw.own, draw.dtype)
    if draw.bounds is None:
        return jax.random.uniform(key, draw.own, draw.dtype)
    low, high = (np.asarray(bound).reshape(draw.own if len(bound) > 1 else ()) for bound in draw.bounds)
    return (jax.random.randint(key, draw.own, low, high) - low + 0.5) / (high - low)


def _value(expression: Expression, known: dict[Expression, PRNGKeyArray]) -> PRNGKeyArray:
    if expression in known:
        return known[expression]
    match expression:
        case ("split", parent, shape, place):
            return jax.random.split(_value(parent, known), shape).reshape(-1)[place]
        case ("fold", parent, number):
            return jax.random.fold_in(_value(parent, known), number)
    raise PolyactError("these random numbers depend on more than the key")


def _parts(expression: Expression) -> Iterator[Expression]:
    yield expression
    if expression[0] in ("split", "fold"):
        yield from _parts(expression[1])


def _evaluate(function: Callable, source: Source, *arguments: Any) -> Any:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), arguments)
    key = jax.eval_shape(lambda: jax.random.key(0))
    closed, tree = jax.make_jaxpr(function, return_shape=True)(key, *shapes)
    leaves = [Keys.of((), [ROOT]), *jax.tree.leaves(arguments)]
    results = _run(closed.jaxpr, closed.consts, leaves, source, ())
    if any(isinstance(result, Keys) for result in results):
        raise PolyactError("a policy that remembers random keys can't have its random numbers as inputs")
    return jax.tree.unflatten(jax.tree.structure(tree), results)


def _run(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], source: Source, path: Path) -> list[Any]:
    """The outputs of a program whose arguments are arrays or `Keys`."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for number, equation in enumerate(jaxpr.eqns):
        inputs = [read(atom) for atom in equation.invars]
        outputs = _step(equation, inputs, source, (*path, number))
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation: Any, inputs: list[Any], source: Source, path: Path) -> Sequence[Any]:
    if not any(isinstance(value, Keys) for value in inputs):
        return evaluated(equation, inputs, at_once=_of_fixed_keys(equation) or _few_integers(equation))
    name = equation.primitive.name
    match name, equation.params.get("name"):
        case "jit" | "pjit", "_normal":
            return [_take("normal", inputs[0], equation, source)]
        case "jit" | "pjit", "_uniform":
            return [_uniform(equation, inputs, source)]
        case "jit" | "pjit", "_randint":
            return [_integers(equation, inputs, source)]
    if name in INLINED:
        inner = equation.params[INLINED[name]]
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, [])
        return _run(jaxpr, consts, inputs, source, path)
    match name:
        case "scan":
            return _scan(equation, inputs, source, path)
        case "cond":
            return _cond(equation, inputs, source, path)
        case "while":
            return _while(equation, inputs, source, path)
        case "random_split":
            shape = equation.params["shape"]
            count = int(np.prod(shape))
            split = [("split", key, shape, place) for key in inputs[0].flat for place in range(count)]
            return [Keys.of((*inputs[0].expressions.shape, *shape), split)]
        case "random_fold_in":
            return [_fold(equation, inputs[0], inputs[1], path)]
        case "random_bits" | "random_unwrap" | "random_wrap" | "threefry2x32":
            raise PolyactError("a policy that draws bits, permutations or shuffles can't have its random numbers as inputs")
    return _rearranged(equation, inputs, path)


def _of_fixed_keys(equation: Any) -> bool:
    """Whether keys are involved that a policy holds itself: what it draws from them is always the same."""
    atoms = [*equation.invars, *equation.outvars]
    return any(jnp.issubdtype(atom.aval.dtype, jax.dtypes.prng_key) for atom in atoms if hasattr(atom.aval, "dtype"))


def _few_integers(equation: Any) -> bool:
    """Whether the result may be the bounds between which integers are drawn, which must be known."""
    return all(v.aval.dtype.kind in "iu" and v.aval.size <= MOST_BOUNDS for v in equation.outvars if hasattr(v.aval, "size"))


def _take(kind: str, keys: Keys, equation: Any, source: Source, bounds: Any = None, dtype: Any = None) -> Array:
    aval = equation.outvars[0].aval
    shape = aval.shape
    own = shape[keys.expressions.ndim :]
    return source.take(Draw(kind, shape, np.dtype(dtype or aval.dtype), keys.flat, own, bounds))


def _uniform(equation: Any, inputs: list[Any], source: Source) -> Array:
    """The body of `jax.random.uniform` with numbers in [0, 1) in place of those that it makes of bits."""
    inner = equation.params["jaxpr"]
    values: dict[Any, Any] = dict(zip(inner.jaxpr.invars, inputs, strict=True))
    values |= dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
    making: set[Any] = set()
    for step in inner.jaxpr.eqns:
        variables = [atom for atom in step.invars if not isinstance(atom, core.Literal)]
        if step.primitive.name == "random_bits" or making.intersection(variables):
            if step.primitive.name == "sub":
                values[step.outvars[0]] = _take("uniform", inputs[0], step, source)
            else:
                making.update(step.outvars)
            continue
        read = [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in step.invars]
        values.update(zip(step.outvars, evaluated(step, read, at_once=False), strict=True))
    return values[inner.jaxpr.outvars[0]]


def _integers(equation: Any, inputs: list[Any], source: Source) -> Array:
    """Integers from uniform numbers: as likely as those of `jax.random.randint`, which makes them of bits in another way."""
    keys, low, high = inputs
    if any(isinstance(bound, jax.core.Tracer) for bound in (low, high)):
        raise PolyactError("a policy that draws integers between bounds that it computes can't have them as inputs")
    low, high = (np.asarray(bound) for bound in (low, high))
    bounds = (tuple(low.reshape(-1).tolist()), tuple(high.reshape(-1).tolist()))
    uniform = _take("uniform", keys, equation, source, bounds, np.float32)
    place = jnp.floor(uniform * (high - low).astype(np.float32)).astype(equation.outvars[0].aval.dtype)
    return jnp.asarray(low) + jnp.minimum(place, high - low - 1)


def _fold(equation: Any, keys: Keys, number: Any, path: Path) -> Keys:
    shape = equation.outvars[0].aval.shape
    if isinstance(number, jax.core.Tracer) or np.ndim(number):
        return _fresh(shape, path)
    return Keys.of(shape, [("fold", key, int(number)) for key in keys.flat])


def _fresh(shape: tuple[int, ...], path: Path) -> Keys:
    return Keys.of(shape, [("fresh", path, place) for place in range(int(np.prod(shape)))])


def _rearranged(equation: Any, inputs: list[Any], path: Path) -> list[Keys]:
    """Keys that are cut, joined or moved: the same done to their numbers says which went where."""
    if any(isinstance(value, jax.core.Tracer) for value in inputs):
        return [_fresh(variable.aval.shape, path) for variable in equation.outvars]
    pool: list[Expression] = []
    numbers = []
    for value in inputs:
        if isinstance(value, Keys):
            numbers.append(
                np.arange(len(pool), len(pool) + value.expressions.size, dtype=np.int32).reshape(value.expressions.shape)
            )
            pool.extend(value.flat)
        else:
            numbers.append(value)
    moved = [np.asarray(result) for result in evaluated(equation, numbers, at_once=True)]
    return [Keys.of(result.shape, [pool[place] for place in result.reshape(-1)]) for result in moved]


def _depends(draw: Draw, path: Path) -> bool:
    """Whether a draw differs from step to step of the loop that stands at `path`."""
    expressions = [*draw.keys, *(e for _, steps in draw.each for step in steps for e in step)]
    return any(part[0] in ("each", "fresh") and part[1][: len(path)] == path for e in expressions for part in _parts(e))


def _scan(equation: Any, inputs: list[Any], source: Source, path: Path) -> Sequence[Any]:
    consts, carries = equation.params["num_consts"], equation.params["num_carry"]
    inner, length, reverse = (equation.params[name] for name in ("jaxpr", "length", "reverse"))
    fixed, start, rows = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    if any(isinstance(value, Keys) for value in start):
        raise PolyactError("a policy that passes random keys from step to step of a loop can't have its random numbers as inputs")
    keyed = [row.expressions.reshape(length, -1) for row in rows if isinstance(row, Keys)]
    steps = tuple(tuple(e for row in keyed for e in row[t]) for t in range(length))
    plain = [row for row in rows if not isinstance(row, Keys)]

    def body(carry: Any, row: Any, inside: Source) -> tuple[Any, Any]:
        given, place, sliced = iter(row), 0, []
        for whole in rows:
            if isinstance(whole, Keys):
                shape = whole.expressions.shape[1:]
                count = int(np.prod(shape))
                sliced.append(Keys.of(shape, [("each", path, place + n) for n in range(count)]))
                place += count
            else:
                sliced.append(next(given))
        results = _run(inner.jaxpr, inner.consts, [*fixed, *carry, *sliced], inside, path)
        return results[:carries], results[carries:]

    plan = Source()
    first = [jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), jnp.asarray(row)) for row in plain]
    jax.eval_shape(lambda carry, row: body(carry, row, plan), start, first)
    shared = {draw: source.take(draw) for draw in plan.draws if not _depends(draw, path)}
    own = [draw for draw in plan.draws if _depends(draw, path)]
    stacked = [source.take(_stacked(draw, length, path, steps)) for draw in own]

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        numbers, plain_row = row
        return body(carry, plain_row, Source(shared | dict(zip(own, numbers, strict=True))))

    carry, outputs = jax.lax.scan(step, start, (stacked, plain), length=length, reverse=reverse)
    return [*carry, *outputs]


def _stacked(draw: Draw, length: int, path: Path, steps: tuple[tuple[Expression, ...], ...]) -> Draw:
    return Draw(draw.kind, (length, *draw.shape), draw.dtype, draw.keys, draw.own, draw.bounds, (*draw.each, (path, steps)))


def _cond(equation: Any, inputs: list[Any], source: Source, path: Path) -> Sequence[Any]:
    which, *operands = inputs
    keys = {place: value for place, value in enumerate(operands) if isinstance(value, Keys)}
    plain = [value for place, value in enumerate(operands) if place not in keys]

    def branch(inner: Any, values: Sequence[Any], inside: Source, number: int) -> list[Any]:
        rest = iter(values)
        everything = [keys[place] if place in keys else next(rest) for place in range(len(operands))]
        return _run(inner.jaxpr, inner.consts, everything, inside, (*path, number))

    branches = equation.params["branches"]
    plan = Source()
    for number, inner in enumerate(branches):
        jax.eval_shape(lambda *values, inner=inner, number=number: branch(inner, values, plan, number), *plain)
    given = {draw: source.take(draw) for draw in plan.draws}
    chosen = [
        lambda *values, inner=inner, number=number: branch(inner, values, Source(given), number)
        for number, inner in enumerate(branches)
    ]
    return jax.lax.switch(which, chosen, *plain)


def _while(equation: Any, inputs: list[Any], source: Source, path: Path) -> Sequence[Any]:
    asks, does = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    cond, inner = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    asked, fixed, start = inputs[:asks], inputs[asks : asks + does], inputs[asks + does :]
    plan = Source()
    if not any(isinstance(value, Keys) for value in [*asked, *start]):
        jax.eval_shape(lambda carry: _run(inner.jaxpr, inner.consts, [*fixed, *carry], plan, path), start)
    if any(isinstance(value, Keys) for value in [*asked, *start]) or any(_depends(draw, path) for draw in plan.draws):
        raise PolyactError("a policy that draws in a loop of unknown length can't have its random numbers as inputs")
    given = {draw: source.take(draw) for draw in plan.draws}
    return jax.lax.while_loop(
        lambda carry: _run(cond.jaxpr, cond.consts, [*asked, *carry], Source(given), path)[0],
        lambda carry: _run(inner.jaxpr, inner.consts, [*fixed, *carry], Source(given), path),
        start,
    )
