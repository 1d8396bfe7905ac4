"""The facts and tasks of the skirmish arena, for behaviour trees that play one fighter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.envs.skirmish.aiming import aiming
from polyact.envs.skirmish.bots import TURNS, ahead, aimed
from polyact.envs.skirmish.maps import MOVES
from polyact.envs.skirmish.view import OLDEST, View, unpack
from polyact.policies.base import Memory, Observation
from polyact.policies.behaviour_tree.check import Fact, Vocabulary
from polyact.policies.behaviour_tree.policy import Leaves, Offers
from polyact.policies.behaviour_tree.recursive import FAILURE, RUNNING, SUCCESS
from polyact.policies.categorical import Categorical

FACTS = {
    "enemy-visible": Fact("a foe is in sight"),
    "enemy-known": Fact("where a foe is was seen lately by the team"),
    "reloaded": Fact("a shot can be fired now"),
    "on-target": Fact("the aim would hit where the foe is now"),
    "exposed": Fact("a foe could see this fighter"),
    "protected": Fact("cover stands between this fighter and the target"),
    "mate-alive": Fact("the mate is alive"),
    "outnumbered": Fact("more foes than friends are alive"),
    "enemy-distance": Fact("cells to the target", 1, 15),
    "enemies-visible": Fact("foes in sight", 1, 2),
    "health": Fact("own health, in tenths", 1, 10),
    "enemy-health": Fact("the target's health, in tenths", 1, 10),
    "mate-distance": Fact("steps to the mate", 1, 15),
}
MOVING = {
    "advance": "go the shortest way to the target until it is in sight",
    "flank": "the same, out of sight as far as possible",
    "retreat": "away from the target until it is out of sight",
    "hide": "go to where no foe sees this fighter",
    "take-cover": "go to where cover stands before the target",
    "strafe": "step sideways",
    "regroup": "go to the mate until three steps away",
    "hold": "stay",
    "wander": "step anywhere",
}
SHOOTING = {
    "aim": "turn the aim to where the target is, until it would hit",
    "aim-ahead": "turn the aim to where the target will be if it goes on as it went",
    "sweep": "turn round until a foe is in sight",
    "fire": "shoot; fails when not reloaded or nobody is in sight",
}
LEARNED = {
    "aim-learned": "turn the aim as a network expects a hit, and while it expects none, to where the target is",
    "shoot-learned": "the same, and shoot when the network expects a hit; fails when not reloaded or nobody is in sight",
}
SIZES = {"nodes": 24, "depth": 6}


class SkirmishLeaves(Leaves):
    """Rules, and with `marksman` a network: a policy from `envs.skirmish.aiming` to which turns would lead to a hit (MultiBinary). A task
    that fails does nothing.

    expects: the probability from which a hit is expected.
    """

    marksman: Categorical | None = None
    expects: float = 0.3

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(FACTS, MOVING | SHOOTING | ({} if self.marksman is None else LEARNED), **SIZES)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def remember(self, before: Memory, after: Memory, acted: Bool[Array, " T"]) -> Memory:
        return after

    def offers(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Offers, Memory]:
        view = unpack(observation)
        tasks = _moving(view, key) | _shooting(view)
        if self.marksman is not None:
            tasks |= self._learned(view, observation, self.marksman)
        statuses, actions, writes = zip(*(tasks[name] for name in self.vocabulary.tasks), strict=True)
        rows = jnp.stack([jnp.stack([jnp.asarray(part, jnp.int32) for part in action]) for action in actions])
        facts = jnp.stack([jnp.asarray(value, jnp.float32) for value in _facts(view).values()])
        status = jnp.stack(statuses)
        acting = jnp.asarray(np.array(writes)) & (status != FAILURE)[:, None]
        return Offers(facts, status, rows, acting, jnp.zeros(3, jnp.int32)), memory

    def _learned(self, view: View, observation: Observation, marksman: Categorical) -> dict[str, Any]:
        chances = hit_chances(marksman, observation)
        visible = view.visible[0] > 0
        expected = visible & (jnp.max(chances) >= self.expects)
        status, (_, towards, _), writes = _shooting(view)["aim"]
        turn = jnp.where(expected, jnp.argmax(chances), towards)
        aims = jnp.where(expected, SUCCESS, jnp.where(visible, RUNNING, status))
        shoots = jnp.where(aims != SUCCESS, aims, jnp.where(expected & (view.reload < 0.5), SUCCESS, FAILURE))
        return {
            "aim-learned": (aims, (0, turn, 0), writes),
            "shoot-learned": (shoots, (0, turn, expected), (False, True, True)),
        }


def hit_chances(marksman: Categorical, row: Observation) -> Float[Array, " turns"]:
    """The probability of a hit after each turn."""
    return jax.nn.softmax(marksman.logits(aiming(row)).reshape(len(TURNS), 2))[:, 1]


def _facts(view: View) -> dict[str, Array]:
    known = view.age[0] < OLDEST
    return {
        "enemy-visible": view.visible[0],
        "enemy-known": known,
        "reloaded": view.reload < 0.5,
        "on-target": (view.visible[0] > 0) & (jnp.abs(view.error[0]) <= view.half_width[0]),
        "exposed": view.exposure[0] > 0,
        "protected": view.protected[0],
        "mate-alive": view.mate_alive,
        "outnumbered": view.foe_alive.sum() > 1 + view.mate_alive,
        "enemy-distance": view.distance[0],
        "enemies-visible": view.visible.sum(),
        "health": jnp.ceil(10 * view.health - 1e-3),
        "enemy-health": jnp.ceil(10 * view.foe_health[0] - 1e-3),
        "mate-distance": view.mate_steps,
    }


def _moving(view: View, key: PRNGKeyArray) -> dict[str, Any]:
    """name: (status, action, which parts of it are set); ties between moves are broken by chance."""
    chance = 0.01 * jax.random.uniform(key, (len(MOVES),))
    stays = jnp.arange(len(MOVES)) == 0
    visible = view.visible[0] > 0
    seeking = jnp.where(visible, SUCCESS, RUNNING)

    def step(cost: Array, status: Any) -> tuple[Array, tuple[Array, int, int], tuple[bool, bool, bool]]:
        return jnp.asarray(status), (jnp.argmin(cost + chance + 100 * view.blocked), 0, 0), (True, False, False)

    near = view.mate_steps <= 3
    joining = jnp.where(view.mate_alive > 0, jnp.where(near, SUCCESS, RUNNING), FAILURE)
    return {
        "advance": step(view.closer, seeking),
        "flank": step(view.closer + 3 * view.exposure, seeking),
        "retreat": step(-view.nearer + view.exposure, jnp.where(visible, RUNNING, SUCCESS)),
        "hide": step(3 * view.exposure - 0.1 * view.nearer, jnp.where(view.exposure[0] > 0, RUNNING, SUCCESS)),
        "take-cover": step(view.exposure - 2 * view.protected, jnp.where(view.protected[0] > 0, SUCCESS, RUNNING)),
        "strafe": step(jnp.abs(view.nearer) + 10 * stays, SUCCESS),
        "regroup": step(view.mate_closer, joining),
        "hold": step(10.0 * ~stays, SUCCESS),
        "wander": step(100 * chance, SUCCESS),
    }


def _shooting(view: View) -> dict[str, Any]:
    visible, known = view.visible[0] > 0, view.age[0] < OLDEST

    def turn(error: Array) -> tuple[Array, tuple[int, Array, int], tuple[bool, bool, bool]]:
        chosen, left = aimed(error)
        status = jnp.where(known, jnp.where(jnp.abs(left) <= view.half_width[0], SUCCESS, RUNNING), FAILURE)
        return status, (0, chosen, 0), (False, True, False)

    round_about = int(np.argmax(TURNS))
    return {
        "aim": turn(view.error[0]),
        "aim-ahead": turn(ahead(view.error[0], view.offset[0], view.velocity[0], 1.0)),
        "sweep": (jnp.where(visible, SUCCESS, RUNNING), (0, round_about, 0), (False, True, False)),
        "fire": (jnp.where(visible & (view.reload < 0.5), SUCCESS, FAILURE), (0, 0, 1), (False, False, True)),
    }
