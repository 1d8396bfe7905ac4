"""A frozen generative policy steered through the noise it starts from: by a policy whose actions are noises.

The chain from noise to chunk must be deterministic (DDIM, or a flow), or what the noise was to be paid for gets lost on the way.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Env, State, Step
from polyact.envs.wrappers import Wrapper
from polyact.errors import PolyactError
from polyact.policies.base import Action, Memory, NoisePolicy, Observation, UnitPolicy
from polyact.policies.generative.resampled import AroundOne
from polyact.policies.spec import Body, Spec
from polyact.spaces import Box, Space

FIXED = 0  # the seed of a chain that draws nothing


def noise_width(policy: NoisePolicy) -> int:
    """How many numbers the noise of one chunk has."""
    return policy.horizon * policy.body.continuous.width


def noise_space(policy: NoisePolicy, bound: float) -> Box:
    """Noises whose every number is at most `bound` in size, which keeps them where the policy was trained. PolyactError unless positive."""
    if not bound > 0:
        raise PolyactError(f"the bound of the noise must be positive, got {bound}")
    limit = np.full(noise_width(policy), bound, np.float32)
    return Box(-limit, limit)


def noise_spec(policy: NoisePolicy, bound: float, steps: int) -> Spec:
    """What a learner of noises is told: the policy's observations in its own units, and noises as actions."""
    body = policy.body
    space = noise_space(policy, bound)
    scale = Spec.of(body.observation_space, space, steps).action_scale
    return Spec((Body("noise", body.embodiment, "noise", body.observation_space, space, body.normaliser, scale),), steps)


def decode(policy: NoisePolicy, condition: Float[Array, "K C"], noise: Float[Array, " W"]) -> Float[Array, " W"]:
    """The chunk in unit coordinates that a noise becomes, both flat."""
    start = noise.reshape(policy.horizon, -1)
    return policy.generate(condition, jax.random.key(FIXED), start=start).reshape(-1)


def first_condition(policy: NoisePolicy, observation: Observation) -> Float[Array, "K C"]:
    """What the policy's chain is told where nothing else was observed before."""
    return policy.condition(policy.observe(observation, policy.start(jax.random.key(FIXED))))


class Steered(AroundOne):
    """A frozen policy whose noise is chosen by `actor`, a policy with noises as actions; `explore` draws it, else its mode is taken."""

    policy: NoisePolicy
    actor: UnitPolicy
    explore: bool = eqx.field(static=True, default=False)

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.policy.observe(observation, memory)
        noise = self.actor.act(observation, None, key)[0] if self.explore else self.actor.mode(observation)
        unit = decode(self.policy, self.policy.condition(memory), noise)
        return jax.vmap(self.body.to_env)(unit.reshape(self.horizon, -1)), memory


class NoiseState(eqx.Module):
    inner: State
    observation: Any


class NoiseActions(Wrapper):
    """A world of chunks behind a frozen policy: the action is the noise of the next chunk. Any learner of actions then steers.

    env: takes whole chunks, flat (`envs.chunk_actions`).
    """

    env: Env
    policy: NoisePolicy
    bound: float = eqx.field(static=True, default=1.5)

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return noise_space(self.policy, self.bound)

    @property
    def horizon(self) -> int:
        return self.env.horizon

    def inner(self, state: State) -> State:
        return state.inner

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        inner, observation = self.env.reset(key)
        return NoiseState(inner, observation), observation

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        unit = decode(self.policy, first_condition(self.policy, state.observation), action)
        chunk = jax.vmap(self.policy.body.to_env)(unit.reshape(self.policy.horizon, -1)).reshape(-1)
        inner, step = self.env.step(state.inner, jnp.asarray(chunk), key)
        return NoiseState(inner, step.observation), step
