"""Guidance: a policy's estimates pushed towards what is distinctive of its condition, or up a gradient."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

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
