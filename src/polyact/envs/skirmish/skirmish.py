"""Skirmish: two against two in an arena of 16 x 16 cells with walls, cover, lines of sight and aimed shots.

A test-bed for tactics: fighters see only what walls do not hide, must turn their aim, lead a moving target, reload, and help each other.
The other side is played by scripted bots (`skirmish.bots`).
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.families import Family, family
from polyact.envs.physics import Parameter
from polyact.envs.scene import BLUE, INK, ORANGE, PALE, Circle, Drawable, Line, Polygon, Scene, box
from polyact.envs.skirmish.bots import BOTS, TURNS, fight, wrapped
from polyact.envs.skirmish.maps import FLOOR, MOVES, SIZE, WALL, centre, checked, random_map, tables
from polyact.envs.skirmish.view import OLDEST, WIDTH, View, pack
from polyact.spaces import Box, MultiDiscrete, Space

OURS = np.array([True, True, False, False])
RELOAD = 3  # ticks between shots
PATROL = 6  # ticks after which a search goes to another corner
CHOICES = (len(MOVES), len(TURNS), 2)


class SkirmishState(eqx.Module):
    """Fighters 0 and 1 are ours, 2 and 3 theirs. known, age: where and how long ago the other side last saw each."""

    cell: Int[Array, "4"]
    moved: Int[Array, "4"]
    aim: Float[Array, "4"]
    health: Float[Array, "4"]
    reload: Int[Array, "4"]
    known: Int[Array, "4"]
    age: Int[Array, "4"]
    character: Float[Array, "9"]
    time: Int[Array, ""]
    theirs: Float[Array, "2 W"]  # what the bots see


class Skirmish(Drawable):
    """Observation [2, W]: what our fighters see (`skirmish.view`). Action [6]: (move, turn, fire) of the first and of the second.

    move: stay, right, left, up, down; turn: the aim by one of `TURNS`; fire: a shot when reloaded, along the aim, at the nearest foe
    in sight within `width` cells of the line and `reach` cells, who is where it has just moved to. It hits with chance `accuracy`, times
    `shelter` when the foe stands behind cover or a wall, and takes `damage` of a health of 1.

    bots [K, 9]: characters, one of which plays both foes of an episode. Ends when a side is dead, or after `horizon` ticks. Reward:
    half the damage done minus taken, and 1 or -1 for more or less health left at the end. info: success (won); cell, aim, health,
    shot, seen (by the other side) [4]: what happened, for critics.
    """

    terrain: Int[Array, "*batch 16 16"]
    neighbours: Int[Array, "*batch 256 5"]
    steps: Int[Array, "*batch 256 256"]
    sight: Bool[Array, "*batch 256 256"]
    bots: Float[Array, "*batch K 9"]
    reach: Parameter = 9.0
    width: Parameter = 0.6
    accuracy: Parameter = 0.8
    shelter: Parameter = 0.5
    damage: Parameter = 0.34
    horizon: int = eqx.field(static=True, default=60)

    @property
    def observation_space(self) -> Space:
        return Box(-np.inf, np.inf, (2, WIDTH))

    @property
    def action_space(self) -> Space:
        return MultiDiscrete(CHOICES * 2)

    def reset(self, key: PRNGKeyArray) -> tuple[SkirmishState, Array]:
        """Everyone somewhere in their own base, looking across; a character for the foes."""
        places, who = jax.random.split(key)
        x, y = jax.random.randint(places, (2, 4), 0, jnp.array([[3], [SIZE]]))
        cell = y * SIZE + jnp.where(OURS, x, SIZE - 1 - x)
        base = SIZE // 2 * SIZE + jnp.where(OURS, 1, SIZE - 2)
        still = jnp.zeros(4, jnp.int32)
        character = self.bots[jax.random.randint(who, (), 0, self.bots.shape[-2])]
        state = SkirmishState(
            cell,
            still,
            jnp.where(OURS, 0.0, jnp.pi),
            jnp.ones(4),
            still,
            base,
            jnp.full(4, int(OLDEST), jnp.int32),
            character,
            jnp.zeros((), jnp.int32),
            jnp.zeros((2, WIDTH)),
        )
        return self._perceived(state)

    def step(self, state: SkirmishState, action: Array, key: PRNGKeyArray) -> tuple[SkirmishState, Step]:
        luck, whims = jax.random.split(key)
        theirs = jax.vmap(fight, (None, 0, 0))(state.character, state.theirs, jax.random.normal(whims, (2, 6)))
        moves, turns, fires = jnp.concatenate([action.reshape(2, 3), theirs]).T
        alive = state.health > 0
        aim = wrapped(state.aim + jnp.where(alive, jnp.asarray(TURNS, jnp.float32)[turns], 0))
        cell = jnp.where(alive, self.neighbours[state.cell, moves], state.cell)
        shot = alive & (fires == 1) & (state.reload == 0)
        hurt = self._shots(state.cell, aim, cell, alive, shot, luck)
        health = jnp.maximum(state.health - hurt, 0)
        reload = jnp.where(shot, RELOAD, jnp.maximum(state.reload - 1, 0))
        moved = jnp.where(cell != state.cell, moves, 0)
        known, age = self._sightings(state, cell, health > 0)
        now = SkirmishState(cell, moved, aim, health, reload, known, age, state.character, state.time + 1, state.theirs)
        now, observation = self._perceived(now)
        ours, others = jnp.sum(health[:2]), jnp.sum(health[2:])
        over = (ours <= 0) | (others <= 0) | (now.time >= self.horizon)
        taken = state.health - health
        reward = (taken[2:].sum() - taken[:2].sum()) / 2 + jnp.where(over, jnp.sign(ours - others), 0)
        info = {"success": over & (ours > others), "cell": cell, "aim": aim, "health": health, "shot": shot, "seen": age == 0}
        return now, Step(observation, reward, over, jnp.asarray(False), info)

    def _shots(self, cell: Array, aim: Array, after: Array, alive: Array, shot: Array, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Health that everyone loses to the shots of this tick."""
        offset = (_xy(after) - _xy(cell)[:, None]).astype(jnp.float32)  # [shooter, target, 2]
        distance = _norm(offset)
        error = jnp.abs(wrapped(jnp.arctan2(offset[..., 1], offset[..., 0]) - aim[:, None]))
        foes = jnp.asarray(OURS[:, None] != OURS)
        aimed = self.sight[cell[:, None], after] & (error <= self.half_width(distance)) & (distance <= self.reach)
        distance = jnp.where(foes & alive & aimed, distance, jnp.inf)
        target = jnp.argmin(distance, axis=1)
        chance = self.accuracy * jnp.where(self.behind(after[target], cell), self.shelter, 1.0)
        hit = shot & jnp.isfinite(jnp.min(distance, axis=1)) & (jax.random.uniform(key, (4,)) < chance)
        return self.damage * jnp.sum(hit[:, None] & (target[:, None] == jnp.arange(4)), axis=0)

    def half_width(self, distance: Array) -> Array:
        """Largest error of the aim (rad) with which a shot at a target so many cells away can hit."""
        return jnp.arctan2(self.width, jnp.maximum(distance, 0.5))

    def behind(self, cell: Array, shooter: Array) -> Array:
        """Whether something stands on the cell next to `cell` that lies towards the shooter."""
        offset = (_xy(shooter) - _xy(cell)).astype(jnp.float32)
        x, y = jnp.moveaxis(_xy(cell) + jnp.rint(offset / jnp.maximum(_norm(offset), 1)[..., None]).astype(jnp.int32), -1, 0)
        return self.terrain[jnp.clip(y, 0, SIZE - 1), jnp.clip(x, 0, SIZE - 1)] != FLOOR

    def _sightings(self, state: SkirmishState, cell: Array, alive: Array) -> tuple[Array, Array]:
        """known and age after everyone has moved. A place where a foe was seen and is no more gives way to a corner to search."""
        watches = jnp.asarray(OURS[:, None] != OURS) & alive[:, None]
        seen = jnp.any(watches & self.sight[cell[:, None], cell], axis=0) & alive
        empty = jnp.any(watches & self.sight[cell[:, None], state.known], axis=0)
        corner = (state.time // PATROL + jnp.arange(4)) % 4
        search = jnp.where(corner // 2 > 0, SIZE - 3, 2) * SIZE + jnp.where(corner % 2 > 0, SIZE - 2, 1)
        known = jnp.where(seen, cell, jnp.where(empty, search, state.known))
        return known, jnp.where(seen, 0, jnp.minimum(state.age + 1, int(OLDEST)))

    def _perceived(self, state: SkirmishState) -> tuple[SkirmishState, Array]:
        rows = jax.vmap(lambda who: pack(self._view(state, who)))(jnp.arange(4))
        return eqx.tree_at(lambda s: s.theirs, state, rows[2:]), rows[:2]

    def _view(self, state: SkirmishState, who: Array) -> View:
        mate = who ^ 1
        foes = jnp.where(who < 2, 2, 0) + jnp.arange(2)
        here, alive = state.cell[who], state.health > 0
        visible = self.sight[here, state.cell[foes]] & alive[foes] & alive[who]
        steps = self.steps[here, state.known[foes]].astype(jnp.float32)
        first = jnp.argmin(steps + 1000 * (~alive[foes]) + 500 * (~visible) + 200 * (state.age[foes] > 0))
        foes, visible, steps = (jnp.where(first == 1, part[::-1], part) for part in (foes, visible, steps))
        cells = state.known[foes]
        offset = (_xy(cells) - _xy(here)).astype(jnp.float32)
        distance = _norm(offset)
        target, there = cells[0], self.neighbours[here]
        nearer = _norm((_xy(target) - _xy(there)).astype(jnp.float32)) - distance[0]
        watched = self.sight[there[:, None], cells] & alive[foes]
        offsets = jnp.asarray(MOVES, jnp.float32)
        return View(
            health=state.health[who],
            reload=state.reload[who],
            facing=jnp.stack([jnp.cos(state.aim[who]), jnp.sin(state.aim[who])]),
            moved=offsets[state.moved[who]],
            place=_xy(here) - (SIZE - 1) / 2,
            left=1 - state.time / self.horizon,
            mate_alive=alive[mate],
            mate_offset=(_xy(state.cell[mate]) - _xy(here)) * alive[mate],
            mate_health=state.health[mate],
            mate_steps=self.steps[here, state.cell[mate]].astype(jnp.float32) * alive[mate],
            foe_alive=alive[foes],
            visible=visible,
            age=state.age[foes],
            offset=offset,
            distance=distance,
            steps=steps,
            error=wrapped(jnp.arctan2(offset[:, 1], offset[:, 0]) - state.aim[who]),
            velocity=offsets[state.moved[foes]] * (state.age[foes] == 0)[:, None],
            foe_health=state.health[foes],
            foe_reload=state.reload[foes] * (state.age[foes] == 0),
            half_width=self.half_width(distance),
            blocked=(there == here) & (jnp.arange(len(MOVES)) > 0),
            exposure=watched.sum(1) / 2,
            closer=self.steps[there, target].astype(jnp.float32) - steps[0],
            nearer=nearer,
            mate_closer=(self.steps[there, state.cell[mate]].astype(jnp.float32) - self.steps[here, state.cell[mate]])
            * alive[mate],
            protected=jax.vmap(lambda cell: self.behind(cell, target))(there),
        )

    def backdrop(self) -> Scene:
        terrain = np.asarray(self.terrain)
        shapes = [
            Polygon(box((float(x), float(y)), 0.5, 0.5), INK if terrain[y, x] == WALL else PALE)
            for y, x in zip(*np.nonzero(terrain), strict=True)
        ]
        return Scene(tuple(shapes), (-0.5, -0.5, SIZE - 0.5, SIZE - 0.5))

    def scene(self, state: SkirmishState) -> Scene:
        places, aim, health = centre(np.asarray(state.cell)).astype(float), np.asarray(state.aim), np.asarray(state.health)
        scene = self.backdrop()
        for who in range(4):
            colour, strength = (BLUE if who < 2 else ORANGE), 0.15 + 0.85 * float(health[who])
            tip = places[who] + 0.7 * np.array([np.cos(aim[who]), np.sin(aim[who])])
            scene = scene.add(
                Line(np.stack([places[who], tip]), 0.12, colour, strength), Circle(places[who], 0.36, colour, strength)
            )
        return scene

    def position(self, observation: Observation) -> np.ndarray:
        from_middle = np.asarray(observation).reshape(len(observation), 2, WIDTH)[:, 0, 6:8]
        return from_middle * SIZE + (SIZE - 1) / 2


def skirmish(number: int = 0, horizon: int = 60, terrain: Any = None) -> Skirmish:
    """The arena with random map `number`, or with the terrain given [16, 16] (PolyactError when that is no map)."""
    grid = random_map(number) if terrain is None else checked(terrain)
    neighbours, steps, sight = map(jnp.asarray, tables(grid.tobytes()))
    return Skirmish(jnp.asarray(grid), neighbours, steps, sight, jnp.asarray(BOTS), horizon=horizon)


def skirmishes(numbers: Sequence[int], horizon: int = 60) -> Family:
    """Arenas with these random maps, as a family."""
    return family([skirmish(number, horizon) for number in numbers])


def hunter(env: Skirmish, observation: Observation, key: PRNGKeyArray) -> Array:
    """Goes to where a foe was seen, keeps at middle range, and shoots ahead of it: the first of the bots."""
    return _bots(env, 0, observation, key)


def rusher(env: Skirmish, observation: Observation, key: PRNGKeyArray) -> Array:
    """Runs at the nearest foe and shoots."""
    return _bots(env, 1, observation, key)


def marksman(env: Skirmish, observation: Observation, key: PRNGKeyArray) -> Array:
    """Keeps its distance and aims with care."""
    return _bots(env, 2, observation, key)


def _bots(env: Skirmish, character: int, observation: Observation, key: PRNGKeyArray) -> Array:
    rows = jnp.asarray(observation)
    return jax.vmap(fight, (None, 0, 0))(jnp.asarray(BOTS[character]), rows, jax.random.normal(key, (2, 6))).reshape(-1)


def _xy(cell: Array) -> Array:
    return jnp.stack([cell % SIZE, cell // SIZE], axis=-1)


def _norm(offset: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(offset), axis=-1))
