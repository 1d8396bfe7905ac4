"""A whole policy as one pure function of named arrays: observation, memory, reset and random numbers in, action and memory out.

All arrays have a leading axis, the batch. Where `reset` is true an episode starts: what stands in the memory inputs is then ignored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.errors import PolyactError
from polyact.exporting.noise import Draw, drawn, draws_of, with_noise
from polyact.policies.base import ChunkPolicy, Policy
from polyact.policies.fitting import bodies
from polyact.spaces import Space

OBSERVATION, MEMORY, RESET, NOISE, START_NOISE = "observation", "memory", "reset", "noise", "start_noise"
ACTION, ACTIONS, NEXT = "action", "actions", "next_"


@dataclass(frozen=True)
class Slot:
    """One array that goes in or comes out: its name, its shape without the batch, its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    draw: Draw | None = None  # of random numbers: what they are


@dataclass(frozen=True)
class Program:
    """A policy as `function`, which takes a list of arrays [B, ...] as `inputs` names them and gives a list as `outputs` does.

    chunk: the action output holds a whole chunk of actions [B, H, ...].
    """

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    function: Callable[[Sequence[Array]], list[Array]]
    observation_space: Space
    action_space: Space
    chunk: bool

    def noise(self, act_key: PRNGKeyArray, start_key: PRNGKeyArray) -> dict[str, Array]:
        """The random numbers that the policy itself would draw from these keys in `act` and in `start`."""
        keys = {NOISE: act_key, START_NOISE: start_key}
        return {slot.name: drawn(slot.draw, keys[slot.name.split(".")[0]]) for slot in self.inputs if slot.draw is not None}


def program_of(policy: Policy, observation_space: Space, action_space: Space, *, chunk: bool = False) -> Program:
    """The policy that acts in these spaces; with `chunk` it gives out whole chunks of actions.

    Raises PolyactError when it plans no chunks, or treats its random numbers in a way that no input can stand for.
    """
    if chunk and not isinstance(policy, ChunkPolicy):
        raise PolyactError(f"{type(policy).__name__} plans no chunks of actions")

    def act(key: PRNGKeyArray, observation: Any, memory: Any) -> Any:
        does = policy.chunk if isinstance(policy, ChunkPolicy) and chunk else policy.act
        return does(observation, memory, key)

    key = jax.random.key(0)
    seen, memory = shapes(observation_space), jax.eval_shape(policy.start, key)
    acting, starting = draws_of(act, seen, memory), draws_of(policy.start)
    remembers = bool(jax.tree.leaves(memory))
    inputs = (
        *slots(OBSERVATION, seen),
        *slots(MEMORY, memory),
        *((Slot(RESET, (), np.dtype(bool)),) if remembers else ()),
        *_drawing(NOISE, acting),
        *_drawing(START_NOISE, starting),
    )

    def one(*leaves: Array) -> list[Any]:
        given = dict(zip((slot.name for slot in inputs), leaves, strict=True))
        observation, before = tree_of(OBSERVATION, seen, given), tree_of(MEMORY, memory, given)
        if remembers:
            fresh = with_noise(policy.start, _noise(START_NOISE, starting, given))
            before = jax.tree.map(lambda new, old: jnp.where(given[RESET], new, old), fresh, before)
        return jax.tree.leaves(with_noise(act, _noise(NOISE, acting, given), observation, before))

    action, after = jax.eval_shape(act, key, seen, memory)
    outputs = (*slots(ACTIONS if chunk else ACTION, action), *slots(NEXT + MEMORY, after))
    return Program(inputs, outputs, lambda arrays: jax.vmap(one)(*arrays), observation_space, action_space, chunk)


def shapes(space: Space) -> PyTree:
    """The arrays of one value of a space, as shapes and dtypes."""
    match space:
        case spaces.Dict():
            return {name: shapes(part) for name, part in space.items}
        case spaces.Tuple():
            return tuple(map(shapes, space.spaces))
        case spaces.Text():
            raise PolyactError("a policy that reads text can't be exported; encode text into numbers first")
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))  # pyright: ignore


def spaces_of(policy: Policy, env: Any = None) -> tuple[Space, Space]:
    """What a policy observes and does: as its body says, or else as the environment's spaces. PolyactError when neither does."""
    found = {(body.observation_space, body.action_space) for body in bodies(policy)}
    if env is not None and len(found) != 1:
        return env.observation_space, env.action_space
    if len(found) == 1:
        return found.pop()
    raise PolyactError(
        f"{type(policy).__name__} has {len(found)} bodies and does not say its spaces; name an environment that has them"
    )


def slots(root: str, tree: PyTree) -> tuple[Slot, ...]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return tuple(Slot(".".join([root, *map(_part, path)]), leaf.shape, np.dtype(leaf.dtype)) for path, leaf in leaves)


def _part(entry: Any) -> str:
    for field in ("name", "key", "idx"):
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


def _drawing(root: str, draws: Sequence[Draw]) -> tuple[Slot, ...]:
    given = [draw for draw in draws if np.prod(draw.shape)]
    return tuple(Slot(f"{root}.{place}", draw.shape, draw.dtype, draw) for place, draw in enumerate(given))


def _noise(root: str, draws: Sequence[Draw], given: dict[str, Array]) -> dict[Draw, Array]:
    nothing = {draw: jnp.zeros(draw.shape, draw.dtype) for draw in draws if not np.prod(draw.shape)}
    return nothing | {slot.draw: given[slot.name] for slot in _drawing(root, draws) if slot.draw is not None}


def tree_of(root: str, like: PyTree, given: dict[str, Array]) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(like), [given[slot.name] for slot in slots(root, like)])
