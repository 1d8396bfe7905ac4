"""One step of a sampler, from a noise level to a lower one. Each is a value; `chain` runs it over a grid of levels."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.generative.denoised import Denoised, Field
from polyact.policies.generative.paths import Path

Level = Float[Array, ""]


class Earlier(eqx.Module):
    """What multi-step samplers remember: the clean estimate of the step before and its log signal-to-noise ratio, if there was one."""

    clean: Float[Array, "*shape"]
    log_ratio: Float[Array, ""]
    some: Array

    @classmethod
    def none(cls, like: Float[Array, "*shape"]) -> "Earlier":
        return cls(jnp.zeros_like(like), jnp.zeros(()), jnp.asarray(False))


class Step(eqx.Module):
    """The next value is mean + std * normal; std is None where nothing is drawn."""

    mean: Float[Array, "*shape"]
    std: Float[Array, ""] | None
    earlier: Earlier


class Stepper(eqx.Module):
    """From a noisy value at `time` to one at `next`, which is lower; 0 is clean."""

    @abstractmethod
    def step(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, earlier: Earlier, key: PRNGKeyArray
    ) -> Step:
        """One step; `field` is asked once (`Heun`: twice)."""


class DDIM(Stepper):
    """The step of DDIM (2010.02502): deterministic with eta 0, ancestral sampling (DDPM) with eta 1.

    Deterministic it is the exact Euler step of every path's ODE: DDIM, EDM's Euler in sigma and the flow's Euler in time are one
    formula, alpha(next) clean + sigma(next) noise.
    """

    eta: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if not 0 <= self.eta <= 1:
            raise PolyactError(f"eta must lie between 0 and 1, got {self.eta}")

    def step(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, earlier: Earlier, key: PRNGKeyArray
    ) -> Step:
        known = field(noisy, time)
        if self.eta == 0:
            return Step(_towards(path, known, next, path.sigma(next)), None, earlier)
        drawn = self.eta * posterior_std(path, time, next)
        return Step(_towards(path, known, next, _rest(path.sigma(next), drawn)), drawn, earlier)


class Ancestral(Stepper):
    """Ancestral sampling with the mean of DDPM and its larger variance, that of the forward step (2006.11239, 3.2); none at the end.

    `DDIM(1.0)` has the smaller one.
    """

    def step(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, earlier: Earlier, key: PRNGKeyArray
    ) -> Step:
        known = field(noisy, time)
        mean = _towards(path, known, next, _rest(path.sigma(next), posterior_std(path, time, next)))
        return Step(mean, jnp.where(next > 0, forward_std(path, time, next), 0.0), earlier)


class Heun(Stepper):
    """Second order, two calls per step except the last (EDM, 2206.00364, algorithm 2), in the coordinates where every path is straight.

    churn: EDM's S_churn over the number of steps; noise levels within [churn_low, churn_high] are first raised by this share, with
    fresh noise of standard deviation `churn_noise`.
    """

    churn: float = eqx.field(static=True, default=0.0)
    churn_low: float = eqx.field(static=True, default=0.05)
    churn_high: float = eqx.field(static=True, default=50.0)
    churn_noise: float = eqx.field(static=True, default=1.003)

    def step(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, earlier: Earlier, key: PRNGKeyArray
    ) -> Step:
        if self.churn:
            noisy, time = self._churned(path, noisy, time, key)
        first = field(noisy, time)
        euler = _towards(path, first, next, path.sigma(next))
        second = jax.lax.cond(next > 0, lambda: field(euler, next).velocity, lambda: first.velocity)
        scale, reached = (path.alpha(at) + path.sigma(at) for at in (time, next))
        moved = path.sigma(next) / reached - path.sigma(time) / scale
        return Step(reached * (noisy / scale + moved * (first.velocity + second) / 2), None, earlier)

    def _churned(
        self, path: Path, noisy: Float[Array, "*shape"], time: Level, key: PRNGKeyArray
    ) -> tuple[Float[Array, "*shape"], Level]:
        ratio = path.sigma(time) / jnp.maximum(path.alpha(time), 1e-8)
        within = (ratio >= self.churn_low) & (ratio <= self.churn_high)
        raised = ratio * (1 + jnp.where(within, min(self.churn, 2**0.5 - 1), 0.0))
        higher = jnp.where(within, path.time(raised), time)
        spread = jnp.sqrt(jnp.maximum(jnp.square(raised) - jnp.square(ratio), 0.0)) * self.churn_noise
        fresh = path.alpha(higher) * (noisy / path.alpha(time) + spread * jax.random.normal(key, noisy.shape))
        return jnp.where(within, fresh, noisy), higher


class DPMSolver(Stepper):
    """DPM-Solver++(2M) (2211.01095, algorithm 2): second order with one call per step, from the clean estimate of the step before.

    The first and the last step are of first order. Needs a path whose alpha is positive at its first level.
    """

    def step(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, earlier: Earlier, key: PRNGKeyArray
    ) -> Step:
        known = field(noisy, time)
        now, then = (jnp.log(path.alpha(at)) - jnp.log(jnp.maximum(path.sigma(at), 1e-8)) for at in (time, next))
        jump, before = then - now, now - earlier.log_ratio
        weight = jnp.where(earlier.some & (next > 0), jump / (2 * jnp.where(earlier.some, before, 1.0)), 0.0)
        clean = (1 + weight) * known.clean - weight * earlier.clean
        kept = path.sigma(next) / path.sigma(time)
        mean = kept * noisy + (path.alpha(next) - kept * path.alpha(time)) * clean
        return Step(mean, None, Earlier(known.clean, now, jnp.asarray(True)))


class Langevin(eqx.Module):
    """A corrector: unadjusted Langevin steps at the level just reached. It makes products and tilts of scores less biased.

    repeats: how many; size: their step, as a share of the variance that the forward step adds (at most the level's own).
    """

    repeats: int = eqx.field(static=True)
    size: float = 1.0

    def correct(
        self, field: Field, path: Path, noisy: Float[Array, "*shape"], time: Level, next: Level, key: PRNGKeyArray
    ) -> Float[Array, "*shape"]:
        """noisy + h score + sqrt(2 h) normal, repeated; nothing at the end of the chain."""
        sigma = jnp.maximum(path.sigma(next), 1e-8)
        h = jnp.minimum(self.size * jnp.square(forward_std(path, time, next)), jnp.square(sigma))

        def once(noisy: Array, key: PRNGKeyArray) -> tuple[Array, None]:
            push = -h / sigma * field(noisy, next).noise
            return noisy + push + jnp.sqrt(2 * h) * jax.random.normal(key, noisy.shape), None

        def all_of_them(noisy: Array) -> Array:
            return jax.lax.scan(once, noisy, jax.random.split(key, self.repeats))[0]

        return jax.lax.cond(next > 0, all_of_them, lambda noisy: noisy, noisy)


def forward_std(path: Path, time: Level, next: Level) -> Float[Array, ""]:
    """Standard deviation of the noise that is added between `next` and `time`: sqrt(beta) of DDPM."""
    kept = path.alpha(time) / path.alpha(next)
    return jnp.sqrt(jnp.maximum(jnp.square(path.sigma(time)) - jnp.square(kept * path.sigma(next)), 0.0))


def posterior_std(path: Path, time: Level, next: Level) -> Float[Array, ""]:
    """Standard deviation of the value at `next`, given the one at `time` and the clean one."""
    return forward_std(path, time, next) * path.sigma(next) / path.sigma(time)


def _towards(path: Path, known: Denoised, next: Level, share: Float[Array, ""]) -> Float[Array, "*shape"]:
    return path.alpha(next) * known.clean + share * known.noise


def _rest(sigma: Float[Array, ""], drawn: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.maximum(jnp.square(sigma) - jnp.square(drawn), 0.0))
