"""Trees of motion rules as policies: a point among discs, and an arm whose whole body keeps clear of discs."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.physics import norm
from polyact.envs.point_navigation import PointNavigation
from polyact.envs.reacher import Reacher
from polyact.policies.base import Memory, Policy
from polyact.policies.motion.dynamics import Attractor, Barrier, Damper, Distances, Dynamics, Offset
from polyact.policies.motion.tree import Each, Rule, Through, Together, acceleration

State = tuple[Array, Array, Array]  # position, velocity, goal


class PointMotion(Policy):
    """Steers the point of `PointNavigation` to its goal, past its obstacles."""

    env: PointNavigation
    goal: Dynamics = Attractor(gain=20.0, damper=7.0, far=7.0, sharpness=6.5)
    obstacle: Dynamics = Barrier(rest=1.0, damper=0.1)
    damper: Dynamics = Damper(weight=0.002)

    def rules(self, goal: Float[Array, "2"]) -> Rule:
        """Come to the goal, keep clear of every obstacle, slow down."""
        obstacles = self.env.obstacles
        clear = Distances(obstacles[:, :2], obstacles[:, 2] + self.env.radius)
        return Together((Through(Offset(goal), self.goal), Through(clear, Each(self.obstacle)), self.damper))

    def read(self, observation: Float[Array, "6"]) -> State:
        """Position (m), velocity (m/s) and goal (m)."""
        position, velocity, goal = observation.reshape(3, 2)
        return position, velocity, goal

    def command(self, position: Float[Array, "2"], velocity: Float[Array, "2"], wanted: Float[Array, "2"]) -> Float[Array, "2"]:
        """The action that brings an acceleration (m/s^2) about within a step, or as much of it in its direction as there is speed."""
        follow = 1 - jnp.exp(-self.env.timestep / self.env.lag)
        speed = (velocity + self.env.timestep * wanted / follow) / self.env.max_speed
        return speed / jnp.maximum(jnp.max(jnp.abs(speed)), 1.0)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Float[Array, "6"], memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "2"], Memory]:
        position, velocity, goal = self.read(observation)
        return self.command(position, velocity, acceleration(self.rules(goal), position, velocity)), memory


class ArmMotion(Policy):
    """Brings the fingertip of `Reacher` to its target while points along its links keep clear of discs [K, 3] (x, y, radius in m).

    points: how many on every link, the last at its end.
    """

    env: Reacher
    obstacles: Float[Array, "K 3"]
    goal: Dynamics = Attractor(gain=24.0, damper=7.0, far=4.0, sharpness=1.5)
    obstacle: Dynamics = Barrier(rest=0.07, alpha=2e-5, damper=1.3)
    damper: Dynamics = Damper(weight=0.01)
    points: int = eqx.field(static=True, default=2)

    def rules(self, target: Float[Array, "2"]) -> Rule:
        """Bring the fingertip to the target, keep every point of the body clear of every obstacle, slow down."""
        fingertip = Through(lambda joint: self.env.fingertip(jnp.cumsum(joint)) - target, self.goal)
        return Together((fingertip, Through(self.clearance, Each(self.obstacle)), self.damper))

    def clearance(self, joint: Float[Array, " n"]) -> Float[Array, " m"]:
        """Distances of body points from obstacles as shares of the radii [points * links * K], at joint angles (rad)."""
        away = norm(body_points(self.env, joint, self.points)[:, None] - self.obstacles[:, :2])
        return (away / self.obstacles[:, 2] - 1).reshape(-1)

    def read(self, observation: Float[Array, " o"]) -> State:
        """Joint angles (rad), joint rates (rad/s) and target (m)."""
        n = self.env.links
        cos, sin, rate, target, _ = jnp.split(observation, [n, 2 * n, 3 * n, 3 * n + 2])
        return jnp.arctan2(sin, cos), rate, target

    def command(self, joint: Float[Array, " n"], rate: Float[Array, " n"], wanted: Float[Array, " n"]) -> Float[Array, " n"]:
        """The action whose torques bring joint accelerations (rad/s^2) about, by inverse dynamics."""
        return jnp.clip(self.env.torque(jnp.cumsum(joint), rate, wanted) / self.env.max_torque, -1, 1)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Float[Array, " o"], memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, " n"], Memory]:
        joint, rate, target = self.read(observation)
        return self.command(joint, rate, acceleration(self.rules(target), joint, rate)), memory


def body_points(env: Reacher, joint: Float[Array, " n"], points: int) -> Float[Array, "m 2"]:
    """World coordinates (m) of evenly spaced points along all links, at joint angles (rad)."""
    ends = env.joints(jnp.cumsum(joint))
    share = (jnp.arange(points) + 1) / points
    return (ends[:-1, None] + share[:, None] * jnp.diff(ends, axis=0)[:, None]).reshape(-1, 2)
