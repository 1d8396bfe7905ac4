"""A conditional VAE over actions: the generator of batch-constrained methods (BCQ, PLAS), and a multimodal clone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.nets.mlp import Network
from polyact.nets.vae import ConditionalVAE
from polyact.policies.base import Action, Imitable, Memory, Observation
from polyact.policies.spec import Body, Spec


class VAEPolicy(Imitable):
    """observation, latent [Z] -> decoder -> tanh (where there are bounds) -> environment units; the latent is drawn from its prior.

    latent_clip: latents drawn when acting stay within it, away from what the decoder hardly saw (BCQ, 1812.02900, uses 0.5).
    Cloned by squared error (half, summed over entries) plus `kl_weight` times the divergence of the posterior from the prior.
    """

    body: Body
    vae: ConditionalVAE
    kl_weight: float
    latent_clip: float

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        latent: int | None = None,
        kl_weight: float = 0.1,
        latent_clip: float = 2.0,
    ) -> "VAEPolicy":
        """Fresh weights; by default the latent has twice as many numbers as the action."""
        body = spec.body
        width = body.continuous.width
        latent = 2 * width if latent is None else latent
        return cls(body, ConditionalVAE.build(network, width, body.observation_width, latent, key), kl_weight, latent_clip)

    def unit_decode(self, observation: Observation, latent: Float[Array, " Z"]) -> Float[Array, " A"]:
        """The unit action that a latent stands for."""
        return self.body.continuous.squash(self.vae.decode(latent, self.body.features(observation)))

    def unit_sample(self, observation: Observation, key: PRNGKeyArray) -> Float[Array, " A"]:
        """A unit action like those in the data."""
        latent = jax.random.normal(key, (self.vae.latent,))
        return self.unit_decode(observation, jnp.clip(latent, -self.latent_clip, self.latent_clip))

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.body.to_env(self.unit_sample(observation, key)), memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        def one(observation: Observation, action: Action, key: PRNGKeyArray) -> Float[Array, ""]:
            unit, features = self.body.to_unit(action), self.body.features(observation)
            raw, divergence = self.vae.reconstruct(unit, features, key)
            return 0.5 * jnp.square(self.body.continuous.squash(raw) - unit).sum() + self.kl_weight * divergence

        return jax.vmap(one)(batch.observation, batch.action, jax.random.split(key, len(batch.action))).mean()
