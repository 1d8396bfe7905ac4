"""Ways to act on chunks: play a few actions and plan again, play a chunk to its end, or blend the chunks planned so far."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.branching import when_any
from polyact.errors import PolyactError
from polyact.policies.base import Action, ChunkPolicy, Memory, Observation, Policy


class Playing(eqx.Module):
    """The chunk being played, how many of its actions were played, and the planner's memory."""

    chunk: Float[Array, "H ..."]
    played: Int[Array, ""]
    planner: Memory


class RecedingHorizon(Policy):
    """Play the first `execute` actions of a chunk, then plan again (Diffusion Policy's and most robots' way)."""

    policy: ChunkPolicy
    execute: int = eqx.field(static=True)

    def __check_init__(self):
        if not 1 <= self.execute <= self.policy.horizon:
            raise PolyactError(f"execute must lie between 1 and the horizon {self.policy.horizon}, got {self.execute}")

    def start(self, key: PRNGKeyArray) -> Memory:
        return Playing(no_chunk(self.policy), jnp.zeros((), jnp.int32), self.policy.start(key))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        chunk, planner = when_any(memory.played == 0, _plan, _keep, self.policy, observation, memory, key)
        return chunk[memory.played], Playing(chunk, (memory.played + 1) % self.execute, planner)


def _plan(policy: ChunkPolicy, observation: Observation, memory: Playing, key: PRNGKeyArray) -> tuple[Array, Memory]:
    return policy.chunk(observation, memory.planner, key)


def _keep(policy: ChunkPolicy, observation: Observation, memory: Playing, key: PRNGKeyArray) -> tuple[Array, Memory]:
    return memory.chunk, policy.observe(observation, memory.planner)


def open_loop(policy: ChunkPolicy) -> RecedingHorizon:
    """Play every chunk to its end."""
    return RecedingHorizon(policy, policy.horizon)


class WholeChunks(Policy):
    """The whole chunk, flat, as one action: for worlds that take one per step (`envs.chunk_actions`)."""

    policy: ChunkPolicy

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.policy.start(key)

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        chunk, memory = self.policy.chunk(observation, memory, key)
        return chunk.reshape(-1), memory


class Blending(eqx.Module):
    """The last H chunks, newest first, how many there are (at most H), and the planner's memory."""

    chunks: Float[Array, "H H ..."]
    count: Int[Array, ""]
    planner: Memory


class TemporalEnsemble(Policy):
    """Plan at every step and average what all running chunks say about this step (ACT, 2304.13705).

    The i-th oldest chunk weighs exp(-decay * i) with i = 0 the oldest: a small positive decay trusts old plans a little more, 0 all
    alike, a negative one prefers the new.
    """

    policy: ChunkPolicy
    decay: float = 0.01

    def start(self, key: PRNGKeyArray) -> Memory:
        empty = no_chunk(self.policy)
        return Blending(jnp.zeros((self.policy.horizon, *empty.shape)), jnp.zeros((), jnp.int32), self.policy.start(key))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        chunk, planner = self.policy.chunk(observation, memory.planner, key)
        chunks = jnp.concatenate([chunk[None], memory.chunks[:-1]])
        count = jnp.minimum(memory.count + 1, self.policy.horizon)
        age = jnp.arange(self.policy.horizon)
        weights = jax.nn.softmax(jnp.where(age < count, self.decay * (age - count + 1), -jnp.inf))
        return jnp.tensordot(weights, chunks[age, age], 1), Blending(chunks, count, planner)


def no_chunk(policy: ChunkPolicy) -> Float[Array, "H ..."]:
    """A chunk of zeros in the shape of the policy's."""
    return jnp.zeros((policy.horizon, *policy.body.action_space.shape))  # pyright: ignore[reportAttributeAccessIssue]
