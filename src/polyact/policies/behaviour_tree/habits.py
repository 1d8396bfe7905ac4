"""What trees do, without a game: which tasks they tick on made-up boards. Trees of other words and the same habits play alike."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from polyact.policies.behaviour_tree.arrays import TASK, TreeArrays, begin, compile_trees, tick
from polyact.policies.behaviour_tree.check import Vocabulary
from polyact.policies.behaviour_tree.syntax import Node

BOARDS, TICKS = 64, 2  # what every tree is ticked on: the statuses of tasks change from tick to tick, the facts do not
TOGETHER = 256  # trees in one program


def habits(trees: Sequence[Node], vocabulary: Vocabulary) -> Float[np.ndarray, "K H"]:
    """For every tree: how often it ticks each task [T], then the covariance of that with each fact being high [C x T].

    The boards are the same for all trees of a vocabulary: flags, measures and the statuses of tasks are drawn evenly.
    """
    facts, high, statuses = map(jnp.asarray, _boards(vocabulary))
    rows = []
    for begins in range(0, len(trees), TOGETHER):
        some = trees[begins : begins + TOGETHER]
        padded = compile_trees([*some, *[some[0]] * (TOGETHER - len(some))], vocabulary)
        rows.append(np.asarray(_habits(padded, facts, high, statuses))[: len(some)])
    return np.concatenate(rows).astype(float)


def _boards(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """facts [B, C], whether each is in its upper half [B, C], statuses [B, ticks, T]."""
    chance, top = np.random.default_rng(0), np.array([fact.high or 1 for fact in vocabulary.facts.values()])
    facts = np.floor(chance.random((BOARDS, len(top))) * (top + 1))
    statuses = chance.integers(0, 3, (BOARDS, TICKS, len(vocabulary.tasks)))
    return facts.astype(np.float32), facts > top / 2, statuses


@eqx.filter_jit
def _habits(
    trees: TreeArrays, facts: Float[Array, "B C"], high: Bool[Array, "B C"], statuses: Int[Array, "B t T"]
) -> Float[Array, "K H"]:
    def one(tree: TreeArrays) -> Array:
        def on_board(known: Array, answers: Array) -> Array:
            def step(memory, status):
                ticked, memory = tick(tree, known, status, memory)
                acting = ticked.nodes & (tree.kind == TASK)
                return memory, jnp.zeros(status.shape, bool).at[tree.leaf].max(acting)

            return jax.lax.scan(step, begin(tree), answers)[1].mean(0)

        often = jax.vmap(on_board)(facts, statuses)
        sides = jnp.where(high, 1.0, -1.0)
        return jnp.concatenate([often.mean(0)[None], sides.T @ often / len(facts)]).reshape(-1)

    return jax.vmap(one)(trees)
