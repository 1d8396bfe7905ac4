"""What a fighter perceives: one row of numbers with named parts, the same for learners, rules and bots."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from polyact.envs.skirmish.maps import MOVES

OWN, MATE, FOE, MOVE = 9, 5, 14, 6
WIDTH = OWN + MATE + 2 * FOE + len(MOVES) * MOVE
VISIBLE = OWN + MATE + 1  # where a row says whether the target is in sight
LENGTH = 16.0  # cells per unit of length in a row
OLDEST = 10.0  # ticks after which a sighting is not aged any further


class View(NamedTuple):
    """A row, taken apart. Lengths in cells, angles in radians, counts in ticks; flags are 0 or 1.

    Own: health (0 .. 1), reload (until the next shot), facing (cosine, sine of the aim), moved (x, y at the last tick), place (x, y from
    the middle of the map), left (share of the time). Mate: mate_alive, mate_offset (x, y), mate_health, mate_steps (path length).
    Foes [2, ...], the target first (visible before known, near before far): foe_alive, visible (to this fighter), age (since the team
    saw it), offset (x, y of where it was seen), distance, steps (path length), error (of the aim, -pi .. pi), velocity (x, y),
    foe_health, foe_reload, and half_width (of the angle within which a shot hits).
    Moves [5]: blocked, exposure (share of the foes that would see that cell), closer (change of the path to the target), nearer (change
    of the distance to it), mate_closer, protected (whether cover would stand between).
    """

    health: Array
    reload: Array
    facing: Array
    moved: Array
    place: Array
    left: Array
    mate_alive: Array
    mate_offset: Array
    mate_health: Array
    mate_steps: Array
    foe_alive: Array
    visible: Array
    age: Array
    offset: Array
    distance: Array
    steps: Array
    error: Array
    velocity: Array
    foe_health: Array
    foe_reload: Array
    half_width: Array
    blocked: Array
    exposure: Array
    closer: Array
    nearer: Array
    mate_closer: Array
    protected: Array


def pack(view: View) -> Float[Array, " width"]:
    """The row [WIDTH] of a view, with lengths in units of the map and angles in half turns."""
    own = [view.health, view.reload / 4, *view.facing, *view.moved, *(view.place / LENGTH), view.left]
    mate = [view.mate_alive, *(view.mate_offset / LENGTH), view.mate_health, view.mate_steps / (2 * LENGTH)]
    foes = [
        view.foe_alive[:, None],
        view.visible[:, None],
        view.age[:, None] / OLDEST,
        view.offset / LENGTH,
        view.distance[:, None] / LENGTH,
        view.steps[:, None] / (2 * LENGTH),
        view.error[:, None] / jnp.pi,
        view.velocity,
        view.foe_health[:, None],
        view.foe_reload[:, None] / 4,
        view.half_width[:, None],
        (jnp.abs(view.error) <= view.half_width)[:, None],
    ]
    moves = [view.blocked, view.exposure, view.closer, view.nearer, view.mate_closer, view.protected]
    parts = [jnp.stack(own), jnp.stack(mate), jnp.concatenate(foes, axis=1).reshape(-1), jnp.stack(moves).reshape(-1)]
    return jnp.concatenate([jnp.asarray(part, jnp.float32) for part in parts])


def unpack(row: Float[Array, " width"]) -> View:
    """Inverse of `pack`."""
    own, mate = row[:OWN], row[OWN : OWN + MATE]
    foes = row[OWN + MATE : OWN + MATE + 2 * FOE].reshape(2, FOE)
    moves = row[OWN + MATE + 2 * FOE :].reshape(MOVE, len(MOVES))
    return View(
        own[0],
        own[1] * 4,
        own[2:4],
        own[4:6],
        own[6:8] * LENGTH,
        own[8],
        mate[0],
        mate[1:3] * LENGTH,
        mate[3],
        mate[4] * 2 * LENGTH,
        foes[:, 0],
        foes[:, 1],
        foes[:, 2] * OLDEST,
        foes[:, 3:5] * LENGTH,
        foes[:, 5] * LENGTH,
        foes[:, 6] * 2 * LENGTH,
        foes[:, 7] * jnp.pi,
        foes[:, 8:10],
        foes[:, 10],
        foes[:, 11] * 4,
        foes[:, 12],
        *moves,
    )
