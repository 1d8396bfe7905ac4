"""Leaving the support of the data as a price: the bound on its density that a frozen VAE gives (SPOT, arXiv 2202.06239)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.learning.td3 import Regulariser
from polyact.nets.vae import kl_from_standard_normal
from polyact.policies.vae_policy import VAEPolicy


class SupportBound(Regulariser):
    """Squared reconstruction error plus `divergence` times the posterior's divergence, each a mean over its entries (eq. 6, 7).

    That is -log density of the actor's action, up to scale and a bound. The gradient passes through the VAE to the action and never
    changes the VAE. noise [L, Z]: the draws of the latent that the expectation is taken over, the same at every step.
    """

    behaviour: VAEPolicy
    noise: Float[Array, "L Z"]
    divergence: float = 0.5

    @classmethod
    def of(cls, behaviour: VAEPolicy, key: PRNGKeyArray, samples: int = 4, divergence: float = 0.5) -> "SupportBound":
        """With `samples` draws and their negatives."""
        half = jax.random.normal(key, (samples, behaviour.vae.latent))
        return cls(behaviour, jnp.concatenate([half, -half]), divergence)

    def __call__(self, features: Float[Array, "B O"], unit: Float[Array, "B A"], logged: Float[Array, "B A"]) -> Float[Array, ""]:
        return jax.vmap(self.price)(features, unit).mean()

    def price(self, features: Float[Array, " O"], unit: Float[Array, " A"]) -> Float[Array, ""]:
        """Of one action."""
        vae, squash = self.behaviour.vae, self.behaviour.body.continuous.squash
        mean, log_std = vae.encode(unit, features)
        decoded = jax.vmap(lambda noise: squash(vae.decode(mean + jnp.exp(log_std) * noise, features)))(self.noise)
        return jnp.square(decoded - unit).mean() + self.divergence * kl_from_standard_normal(mean, log_std) / vae.latent
