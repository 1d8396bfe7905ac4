"""Implicit Q-learning (arXiv 2110.06169): learn values without ever asking for an action that is not in the data."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.base import Learner, Metrics
from polyact.learning.critics import build_critics, build_value, q_values, twin_loss, values
from polyact.learning.losses import advantage_weight, expectile, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import UnitPolicy
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec


class IQLState(eqx.Module):
    actor: UnitPolicy
    value: MLP
    critics: Ensemble
    target_critics: Ensemble
    actor_optimiser: OptimiserState
    value_optimiser: OptimiserState
    critic_optimiser: OptimiserState


class IQL(Learner):
    """V is an upper expectile of Q over the data's actions, Q bootstraps from V, the actor is advantage-weighted cloning (eq. 5-7).

    expectile: tau in the paper; temperature: beta, the inverse temperature of the weights, which are capped at `largest_weight`.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    actor: Actor[UnitPolicy] = Actor(Gaussian)
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
        body = state.actor.body
        features, following = (jax.vmap(body.features)(o) for o in (batch.observation, batch.next_observation))
        unit = jax.vmap(body.to_unit)(batch.action)
        target_q = q_values(state.target_critics, features, unit).min(axis=1)

        def value_loss(value: MLP) -> tuple[Array, Array]:
            v = values(value, features)
            return expectile(target_q - v, self.expectile), v

        value, value_optimiser, v = descend(value_loss, state.value, self.value_optimiser, state.value_optimiser)
        target = td_target(batch.reward, batch.bootstrap, values(value, following), self.discount)
        critics, critic_optimiser, critic_error = descend(
            lambda c: twin_loss(q_values(c, features, unit), target), state.critics, self.critic_optimiser, state.critic_optimiser
        )
        weight = advantage_weight(target_q - v, self.temperature, self.largest_weight)

        def actor_loss(actor: UnitPolicy) -> tuple[Array, Array]:
            loss = -jnp.mean(weight * jax.vmap(actor.unit_log_prob)(batch.observation, unit))
            return loss, loss

        actor, actor_optimiser, actor_error = descend(actor_loss, state.actor, self.actor_optimiser, state.actor_optimiser)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        metrics = {
            "critic_loss": critic_error,
            "value_loss": expectile(target_q - v, self.expectile),
            "actor_loss": actor_error,
            "v": v.mean(),
            "weight": weight.mean(),
        }
        state = IQLState(actor, value, critics, target_critics, actor_optimiser, value_optimiser, critic_optimiser)
        return state, metrics

    def policy(self, state: IQLState) -> UnitPolicy:
        return state.actor
