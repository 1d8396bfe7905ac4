"""Hopper2D: run forward on one springy leg without falling.

The spring-loaded inverted pendulum (Blickhan 1989) with a body that pitches, a hip motor and a leg actuator in series with the spring:
the planar hopper of Raibert (Legged Robots That Balance, 1986). The leg has inertia when it swings in flight and is massless in
stance, where the foot does not slip; the hip is the body's centre of mass.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, norm
from polyact.envs.scene import BLUE, INK, ORANGE, PALE, Circle, Drawable, Line, Scene, turned
from polyact.spaces import Box, Space


class HopperState(eqx.Module):
    position: Float[Array, "2"]  # m, of the hip; z is up
    velocity: Float[Array, "2"]  # m/s
    pitch: Float[Array, ""]  # rad, of the body, counter-clockwise
    pitch_rate: Float[Array, ""]  # rad/s
    swing: Float[Array, ""]  # rad, of the leg against straight down, forward positive
    swing_rate: Float[Array, ""]  # rad/s
    length: Float[Array, ""]  # m, from hip to foot
    rest: Float[Array, ""]  # m, length of the leg with its spring relaxed: set by the actuator
    foot: Float[Array, ""]  # m, where the foot stands, or last stood
    stance: Bool[Array, ""]  # whether the foot is on the ground


class Hopper2D(Drawable):
    """Observation [10]: height of the hip (m), pitch, hip angle (rad), leg length and relaxed leg length beyond nominal (m),
    forward and upward velocity (m/s), pitch rate, hip rate (rad/s), 1 on the ground and 0 in the air.

    Action [2] in [-1, 1]: hip torque as a share of `max_torque` (N m, positive swings the leg forward), and leg extension as a share
    of `stroke` (m, reached with a lag of `actuator_lag` seconds). Reward: forward velocity (m/s) times `speed_reward`, plus
    `alive_reward`, minus `effort_cost` times the squared action. A fall terminates: hip below `min_height`, or pitch or leg beyond
    `max_tilt` (rad). info: distance covered (m).
    Integrated in `substeps`.
    """

    gravity: Parameter = 9.81
    mass: Parameter = 10.0
    body_inertia: Parameter = 1.0
    leg_inertia: Parameter = 0.15
    leg_length: Parameter = 0.6
    stiffness: Parameter = 3000.0
    damping: Parameter = 40.0
    hip_friction: Parameter = 0.2
    stroke: Parameter = 0.06
    actuator_lag: Parameter = 0.02
    max_torque: Parameter = 20.0
    min_height: Parameter = 0.3
    max_tilt: Parameter = 1.0
    speed_reward: Parameter = 1.0
    alive_reward: Parameter = 0.5
    effort_cost: Parameter = 0.05
    timestep: Parameter = 0.02
    substeps: int = eqx.field(static=True, default=4)
    horizon: int = eqx.field(static=True, default=500)

    def __check_init__(self):
        at_least(1, substeps=self.substeps, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        high = np.array([np.inf] * 9 + [1.0])
        return Box(np.append(-high[:9], 0.0), high)

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (2,))

    def reset(self, key: PRNGKeyArray) -> tuple[HopperState, Array]:
        """In the air, a little above the ground, nearly upright and nearly at rest."""
        height, tilt, speed = jax.random.split(key, 3)
        z = self.leg_length + jax.random.uniform(height, minval=0.02, maxval=0.12)
        pitch, swing = 0.05 * jax.random.normal(tilt, (2,))
        vx, vz, pitch_rate, swing_rate = 0.1 * jax.random.normal(speed, (4,))
        length = jnp.asarray(self.leg_length, float)
        state = HopperState(
            position=jnp.stack([jnp.zeros(()), z]),
            velocity=jnp.stack([vx, vz]),
            pitch=pitch,
            pitch_rate=pitch_rate,
            swing=swing,
            swing_rate=swing_rate,
            length=length,
            rest=length,
            foot=jnp.zeros(()),
            stance=jnp.asarray(False),
        )
        return state, self._observe(state)

    def step(self, state: HopperState, action: Array, key: PRNGKeyArray) -> tuple[HopperState, Step]:
        action = jnp.clip(action, -1, 1)
        new = state
        for _ in range(self.substeps):
            new = self._advance(new, self.max_torque * action[0], self.stroke * action[1], self.timestep / self.substeps)
        moved = new.position[0] - state.position[0]
        reward = self.speed_reward * moved / self.timestep + self.alive_reward - self.effort_cost * jnp.sum(action**2)
        tilt = jnp.maximum(jnp.abs(new.pitch), jnp.abs(new.swing))
        fallen = (new.position[1] < self.min_height) | (tilt > self.max_tilt)
        return new, Step(self._observe(new), reward, fallen, jnp.asarray(False), {"distance": new.position[0]})

    def energy(self, state: HopperState) -> Float[Array, ""]:
        """Energy (J) of the body and of the leg's spring."""
        kinetic = self.mass * state.velocity @ state.velocity / 2 + self.body_inertia * state.pitch_rate**2 / 2
        compressed = jnp.where(state.stance, state.rest - state.length, 0.0)
        return kinetic + self.mass * self.gravity * state.position[1] + self.stiffness * compressed**2 / 2

    def _advance(self, state: HopperState, torque: Array, extension: Array, h: Parameter) -> HopperState:
        """One semi-implicit Euler step: forces of the phase the leg is in, motion, then touch-down or lift-off."""
        torque = torque - self.hip_friction * (state.swing_rate - state.pitch_rate)
        along, across = _axes(state.swing)
        lengthening = -state.velocity @ along
        push = jnp.maximum(self.stiffness * (state.rest - state.length) - self.damping * lengthening, 0.0)
        ground = jnp.where(state.stance, -push * along - torque / state.length * across, 0.0)
        velocity = state.velocity + h * (ground / self.mass - self.gravity * jnp.array([0.0, 1.0]))
        position = state.position + h * velocity
        pitch_rate = state.pitch_rate - h * torque / self.body_inertia
        rest = state.rest + (1 - jnp.exp(-h / self.actuator_lag)) * (self.leg_length + extension - state.rest)

        # In the air the leg swings by its own inertia; on the ground it points at the foot.
        to_foot = jnp.stack([state.foot - position[0], -position[1]])
        air_rate = state.swing_rate + h * torque / self.leg_inertia
        length = jnp.where(state.stance, norm(to_foot), rest)
        swing = jnp.where(state.stance, jnp.arctan2(to_foot[0], -to_foot[1]), state.swing + h * air_rate)
        along, across = _axes(swing)
        swing_rate = jnp.where(state.stance, -velocity @ across / length, air_rate)

        toe = position + length * along
        toe_sinks = (velocity + swing_rate * length * across)[1] < 0
        lands = ~state.stance & (toe[1] <= 0) & toe_sinks
        leaves = state.stance & ((length >= rest) | (ground[1] < 0))
        return HopperState(
            position=position,
            velocity=velocity,
            pitch=state.pitch + h * pitch_rate,
            pitch_rate=pitch_rate,
            swing=swing,
            swing_rate=swing_rate,
            length=length,
            rest=rest,
            foot=jnp.where(lands, toe[0], state.foot),
            stance=(state.stance | lands) & ~leaves,
        )

    def _observe(self, state: HopperState) -> Float[Array, "10"]:
        hip, hip_rate = state.swing - state.pitch, state.swing_rate - state.pitch_rate
        longer, extended = state.length - self.leg_length, state.rest - self.leg_length
        (vx, vz), height = state.velocity, state.position[1]
        ground = state.stance.astype(jnp.float32)
        return jnp.stack([height, state.pitch, hip, longer, extended, vx, vz, state.pitch_rate, hip_rate, ground])

    def backdrop(self) -> Scene:
        length = float(self.leg_length)
        ground = Line(np.array([[-10.0, -0.03], [200.0, -0.03]]), 0.06, PALE)
        marks = Line(np.array([[-10.0, -0.03], [200.0, -0.03]]), 0.06, "#94a3b8", dash=(0.5, 0.5))
        return Scene((ground, marks), (-1.5 * length, -0.15, 2.5 * length, 2.6 * length))

    def scene(self, state: HopperState) -> Scene:
        hip, length = np.asarray(state.position, float), float(self.leg_length)
        down = np.array([np.sin(float(state.swing)), -np.cos(float(state.swing))])
        toe = hip + float(state.length) * down
        knee = hip + 0.45 * length * down
        body = hip + turned(np.array([[0.0, 0.02], [0.0, 0.6 * length]]), float(state.pitch))
        side = np.array([-down[1], down[0]]) * 0.045 * length
        coil = knee + np.linspace(0, 1, 12)[:, None] * (toe - knee)
        coil[1:-1] += np.where(np.arange(10) % 2, 1, -1)[:, None] * side
        return self.backdrop().add(
            Line(coil, 0.02, ORANGE),
            Line(np.stack([hip, knee]), 0.1 * length, INK),
            Line(body, 0.26 * length, BLUE),
            Circle(hip, 0.06 * length, "#ffffff"),
            Circle(toe, 0.05 * length, INK),
            shift=(float(hip[0]), 0.0),
        )

    def position(self, observation: Observation) -> np.ndarray:
        """The hip; how far it came is the sum of its velocities, since the observation does not tell the place."""
        values = np.asarray(observation, float)
        return np.stack([np.cumsum(values[:, 5]) * float(self.timestep), values[:, 0]], 1)


def run(env: Hopper2D, observation: Float[Array, "10"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Raibert's controller at a fast run."""
    return _raibert(env, observation, 2.0)


def jog(env: Hopper2D, observation: Float[Array, "10"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Raibert's controller at walking pace."""
    return _raibert(env, observation, 0.8)


def _raibert(env: Hopper2D, observation: Float[Array, "10"], speed: float) -> Float[Array, "2"]:
    """In the air place the foot for the wanted speed (m/s); on the ground hold the body upright, and thrust as the spring rebounds
    by as much as the energy falls short of that of a hop 0.15 m high."""
    height, pitch, hip, longer, extended, vx, vz, pitch_rate, hip_rate, ground = observation
    stance_time = jnp.pi * jnp.sqrt(env.mass / env.stiffness)
    ahead = vx * stance_time / 2 + jnp.clip(0.08 * (vx - speed), -0.03, 0.03)
    wanted = jnp.arcsin(jnp.clip(ahead / env.leg_length, -0.7, 0.7))
    swing, swing_rate = hip + pitch, hip_rate + pitch_rate
    placing = env.leg_inertia * (900.0 * (wanted - swing) - 50.0 * swing_rate)
    righting = env.body_inertia * (150.0 * pitch + 25.0 * pitch_rate)
    along, _ = _axes(swing)
    rebounds = -(vx * along[0] + vz * along[1]) > 0
    bounce = vz**2 / 2 + env.gravity * (height - env.leg_length) + env.stiffness / env.mass * (extended - longer) ** 2 / 2
    thrust = jnp.where(rebounds, jnp.clip(2.0 * (0.15 * env.gravity - bounce), -1, 1), 0.0)
    on_ground = jnp.stack([righting / env.max_torque, thrust])
    in_air = jnp.stack([placing / env.max_torque, jnp.zeros(())])
    return jnp.clip(jnp.where(ground > 0, on_ground, in_air), -1, 1)


def _axes(swing: Float[Array, ""]) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """Unit vectors from hip to foot, and across the leg in the direction of growing swing."""
    sin, cos = jnp.sin(swing), jnp.cos(swing)
    return jnp.stack([sin, -cos]), jnp.stack([cos, sin])
