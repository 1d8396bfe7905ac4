"""What a fighter of the skirmish arena could know before it turns its aim and shoots: which turn would hit after which step of the foe."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from polyact.envs.skirmish.bots import TURNS, wrapped
from polyact.envs.skirmish.maps import MOVES
from polyact.envs.skirmish.view import View, unpack

PER_FOE = len(MOVES) + 8
PER_TURN = 2 * PER_FOE


def aiming(row: Float[Array, " width"]) -> Float[Array, " inputs"]:
    """From a row (`skirmish.view`) the inputs of a network that is shared by all turns: PER_TURN numbers for each, one turn after another.

    Of either foe: whether the shot would hit if it stays or steps in each of the four directions; visible, where it is and how it moved
    (x, y, both as directions in sight), distance, health, reload.
    """
    view = unpack(row)
    hits = jnp.concatenate([_would_hit(view, foe) for foe in (0, 1)], axis=1)  # [turns, 2 moves]
    about = jnp.concatenate([_about(view, foe) for foe in (0, 1)])
    return jnp.concatenate([hits, jnp.broadcast_to(about, (len(TURNS), about.size))], axis=1).reshape(-1)


def _would_hit(view: View, foe: int) -> Float[Array, "turns moves"]:
    offset = view.offset[foe] + jnp.asarray(MOVES, jnp.float32)
    distance = jnp.linalg.norm(offset, axis=1)
    was = jnp.arctan2(view.offset[foe, 1], view.offset[foe, 0])
    error = wrapped(view.error[foe] + jnp.arctan2(offset[:, 1], offset[:, 0]) - was - jnp.asarray(TURNS, jnp.float32)[:, None])
    width = jnp.tan(view.half_width[foe]) * jnp.maximum(view.distance[foe], 0.5)
    hit = jnp.abs(error) <= jnp.arctan2(width, jnp.maximum(distance, 0.5))
    return (hit & (view.visible[foe] > 0)).astype(jnp.float32)


def _about(view: View, foe: int) -> Float[Array, " numbers"]:
    direction = view.offset[foe] / jnp.maximum(view.distance[foe], 1)
    other = [view.visible[foe], view.distance[foe] / 9, view.foe_health[foe], view.foe_reload[foe] / 3]
    return jnp.concatenate([direction, view.velocity[foe], jnp.stack(other)])
