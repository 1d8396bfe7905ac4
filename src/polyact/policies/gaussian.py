"""Gaussian policies, plain and squashed by tanh."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.errors import PolyactError
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import Action, Imitable, Memory, Observation, UnitPolicy
from polyact.policies.spec import Body, Spec

EDGE = 1.0 - 1e-6  # how far into (-1, 1) a recorded action on its bound is moved before atanh
HALF_LOG_TAU = 0.5 * jnp.log(2 * jnp.pi).item()


class Gaussian(UnitPolicy, Imitable):
    """Independent normals around a network's output, in unit coordinates.

    log_std is a parameter [A] (`create`: PPO, IQL, AWAC) or a second half of the network's output (`create_conditional`). Both
    are clipped to `log_std_range`. With `bounded_mean` the mean passes through tanh where the action has bounds. `act` clips to
    the bounds; `sample_and_log_prob` does not, so that its density is exact.
    """

    body: Body
    network: MLP
    log_std: Float[Array, " A"] | None
    log_std_range: tuple[float, float] = eqx.field(static=True)
    bounded_mean: bool = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        log_std: float = -0.5,
        log_std_range: tuple[float, float] = (-5.0, 2.0),
        bounded_mean: bool = True,
    ) -> "Gaussian":
        """One spread for all observations, starting at `log_std`."""
        body, width = spec.body, spec.body.continuous.width
        mean = network.build(body.observation_width, width, key)
        return cls(body, mean, jnp.full(width, log_std), check_range(log_std_range), bounded_mean)

    @classmethod
    def create_conditional(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        log_std_range: tuple[float, float] = (-5.0, 2.0),
        bounded_mean: bool = True,
    ) -> "Gaussian":
        """A spread that depends on the observation."""
        body = spec.body
        both = network.build(body.observation_width, 2 * body.continuous.width, key)
        return cls(body, both, None, check_range(log_std_range), bounded_mean)

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def distribution(self, observation: Observation) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation in unit coordinates."""
        out = self.network(self.body.features(observation))
        mean, log_std = jnp.split(out, 2) if self.log_std is None else (out, self.log_std)
        mean = self.body.continuous.squash(mean) if self.bounded_mean else mean
        return mean, jnp.clip(log_std, *self.log_std_range)

    def unit_sample(self, observation: Observation, key: PRNGKeyArray) -> tuple[Float[Array, " A"], Float[Array, ""]]:
        mean, log_std = self.distribution(observation)
        unit = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return unit, normal_log_prob(unit, mean, log_std)

    def unit_log_prob(self, observation: Observation, unit: Float[Array, " A"]) -> Float[Array, ""]:
        return normal_log_prob(unit, *self.distribution(observation))

    def unit_mode(self, observation: Observation) -> Float[Array, " A"]:
        return self.distribution(observation)[0]

    def entropy(self, observation: Observation) -> Float[Array, ""]:
        """Differential entropy in unit coordinates, in nats."""
        _, log_std = self.distribution(observation)
        return (log_std + 0.5 + HALF_LOG_TAU).sum()

    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        return self.unit_log_prob(observation, self.body.to_unit(action)) - self.body.continuous.log_volume()

    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        unit, log_prob = self.unit_sample(observation, key)
        return self.body.to_env(unit), log_prob - self.body.continuous.log_volume()

    def mode(self, observation: Observation) -> Action:
        return self.body.to_env(self.body.continuous.clip(self.unit_mode(observation)))

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        unit, _ = self.unit_sample(observation, key)
        return self.body.to_env(self.body.continuous.clip(unit)), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean negative log density in unit coordinates."""
        unit = jax.vmap(self.body.to_unit)(batch.action)
        return -jax.vmap(self.unit_log_prob)(batch.observation, unit).mean()


class TanhGaussian(UnitPolicy, Imitable):
    """tanh of a normal whose mean and spread depend on the observation (SAC, Haarnoja et al., 1812.05905, appendix C)."""

    body: Body
    network: MLP
    log_std_range: tuple[float, float] = eqx.field(static=True)

    @classmethod
    def create(
        cls, spec: Spec, network: Network, key: PRNGKeyArray, *, log_std_range: tuple[float, float] = (-5.0, 2.0)
    ) -> "TanhGaussian":
        """Fresh weights. Raises PolyactError when an action entry has no bounds, because tanh could not reach beyond one unit."""
        body = spec.body
        if not all(body.continuous.bounded):
            raise PolyactError(f"a tanh-Gaussian policy needs finite action bounds, got {body.action_space}; use Gaussian")
        both = network.build(body.observation_width, 2 * body.continuous.width, key)
        return cls(body, both, check_range(log_std_range))

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def distribution(self, observation: Observation) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation of the normal before tanh."""
        mean, log_std = jnp.split(self.network(self.body.features(observation)), 2)
        return mean, jnp.clip(log_std, *self.log_std_range)

    def unit_sample(self, observation: Observation, key: PRNGKeyArray) -> tuple[Float[Array, " A"], Float[Array, ""]]:
        mean, log_std = self.distribution(observation)
        raw = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return jnp.tanh(raw), normal_log_prob(raw, mean, log_std) - tanh_log_slope(raw)

    def unit_log_prob(self, observation: Observation, unit: Float[Array, " A"]) -> Float[Array, ""]:
        raw = jnp.arctanh(jnp.clip(unit, -EDGE, EDGE))
        return normal_log_prob(raw, *self.distribution(observation)) - tanh_log_slope(raw)

    def unit_mode(self, observation: Observation) -> Float[Array, " A"]:
        """tanh of the normal's mean: what is played without exploration (the median; the density may peak elsewhere)."""
        return jnp.tanh(self.distribution(observation)[0])

    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        return self.unit_log_prob(observation, self.body.to_unit(action)) - self.body.continuous.log_volume()

    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        unit, log_prob = self.unit_sample(observation, key)
        return self.body.to_env(unit), log_prob - self.body.continuous.log_volume()

    def mode(self, observation: Observation) -> Action:
        return self.body.to_env(self.unit_mode(observation))

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        unit, _ = self.unit_sample(observation, key)
        return self.body.to_env(unit), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean negative log density in unit coordinates."""
        unit = jax.vmap(self.body.to_unit)(batch.action)
        return -jax.vmap(self.unit_log_prob)(batch.observation, unit).mean()


def normal_log_prob(x: Float[Array, " A"], mean: Float[Array, " A"], log_std: Float[Array, " A"]) -> Float[Array, ""]:
    """Log density of independent normals, summed over entries."""
    z = (x - mean) * jnp.exp(-log_std)
    return (-0.5 * jnp.square(z) - log_std - HALF_LOG_TAU).sum()


def tanh_log_slope(raw: Float[Array, " A"]) -> Float[Array, ""]:
    """log |d tanh(x) / dx| summed over entries, without the cancellation of log(1 - tanh(x)^2) in the tails."""
    return 2 * (jnp.log(2.0) - raw - jax.nn.softplus(-2 * raw)).sum()


def check_range(log_std_range: tuple[float, float]) -> tuple[float, float]:
    """The range, or PolyactError when it is empty."""
    low, high = log_std_range
    if not low < high:
        raise PolyactError(f"log_std_range needs low < high, got {log_std_range}")
    return float(low), float(high)
