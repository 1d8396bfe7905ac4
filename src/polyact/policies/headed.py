"""What every memoryless policy made of a network and a head has in common."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.policies.base import AbstractVar, Action, Imitable, Memory, Observation, UnitPolicy
from polyact.policies.heads import DensityHead
from polyact.policies.spec import Body


class HeadPolicy(UnitPolicy, Imitable):
    """observation -> features -> network -> head -> environment units. `act` clips to the bounds, densities are of the unclipped action."""

    body: AbstractVar[Body]
    network: AbstractVar[Callable]
    head: AbstractVar[DensityHead]

    def outputs(self, observation: Observation) -> Float[Array, " P"]:
        """What the head reads."""
        return self.network(self.body.features(observation))

    def unit_sample(self, observation: Observation, key: PRNGKeyArray) -> tuple[Float[Array, " A"], Float[Array, ""]]:
        return self.head.sample_and_log_prob(self.outputs(observation), self.body, key)

    def unit_log_prob(self, observation: Observation, unit: Float[Array, " A"]) -> Float[Array, ""]:
        return self.head.log_prob(self.outputs(observation), self.body, unit)

    def unit_mode(self, observation: Observation) -> Float[Array, " A"]:
        return self.head.mode(self.outputs(observation), self.body)

    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        return self.unit_log_prob(observation, self.body.to_unit(action)) - self.body.log_volume()

    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        unit, log_prob = self.unit_sample(observation, key)
        return self.body.to_env(unit), log_prob - self.body.log_volume()

    def mode(self, observation: Observation) -> Action:
        return self.body.to_env(self.body.clip(self.unit_mode(observation)))

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        unit, _ = self.unit_sample(observation, key)
        return self.body.to_env(self.body.clip(unit)), memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean negative log density in unit coordinates."""
        unit = jax.vmap(self.body.to_unit)(batch.action)
        return -jax.vmap(self.unit_log_prob)(batch.observation, unit).mean()
