"""Values of the better actions of the data without asking for any other: generalised implicit Q-learning (IDQL, arXiv 2304.10573, 4.1).

V minimises E[f(Q - V)] over the data's actions for a convex f, and Q regresses to r + discount V. The V of the solution is the mean of Q
under the data's policy reweighted by |f'(Q - V)| / |Q - V|: an actor that need not be trained.
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Metrics, Trainable
from polyact.learning.critics import at_least_one, build_critics, build_value, encoded, q_values, regress, values
from polyact.learning.losses import td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import MLP, Network
from polyact.policies.spec import Body, Spec

CLOSE = 1e-6


def _between_zero_and_one(level: float | Array) -> None:
    if not isinstance(level, jax.Array) and not 0 < level < 1:
        raise PolyactError(f"level must lie between 0 and 1, got {level}")


class ValueLoss(eqx.Module):
    """A convex f of the gap Q - V."""

    @abstractmethod
    def __call__(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """f, entry by entry."""

    @abstractmethod
    def weight(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """|f'(gap)| / |gap| up to a constant factor: how the data's policy is reweighted (theorem 4.1)."""


class Expectile(ValueLoss):
    """|level - 1(gap < 0)| gap^2: IQL's. Level 0.5 gives the mean, levels near 1 the maximum."""

    level: float = 0.7

    def __check_init__(self):
        _between_zero_and_one(self.level)

    def __call__(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return self.weight(gap) * gap**2

    def weight(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.where(gap < 0, 1 - self.level, self.level)


class Quantile(ValueLoss):
    """|level - 1(gap < 0)| |gap|."""

    level: float = 0.7

    def __check_init__(self):
        _between_zero_and_one(self.level)

    def __call__(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.where(gap < 0, 1 - self.level, self.level) * jnp.abs(gap)

    def weight(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.where(gap < 0, 1 - self.level, self.level) / jnp.maximum(jnp.abs(gap), CLOSE)


class Exponential(ValueLoss):
    """exp(steepness gap) - steepness gap: V is the log-mean-exponential of Q. Exponents are capped at `largest`."""

    steepness: float = 1.0
    largest: float = 10.0

    def __check_init__(self):
        if not self.steepness > 0:
            raise PolyactError(f"steepness must be positive, got {self.steepness}")

    def __call__(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        exponent = self.steepness * gap
        return jnp.exp(jnp.minimum(exponent, self.largest)) - exponent

    def weight(self, gap: Float[Array, "*n"]) -> Float[Array, "*n"]:
        exponent = jnp.minimum(self.steepness * gap, self.largest)
        small = jnp.abs(exponent) < 1e-3
        ratio = jnp.expm1(jnp.where(small, 1.0, exponent)) / jnp.where(small, 1.0, self.steepness * gap)
        return self.steepness**2 * jnp.where(small, 1 + exponent / 2, ratio)


class ImplicitState(eqx.Module):
    body: Body
    value: MLP
    critics: Ensemble
    target_critics: Ensemble
    value_optimiser: OptimiserState
    critic_optimiser: OptimiserState


class ImplicitValues(Trainable):
    """The values of generalised implicit Q-learning, without any actor. `loss` says how optimistic V is within the data."""

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    loss: ValueLoss = Expectile()
    network: Network = Network()
    value_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    critics: int = eqx.field(static=True, default=2)
    batches: Sampling = Transitions()

    def __check_init__(self):
        at_least_one(critics=self.critics)

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> ImplicitState:
        value_key, critic_key = jax.random.split(key)
        value = build_value(self.network, spec, value_key)
        critics = build_critics(self.network, spec, self.critics, critic_key)
        optimisers = self.value_optimiser.init(value, spec.steps), self.critic_optimiser.init(critics, spec.steps)
        return ImplicitState(spec.body, value, critics, critics, *optimisers)

    def update(self, state: ImplicitState, batch: Batch, key: PRNGKeyArray) -> tuple[ImplicitState, Metrics]:
        pairs = encoded(state.body, batch)
        target_q = q_values(state.target_critics, pairs.features, pairs.action).min(axis=1)

        def value_loss(value: MLP) -> tuple[Array, Array]:
            gap = target_q - values(value, pairs.features)
            loss = self.loss(gap).mean()
            return loss, jnp.stack([loss, (target_q - gap).mean()])

        value, value_optimiser, (loss, v) = descend(value_loss, state.value, self.value_optimiser, state.value_optimiser)
        target = td_target(batch.reward, batch.bootstrap, values(value, pairs.following), self.discount)
        critics, critic_optimiser, metrics = regress(state.critics, self.critic_optimiser, state.critic_optimiser, pairs, target)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        state = ImplicitState(state.body, value, critics, target_critics, value_optimiser, critic_optimiser)
        return state, metrics | {"value_loss": loss, "v": v}
