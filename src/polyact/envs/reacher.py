"""Reacher: an arm of n links brings its fingertip to a target. Rigid-body dynamics in closed form, without a physics engine.

The links are uniform rods. In absolute link angles the equations of motion of such a chain are short:
sum_j A_ij cos(a_i - a_j) a_j'' + A_ij sin(a_i - a_j) a_j'^2 = Q_i, with constants A_ij of the masses and lengths alone.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, norm, rk4, solve_positive
from polyact.envs.scene import BLUE, GREEN, INK, PALE, Circle, Drawable, Line, Scene
from polyact.spaces import Box, Space


class ReacherState(eqx.Module):
    angle: Float[Array, "n"]  # rad, each link against the x axis
    rate: Float[Array, "n"]  # rad/s
    target: Float[Array, "2"]  # m


class Reacher(Drawable):
    """Observation [3 n + 4]: cos and sin of the joint angles, joint rates (rad/s), target (m), fingertip minus target (m).

    Joint angles are those of a link against the one before. Action [n] in [-1, 1]: joint torques as shares of `max_torque` (N m).
    `length` (m) and `mass` (kg) of a link: one number, or one for each link. With gravity 0 the arm lies on a table. Reward:
    minus the distance of the fingertip from the target (m), minus `effort_cost` times the squared action. Integrated in `substeps`.
    """

    length: Parameter = 0.5
    mass: Parameter = 0.5
    friction: Parameter = 0.3
    gravity: Parameter = 0.0
    max_torque: Parameter = 3.0
    effort_cost: Parameter = 0.01
    timestep: Parameter = 0.04
    links: int = eqx.field(static=True, default=2)
    substeps: int = eqx.field(static=True, default=2)
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        at_least(2, links=self.links)  # one link reaches no more than a circle
        at_least(1, substeps=self.substeps, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        n = self.links
        high = np.concatenate([np.ones(2 * n), np.full(n + 4, np.inf)])
        return Box(-high, high)

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (self.links,))

    def reset(self, key: PRNGKeyArray) -> tuple[ReacherState, Array]:
        """Any pose, at rest; a target between 0.3 and 0.95 of the arm's full reach in any direction."""
        pose, place = jax.random.split(key)
        joints = jax.random.uniform(pose, (self.links,), minval=-1, maxval=1) * jnp.pi
        distance, bearing = jax.random.uniform(place, (2,), minval=jnp.array([0.3, -jnp.pi]), maxval=jnp.array([0.95, jnp.pi]))
        target = distance * jnp.sum(self._lengths()) * jnp.stack([jnp.cos(bearing), jnp.sin(bearing)])
        state = ReacherState(jnp.cumsum(joints), jnp.zeros(self.links), target)
        return state, self._observe(state)

    def step(self, state: ReacherState, action: Array, key: PRNGKeyArray) -> tuple[ReacherState, Step]:
        effort = jnp.clip(action, -1, 1)
        angle, rate = rk4(
            lambda s: (s[1], self._acceleration(s[0], s[1], self.max_torque * effort)),
            (state.angle, state.rate),
            self.timestep,
            self.substeps,
        )
        new = ReacherState(angle, rate, state.target)
        reward = -norm(self.fingertip(angle) - state.target) - self.effort_cost * jnp.sum(effort**2)
        no = jnp.asarray(False)
        return new, Step(self._observe(new), reward, no, no, {})

    def joints(self, angle: Float[Array, "n"]) -> Float[Array, "n+1 2"]:
        """World coordinates of the shoulder, the joints and the fingertip."""
        steps = self._lengths()[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
        return jnp.concatenate([jnp.zeros((1, 2)), jnp.cumsum(steps, 0)])

    def fingertip(self, angle: Float[Array, "n"]) -> Float[Array, "2"]:
        return self.joints(angle)[-1]

    def energy(self, state: ReacherState) -> Float[Array, ""]:
        """Kinetic plus potential energy (J)."""
        inertia, lever = self._constants()
        mass = inertia * jnp.cos(state.angle[:, None] - state.angle)
        return state.rate @ mass @ state.rate / 2 + self.gravity * lever @ jnp.sin(state.angle)

    def _acceleration(self, angle: Array, rate: Array, torque: Array) -> Float[Array, "n"]:
        inertia, lever = self._constants()
        between = angle[:, None] - angle
        joint_rate = jnp.diff(rate, prepend=0.0)
        torque = torque - self.friction * joint_rate
        load = torque - jnp.append(torque[1:], 0.0) - self.gravity * lever * jnp.cos(angle)
        return solve_positive(inertia * jnp.cos(between), load - (inertia * jnp.sin(between)) @ rate**2)

    def torque(self, angle: Float[Array, "n"], joint_rate: Float[Array, "n"], joint_acceleration: Float[Array, "n"]) -> Array:
        """Inverse dynamics: the joint torques [n] (N m) that bring about these joint accelerations (rad/s^2)."""
        inertia, lever = self._constants()
        between, rate = angle[:, None] - angle, jnp.cumsum(joint_rate)
        load = inertia * jnp.cos(between) @ jnp.cumsum(joint_acceleration) + (inertia * jnp.sin(between)) @ rate**2
        load = load + self.gravity * lever * jnp.cos(angle)
        return jnp.cumsum(load[::-1])[::-1] + self.friction * joint_rate

    def _constants(self) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
        """A of the module's equation (kg m^2), and sum of mass times lever arm (kg m) of each link's angle."""
        length = self._lengths()
        mass = jnp.broadcast_to(jnp.asarray(self.mass, float), (self.links,))
        # arm[k, i]: how far the centre of link k moves per unit turn of link i.
        arm = (jnp.tril(jnp.ones((self.links, self.links)), -1) + 0.5 * jnp.eye(self.links)) * length
        return (arm.T * mass) @ arm + jnp.diag(mass * length**2 / 12), mass @ arm

    def _lengths(self) -> Float[Array, "n"]:
        return jnp.broadcast_to(jnp.asarray(self.length, float), (self.links,))

    def _observe(self, state: ReacherState) -> Float[Array, "o"]:
        joint = jnp.diff(state.angle, prepend=0.0)
        rate = jnp.diff(state.rate, prepend=0.0)
        miss = self.fingertip(state.angle) - state.target
        return jnp.concatenate([jnp.cos(joint), jnp.sin(joint), rate, state.target, miss])

    def backdrop(self) -> Scene:
        reach = float(np.sum(np.asarray(self._lengths())))
        return Scene((Circle((0.0, 0.0), reach, PALE, 0.35),), (-1.1 * reach, -1.1 * reach, 1.1 * reach, 1.1 * reach))

    def scene(self, state: ReacherState) -> Scene:
        joints = np.asarray(self.joints(jnp.asarray(state.angle)), float)
        reach = float(np.sum(np.asarray(self._lengths())))
        width = 0.09 * reach / self.links**0.5
        arm = [Line(joints[i : i + 2], width, BLUE) for i in range(self.links)]
        pins = [Circle(joint, 0.3 * width, "#ffffff") for joint in joints[:-1]]
        target = Circle(np.asarray(state.target, float), 0.06 * reach, GREEN, 0.6)
        return self.backdrop().add(target, *arm, *pins, Circle(joints[-1], 0.4 * width, INK))

    def position(self, observation: Observation) -> np.ndarray:
        """The fingertip."""
        values = np.asarray(observation)
        return values[:, -4:-2] + values[:, -2:]


def reach(env: Reacher, observation: Float[Array, "o"], key: PRNGKeyArray) -> Float[Array, "n"]:
    """Move the fingertip towards the target at a speed that falls with the distance (damped least squares), with inverse dynamics."""
    n = env.links
    angle = jnp.cumsum(jnp.arctan2(observation[n : 2 * n], observation[:n]))
    rate, miss = observation[2 * n : 3 * n], observation[-2:]
    jacobian = jax.jacobian(lambda joint: env.fingertip(jnp.cumsum(joint)))(jnp.diff(angle, prepend=0.0))
    approach = -4.0 * miss * jnp.minimum(1.0, 0.4 / norm(miss))
    wanted = jacobian.T @ solve_positive(jacobian @ jacobian.T + 0.02 * jnp.eye(2), approach)
    return jnp.clip(env.torque(angle, rate, 10.0 * (wanted - rate)) / env.max_torque, -1, 1)
