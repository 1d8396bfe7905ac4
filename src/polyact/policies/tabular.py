"""A policy written down as a table of probabilities, to roll out what exact methods found."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from polyact.envs.tabular import Tabular
from polyact.errors import PolyactError
from polyact.nets.layers import Linear
from polyact.policies.categorical import FORBIDDEN, Categorical
from polyact.policies.heads import CategoricalHead
from polyact.policies.spec import Spec


def tabular_policy(world: Tabular, policy: Float[np.ndarray, "S A"]) -> Categorical:
    """Acts in a tabular world with the probabilities of each state's row. Raises PolyactError when the shapes do not agree."""
    if policy.shape != (world.states, world.actions):
        raise PolyactError(f"a policy for this world has shape ({world.states}, {world.actions}), got {policy.shape}")
    logits = np.where(policy > 0, np.log(np.where(policy > 0, policy, 1.0)), FORBIDDEN)
    body = Spec.of(world.observation_space, world.action_space, 1).body
    return Categorical(body, Linear(jnp.asarray(logits, jnp.float32), jnp.zeros(world.actions)), CategoricalHead())
