"""Worlds that are less kind: noise on what is seen, done and rewarded, pushes from outside, and bounded attacks on the senses.

Every amount is an array leaf, so a sweep over it is one compiled program and a family over it a `vmap`.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Action, Env, Observation, State, Step
from polyact.envs.wrappers import Memoryless, SameSpaces, Wrapper, as_leafless, float_box, own_key, with_info
from polyact.errors import PolyactError
from polyact.spaces import Space

Amount = Float[Array, "..."]


def _amount(value: ArrayLike) -> Amount:
    amount = jnp.asarray(value, jnp.float32)
    if not isinstance(amount, Tracer) and not np.all(np.isfinite(amount) & (np.asarray(amount) >= 0)):
        raise PolyactError(f"the size of a disturbance must be finite and not negative, got {value}")
    return amount


def _probability(value: ArrayLike) -> Amount:
    amount = _amount(value)
    if not isinstance(amount, Tracer) and np.any(np.asarray(amount) > 1):
        raise PolyactError(f"a probability lies between 0 and 1, got {value}")
    return amount


class Sensing(Wrapper):
    """A wrapper that alters what is seen. The observation space has no bounds, for the alteration may cross them."""

    @abstractmethod
    def sense(self, observation: Array, key: PRNGKeyArray) -> Array:
        """What is seen instead of `observation`."""

    @property
    def observation_space(self) -> Space:
        space = float_box(self.env.observation_space, type(self).__name__)
        return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    @property
    def horizon(self) -> int:
        return self.env.horizon

    def inner(self, state: State) -> State:
        return state

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        state, observation = self.env.reset(key)
        return state, self.sense(observation, own_key(self, key))

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        state, step = self.env.step(state, action, key)
        seen = self.sense(step.observation, own_key(self, key))
        return state, Step(seen, step.reward, step.terminated, step.truncated, step.info)


class ObservationNoise(Sensing):
    """Normal noise on every observation. scale: standard deviation, in the observation's units, a scalar or [O]."""

    env: Env
    scale: Amount = eqx.field(converter=_amount)

    def __check_init__(self):
        float_box(self.env.observation_space, "ObservationNoise")

    def sense(self, observation: Array, key: PRNGKeyArray) -> Array:
        return observation + self.scale * jax.random.normal(key, observation.shape, observation.dtype)


class ObservationAttack(Sensing):
    """An adversary shifts every observation by at most `radius` in each coordinate.

    attack: (observation, radius, key) -> shift; whatever it answers is clipped to [-radius, radius]. radius: in the observation's
    units, a scalar or [O]. Ready attacks: `random_attack`, `GradientAttack`, `StrongestOf`.
    """

    env: Env
    attack: Callable[[Array, Amount, PRNGKeyArray], Array] = eqx.field(converter=as_leafless)
    radius: Amount = eqx.field(converter=_amount)

    def __check_init__(self):
        float_box(self.env.observation_space, "ObservationAttack")

    def sense(self, observation: Array, key: PRNGKeyArray) -> Array:
        shift = self.attack(observation, self.radius, key)
        return observation + jnp.clip(shift, -self.radius, self.radius).astype(observation.dtype)


class ActionNoise(Memoryless):
    """Normal noise on every action, clipped back into the action space. scale: standard deviation, a scalar or [A]."""

    env: Env
    scale: Amount = eqx.field(converter=_amount)

    def __check_init__(self):
        float_box(self.env.action_space, "ActionNoise")

    def step(self, state: State, action: Array, key: PRNGKeyArray) -> tuple[State, Step]:
        space = float_box(self.env.action_space, "ActionNoise")
        noise = self.scale * jax.random.normal(own_key(self, key), space.shape, space.dtype)
        return self.env.step(state, jnp.clip(action + noise, space.low, space.high), key)


class RandomAction(Memoryless):
    """With this probability the action is replaced by a uniformly random one; the only kind of action noise for discrete actions."""

    env: Env
    probability: Amount = eqx.field(converter=_probability)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        whether, which = jax.random.split(own_key(self, key))
        slip = jax.random.bernoulli(whether, self.probability)
        other = spaces.sample(self.env.action_space, which)
        return self.env.step(state, jax.tree.map(lambda a, o: jnp.where(slip, o, a), action, other), key)


class RewardNoise(Memoryless):
    """Normal noise on every reward. scale: standard deviation."""

    env: Env
    scale: Amount = eqx.field(converter=_amount)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        state, step = self.env.step(state, action, key)
        noise = self.scale * jax.random.normal(own_key(self, key), step.reward.shape, step.reward.dtype)
        return state, Step(step.observation, step.reward + noise, step.terminated, step.truncated, step.info)


class StatePush(Memoryless):
    """With this probability at every step, the state is replaced by `push(state, key)` before the world moves on."""

    env: Env
    push: Callable[[State, PRNGKeyArray], State] = eqx.field(converter=as_leafless)
    probability: Amount = eqx.field(converter=_probability)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        whether, how = jax.random.split(own_key(self, key))
        hit = jax.random.bernoulli(whether, self.probability)
        pushed = jax.tree.map(lambda new, old: jnp.where(hit, new, old), self.push(state, how), state)
        return self.env.step(pushed, action, key)


class ForceState(eqx.Module):
    inner: State
    force: Float[Array, "..."]
    left: Int[Array, ""]


class ExternalForce(SameSpaces):
    """Random pushes through the action channel: a force of fixed size and random direction is added for `duration` steps.

    magnitude: length of the force, in the action's units; probability: that a push begins at a step without one. info["force"] is the
    force of this step. It adds to the action and then meets the limits that the environment itself sets to its actuators.
    """

    env: Env
    magnitude: Amount = eqx.field(converter=_amount)
    probability: Amount = eqx.field(converter=_probability)
    duration: Int[Array, "..."] = eqx.field(converter=jnp.asarray, default=1)

    def __check_init__(self):
        float_box(self.env.action_space, "ExternalForce")

    def inner(self, state: ForceState) -> State:
        return state.inner

    def reset(self, key: PRNGKeyArray) -> tuple[ForceState, Observation]:
        inner, observation = self.env.reset(key)
        space = float_box(self.env.action_space, "ExternalForce")
        return ForceState(inner, jnp.zeros(space.shape, space.dtype), jnp.zeros((), jnp.int32)), observation

    def step(self, state: ForceState, action: Array, key: PRNGKeyArray) -> tuple[ForceState, Step]:
        whether, where = jax.random.split(own_key(self, key))
        begins = (state.left == 0) & jax.random.bernoulli(whether, self.probability)
        direction = jax.random.normal(where, state.force.shape, state.force.dtype)
        direction = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-12)
        left = jnp.where(begins, self.duration, state.left)
        force = jnp.where(begins, self.magnitude * direction, jnp.where(left > 0, state.force, 0))
        inner, step = self.env.step(state.inner, action + force, key)
        return ForceState(inner, force, jnp.maximum(left - 1, 0)), with_info(step, force=force)


def random_attack(observation: Array, radius: Amount, key: PRNGKeyArray) -> Array:
    """A corner of the allowed box, drawn at random."""
    return radius * jax.random.rademacher(key, observation.shape, observation.dtype)


class GradientAttack(eqx.Module):
    """Climbs `loss(true observation, seen observation)`, a scalar, by the sign of its gradient, inside the allowed box.

    steps = 1 is the fast gradient sign method (arXiv 1412.6572); more are projected gradient ascent from a random start with step
    size 2.5 radius / steps (arXiv 1706.06083). A loss that is flat at the true observation, such as the distance between two actions
    of one policy, needs more than one step.
    """

    loss: Callable[[Array, Array], Array] = eqx.field(converter=as_leafless)
    steps: int = eqx.field(static=True, default=1)

    def __call__(self, observation: Array, radius: Amount, key: PRNGKeyArray) -> Array:
        uphill = jax.grad(lambda shift: self.loss(observation, observation + shift))
        if self.steps == 1:
            return radius * jnp.sign(uphill(jnp.zeros_like(observation)))
        size = 2.5 * radius / self.steps
        start = radius * jax.random.uniform(key, observation.shape, observation.dtype, -1, 1)

        def climb(_: Array, shift: Array) -> Array:
            return jnp.clip(shift + size * jnp.sign(uphill(shift)), -radius, radius).astype(shift.dtype)

        return jax.lax.fori_loop(0, self.steps, climb, start)


class StrongestOf(eqx.Module):
    """The shift with the largest `loss(true observation, seen observation)` among `count` random corners of the allowed box."""

    loss: Callable[[Array, Array], Array] = eqx.field(converter=as_leafless)
    count: int = eqx.field(static=True, default=16)

    def __call__(self, observation: Array, radius: Amount, key: PRNGKeyArray) -> Array:
        shifts = jax.vmap(lambda k: random_attack(observation, radius, k))(jax.random.split(key, self.count))
        return shifts[jnp.argmax(jax.vmap(lambda shift: self.loss(observation, observation + shift))(shifts))]
