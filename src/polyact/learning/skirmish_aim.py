"""Learns to aim in the skirmish arena from logged games: hindsight says which turn would have hit.

A shot meets its target where it has just moved to. Rules aim at where it is, or lead it; the network learns where foes of all kinds go.
"""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.envs.families import Family
from polyact.envs.skirmish.aiming import aiming
from polyact.envs.skirmish.bots import BOTS, TURNS, fight, wrapped
from polyact.envs.skirmish.maps import centre
from polyact.envs.skirmish.skirmish import Skirmish
from polyact.envs.skirmish.view import VISIBLE
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.bc import BC
from polyact.learning.fit import fit
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.policies.categorical import Categorical
from polyact.policies.team import SharedCategorical, Team
from polyact.spaces import Box, MultiBinary


class Bot(Policy):
    """One of the scripted characters, drawn anew for every episode; each of its choices is random with chance `careless`."""

    careless: float = 0.2

    def start(self, key: PRNGKeyArray) -> Memory:
        return jnp.asarray(BOTS)[jax.random.randint(key, (), 0, len(BOTS))]

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        rule, careless, what = jax.random.split(key, 3)
        chance = jax.random.randint(what, (3,), 0, jnp.array([5, len(TURNS), 2]))
        choice = fight(memory, observation, jax.random.normal(rule, (6,)))
        return jnp.where(jax.random.bernoulli(careless, self.careless, (3,)), chance, choice), memory


def learn_to_aim(maps: Family, *, episodes: int, steps: int, key: PRNGKeyArray, rows: int = 20_000) -> Categorical:
    """A policy from `aiming` to the turns that would hit (MultiBinary), one network for all turns, cloned from hindsight on games of bots.

    rows: how many moments with a foe in sight are learned from, drawn anew so that there are always as many.
    """
    playing, choosing, fitting = jax.random.split(key, 3)
    seen, hits = hindsight(rollout(Team(Bot()), maps, episodes=episodes, key=playing), maps)
    if not len(seen):
        raise PolyactError(f"in {episodes} episodes no foe was ever in sight; more are needed")
    chosen = np.asarray(jax.random.randint(choosing, (rows,), 0, len(seen)))
    inputs = np.asarray(_inputs(jnp.asarray(seen[chosen])))
    moments = Episodes(np.full(rows, 1), observation=np.repeat(inputs, 2, axis=0), action=hits[chosen].astype(np.int8))
    source = Source(moments, "aiming", Box(-np.inf, np.inf, inputs.shape[1:]), MultiBinary(len(TURNS)))
    actor = Actor(SharedCategorical, Network(width=32), members=len(TURNS))
    learner = BC(actor, Optimiser(learning_rate=3e-3, schedule="cosine"))
    policy = fit(learner, source, steps=steps, key=fitting, progress=False).policy
    assert isinstance(policy, Categorical)
    return policy


_inputs = eqx.filter_jit(lambda rows: jax.vmap(aiming)(rows))


def hindsight(episodes: Episodes, maps: Family) -> tuple[np.ndarray, np.ndarray]:
    """Moments of our fighters with a foe in sight: what was seen [N, W], and which turns would have hit [N, turns]."""
    cell, aim, health = (np.asarray(episodes.info[name]) for name in ("cell", "aim", "health"))
    later = np.ones(episodes.steps, bool)
    later[episodes.starts] = False  # before the first step of an episode nothing was logged
    now = np.flatnonzero(later)
    game = np.repeat(np.arange(episodes.count), episodes.lengths)[now]
    arena = cast(Skirmish, maps.members)
    sight, reach, width = np.asarray(arena.sight), np.asarray(arena.reach), np.asarray(arena.width)
    where = game % maps.count
    before, after = cell[now - 1][:, :2], cell[now][:, 2:]
    offset = (centre(after)[:, None] - centre(before)[:, :, None]).astype(float)  # [N, ours, foes, 2]
    distance = np.linalg.norm(offset, axis=-1)
    alive = health[now - 1] > 0
    open_to = sight[where[:, None, None], before[:, :, None], after[:, None]] & alive[:, None, 2:]
    open_to &= distance <= reach[where][:, None, None]
    turned = aim[now - 1][:, :2, None, None] + TURNS
    error = np.abs(wrapped(jnp.asarray(np.arctan2(offset[..., 1], offset[..., 0])[..., None] - turned)))
    half = np.arctan2(width[where][:, None, None], np.maximum(distance, 0.5))
    hits = np.any((error <= half[..., None]) & open_to[..., None], axis=2)
    rows = np.asarray(episodes.observation)[now + game]  # [N, ours, W]
    visible = (rows[:, :, VISIBLE] > 0) & alive[:, :2]
    return rows[visible], np.asarray(hits)[visible]
