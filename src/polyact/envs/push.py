"""Push: move a T-shaped block to a target pose by pushing it with a disc (after PushT of Diffusion Policy, arXiv 2303.04137).

Everything is slow, so inertia does not matter: the block moves only while it is pushed, and by what friction with the table allows
(the ellipsoidal limit surface of Goyal, Ruina and Papadopoulos 1991; pushing after Lynch and Mason 1996).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, norm, rotate, table
from polyact.envs.scene import BLUE, INK, PALE, Circle, Drawable, Line, Polygon, Scene, Shape, box, turned
from polyact.spaces import Box, Space

GHOST = "#b7e4c7"
T_BLOCK = ((0.0, 0.1286, 0.3, 0.075), (0.0, -0.1714, 0.075, 0.225))


class PushState(eqx.Module):
    pusher: Float[Array, "2"]  # m
    block: Float[Array, "2"]  # m, its centre of mass
    angle: Float[Array, ""]  # rad


class Push(Drawable):
    """Observation [6]: pusher (m), block (m), cos and sin of the block's angle. Action [2] in [-1, 1]: velocity of the pusher.

    `shape` [K, 4]: rectangles (x, y, half width, half height) in the block's frame, whose origin is its centre of friction;
    `pressure_radius` (m) says how much turning resists compared with sliding, `friction` is the coefficient between pusher and
    block. The pusher has `radius` and `max_speed` (m/s); it and the block's centre stay in the arena [-1, 1]^2. Reward: minus the
    mean distance (m) of the block's corners from where they should be at `target` (x, y, angle); below `tolerance` the episode
    terminates. info: success. Contact is resolved `substeps` times a step.
    """

    shape: Float[Array, "*batch K 4"] = eqx.field(default=T_BLOCK, converter=table("shape", None, 4))
    target: Float[Array, "*batch 3"] = eqx.field(default=(0.0, 0.0, -0.785), converter=table("target", 3))
    pressure_radius: Parameter = 0.2
    friction: Parameter = 0.3
    radius: Parameter = 0.06
    max_speed: Parameter = 1.0
    tolerance: Parameter = 0.04
    timestep: Parameter = 0.05
    substeps: int = eqx.field(static=True, default=2)
    horizon: int = eqx.field(static=True, default=300)

    def __check_init__(self):
        at_least(1, substeps=self.substeps, horizon=self.horizon, **{"the number of rectangles": self.shape.shape[-2]})

    @property
    def observation_space(self) -> Space:
        return Box(-1, 1, (6,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (2,))

    def reset(self, key: PRNGKeyArray) -> tuple[PushState, Array]:
        """The block anywhere in [-0.5, 0.5]^2 at any angle, the pusher somewhere around it."""
        place, turn, bearing = jax.random.split(key, 3)
        block = 0.5 * jax.random.uniform(place, (2,), minval=-1, maxval=1)
        angle, around = jnp.pi * jax.random.uniform(turn, minval=-1), jnp.pi * jax.random.uniform(bearing, minval=-1)
        pusher = block + self.reach() * jnp.stack([jnp.cos(around), jnp.sin(around)])
        state = self._separate(PushState(jnp.clip(pusher, self.radius - 1, 1 - self.radius), block, angle))
        return state, _observe(state)

    def step(self, state: PushState, action: Array, key: PRNGKeyArray) -> tuple[PushState, Step]:
        move = self.max_speed * jnp.clip(action, -1, 1) * self.timestep / self.substeps
        new = state
        for _ in range(self.substeps):
            new = self._advance(new, move)
        error = self.error(new)
        success = error < self.tolerance
        return new, Step(_observe(new), -error, success, jnp.asarray(False), {"success": success})

    def error(self, state: PushState) -> Float[Array, ""]:
        """Mean distance (m) of the block's corners from their places at the target."""
        corners = self.corners()
        here = state.block + rotate(corners, state.angle)
        return jnp.mean(norm(here - self.target[:2] - rotate(corners, self.target[2])))

    def corners(self) -> Float[Array, "C 2"]:
        """Corners of the rectangles, in the block's frame."""
        signs = jnp.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return (self.shape[:, None, :2] + signs * self.shape[:, None, 2:]).reshape(-1, 2)

    def reach(self) -> Float[Array, ""]:
        """Distance (m) from the block's centre at which the pusher passes all its corners."""
        return jnp.max(norm(self.corners())) + self.radius + 0.03

    def gap(self, point: Float[Array, "2"]) -> Float[Array, ""]:
        """Signed distance (m) of a point in the block's frame from the block's outline, negative inside."""
        beyond = jnp.abs(point - self.shape[:, :2]) - self.shape[:, 2:]
        outside = norm(jnp.maximum(beyond, 0))
        return jnp.min(jnp.where(jnp.all(beyond < 0, 1), jnp.max(beyond, 1), outside))

    def twist(self, contact: Array, normal: Array, depth: Array, slide: Array) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """How the block moves, in its frame (shift, turn), when pressed `depth` metres at a contact with an outward normal.

        `slide` is how far the pusher moves along the tangent meanwhile. It sticks to the block if friction allows, else it slips.
        """
        tangent = jnp.stack([-normal[1], normal[0]])
        lever = jnp.stack([-contact[1], contact[0]]) / self.pressure_radius

        def response(force: Array) -> Array:
            return force + lever * (lever @ force)

        wanted = slide * tangent - depth * normal
        # The inverse of I + lever lever' (Sherman and Morrison).
        sticking = wanted - lever * (lever @ wanted) / (1 + lever @ lever)
        press, shear = -sticking @ normal, sticking @ tangent
        slipping = self.friction * jnp.sign(shear) * tangent - normal
        slipping = slipping * depth / jnp.maximum(-normal @ response(slipping), 0.2)
        force = jnp.where(jnp.abs(shear) <= self.friction * press, sticking, slipping)
        return force, lever @ force / self.pressure_radius

    def _advance(self, state: PushState, move: Float[Array, "2"]) -> PushState:
        pusher = jnp.clip(state.pusher + move, self.radius - 1, 1 - self.radius)
        local = rotate(pusher - state.block, -state.angle)
        gap, normal = jax.value_and_grad(self.gap)(local)
        depth = self.radius - gap
        slide = rotate(pusher - state.pusher, -state.angle) @ jnp.stack([-normal[1], normal[0]])
        shift, turn = self.twist(local - gap * normal, normal, depth, slide)
        touches = depth > 0
        block = state.block + jnp.where(touches, rotate(shift, state.angle), 0.0)
        pushed = PushState(pusher, jnp.clip(block, -1, 1), state.angle + jnp.where(touches, turn, 0.0))
        return self._separate(pushed)

    def _separate(self, state: PushState) -> PushState:
        """Move the pusher out of the block, where the block could not give way."""
        local = rotate(state.pusher - state.block, -state.angle)
        gap, normal = jax.value_and_grad(self.gap)(local)
        out = jnp.maximum(self.radius - gap, 0) * rotate(normal, state.angle)
        return PushState(state.pusher + out, state.block, state.angle)

    def backdrop(self) -> Scene:
        edge = Line(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]), 0.02, PALE)
        target = np.asarray(self.target, float)
        return Scene((edge, *self._outline(target[:2], target[2], GHOST)), (-1.05, -1.05, 1.05, 1.05))

    def scene(self, state: PushState) -> Scene:
        block = self._outline(np.asarray(state.block, float), float(state.angle), INK)
        return self.backdrop().add(*block, Circle(np.asarray(state.pusher, float), float(self.radius), BLUE))

    def _outline(self, place: np.ndarray, angle: float, colour: str) -> list[Shape]:
        # A little larger than they are, so that no seam shows between rectangles that touch.
        grown = np.asarray(self.shape, float) + np.array([0, 0, 0.004, 0.004])
        return [Polygon(place + turned(box(part[:2], part[2], part[3]), angle), colour) for part in grown]

    def position(self, observation: Observation) -> np.ndarray:
        """The block's centre."""
        return np.asarray(observation)[:, 2:4]


def push_home(env: Push, observation: Float[Array, "6"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Choose the side and place where a push helps most, go around the block to it, and push.

    Every push is predicted with the world's own contact model; that the pusher is nearby already counts in a push's favour.
    """
    angle = jnp.arctan2(observation[5], observation[4])
    state = PushState(observation[:2], observation[2:4], angle)
    local = rotate(state.pusher - state.block, -angle)
    contacts, normals, reachable = _contacts(env)
    error = env.error(state)
    depth = jnp.clip(0.3 * error, 0.002, 0.03)

    def gain(contact: Array, normal: Array) -> Array:
        shift, turn = env.twist(contact, normal, depth, jnp.zeros(()))
        return (error - env.error(PushState(state.pusher, state.block + rotate(shift, angle), angle + turn))) / depth

    ready = contacts + (env.radius + 0.02) * normals
    travel = norm(ready - local)
    score = jnp.where(reachable, jax.vmap(gain)(contacts, normals) - 0.4 * travel, -jnp.inf)
    best = jnp.argmax(score)
    contact, normal, goal = contacts[best], normals[best], ready[best]

    offset = local - contact
    beside = offset - (offset @ normal) * normal
    lined_up = (norm(beside) < 0.03) & (offset @ normal > 0) & (offset @ normal < env.radius + 0.1)
    pace = jnp.clip(8.0 * error, 0.15, 1.0) * env.max_speed
    push = -pace * normal - 4.0 * beside

    way = local + jnp.linspace(0, 1, 9)[1:, None] * (goal - local)
    clear = jnp.min(jax.vmap(env.gap)(way)) > env.radius + 0.005
    straight = 10.0 * (goal - local)
    distance = norm(local)
    outward = local / distance
    sideways = jnp.stack([-outward[1], outward[0]])
    sense = jnp.where(outward[0] * goal[1] - outward[1] * goal[0] > 0, 1.0, -1.0)
    # Near the block first away from it, then around.
    off = jax.grad(env.gap)(local) * jnp.clip((env.radius + 0.03 - env.gap(local)) / 0.03, 0, 1)
    circle = env.max_speed * (sense * sideways + 4.0 * (env.reach() - distance) * outward + 2.0 * off)
    velocity = jnp.where(lined_up, push, jnp.where(clear, straight, circle))
    velocity = rotate(velocity, angle) / env.max_speed
    return velocity / jnp.maximum(jnp.max(jnp.abs(velocity)), 1.0)


def _contacts(env: Push) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"], Bool[Array, "n"]]:
    """Places along all sides of the block with their outward normals, and whether the pusher can get there."""
    along = jnp.linspace(-0.9, 0.9, 7)
    normals = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    tangents = jnp.abs(normals[:, ::-1])
    unit = normals[:, None] + along[:, None] * tangents[:, None]
    points = env.shape[:, None, None, :2] + unit * env.shape[:, None, None, 2:]
    contacts = points.reshape(-1, 2)
    normals = jnp.broadcast_to(normals[:, None], (env.shape.shape[0], 4, 7, 2)).reshape(-1, 2)
    return contacts, normals, jax.vmap(env.gap)(contacts + env.radius * normals) > 0.9 * env.radius


def _observe(state: PushState) -> Float[Array, "6"]:
    return jnp.concatenate([state.pusher, state.block, jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle)])])
