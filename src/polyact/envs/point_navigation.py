"""PointNavigation: steer a point past obstacles to a goal; every obstacle can be passed on two sides.

The smallest world in which behaviour is multimodal: the scripted experts `pass_left` and `pass_right` both succeed, and the mean of
their actions runs straight into the obstacle.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, norm, rotate, table
from polyact.envs.scene import BLUE, GREEN, INK, PALE, RED, Circle, Drawable, Line, Scene
from polyact.spaces import Box, Space


class PointState(eqx.Module):
    position: Float[Array, "2"]  # m
    velocity: Float[Array, "2"]  # m/s
    goal: Float[Array, "2"]  # m


class PointNavigation(Drawable):
    """Observation [6]: position and velocity of the point, position of the goal. Action [2] in [-1, 1]: commanded velocity.

    The point follows the command (as a share of `max_speed`, m/s) with a lag (s) inside the square arena [-1, 1]^2, whose walls stop
    it. `obstacles` [K, 3]: x, y, radius of discs; touching one with the body's `radius` crashes. `goals` [G, 2]: one is drawn for
    each episode. Reward: progress towards the goal (m), minus `step_cost`, plus 1 for arriving and minus 1 for a crash, which both
    terminate. info: success, crashed.
    """

    obstacles: Float[Array, "*batch K 3"] = eqx.field(default=((0.0, 0.0, 0.3),), converter=table("obstacles", None, 3))
    goals: Float[Array, "*batch G 2"] = eqx.field(default=((-0.5, 0.8), (0.0, 0.8), (0.5, 0.8)), converter=table("goals", None, 2))
    start: Float[Array, "*batch 2"] = eqx.field(default=(0.0, -0.8), converter=table("start", 2))
    start_spread: Parameter = 0.1
    radius: Parameter = 0.03
    goal_radius: Parameter = 0.1
    max_speed: Parameter = 1.0
    lag: Parameter = 0.1
    step_cost: Parameter = 0.01
    timestep: Parameter = 0.05
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        at_least(1, horizon=self.horizon, **{"the number of goals": self.goals.shape[-2]})

    @property
    def observation_space(self) -> Space:
        # The lag never lets the velocity exceed what was commanded; max_speed is a leaf, so its bound is left open here.
        high = np.array([1, 1, np.inf, np.inf, np.inf, np.inf])
        return Box(-high, high)

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (2,))

    def reset(self, key: PRNGKeyArray) -> tuple[PointState, Array]:
        """Start within `start_spread` (m, each way) of `start`, at rest; goal drawn evenly from `goals`."""
        place, choice = jax.random.split(key)
        position = self.start + self.start_spread * jax.random.uniform(place, (2,), minval=-1, maxval=1)
        goal = jnp.asarray(self.goals)[jax.random.randint(choice, (), 0, self.goals.shape[0])]
        state = PointState(position, jnp.zeros(2), goal)
        return state, _observe(state)

    def step(self, state: PointState, action: Array, key: PRNGKeyArray) -> tuple[PointState, Step]:
        command = self.max_speed * jnp.clip(action, -1, 1)
        follow = 1 - jnp.exp(-self.timestep / self.lag)
        velocity = state.velocity + follow * (command - state.velocity)
        free = state.position + self.timestep * velocity
        position = jnp.clip(free, -1 + self.radius, 1 - self.radius)
        new = PointState(position, jnp.where(position == free, velocity, 0.0), state.goal)
        left = norm(position - state.goal)
        crashed = jnp.any(self.clearance(position) < 0)
        success = (left < self.goal_radius) & ~crashed
        reward = norm(state.position - state.goal) - left - self.step_cost + success - 1.0 * crashed
        return new, Step(_observe(new), reward, success | crashed, jnp.asarray(False), {"success": success, "crashed": crashed})

    def clearance(self, position: Float[Array, "2"]) -> Float[Array, "K"]:
        """Free distance (m) between the body at `position` and each obstacle."""
        return norm(position - self.obstacles[:, :2]) - self.obstacles[:, 2] - self.radius

    def backdrop(self) -> Scene:
        walls = Line(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]), 0.02, PALE)
        goals = [Circle(goal, float(self.goal_radius), GREEN, 0.3) for goal in np.asarray(self.goals, float)]
        discs = [Circle(disc[:2], disc[2], INK) for disc in np.asarray(self.obstacles, float)]
        return Scene((walls, *goals, *discs), (-1.05, -1.05, 1.05, 1.05))

    def scene(self, state: PointState) -> Scene:
        (x, y), (vx, vy) = np.asarray(state.position, float), np.asarray(state.velocity, float)
        goal = Circle(np.asarray(state.goal, float), float(self.goal_radius) / 2, GREEN)
        crashed = bool(np.any(np.asarray(self.clearance(jnp.asarray(state.position))) < 0))
        nose = Line(np.array([[x, y], [x + 0.1 * vx, y + 0.1 * vy]]), 0.02, BLUE)
        return self.backdrop().add(goal, nose, Circle((x, y), max(float(self.radius), 0.03), RED if crashed else BLUE))

    def position(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation)[:, :2]


def left_or_right(horizon: int = 100) -> PointNavigation:
    """One goal straight behind the obstacle: both ways are equally good, and the mean of them is a crash."""
    return PointNavigation(goals=((0.0, 0.8),), start_spread=0.05, horizon=horizon)  # pyright: ignore[reportArgumentType]


def pass_left(env: PointNavigation, observation: Float[Array, "6"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Go to the goal at full speed and pass what is in the way on its left, seen in the direction of travel."""
    return _steer(env, observation, jnp.ones(()), 0.1)


def pass_right(env: PointNavigation, observation: Float[Array, "6"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Go to the goal at full speed and pass what is in the way on its right."""
    return _steer(env, observation, -jnp.ones(()), 0.1)


def sloppy(env: PointNavigation, observation: Float[Array, "6"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Go slowly and unsteadily, pass on the side that happens to be nearer, cut corners; crashes now and then."""
    obstacles = _obstacles(env)
    nearest = obstacles[jnp.argmin(norm(obstacles[:, :2] - observation[:2]) - obstacles[:, 2])]
    ahead, beside = observation[4:] - observation[:2], nearest[:2] - observation[:2]
    side = jnp.where(ahead[0] * beside[1] - ahead[1] * beside[0] > 0, -1.0, 1.0)
    action = 0.6 * _steer(env, observation, side, 0.03)
    return jnp.clip(action + 0.5 * jax.random.normal(key, (2,)), -1, 1)


def _steer(env: PointNavigation, observation: Float[Array, "6"], side: Float[Array, ""], margin: float) -> Float[Array, "2"]:
    """Straight to the goal, or along the tangent of the nearest obstacle that is in the way, on its left (side 1) or right (-1)."""
    position, goal = observation[:2], observation[4:]
    ahead = goal - position
    distance = norm(ahead)
    obstacles = _obstacles(env)
    to = obstacles[:, :2] - position
    away = norm(to)
    # How far the straight way passes from each centre; only what lies between here and the goal counts.
    along = to @ ahead / distance
    across = jnp.abs(to[:, 0] * ahead[1] - to[:, 1] * ahead[0]) / distance
    reach = obstacles[:, 2] + env.radius + margin
    blocks = (along > 0) & (along < distance) & (across < reach)
    first = jnp.argmin(jnp.where(blocks, away, jnp.inf))
    tangent = jnp.arcsin(jnp.clip(reach[first] / away[first], 0, 1)) + 0.5 * jnp.clip(reach[first] - away[first], 0) / margin
    bearing = jnp.arctan2(ahead[0] * to[first, 1] - ahead[1] * to[first, 0], ahead @ to[first])
    # Nobody turns away from the goal by more than this: who comes too close too late, does not make it.
    turn = jnp.clip(bearing + side * tangent, -1.1, 1.1)
    heading = rotate(ahead / distance, jnp.where(jnp.any(blocks), turn, 0.0))
    return heading / jnp.maximum(jnp.max(jnp.abs(heading)), 1.0)


def _obstacles(env: PointNavigation) -> Float[Array, "n 3"]:
    """The obstacles and one that is far away, so that there is always a nearest one."""
    return jnp.concatenate([env.obstacles, jnp.array([[1e3, 1e3, 0.0]])])


def _observe(state: PointState) -> Float[Array, "6"]:
    return jnp.concatenate([state.position, state.velocity, state.goal])
