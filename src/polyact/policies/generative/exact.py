"""A Gaussian mixture whose score is known at every noise level: the truth that samplers, guidance and composition are held against."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.generative.denoised import Denoised, Field, from_clean
from polyact.policies.generative.paths import Path
from polyact.tree import Frozen

OUTSIDE = 0.01  # the share of true samples that count as off the manifold


class ExactMixture(Frozen):
    """sum_k weight_k N(mean_k, cov_k) over D numbers; covariances are kept as axes (columns) and variances along them."""

    weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    axes: Float[Array, "K D D"]
    variances: Float[Array, "K D"]

    @classmethod
    def of(cls, weights: Sequence[float] | np.ndarray, means: np.ndarray, covariances: np.ndarray) -> "ExactMixture":
        """Weights [K] (normalised here), means [K, D], covariances [K, D, D]. PolyactError when they don't fit or aren't positive."""
        weights, means, covariances = (np.asarray(part, np.float64) for part in (weights, means, covariances))
        count, width = means.shape
        if weights.shape != (count,) or covariances.shape != (count, width, width) or weights.min() <= 0:
            raise PolyactError(
                f"a mixture needs weights > 0 [K], means [K, D], covariances [K, D, D], got {weights}, "
                f"{means.shape}, {covariances.shape}"
            )
        variances, axes = np.linalg.eigh(covariances)
        if variances.min() <= 0:
            raise PolyactError(f"covariances must be positive definite, got one with eigenvalue {variances.min():.3g}")
        return cls(*(jnp.asarray(part, jnp.float32) for part in (weights / weights.sum(), means, axes, variances)))

    def sample(self, key: PRNGKeyArray, count: int) -> Float[Array, "count D"]:
        """True samples."""
        which, normal = jax.random.split(key)
        mode = jax.random.categorical(which, jnp.log(self.weights), shape=(count,))
        z = jax.random.normal(normal, (count, self.means.shape[1])) * jnp.sqrt(self.variances[mode])
        return self.means[mode] + jnp.einsum("nij,nj->ni", self.axes[mode], z)

    def log_density(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log density at one point."""
        return jax.nn.logsumexp(self._joint(x, jnp.ones(()), jnp.zeros(()))[0])

    def noisy_log_density(self, path: Path, noisy: Float[Array, " D"], time: Float[Array, ""]) -> Float[Array, ""]:
        """Log density of noisy points at a time of a path."""
        return jax.nn.logsumexp(self._joint(noisy, path.alpha(time), path.sigma(time))[0])

    def field(self, path: Path) -> Field:
        """What a perfect denoiser says: the mean of the clean value given the noisy one (of any shape with D entries)."""

        def field(noisy: Array, time: Array) -> Denoised:
            alpha, sigma = path.alpha(time), path.sigma(time)
            log_joint, along, spread = self._joint(noisy.reshape(-1), alpha, sigma)
            shift = jnp.einsum("kij,kj->ki", self.axes, alpha * self.variances / spread * along)
            clean = jax.nn.softmax(log_joint) @ (self.means + shift)
            return from_clean(path, noisy, time, clean.reshape(noisy.shape))

        return field

    def mode_of(self, x: Float[Array, " D"]) -> Int[Array, ""]:
        """The component that most likely drew a point."""
        return jnp.argmax(self._joint(x, jnp.ones(()), jnp.zeros(()))[0])

    def mode_histogram(self, samples: Float[Array, "N D"]) -> Float[Array, " K"]:
        """The share of samples in each mode."""
        return jnp.bincount(jax.vmap(self.mode_of)(samples), length=len(self.weights)) / len(samples)

    def off_manifold(self, samples: Float[Array, "N D"], key: PRNGKeyArray, reference: int = 10_000) -> Float[Array, ""]:
        """The share of samples whose density is below that of all but one in a hundred true samples: 0.01 for a perfect sampler."""
        threshold = jnp.quantile(jax.vmap(self.log_density)(self.sample(key, reference)), OUTSIDE)
        return (jax.vmap(self.log_density)(samples) < threshold).mean()

    def _joint(
        self, x: Float[Array, " D"], alpha: Float[Array, ""], sigma: Float[Array, ""]
    ) -> tuple[Float[Array, " K"], Float[Array, "K D"], Float[Array, "K D"]]:
        """Log of weight times density per component, and per axis the offset from its mean and the variance."""
        spread = jnp.square(alpha) * self.variances + jnp.square(sigma)
        along = jnp.einsum("kij,ki->kj", self.axes, x - alpha * self.means)
        log = -0.5 * (jnp.square(along) / spread + jnp.log(2 * jnp.pi * spread)).sum(-1)
        return jnp.log(self.weights) + log, along, spread


def toy_gmm(modes: int = 8, radius: float = 0.7, std: float = 0.05, weights: Sequence[float] | None = None) -> ExactMixture:
    """Round modes evenly on a circle in two dimensions; equal weights unless given."""
    angle = 2 * np.pi * np.arange(modes) / modes
    means = radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    return ExactMixture.of(np.ones(modes) if weights is None else weights, means, np.tile(std**2 * np.eye(2), (modes, 1, 1)))
