"""A network that outputs the action: what TD3 trains, and the plainest clone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Imitable, Memory, Observation
from polyact.policies.spec import Body, Spec


class Deterministic(Imitable):
    """observation -> network -> tanh (where there are bounds) -> environment units."""

    body: Body
    network: Callable

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray) -> "Deterministic":
        """Fresh weights for the one body of the spec."""
        body = spec.body
        return cls(body, network.build(body.observation_width, body.continuous.width, key))

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def unit_action(self, observation: Observation) -> Float[Array, " A"]:
        """The action in unit coordinates."""
        return self.body.continuous.squash(self.network(self.body.features(observation)))

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.body.to_env(self.unit_action(observation)), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean squared error in unit coordinates."""
        target = jax.vmap(self.body.to_unit)(batch.action)
        return jnp.square(jax.vmap(self.unit_action)(batch.observation) - target).mean()
