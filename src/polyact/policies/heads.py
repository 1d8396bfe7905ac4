"""What a network's outputs mean as a distribution over actions. Heads compute on coded actions (`Body.code`): unit coordinates for
continuous actions, class numbers for discrete ones. One head serves a policy of its own, a recurrent one and one of many bodies.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError, unknown
from polyact.policies.spec import Body

EDGE = 1.0 - 1e-6  # how far into (-1, 1) a recorded action on its bound is moved before atanh
HALF_LOG_TAU = 0.9189385332046727
LOG_STD_RANGE = (-5.0, 2.0)

Outputs = Float[Array, " P"]
Code = Float[Array, " A"] | Int[Array, " A"]


class Head(eqx.Module):
    """P network outputs as a rule for choosing a coded action."""

    @abstractmethod
    def outputs(self, body: Body) -> int:
        """P: how many numbers the network must give. PolyactError when the head can't describe this body's actions."""

    @abstractmethod
    def loss(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        """What cloning minimises for one action."""

    @abstractmethod
    def mode(self, outputs: Outputs, body: Body) -> Code:
        """The coded action without exploration."""

    @abstractmethod
    def sample(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> Code:
        """A coded action, perhaps beyond its bounds."""


class DensityHead(Head):
    """A head with a known density (or probability), per unit of coded action."""

    @abstractmethod
    def log_prob(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        """Log density or probability of a coded action."""

    @abstractmethod
    def sample_and_log_prob(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> tuple[Code, Float[Array, ""]]:
        """A sample with its log density, computed where it is most accurate."""

    def loss(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        return -self.log_prob(outputs, body, code)

    def sample(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> Code:
        return self.sample_and_log_prob(outputs, body, key)[0]


class PointHead(Head):
    """The action itself; cloned by mean squared error."""

    def outputs(self, body: Body) -> int:
        return body.continuous.width

    def loss(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        return jnp.square(self.mode(outputs, body) - code).mean()

    def mode(self, outputs: Outputs, body: Body) -> Code:
        return body.continuous.squash(outputs)

    def sample(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> Code:
        return self.mode(outputs, body)


class GaussianHead(DensityHead):
    """Independent normals. The outputs are means, followed by log standard deviations unless `log_std` [A] is a parameter.

    With `bounded_mean` means pass through tanh where the action has bounds.
    """

    log_std: Float[Array, " A"] | None = None
    log_std_range: tuple[float, float] = eqx.field(static=True, default=LOG_STD_RANGE)
    bounded_mean: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_range(self.log_std_range)

    def outputs(self, body: Body) -> int:
        return body.continuous.width * (2 if self.log_std is None else 1)

    def distribution(self, outputs: Outputs, body: Body) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation."""
        mean, log_std = jnp.split(outputs, 2) if self.log_std is None else (outputs, self.log_std)
        return body.continuous.squash(mean) if self.bounded_mean else mean, jnp.clip(log_std, *self.log_std_range)

    def log_prob(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        return normal_log_prob(code, *self.distribution(outputs, body))

    def sample_and_log_prob(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> tuple[Code, Float[Array, ""]]:
        mean, log_std = self.distribution(outputs, body)
        unit = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return unit, normal_log_prob(unit, mean, log_std)

    def mode(self, outputs: Outputs, body: Body) -> Code:
        return self.distribution(outputs, body)[0]

    def entropy(self, outputs: Outputs, body: Body) -> Float[Array, ""]:
        """Differential entropy in nats, in unit coordinates."""
        return (self.distribution(outputs, body)[1] + 0.5 + HALF_LOG_TAU).sum()


class TanhGaussianHead(DensityHead):
    """tanh of independent normals; outputs are their means and log standard deviations."""

    log_std_range: tuple[float, float] = eqx.field(static=True, default=LOG_STD_RANGE)

    def __check_init__(self):
        check_range(self.log_std_range)

    def outputs(self, body: Body) -> int:
        if not all(body.continuous.bounded):
            raise PolyactError(f"a tanh-Gaussian policy needs finite action bounds, got {body.action_space}; use Gaussian")
        return 2 * body.continuous.width

    def distribution(self, outputs: Outputs) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation of the normals before tanh."""
        mean, log_std = jnp.split(outputs, 2)
        return mean, jnp.clip(log_std, *self.log_std_range)

    def log_prob(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        raw = jnp.arctanh(jnp.clip(code, -EDGE, EDGE))
        return normal_log_prob(raw, *self.distribution(outputs)) - tanh_log_slope(raw)

    def sample_and_log_prob(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> tuple[Code, Float[Array, ""]]:
        mean, log_std = self.distribution(outputs)
        raw = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return jnp.tanh(raw), normal_log_prob(raw, mean, log_std) - tanh_log_slope(raw)

    def mode(self, outputs: Outputs, body: Body) -> Code:
        """tanh of the mean: what is played without exploration (the median; the density may peak elsewhere)."""
        return jnp.tanh(self.distribution(outputs)[0])


class MixtureHead(DensityHead):
    """A mixture of K diagonal normals: outputs are K log weights, K means and K log standard deviations."""

    components: int = eqx.field(static=True, default=5)
    log_std_range: tuple[float, float] = eqx.field(static=True, default=LOG_STD_RANGE)
    bounded_mean: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_range(self.log_std_range)
        if self.components < 1:
            raise PolyactError(f"a mixture needs at least one component, got {self.components}")

    def outputs(self, body: Body) -> int:
        return self.components * (1 + 2 * body.continuous.width)

    def distribution(self, outputs: Outputs, body: Body) -> tuple[Float[Array, " K"], Float[Array, "K A"], Float[Array, "K A"]]:
        """Log weights, means and log standard deviations."""
        count = self.components
        means, log_stds = jnp.split(outputs[count:].reshape(2 * count, -1), 2)
        means = body.continuous.squash(means) if self.bounded_mean else means
        return jax.nn.log_softmax(outputs[:count]), means, jnp.clip(log_stds, *self.log_std_range)

    def log_prob(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        log_weights, means, log_stds = self.distribution(outputs, body)
        return jax.nn.logsumexp(log_weights + jax.vmap(normal_log_prob, (None, 0, 0))(code, means, log_stds))

    def sample_and_log_prob(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> tuple[Code, Float[Array, ""]]:
        choose, draw = jax.random.split(key)
        log_weights, means, log_stds = self.distribution(outputs, body)
        chosen = jax.random.categorical(choose, log_weights)
        unit = means[chosen] + jnp.exp(log_stds[chosen]) * jax.random.normal(draw, means.shape[1:])
        return unit, self.log_prob(outputs, body, unit)

    def mode(self, outputs: Outputs, body: Body) -> Code:
        """The component mean at which the mixture's density is highest."""
        _, means, _ = self.distribution(outputs, body)
        return means[jnp.argmax(jax.vmap(lambda mean: self.log_prob(outputs, body, mean))(means))]


class CategoricalHead(DensityHead):
    """Independent classes for every discrete choice; outputs are their logits, one choice after the other."""

    def outputs(self, body: Body) -> int:
        return sum(body.choices)

    def log_probs(self, outputs: Outputs, body: Body) -> list[Float[Array, " n"]]:
        """Log probabilities of every choice."""
        ends = [sum(body.choices[: i + 1]) for i in range(len(body.choices) - 1)]
        return [jax.nn.log_softmax(logits) for logits in jnp.split(outputs, ends)]

    def log_prob(self, outputs: Outputs, body: Body, code: Code) -> Float[Array, ""]:
        return jnp.stack([row[code[i]] for i, row in enumerate(self.log_probs(outputs, body))]).sum()

    def sample_and_log_prob(self, outputs: Outputs, body: Body, key: PRNGKeyArray) -> tuple[Code, Float[Array, ""]]:
        rows = self.log_probs(outputs, body)
        keys = jax.random.split(key, len(rows))
        code = jnp.stack([jax.random.categorical(k, row) for k, row in zip(keys, rows, strict=True)])
        return code, self.log_prob(outputs, body, code)

    def mode(self, outputs: Outputs, body: Body) -> Code:
        return jnp.stack([jnp.argmax(row) for row in self.log_probs(outputs, body)])

    def entropy(self, outputs: Outputs, body: Body) -> Float[Array, ""]:
        """In nats, summed over choices."""
        rows = self.log_probs(outputs, body)
        return -jnp.stack([(jnp.exp(row) * row).sum() for row in rows]).sum()


HEADS: dict[str, type[Head]] = {
    "deterministic": PointHead,
    "gaussian": GaussianHead,
    "tanh_gaussian": TanhGaussianHead,
    "mixture": MixtureHead,
    "categorical": CategoricalHead,
}


def head_for(name: str | None, body: Body) -> Head:
    """A head by its name in `HEADS`, with its defaults; without a name the Gaussian or categorical one, as the actions ask for."""
    name = name or ("categorical" if body.action_scale is None else "gaussian")
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    return HEADS[name]()


def normal_log_prob(x: Float[Array, " A"], mean: Float[Array, " A"], log_std: Float[Array, " A"]) -> Float[Array, ""]:
    """Log density of independent normals, summed over entries."""
    z = (x - mean) * jnp.exp(-log_std)
    return (-0.5 * jnp.square(z) - log_std - HALF_LOG_TAU).sum()


def tanh_log_slope(raw: Float[Array, " A"]) -> Float[Array, ""]:
    """log |d tanh(x) / dx| summed over entries, without the cancellation of log(1 - tanh(x)^2) in the tails."""
    return 2 * (jnp.log(2.0) - raw - jax.nn.softplus(-2 * raw)).sum()


def check_range(log_std_range: tuple[float, float]) -> None:
    """PolyactError when the range is empty."""
    low, high = log_std_range
    if not low < high:
        raise PolyactError(f"log_std_range needs low < high, got {log_std_range}")
