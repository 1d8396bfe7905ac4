"""Pick: take an object to a goal with a gripper that is open or closed; the smallest world with a discrete action among continuous ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.envs.base import Env, Observation, Step
from polyact.envs.physics import Parameter, at_least, norm
from polyact.spaces import Box, Space


class PickState(eqx.Module):
    hand: Float[Array, "2"]  # m
    object: Float[Array, "2"]  # m
    goal: Float[Array, "2"]  # m
    closed: Bool[Array, ""]
    holding: Bool[Array, ""]


class Pick(Env):
    """Observation [8]: hand, object and goal (m), whether the gripper is closed and whether it holds the object (1 or -1 each).

    Action [3] in [-1, 1]: velocity of the hand as a share of `max_speed` (m/s), and the gripper, closed where positive. The object is
    grasped when the gripper closes within `reach` (m) of it, moves with the hand while the gripper stays closed, and stays where it is
    let go. Hand, object and goal start apart in [-0.8, 0.8]^2. Letting go within `goal_radius` (m) of the goal is success and terminates.
    Reward: progress of the hand to the object and of the object to the goal (m), plus 1 for success. info: success.
    """

    max_speed: Parameter = 1.5
    reach: Parameter = 0.08
    goal_radius: Parameter = 0.12
    timestep: Parameter = 0.05
    horizon: int = eqx.field(static=True, default=80)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        return Box(-1, 1, (8,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (3,))

    def reset(self, key: PRNGKeyArray) -> tuple[PickState, Array]:
        """Object and goal on opposite halves, left or right; the gripper open."""
        hand, *places = (jax.random.uniform(k, (2,), minval=-0.8, maxval=0.8) for k in jax.random.split(key, 3))
        side = jnp.where(places[0][0] > 0, 1.0, -1.0)
        thing = places[0].at[0].set(side * (0.2 + 0.75 * jnp.abs(places[0][0])))
        goal = places[1].at[0].set(-side * (0.2 + 0.75 * jnp.abs(places[1][0])))
        state = PickState(hand, thing, goal, jnp.asarray(False), jnp.asarray(False))
        return state, _observe(state)

    def step(self, state: PickState, action: Array, key: PRNGKeyArray) -> tuple[PickState, Step]:
        moved = state.hand + self.timestep * self.max_speed * jnp.clip(action[:2], -1, 1)
        hand = jnp.clip(moved, -1, 1)
        closed = action[2] > 0
        grasped = closed & ~state.closed & (norm(state.hand - state.object) < self.reach)
        holding = closed & (state.holding | grasped)
        thing = jnp.where(holding, hand, state.object)
        new = PickState(hand, thing, state.goal, closed, holding)
        success = state.holding & ~closed & (norm(thing - state.goal) < self.goal_radius)
        reward = _left(state) - _left(new) + success
        return new, Step(_observe(new), reward, success, jnp.asarray(False), {"success": success})


def pick_and_place(env: Pick, observation: Observation, key: PRNGKeyArray) -> Float[Array, "3"]:
    """Go to the object, close, go to the goal, open; a little unsteadily."""
    hand, thing, goal, holding = observation[:2], observation[2:4], observation[4:6], observation[7] > 0
    target = jnp.where(holding, goal, thing)
    way = (target - hand) / (env.timestep * env.max_speed)
    velocity = way / jnp.maximum(norm(way), 1.0) + 0.1 * jax.random.normal(key, (2,))
    there = norm(target - hand) < 0.6 * jnp.where(holding, env.goal_radius, env.reach)
    return jnp.append(jnp.clip(jnp.where(there, 0.0, velocity), -1, 1), jnp.where(there ^ holding, 1.0, -1.0))


def _left(state: PickState) -> Float[Array, ""]:
    return norm(state.hand - state.object) + norm(state.object - state.goal)


def _observe(state: PickState) -> Float[Array, "8"]:
    flags = jnp.where(jnp.stack([state.closed, state.holding]), 1.0, -1.0)
    return jnp.concatenate([state.hand, state.object, state.goal, flags])
