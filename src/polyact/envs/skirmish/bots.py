"""Scripted fighters: one rule with nine numbers, and eight characters that differ in them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from polyact.envs.skirmish.view import unpack

TURNS = np.deg2rad([0.0, 7.0, -7.0, 20.0, -20.0, 60.0, -60.0])
CHARACTERS = ("hunter", "rusher", "marksman", "camper", "dancer", "pack", "shy", "guard")
# distance it likes (cells), how much; dislike of being seen; love of its mate; lead of the aim (ticks), its error (rad); width of the
# angle within which it fires (hit angles); health below which it is cautious; whim
BOTS = np.array(
    [
        [4.0, 1.0, 0.2, 0.1, 1.0, 0.08, 1.2, 0.3, 0.3],
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.10, 1.5, 0.0, 0.3],
        [7.0, 0.6, 0.3, 0.0, 1.0, 0.05, 1.0, 0.4, 0.2],
        [6.0, 0.3, 1.0, 0.0, 0.0, 0.06, 1.0, 0.5, 0.1],
        [5.0, 0.5, 0.0, 0.0, 0.0, 0.10, 1.5, 0.0, 1.5],
        [4.0, 0.7, 0.2, 0.8, 1.0, 0.08, 1.2, 0.3, 0.3],
        [8.0, 0.6, 1.5, 0.2, 1.0, 0.06, 1.0, 0.7, 0.3],
        [5.0, 0.1, 0.3, 0.2, 1.0, 0.05, 1.0, 0.3, 0.1],
    ],
    np.float32,
)


def fight(character: Float[Array, "9"], row: Float[Array, " width"], chance: Float[Array, "6"]) -> Int[Array, "3"]:
    """(move, turn, fire) of one fighter who sees `row`. chance: standard normal draws, for a whim about every move and for the aim."""
    likes, insists, dislikes, loves, lead, shake, width, threshold, whim = character
    view = unpack(row)
    cautious = view.health < threshold
    apart = jnp.abs(view.distance[0] + view.nearer - likes - 6 * cautious)
    distance = jnp.where(view.visible[0] > 0, apart, view.closer)
    seen = dislikes * (1 + 3 * (cautious | (view.reload > 0))) * view.exposure
    cost = insists * distance + seen + loves * view.mate_closer + 100 * view.blocked
    move = jnp.argmin(cost + whim * chance[:5] / 2)
    turn, error = aimed(ahead(view.error[0], view.offset[0], view.velocity[0], lead) + shake * chance[5])
    fire = (view.visible[0] > 0) & (jnp.abs(error) <= width * view.half_width[0])
    return jnp.stack([move, turn, fire.astype(move.dtype)]).astype(jnp.int32)


def ahead(error: Array, offset: Array, velocity: Array, ticks: Array | float) -> Array:
    """The error of the aim if the target goes on as it went for some ticks."""
    now, then = jnp.arctan2(offset[1], offset[0]), jnp.arctan2(*(offset + ticks * velocity)[::-1])
    return wrapped(error + then - now)


def aimed(error: Array) -> tuple[Array, Array]:
    """The turn that leaves the smallest error of the aim, and that error."""
    left = wrapped(error - jnp.asarray(TURNS, jnp.float32))
    turn = jnp.argmin(jnp.abs(left))
    return turn, left[turn]


def wrapped(angle: Array) -> Array:
    """The same angle in -pi .. pi."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
