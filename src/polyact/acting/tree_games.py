"""Many behaviour trees, each in the same games of the skirmish arena, in one compiled program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, UInt32

from polyact.acting.streams import ACTOR, WORLD, memory_key, start_key, step_key
from polyact.data.episodes import Episodes
from polyact.envs.families import Family
from polyact.envs.skirmish.skirmish import Skirmish
from polyact.envs.vector import Keys
from polyact.policies.behaviour_tree.arrays import TreeArrays, compile_trees
from polyact.policies.behaviour_tree.policy import BehaviourTree
from polyact.policies.behaviour_tree.skirmish import SkirmishLeaves
from polyact.policies.behaviour_tree.syntax import Node
from polyact.policies.team import Team


@dataclass(frozen=True)
class Games:
    """The games that every tree plays: `count` episodes, spread over the maps, the same at every evaluation."""

    maps: Family
    count: int

    def play(self, trees: Sequence[Node], leaves: SkirmishLeaves, keys: Keys) -> list[Episodes]:
        """Tree k plays the episodes of keys[k], all trees in one program. What is kept are lengths and info columns."""
        compiled = compile_trees(trees, leaves.vocabulary)
        numbers = jnp.arange(self.count)
        each = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers))(keys)
        info, lengths = jax.tree.map(
            np.asarray, _play(compiled, leaves, cast(Skirmish, self.maps.spread(self.count).members), each)
        )
        return [_as_episodes({name: column[k] for name, column in info.items()}, lengths[k]) for k in range(len(trees))]


@eqx.filter_jit
def _play(
    trees: TreeArrays, leaves: SkirmishLeaves, maps: Skirmish, keys: Key[Array, "K G"] | UInt32[Array, "K G 2"]
) -> tuple[dict[str, Array], Array]:
    """info columns [K, G, T, ...] and lengths [K, G]; the same episodes as `rollout` would play, up to rows after their ends."""

    def game(tree: TreeArrays, env: Skirmish, key: PRNGKeyArray) -> tuple[dict[str, Array], Array]:
        policy = Team(BehaviourTree(tree, leaves))

        def step(carry: Any, t: Array) -> tuple[Any, tuple[dict[str, Array], Array]]:
            state, observation, memory, over = carry
            action, memory = policy.act(observation, memory, step_key(key, ACTOR, t))
            state, step = env.step(state, action, step_key(key, WORLD, t))
            row = step.info | policy.report(memory)
            return (state, step.observation, memory, over | step.terminated), (row, over)

        state, observation = env.reset(start_key(key))
        begin = (state, observation, policy.start(memory_key(key)), jnp.asarray(False))
        _, (info, over) = jax.lax.scan(step, begin, jnp.arange(env.horizon))
        return info, jnp.sum(~over)

    return jax.vmap(jax.vmap(game, (None, 0, 0)), (0, None, 0))(trees, maps, keys)


def _as_episodes(info: dict[str, np.ndarray], lengths: np.ndarray) -> Episodes:
    kept = np.arange(info["success"].shape[1]) < lengths[:, None]
    return Episodes(lengths, info={name: column[kept] for name, column in info.items()})
