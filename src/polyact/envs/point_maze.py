"""PointMaze: roll a ball through a maze written as text, from a start to a goal; the reward is sparse.

The task of D4RL's maze2d and gymnasium-robotics' PointMaze, without a physics engine: a disc driven by a force, with exact contact
against walls and corners.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.mazes import Maze, layout, next_cells, read
from polyact.envs.physics import Parameter, at_least, norm
from polyact.envs.point_navigation import PointState
from polyact.envs.scene import BLUE, GREEN, ORANGE, Circle, Drawable, Polygon, Scene, box
from polyact.spaces import Box, Space

WALL = "#64748b"


class PointMaze(Drawable):
    """Observation [6]: position and velocity of the ball, position of the goal. Action [2] in [-1, 1]: force.

    `maze`: a map as text or the name of a built-in one (mazes.py); cells are `cell` metres wide, x grows to the right, y upwards from
    the bottom left corner. Force as a share of `max_force` (N), linear `friction` (N s/m). Start and goal are drawn from the map's,
    each shifted within its cell by up to `spread` cells. Reward 1 within `goal_radius` of the goal, which terminates; else 0.
    info: success.
    """

    maze: str = eqx.field(static=True, default="umaze", converter=layout)
    cell: Parameter = 1.0
    radius: Parameter = 0.2
    mass: Parameter = 1.0
    max_force: Parameter = 10.0
    friction: Parameter = 2.5
    spread: Parameter = 0.2
    goal_radius: Parameter = 0.4
    timestep: Parameter = 0.05
    horizon: int = eqx.field(static=True, default=300)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        return Box(-np.inf, np.inf, (6,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (2,))

    @property
    def map(self) -> Maze:
        return read(self.maze)

    def reset(self, key: PRNGKeyArray) -> tuple[PointState, Array]:
        """A start and a goal of the map; not the same cell where the map leaves a choice."""
        where, whither, *shifts = jax.random.split(key, 4)
        starts, goals = jnp.asarray(self.map.starts), jnp.asarray(self.map.goals)
        start = starts[jax.random.randint(where, (), 0, len(starts))]
        other = jnp.any(goals != start, 1).astype(jnp.float32)
        goal = jax.random.choice(whither, goals, p=jnp.where(jnp.any(other > 0), other, 1.0) / jnp.maximum(jnp.sum(other), 1.0))
        moved = [self.spread * self.cell * jax.random.uniform(k, (2,), minval=-1, maxval=1) for k in shifts]
        state = PointState(self.centre(start) + moved[0], jnp.zeros(2), self.centre(goal) + moved[1])
        return state, _observe(state)

    def step(self, state: PointState, action: Array, key: PRNGKeyArray) -> tuple[PointState, Step]:
        force = self.max_force * jnp.clip(action, -1, 1)
        # Friction is integrated exactly. No more than most of a radius per step, so that no wall or corner can be jumped over.
        keep = jnp.exp(-self.friction * self.timestep / self.mass)
        velocity = keep * state.velocity + (1 - keep) * force / self.friction
        velocity = velocity * jnp.minimum(1.0, 0.9 * self.radius / self.timestep / norm(velocity))
        position, velocity = self._collide(state.position + self.timestep * velocity, velocity)
        new = PointState(position, velocity, state.goal)
        success = norm(position - state.goal) < self.goal_radius
        return new, Step(_observe(new), success.astype(jnp.float32), success, jnp.asarray(False), {"success": success})

    def centre(self, cell: Int[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        """World coordinates of the middle of cells (row, column)."""
        rows = self.map.walls.shape[0]
        return self.cell * jnp.stack([cell[..., 1] + 0.5, rows - 0.5 - cell[..., 0]], -1)

    def cell_at(self, position: Float[Array, "2"]) -> Int[Array, "2"]:
        """(row, column) of the cell that holds a position; positions outside the map count as in its border."""
        rows, columns = self.map.walls.shape
        x, y = jnp.floor(position / self.cell).astype(jnp.int32)
        return jnp.stack([jnp.clip(rows - 1 - y, 0, rows - 1), jnp.clip(x, 0, columns - 1)])

    def _collide(self, position: Float[Array, "2"], velocity: Float[Array, "2"]) -> tuple[Array, Array]:
        """Push the disc out of the walls around its cell; the speed into a wall is lost, the speed along it kept."""
        row, column = self.cell_at(position)
        around = jax.lax.dynamic_slice(jnp.asarray(self.map.walls), (row - 1, column - 1), (3, 3))
        middle = self.centre(jnp.stack([row, column]))
        room = self.cell / 2 - self.radius

        def wall(right: int, up: int) -> Bool[Array, ""]:
            return around[1 - up, 1 + right]

        low = jnp.stack([jnp.where(wall(-1, 0), -room, -jnp.inf), jnp.where(wall(0, -1), -room, -jnp.inf)])
        high = jnp.stack([jnp.where(wall(1, 0), room, jnp.inf), jnp.where(wall(0, 1), room, jnp.inf)])
        offset = position - middle
        inside = jnp.clip(offset, low, high)
        velocity = jnp.where(offset < low, jnp.maximum(velocity, 0), jnp.where(offset > high, jnp.minimum(velocity, 0), velocity))
        for right, up in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            # A corner sticks out only where both neighbouring faces are free.
            sticks_out = wall(right, up) & ~wall(right, 0) & ~wall(0, up)
            away = inside - jnp.array([right, up]) * self.cell / 2
            distance = norm(away)
            normal = away / distance
            hit = sticks_out & (distance < self.radius)
            inside = jnp.where(hit, inside + (self.radius - distance) * normal, inside)
            velocity = jnp.where(hit, velocity - jnp.minimum(velocity @ normal, 0) * normal, velocity)
        return middle + inside, velocity

    def backdrop(self) -> Scene:
        size = float(self.cell)
        rows, columns = self.map.walls.shape
        blocks = [
            Polygon(box(((first + count / 2) * size, (rows - 0.5 - row) * size), (count / 2 + 0.015) * size, 0.515 * size), WALL)
            for row, first, count in _runs(self.map.walls)
        ]
        marks = [
            Circle((float(c + 0.5) * size, float(rows - 0.5 - r) * size), float(self.goal_radius), colour, 0.25)
            for cells, colour in ((self.map.starts, ORANGE), (self.map.goals, GREEN))
            for r, c in cells
            if len(cells) < np.sum(~self.map.walls)
        ]
        return Scene((*blocks, *marks), (0.0, 0.0, columns * size, rows * size))

    def scene(self, state: PointState) -> Scene:
        goal = Circle(np.asarray(state.goal, float), float(self.goal_radius) / 2, GREEN)
        return self.backdrop().add(goal, Circle(np.asarray(state.position, float), float(self.radius), BLUE))

    def position(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation)[:, :2]


def follow_map(env: PointMaze, observation: Float[Array, "6"], key: PRNGKeyArray) -> Float[Array, "2"]:
    """Look up the next cell on a shortest way and drive to its middle; in the goal's cell, to the goal."""
    position, velocity, goal = observation[:2], observation[2:4], observation[4:]
    columns = env.map.walls.shape[1]
    here, there = env.cell_at(position), env.cell_at(goal)
    hop = jnp.asarray(next_cells(env.maze))[there[0] * columns + there[1], here[0] * columns + here[1]]
    target = jnp.where(jnp.all(here == there), goal, env.centre(jnp.stack([hop // columns, hop % columns])))
    wanted = 3.0 * (target - position)
    return jnp.clip((wanted + 0.5 * (wanted - velocity)) * env.friction / env.max_force, -1, 1)


def _observe(state: PointState) -> Float[Array, "6"]:
    return jnp.concatenate([state.position, state.velocity, state.goal])


def _runs(walls: np.ndarray) -> list[tuple[int, int, int]]:
    """Walls as (row, first column, count) of horizontal runs."""
    edges = np.diff(np.pad(walls.astype(int), ((0, 0), (1, 1))), axis=1)
    starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [(int(row), int(first), int(last - first)) for (row, first), (_, last) in zip(starts, stops, strict=True)]
