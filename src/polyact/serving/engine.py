"""A policy compiled for serving: one program per batch size, made before the first request, around a table of all sessions' memories."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.acting.streams import ACTOR, memory_key, step_key
from polyact.errors import PolyactError
from polyact.policies.base import ChunkPolicy, NoisePolicy, Policy
from polyact.policies.chunk_executor import RecedingHorizon
from polyact.policies.generative.guidance import continuing, continuing_weights
from polyact.serving.signature import Signature
from polyact.spaces import Space


@dataclass(frozen=True)
class Row:
    """One inference. slot: the session's row in the table of memories; fresh: it starts an episode.

    Randomness follows from seed, episode and tick as in `rollout` (episode number `episode` under the key of `seed`). previous [L, ...]:
    what will be done meanwhile, `delay` steps of it before the answer arrives; None: the chunk starts from nothing.
    """

    slot: int
    fresh: bool
    seed: int
    episode: int
    tick: int
    observation: list[np.ndarray]
    previous: np.ndarray | None = None
    delay: int = 0


class Engine:
    """Answers batches of rows. Not to be used from several threads at once.

    policy: of a chunk executor (`RecedingHorizon`) the planner is served, because the client executes. sizes: rising batch sizes; a batch
    is padded to the next one. sessions: rows of the table. Raises PolyactError for spaces that can't be served and for memories that
    change their shape.
    """

    def __init__(self, policy: Policy, observation_space: Space, action_space: Space, *, sizes: Sequence[int], sessions: int):
        if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise PolyactError(f"actions that are no one array can't be served, got {action_space}")
        self.execute = policy.execute if isinstance(policy, RecedingHorizon) else None
        self.policy = policy.policy if isinstance(policy, RecedingHorizon) else policy
        self.observation_space, self.action_space = observation_space, action_space
        self.signature = Signature(observation_space)
        self.horizon = self.policy.horizon if isinstance(self.policy, ChunkPolicy) else 1
        self.guided = isinstance(self.policy, NoisePolicy)
        self.sizes, self.sessions = tuple(sizes), sessions
        arrays, self._static = eqx.partition(self.policy, eqx.is_array)
        self._arrays = jax.tree.map(jnp.asarray, arrays)
        self._start = jax.jit(lambda arrays, keys: jax.vmap(eqx.combine(arrays, self._static).start)(keys))
        self._table = self._empty_table()
        self._programs: dict[tuple[int, bool], Any] = {}

    def compile(self) -> None:
        """Make every program, so that no request waits for one."""
        for size in self.sizes:
            for guided in (False, True) if self.guided else (False,):
                function = self._continue if guided else self._plan
                rows = self._stacked([self._blank()] * size, size, guided)
                lowered = jax.jit(function, donate_argnums=1).lower(self._arrays, self._table, *rows)
                self._programs[size, guided] = lowered.compile()
        self.run([self._blank()])

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        """The chunks [len(rows), H, ...] in the environment's units; the sessions' memories move on. At most as many rows as the largest
        size. When it raises, all memories are gone, and every session must start afresh."""
        size = next(size for size in self.sizes if size >= len(rows))
        guided = self.guided and any(row.previous is not None for row in rows)
        stacked = self._stacked(rows, size, guided)
        try:
            chunks, self._table = self._programs[size, guided](self._arrays, self._table, *stacked)
            chunks = np.array(chunks[: len(rows)]) if size == len(rows) else np.asarray(chunks)[: len(rows)].copy()
        except Exception:
            self._table = self._empty_table()
            raise
        if not self.guided:
            _keep_begun(chunks, rows)
        return chunks

    def adopt(self, other: "Engine") -> bool:
        """Go on with the memories of another engine, when they are of the same kind; returns whether they are."""
        mine, its = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), engine._table) for engine in (self, other))
        if mine != its or jax.tree.structure(self._table) != jax.tree.structure(other._table):
            return False
        self._table = jax.tree.map(jnp.copy, other._table)
        return True

    def _blank(self) -> Row:
        """What fills up a batch: it writes to a row of the table that no session has."""
        zeros = [np.broadcast_to(_least(part.space), part.space.shape).astype(part.dtype) for part in self.signature.parts]
        return Row(self.sessions, True, 0, 0, 0, zeros)

    def _stacked(self, rows: Sequence[Row], size: int, guided: bool) -> tuple[Any, ...]:
        rows = [*rows, *[self._blank()] * (size - len(rows))]
        numbers = np.array([(row.slot, row.fresh, row.episode, row.tick) for row in rows], np.int32)
        seeds = np.array([row.seed for row in rows], np.uint32)
        observation = [np.stack([row.observation[place] for row in rows]) for place in range(len(self.signature.parts))]
        if not guided:
            return numbers, seeds, observation
        shape, dtype = self.action_space.shape, np.float32  # pyright: ignore[reportAttributeAccessIssue]
        previous = np.zeros((size, self.horizon, *shape), dtype)
        spans = np.zeros((size, 2), np.int32)
        for place, row in enumerate(rows):
            if row.previous is not None:
                previous[place, : len(row.previous)] = row.previous
                spans[place] = row.delay, len(row.previous)
        return numbers, seeds, observation, previous, spans

    def _empty_table(self) -> PyTree:
        keys = jax.random.split(jax.random.key(0), self.sessions + 1)
        return self._start(self._arrays, keys)

    def _plan(self, arrays: PyTree, table: PyTree, numbers: Array, seeds: Array, observation: list[Array]) -> tuple[Array, PyTree]:
        policy = eqx.combine(arrays, self._static)

        def plan(seen: Any, memory: PyTree, key: PRNGKeyArray) -> tuple[Array, PyTree]:
            if isinstance(policy, ChunkPolicy):
                return policy.chunk(seen, memory, key)
            action, memory = policy.act(seen, memory, key)
            return jnp.asarray(action)[None], memory

        return self._batch(policy, plan, table, numbers, seeds, observation)

    def _continue(
        self,
        arrays: PyTree,
        table: PyTree,
        numbers: Array,
        seeds: Array,
        observation: list[Array],
        previous: Array,
        spans: Array,
    ) -> tuple[Array, PyTree]:
        policy = eqx.combine(arrays, self._static)
        assert isinstance(policy, NoisePolicy)

        def plan(seen: Any, memory: PyTree, key: PRNGKeyArray, previous: Array, span: Array) -> tuple[Array, PyTree]:
            memory = policy.observe(seen, memory)
            condition = policy.condition(memory)
            weights = continuing_weights(policy.horizon, span[0], span[1])
            change = continuing(policy, condition, jax.vmap(policy.body.to_unit)(previous), weights)
            chunk = policy.generate(condition, key, change=change)
            return jax.vmap(policy.body.to_env)(chunk), memory

        return self._batch(policy, plan, table, numbers, seeds, observation, previous, spans)

    def _batch(
        self, policy: Policy, plan: Any, table: PyTree, numbers: Array, seeds: Array, observation: list[Array], *more: Array
    ) -> tuple[Array, PyTree]:
        def one(number: Array, seed: Array, leaves: list[Array], *more: Array) -> tuple[Array, PyTree]:
            slot, fresh, episode, tick = number
            key = jax.random.fold_in(jax.random.key(seed), episode)
            started = policy.start(memory_key(key))
            memory = jax.tree.map(lambda new, kept: jnp.where(fresh > 0, new, kept[slot]), started, table)
            chunk, after = plan(self.signature.observation(leaves), memory, step_key(key, ACTOR, tick), *more)
            return chunk, jax.tree.map(_same_kind, after, started)

        chunks, memories = jax.vmap(one)(numbers, seeds, observation, *more)
        return chunks, jax.tree.map(lambda kept, new: kept.at[numbers[:, 0]].set(new), table, memories)


def batch_sizes(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to `largest`, which is the last whatever it is."""
    if largest < 1:
        raise PolyactError(f"a batch holds at least one request, got {largest}")
    return (*(1 << power for power in range((largest - 1).bit_length())), largest)


def _keep_begun(chunks: np.ndarray, rows: Sequence[Row]) -> None:
    """A policy that can't be guided starts its chunk with what will have been done before it arrives."""
    for place, row in enumerate(rows):
        if row.previous is not None:
            chunks[place, : row.delay] = row.previous[: row.delay]


def _same_kind(after: Array, before: Array) -> Array:
    if jnp.shape(after) != jnp.shape(before):
        raise PolyactError(f"a policy whose memory changes its shape can't be served: {before.shape} became {after.shape}")
    return after if after.dtype == before.dtype else after.astype(before.dtype)


def _least(space: Any) -> Any:
    return space.start if isinstance(space, spaces.Discrete) else 0
