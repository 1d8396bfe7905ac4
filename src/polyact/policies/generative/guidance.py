"""Guidance: a policy's estimates pushed towards what is distinctive of its condition, or up a gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from polyact.policies.base import NoisePolicy
from polyact.policies.generative.denoised import Change, Denoised, from_noise
from polyact.policies.generative.denoising import DenoisingPolicy
from polyact.policies.generative.paths import Path


def classifier_free(policy: DenoisingPolicy, weight: float | Array) -> Change:
    """noise + weight (noise - noise of the policy that is not told), 2207.12598: samples of p(a|o) (p(a|o) / p(a))^weight, roughly.

    Weight 0 changes nothing. PolyactError when the policy was trained without `drop`.
    """
    untold = policy.untold()

    def change(noisy: Array, time: Array, known: Denoised) -> Denoised:
        alone = policy.denoised(untold, noisy, time)
        return from_noise(policy.path, noisy, time, known.noise + weight * (known.noise - alone.noise))

    return change


def downhill(path: Path, cost: Callable[[Array], Float[Array, ""]], weight: float | Array) -> Change:
    """Tilts samples by exp(-weight cost), roughly: the cost's gradient at the estimated chunk (in unit coordinates) joins the score."""

    def change(noisy: Array, time: Array, known: Denoised) -> Denoised:
        slope = jax.grad(cost)(known.clean)
        return from_noise(path, noisy, time, known.noise + weight * path.sigma(time) * slope)

    return change


def continuing(
    policy: NoisePolicy,
    condition: Float[Array, "K C"],
    previous: Float[Array, "H A"],
    weights: Float[Array, " H"],
    most: float = 5.0,
) -> Change:
    """Pulls a chunk towards `previous` (in unit coordinates), step i with weight `weights`[i]: real-time chunking, 2506.07339, eq. 2-4.

    The pull is the gradient of the weighted squared distance between `previous` and the estimated chunk, through the denoiser; `most`
    bounds its strength (beta in the paper). On the straight path this is the paper's guided velocity; on other paths the score is changed
    alike. Where all weights are 0 nothing is changed.
    """

    def change(noisy: Array, time: Array, known: Denoised) -> Denoised:
        clean, pull = jax.vjp(lambda chunk: policy.denoised(condition, chunk, time).clean, noisy)
        (slope,) = pull(weights[:, None] * (previous - clean))
        alpha, sigma = policy.path.alpha(time), policy.path.sigma(time)
        spread = jnp.square(sigma) / (jnp.square(alpha) + jnp.square(sigma))  # r^2 of eq. 4
        strength = jnp.minimum(most, sigma / jnp.maximum(alpha * spread, 1e-6))
        guided = from_noise(policy.path, noisy, time, known.noise - alpha * strength * slope)
        return jax.tree.map(lambda new, old: jnp.where(jnp.any(weights > 0), new, old), guided, known)

    return change


def continuing_weights(horizon: int, delay: Int[Array, ""], left: Int[Array, ""]) -> Float[Array, " H"]:
    """How much each step of a chunk is held to the previous one (2506.07339, eq. 5): 1 for the first `delay` steps, which are done before
    the chunk arrives; then falling, and 0 from step `left` on, of which the previous chunk says nothing. left 0: all zero.
    """
    step = jnp.arange(horizon)
    ahead = (left - step) / (left - delay + 1)
    falling = ahead * jnp.expm1(ahead) / (jnp.e - 1)
    return jnp.where(step >= left, 0.0, jnp.where(step < delay, 1.0, falling))
