"""Other ways of drawing a chunk from a trained denoising policy; what is observed and remembered stays the policy's own."""

from abc import abstractmethod

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.policies.base import AbstractVar, ChunkPolicy, Memory, Observation
from polyact.policies.generative.denoising import DenoisingPolicy
from polyact.policies.spec import Body


class AroundOne(ChunkPolicy):
    """Chunks made with the help of one policy, which observes and remembers."""

    policy: AbstractVar[ChunkPolicy]

    @property
    def body(self) -> Body:
        return self.policy.body

    @property
    def horizon(self) -> int:
        return self.policy.horizon

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.policy.start(key)

    def observe(self, observation: Observation, memory: Memory) -> Memory:
        return self.policy.observe(observation, memory)


class Resampled(AroundOne):
    """A denoising policy whose chunks are made by `unit_chunk`."""

    policy: AbstractVar[DenoisingPolicy]

    @abstractmethod
    def unit_chunk(self, condition: Float[Array, "K C"], key: PRNGKeyArray) -> Float[Array, "H A"]:
        """A chunk in unit coordinates for what the policy's encoder made of the observations."""

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.observe(observation, memory)
        return jax.vmap(self.body.to_env)(self.unit_chunk(self.policy.condition(memory), key)), memory
