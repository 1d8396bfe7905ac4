"""Paths from data to noise: noisy = alpha(t) clean + sigma(t) noise, with ONE convention of time: t = 1 is noise, t = 0 is data.

Every path is the straight one after scaling: with z = noisy / (alpha + sigma) and u = sigma / (alpha + sigma) it is
z = (1 - u) clean + u noise, of constant velocity noise - clean. So parametrisations convert into each other on all of them.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.tree import Frozen


class Path(Frozen):
    """How signal fades and noise grows with time. Constants: never trained."""

    @abstractmethod
    def alpha(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The share of the clean value."""

    @abstractmethod
    def sigma(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The standard deviation of the noise."""

    @abstractmethod
    def time(self, ratio: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The time at which sigma / alpha is `ratio`: how two paths are matched by their signal-to-noise ratio."""

    @abstractmethod
    def levels(self, steps: int) -> Float[Array, " {steps}+1"]:
        """The usual grid of times from 1 down to 0 for a sampler of so many steps."""

    @abstractmethod
    def draw(self, key: PRNGKeyArray) -> Float[Array, ""]:
        """A time to train at."""

    @property
    @abstractmethod
    def start_scale(self) -> float:
        """Standard deviation of the normal that sampling starts from."""


class VariancePreserving(Path):
    """The path of DDPM (2006.11239): alpha^2 + sigma^2 = 1. log_abar: T + 1 values of log alpha^2, at t = 0, 1/T .. 1, linear in between.

    Trained at the T levels above 0 alike.
    """

    log_abar: tuple[float, ...] = eqx.field(static=True)

    def _log_abar(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        last = len(self.log_abar) - 1
        place = jnp.clip(time, 0.0, 1.0) * last
        below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
        table = jnp.array(self.log_abar)
        return table[below] + (place - below) * (table[below + 1] - table[below])

    def alpha(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.exp(0.5 * self._log_abar(time))

    def sigma(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.sqrt(-jnp.expm1(self._log_abar(time)))

    def time(self, ratio: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.interp(jnp.log1p(jnp.square(ratio)), -jnp.array(self.log_abar), jnp.linspace(0.0, 1.0, len(self.log_abar)))

    def levels(self, steps: int) -> Float[Array, " {steps}+1"]:
        return jnp.linspace(1.0, 0.0, steps + 1)

    def draw(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return (1.0 + jax.random.randint(key, (), 0, len(self.log_abar) - 1)) / (len(self.log_abar) - 1)

    @property
    def start_scale(self) -> float:
        return 1.0


class Straight(Path):
    """Rectified flow (2209.03003): alpha = 1 - t, sigma = t."""

    def alpha(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return 1.0 - time

    def sigma(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return time

    def time(self, ratio: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return 1.0 - 1.0 / (1.0 + ratio)

    def levels(self, steps: int) -> Float[Array, " {steps}+1"]:
        return jnp.linspace(1.0, 0.0, steps + 1)

    def draw(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return 1.0 - jax.random.uniform(key)

    @property
    def start_scale(self) -> float:
        return 1.0


class Karras(Path):
    """The path of EDM (2206.00364): alpha = 1, sigma between `low` and `high` with equal steps in sigma^(1/rho), and 0 at t = 0.

    Trained at log-normal sigmas whose log has mean `train_mean` and standard deviation `train_std`.
    """

    low: float = eqx.field(static=True, default=0.002)
    high: float = eqx.field(static=True, default=80.0)
    rho: float = eqx.field(static=True, default=7.0)
    train_mean: float = eqx.field(static=True, default=-1.2)
    train_std: float = eqx.field(static=True, default=1.2)

    def __check_init__(self):
        if not 0 < self.low < self.high or not self.rho > 0:
            raise PolyactError(f"a Karras path needs 0 < low < high and rho > 0, got {self.low}, {self.high}, {self.rho}")

    def alpha(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.ones_like(time)

    def sigma(self, time: Float[Array, "*n"]) -> Float[Array, "*n"]:
        least, most = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return jnp.where(time > 0, (least + time * (most - least)) ** self.rho, 0.0)

    def time(self, ratio: Float[Array, "*n"]) -> Float[Array, "*n"]:
        least, most = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return jnp.maximum((ratio ** (1 / self.rho) - least) / (most - least), BARELY)

    def levels(self, steps: int) -> Float[Array, " {steps}+1"]:
        if steps < 2:
            raise PolyactError(f"a Karras grid needs at least 2 steps, got {steps}")
        return jnp.append(jnp.maximum(jnp.linspace(1.0, 0.0, steps), BARELY), 0.0)

    def draw(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return jnp.minimum(self.time(jnp.exp(self.train_mean + self.train_std * jax.random.normal(key))), 1.0)

    @property
    def start_scale(self) -> float:
        return self.high


BARELY = 1e-12  # a time at which `Karras` still has its lowest noise


def linear(levels: int, first: float = 1e-4, last: float = 0.02) -> VariancePreserving:
    """Betas that rise linearly from `first` to `last` (DDPM). With few levels they must end higher, or signal is left at t = 1."""
    return _from_betas(np.linspace(first, last, levels))


def cosine(levels: int) -> VariancePreserving:
    """alpha^2 = cos^2((t + 0.008) / 1.008 * pi / 2), betas at most 0.999 (2102.09672)."""
    abar = np.cos((np.arange(levels + 1) / levels + 0.008) / 1.008 * np.pi / 2) ** 2
    return _from_betas(np.minimum(1 - abar[1:] / abar[:-1], 0.999))


def few_steps(levels: int, least: float = 0.1, most: float = 10.0) -> VariancePreserving:
    """A variance-preserving diffusion cut into a few levels: log alpha^2 = -least t - (most - least) t^2 / 2 (Diffusion-QL, IDQL)."""
    time = np.arange(levels + 1) / levels
    return _path(-least * time - 0.5 * (most - least) * time**2)


def _from_betas(betas: np.ndarray) -> VariancePreserving:
    if not len(betas) or betas.min() <= 0 or betas.max() >= 1:
        raise PolyactError(f"betas must lie between 0 and 1 and be at least one, got {len(betas)} of them")
    return _path(np.concatenate([[0.0], np.cumsum(np.log1p(-betas))]))


def _path(log_abar: np.ndarray) -> VariancePreserving:
    return VariancePreserving(tuple(log_abar.tolist()))
