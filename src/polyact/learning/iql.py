"""Implicit Q-learning (arXiv 2110.06169): learn values without ever asking for an action that is not in the data."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.actor import Actor, Cloner, GaussianOrCategorical, clone_weighted
from polyact.learning.base import Learner, Metrics
from polyact.learning.critics import at_least_one, build_critics, build_value, encoded, q_values, regress, values
from polyact.learning.losses import advantage_weight, expectile, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import MLP, Network
from polyact.policies.spec import Spec


class IQLState(eqx.Module):
    actor: Cloner
    value: MLP
    critics: Ensemble
    target_critics: Ensemble
    actor_optimiser: OptimiserState
    value_optimiser: OptimiserState
    critic_optimiser: OptimiserState


class IQL(Learner):
    """V is an upper expectile of Q over the data's actions, Q bootstraps from V, the actor is advantage-weighted cloning (eq. 5-7).

    For continuous and for discrete actions. expectile: tau in the paper; temperature: beta, the inverse temperature of the weights,
    which are capped at `largest_weight`.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    actor: Actor[Cloner] = Actor(GaussianOrCategorical)
    network: Network = Network()
    actor_optimiser: Optimiser = Optimiser(schedule="cosine")
    value_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    expectile: float = 0.7
    temperature: float = 3.0
    largest_weight: float = 100.0
    critics: int = eqx.field(static=True, default=2)
    batches: Sampling = Transitions()

    def __check_init__(self):
        at_least_one(critics=self.critics)
        if not isinstance(self.expectile, jax.Array) and not 0 < self.expectile < 1:
            raise PolyactError(f"expectile must lie between 0 and 1, got {self.expectile}")

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> IQLState:
        actor_key, value_key, critic_key = jax.random.split(key, 3)
        actor = self.actor.build(spec, actor_key)
        value = build_value(self.network, spec, value_key)
        critics = build_critics(self.network, spec, self.critics, critic_key)
        return IQLState(
            actor,
            value,
            critics,
            critics,
            self.actor_optimiser.init(actor, spec.steps),
            self.value_optimiser.init(value, spec.steps),
            self.critic_optimiser.init(critics, spec.steps),
        )

    def update(self, state: IQLState, batch: Batch, key: PRNGKeyArray) -> tuple[IQLState, Metrics]:
        pairs = encoded(state.actor.body, batch)
        target_q = q_values(state.target_critics, pairs.features, pairs.action).min(axis=1)

        def value_loss(value: MLP) -> tuple[Array, Array]:
            v = values(value, pairs.features)
            return expectile(target_q - v, self.expectile), v

        value, value_optimiser, v = descend(value_loss, state.value, self.value_optimiser, state.value_optimiser)
        target = td_target(batch.reward, batch.bootstrap, values(value, pairs.following), self.discount)
        critics, critic_optimiser, metrics = regress(state.critics, self.critic_optimiser, state.critic_optimiser, pairs, target)
        weight = advantage_weight(target_q - v, self.temperature, self.largest_weight)
        actor, actor_optimiser, actor_loss = clone_weighted(state.actor, self.actor_optimiser, state.actor_optimiser, batch, weight)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        metrics |= {
            "value_loss": expectile(target_q - v, self.expectile),
            "actor_loss": actor_loss,
            "v": v.mean(),
            "weight": weight.mean(),
        }
        state = IQLState(actor, value, critics, target_critics, actor_optimiser, value_optimiser, critic_optimiser)
        return state, metrics

    def policy(self, state: IQLState) -> Cloner:
        return state.actor
