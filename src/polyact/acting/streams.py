"""The random streams of an episode: one for the world (initial state, disturbances) and one for the policy.

Episode i draws from fold_in(key, i) alone, so the world is the same for every policy, however much randomness the policy uses.
"""

from typing import Any

import jax
from jaxtyping import PRNGKeyArray

WORLD, ACTOR = 0, 1


def start_key(episode: PRNGKeyArray) -> PRNGKeyArray:
    """For the initial state."""
    return jax.random.fold_in(episode, 0)


def memory_key(episode: PRNGKeyArray) -> PRNGKeyArray:
    """For `policy.start`."""
    return jax.random.fold_in(jax.random.fold_in(episode, 1 + ACTOR), 0)


def step_key(episode: PRNGKeyArray, stream: int, t: Any) -> PRNGKeyArray:
    """For step t of one of the two streams."""
    return jax.random.fold_in(jax.random.fold_in(episode, 1 + stream), 1 + t)
