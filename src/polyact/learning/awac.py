"""Advantage-weighted actor-critic (arXiv 2006.09359): cloning weighted by how much better an action is than the policy's own."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.learning.actor import Actor
from polyact.learning.base import Metrics, OffPolicyLearner
from polyact.learning.critics import build_critics, q_values, sample_units, twin_loss
from polyact.learning.losses import advantage_weight, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.base import UnitPolicy
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec


class AWACState(eqx.Module):
    actor: UnitPolicy
    critics: Ensemble
    target_critics: Ensemble
    actor_optimiser: OptimiserState
    critic_optimiser: OptimiserState


class AWAC(OffPolicyLearner):
    """Critics evaluate the current policy; the actor clones with weight exp(advantage / temperature) (eq. 10, unnormalised, capped).

    temperature: lambda in the paper; samples: actions of the policy averaged into the value of a state.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    actor: Actor[UnitPolicy] = Actor(Gaussian)
    network: Network = Network()
    actor_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    temperature: float = 1.0
    largest_weight: float = 100.0
    samples: int = eqx.field(static=True, default=1)
    critics: int = eqx.field(static=True, default=2)
    batches: Sampling = Transitions()

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> AWACState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.actor.build(spec, actor_key)
        critics = build_critics(self.network, spec, self.critics, critic_key)
        optimisers = self.actor_optimiser.init(actor, spec.steps), self.critic_optimiser.init(critics, spec.steps)
        return AWACState(actor, critics, critics, *optimisers)

    def update(self, state: AWACState, batch: Batch, key: PRNGKeyArray) -> tuple[AWACState, Metrics]:
        body, scale = state.actor.body, state.actor.body.continuous
        features, following = (jax.vmap(body.features)(o) for o in (batch.observation, batch.next_observation))
        unit = jax.vmap(body.to_unit)(batch.action)
        next_key, own_key = jax.random.split(key)
        next_unit = scale.clip(sample_units(state.actor, batch.next_observation, next_key)[0])
        target = td_target(
            batch.reward, batch.bootstrap, q_values(state.target_critics, following, next_unit).min(1), self.discount
        )
        critics, critic_optimiser, critic_loss = descend(
            lambda c: twin_loss(q_values(c, features, unit), target), state.critics, self.critic_optimiser, state.critic_optimiser
        )
        own = jax.vmap(lambda k: q_values(critics, features, scale.clip(sample_units(state.actor, batch.observation, k)[0])).min(1))
        value = own(jax.random.split(own_key, self.samples)).mean(0)
        advantage = q_values(critics, features, unit).min(1) - value
        weight = advantage_weight(advantage, 1 / self.temperature, self.largest_weight)

        def actor_loss(actor: UnitPolicy) -> tuple[Array, Array]:
            loss = -jnp.mean(weight * jax.vmap(actor.unit_log_prob)(batch.observation, unit))
            return loss, loss

        actor, actor_optimiser, loss = descend(actor_loss, state.actor, self.actor_optimiser, state.actor_optimiser)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        metrics = {"critic_loss": critic_loss, "actor_loss": loss, "advantage": advantage.mean(), "weight": weight.mean()}
        return AWACState(actor, critics, target_critics, actor_optimiser, critic_optimiser), metrics

    def policy(self, state: AWACState) -> UnitPolicy:
        return state.actor

    def explore(self, state: AWACState, observation: Any, key: PRNGKeyArray) -> Array:
        return state.actor.act(observation, None, key)[0]
