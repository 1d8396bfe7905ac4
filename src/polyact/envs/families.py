"""Families of worlds: the same environment with other physics, one or many at once.

An environment is a pytree of physical parameters, so changing one is an edit of a leaf and a family is the same pytree with a
leading axis. `perturb` makes one changed world, `randomise` and `family` make many; `reset_many` and `step_many` run them side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray

from polyact.envs.base import Env
from polyact.errors import PolyactError, unknown
from polyact.spaces import Space

Range = tuple[Any, Any] | Callable[[PRNGKeyArray], Any]


class Family(eqx.Module):
    """Environments of one kind side by side: every array leaf of `members` has a leading axis of length `count`.

    Raises PolyactError when the leaves disagree about that length. Under `vmap` the members are ordinary environments:
    `jax.vmap(lambda env, key: env.reset(key))(family.members, keys)`.
    """

    members: Env

    def __check_init__(self):
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(self.members)]
        lengths = {shape[0] if shape else None for shape in shapes}
        if len(lengths) != 1 or None in lengths:
            raise PolyactError(
                f"a family of {type(self.members).__name__} needs one leading axis on every array leaf, got leaves of shapes "
                f"{sorted(set(shapes))}"
            )

    @property
    def count(self) -> int:
        return jax.tree.leaves(self.members)[0].shape[0]

    @property
    def observation_space(self) -> Space:
        return self.members.observation_space

    @property
    def action_space(self) -> Space:
        return self.members.action_space

    @property
    def horizon(self) -> int:
        return self.members.horizon

    def member(self, index: int) -> Env:
        """The environment at one place of the family."""
        return jax.tree.map(lambda leaf: leaf[index], self.members)

    def spread(self, count: int) -> "Family":
        """`count` places taken by the members in turn, so that more episodes than members can run at once."""
        turn = jnp.arange(count) % self.count
        return Family(jax.tree.map(lambda leaf: leaf[turn], self.members))


def family(members: Sequence[Env]) -> Family:
    """Environments of one class, and with the same static fields, as a family. Raises PolyactError when they differ."""
    if not members:
        raise PolyactError("a family needs at least one environment")
    first = jax.tree.structure(members[0])
    for place, member in enumerate(members[1:], 1):
        if jax.tree.structure(member) != first:
            difference = f"number {place} is {member}, number 0 is {members[0]}"
            raise PolyactError(f"the environments of a family may differ only in array leaves: {difference}")
    return Family(jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *members))


def parameters(env: Env) -> dict[str, Any]:
    """The physical parameters by name, in the order of the leaves: every numeric leaf, nested ones dotted ("body.mass").

    Parameters of a wrapped environment carry the names they have without the wrappers; where two layers share a name the outer one
    has it, and the inner one is reached by its full path ("env.scale").
    """
    paths = jax.tree_util.tree_leaves_with_path(env)
    full = [
        ".".join(str(getattr(part, "name", getattr(part, "key", getattr(part, "idx", part)))) for part in path) for path, _ in paths
    ]
    short: dict[str, str] = {}
    for name in sorted(full, key=len):
        bare = name
        while bare.startswith("env."):
            bare = bare.removeprefix("env.")
        short[name] = name if bare in short.values() else bare
    return {short[name]: leaf for name, (_, leaf) in zip(full, paths, strict=True)}


def perturb(env: Env, changes: Mapping[str, Any] | None = None, /, **values: Any) -> Env:
    """The environment with some parameters changed: `perturb(env, mass=1.3)` or `perturb(env, {"body.mass": 1.3})`.

    Values become arrays, so worlds that differ in them share one compiled program. Raises PolyactError for an unknown name (with the
    nearest match), a value that does not have the parameter's shape, or one that is not finite.
    """
    known = parameters(env)
    changed = {name: _fitting(name, value, _lookup(env, name)) for name, value in (dict(changes or {}) | values).items()}
    return _with(env, {name: jnp.asarray(changed.get(name, leaf)) for name, leaf in known.items()})


def randomise(env: Env, ranges: Mapping[str, Range], key: PRNGKeyArray, count: int) -> Family:
    """`count` environments with parameters drawn independently.

    ranges: parameter name -> (low, high), drawn uniformly (each entry of an array parameter on its own; whole numbers include
    high), or a function of a key that draws the value. Raises PolyactError as `perturb` does, and for a low above its high.
    """
    drawn = {}
    for name, stream in zip(ranges, jax.random.split(key, len(ranges)) if ranges else (), strict=True):
        draw = _drawing(name, ranges[name], _lookup(env, name))
        drawn[name] = jax.vmap(draw)(jax.random.split(stream, count))
    return _many(env, drawn, count)


def grid(env: Env, axes: Mapping[str, Sequence[Any]]) -> Family:
    """Every combination of the given parameter values, the last name varying fastest: the family behind a robustness map."""
    for name, values in axes.items():
        if not len(values):
            raise PolyactError(f"the grid has no values for '{name}'")
    fitted = {name: jnp.stack([_fitting(name, v, _lookup(env, name)) for v in values]) for name, values in axes.items()}
    places = np.indices([len(values) for values in axes.values()]).reshape(len(axes), -1)
    return _many(env, {n: values[place] for (n, values), place in zip(fitted.items(), places, strict=True)}, places.shape[1])


def _many(env: Env, values: dict[str, Any], count: int) -> Family:
    def repeated(leaf: Any) -> Any:
        return jnp.broadcast_to(jnp.asarray(leaf), (count, *np.shape(leaf)))

    return Family(_with(env, {n: values[n] if n in values else repeated(leaf) for n, leaf in parameters(env).items()}))


def _with(env: Env, leaves: dict[str, Any]) -> Env:
    return jax.tree.unflatten(jax.tree.structure(env), list(leaves.values()))


def _lookup(env: Env, name: str) -> Any:
    known = parameters(env)
    if name in known:
        return known[name]
    layer = env
    while not hasattr(layer, name) and hasattr(layer, "env"):
        layer = layer.env  # pyright: ignore[reportAttributeAccessIssue]
    if name in (field.name for field in fields(layer)):
        raise PolyactError(f"'{name}' of {type(layer).__name__} is fixed when it is made; parameters: {', '.join(sorted(known))}")
    raise unknown(f"parameter of {type(env).__name__}", name, known)


def _fitting(name: str, value: Any, old: Any) -> Any:
    """`value` as an array of the parameter's own type."""
    if np.shape(value) != np.shape(old):
        raise PolyactError(f"parameter '{name}' has shape {np.shape(old)}, got a value of shape {np.shape(value)}")
    if not isinstance(value, Tracer) and not np.all(np.isfinite(value)):
        raise PolyactError(f"parameter '{name}' must be finite, got {value}")
    return jnp.asarray(value, jnp.asarray(old).dtype)


def _drawing(name: str, bounds: Range, old: Any) -> Callable[[Any], Any]:
    if callable(bounds):
        return lambda key: _fitting(name, bounds(key), old)
    low, high = (_fitting(name, np.broadcast_to(bound, np.shape(old)), old) for bound in bounds)
    if np.any(low > high):
        raise PolyactError(f"parameter '{name}' can't be drawn between {low} and {high}: low is above high")
    if jnp.issubdtype(low.dtype, jnp.integer):
        return lambda key: jax.random.randint(key, low.shape, low, high + 1, low.dtype)
    return lambda key: jax.random.uniform(key, low.shape, low.dtype, low, high)
