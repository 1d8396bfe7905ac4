"""What a denoiser says of a noisy value, in whichever form its network was trained: noise, clean value, velocity, score."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyact.errors import unknown
from polyact.policies.generative.paths import Path

FORMS = ("noise", "clean", "velocity", "edm")
DATA_STD = 0.5  # of unit actions, assumed by the "edm" form
TINY = 1e-4


class Denoised(eqx.Module):
    """Estimates of the clean value and of the noise; noisy = alpha clean + sigma noise holds between them."""

    clean: Float[Array, "*shape"]
    noise: Float[Array, "*shape"]

    @property
    def velocity(self) -> Float[Array, "*shape"]:
        """noise - clean: d noisy / dt on the straight path."""
        return self.noise - self.clean


Field = Callable[
    [Array, Array], Denoised
]  # (noisy [...], time []) -> what is known of it: a trained network, an exact score, a mix
Change = Callable[[Array, Array, Denoised], Denoised]  # guidance and composition: (noisy, time, estimate) -> another estimate


def from_noise(path: Path, noisy: Float[Array, "*shape"], time: Float[Array, ""], noise: Float[Array, "*shape"]) -> Denoised:
    """The estimate that predicts this noise."""
    return Denoised((noisy - path.sigma(time) * noise) / jnp.maximum(path.alpha(time), TINY), noise)


def from_clean(path: Path, noisy: Float[Array, "*shape"], time: Float[Array, ""], clean: Float[Array, "*shape"]) -> Denoised:
    """The estimate that predicts this clean value."""
    return Denoised(clean, (noisy - path.alpha(time) * clean) / jnp.maximum(path.sigma(time), TINY))


def from_velocity(path: Path, noisy: Float[Array, "*shape"], time: Float[Array, ""], velocity: Float[Array, "*shape"]) -> Denoised:
    """The estimate that predicts this velocity, noise - clean."""
    alpha, sigma = path.alpha(time), path.sigma(time)
    return Denoised((noisy - sigma * velocity) / (alpha + sigma), (noisy + alpha * velocity) / (alpha + sigma))


def from_score(path: Path, noisy: Float[Array, "*shape"], time: Float[Array, ""], score: Float[Array, "*shape"]) -> Denoised:
    """The estimate whose noisy density has this gradient of its log: noise = -sigma score."""
    return from_noise(path, noisy, time, -path.sigma(time) * score)


def score(path: Path, time: Float[Array, ""], denoised: Denoised) -> Float[Array, "*shape"]:
    """Gradient of the log density of noisy values: -noise / sigma."""
    return -denoised.noise / jnp.maximum(path.sigma(time), TINY)


def check_form(form: str) -> None:
    """PolyactError with the nearest match when there is no such form."""
    if form not in FORMS:
        raise unknown("form of a denoiser's output", form, FORMS)


def network_input(form: str, path: Path, noisy: Float[Array, "*shape"], time: Float[Array, ""]) -> Float[Array, "*shape"]:
    """What the network reads: the noisy value, in the "edm" form scaled to unit variance."""
    if form != "edm":
        return noisy
    return noisy / jnp.hypot(path.sigma(time), DATA_STD * path.alpha(time))


def network_target(
    form: str, path: Path, clean: Float[Array, "*shape"], noise: Float[Array, "*shape"], time: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """What the network's output is regressed on, with unit weight."""
    match form:
        case "noise":
            return noise
        case "clean":
            return clean
        case "velocity":
            return noise - clean
    noisy = path.alpha(time) * clean + path.sigma(time) * noise
    skip, scale = _edm(path, time)
    return (clean - skip * noisy) / scale


def from_output(
    form: str, path: Path, output: Float[Array, "*shape"], noisy: Float[Array, "*shape"], time: Float[Array, ""]
) -> Denoised:
    """What a network's output says in this form; "edm" is the preconditioning of 2206.00364, table 1, for any path."""
    match form:
        case "noise":
            return from_noise(path, noisy, time, output)
        case "clean":
            return from_clean(path, noisy, time, output)
        case "velocity":
            return from_velocity(path, noisy, time, output)
    skip, scale = _edm(path, time)
    return from_clean(path, noisy, time, skip * noisy + scale * output)


def _edm(path: Path, time: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Factors of the noisy value and of the output; unlike the paper's they allow for alpha below one."""
    alpha, sigma = path.alpha(time), path.sigma(time)
    total = jnp.hypot(sigma, DATA_STD * alpha)
    return alpha * jnp.square(DATA_STD / total), sigma * DATA_STD / total
