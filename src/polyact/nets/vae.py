"""The conditional variational autoencoder (Kingma & Welling, 1312.6114; Sohn et al., 2015) for vectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.mlp import MLP, Network


class ConditionalVAE(eqx.Module):
    """x [I] given a condition [C], through a latent z [Z] with a standard normal prior."""

    encoder: MLP
    decoder: MLP
    latent: int = eqx.field(static=True)
    log_std_range: tuple[float, float] = eqx.field(static=True, default=(-4.0, 15.0))

    @classmethod
    def build(cls, network: Network, inputs: int, condition: int, latent: int, key: PRNGKeyArray) -> "ConditionalVAE":
        if latent < 1:
            raise PolyactError(f"a VAE needs at least one latent number, got {latent}")
        first, second = jax.random.split(key)
        encoder = network.build(inputs + condition, 2 * latent, first)
        return cls(encoder, network.build(latent + condition, inputs, second), latent)

    def encode(
        self, x: Float[Array, " inputs"], condition: Float[Array, " condition"]
    ) -> tuple[Float[Array, " latent"], Float[Array, " latent"]]:
        """Mean and log standard deviation of the approximate posterior."""
        mean, log_std = jnp.split(self.encoder(jnp.concatenate([x, condition])), 2)
        return mean, jnp.clip(log_std, *self.log_std_range)

    def decode(self, z: Float[Array, " latent"], condition: Float[Array, " condition"]) -> Float[Array, " inputs"]:
        """The mean of x given z, without any squashing."""
        return self.decoder(jnp.concatenate([z, condition]))

    def reconstruct(
        self, x: Float[Array, " inputs"], condition: Float[Array, " condition"], key: PRNGKeyArray
    ) -> tuple[Float[Array, " inputs"], Float[Array, ""]]:
        """The decoding of a posterior sample, and the divergence of the posterior from the prior in nats."""
        mean, log_std = self.encode(x, condition)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return self.decode(z, condition), kl_from_standard_normal(mean, log_std)


def kl_from_standard_normal(mean: Float[Array, " latent"], log_std: Float[Array, " latent"]) -> Float[Array, ""]:
    """KL(N(mean, std^2) || N(0, 1)) in nats, summed over entries."""
    return 0.5 * (jnp.square(mean) + jnp.exp(2 * log_std) - 1 - 2 * log_std).sum()
