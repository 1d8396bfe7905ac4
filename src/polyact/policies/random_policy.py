"""Random actions: the baseline below all others, and the behaviour of exploratory data."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import spaces
from polyact.errors import PolyactError
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.spaces import Space


class RandomPolicy(Policy):
    """Uniform over the action space (normal or exponential where it has no bounds)."""

    action_space: Space = eqx.field(static=True)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return spaces.sample(self.action_space, key), memory

    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        """Log density or probability of an action of the space. PolyactError where the space has no uniform distribution."""
        match self.action_space:
            case spaces.Box(low=low, high=high, dtype=dtype, bounded=True) if dtype.kind == "f":
                extent = np.asarray(high, np.float64) - low
                return -jnp.log(jnp.asarray(np.where(extent > 0, extent, 1.0), jnp.float32)).sum()
            case spaces.Discrete(n=n):
                return -jnp.log(jnp.asarray(n, jnp.float32))
            case spaces.MultiDiscrete(nvec=nvec):
                return -jnp.log(jnp.asarray(nvec, jnp.float32)).sum()
            case spaces.MultiBinary(n=n):
                return -n * jnp.log(jnp.asarray(2.0))
        raise PolyactError(f"no uniform distribution over {self.action_space}")
