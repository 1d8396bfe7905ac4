"""Advantage-weighted actor-critic (arXiv 2006.09359): cloning weighted by how much better an action is than the policy's own."""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.learning.actor import Actor, Cloner, GaussianOrCategorical, clone_weighted
from polyact.learning.base import Metrics, OffPolicyLearner
from polyact.learning.critics import action_features, at_least_one, build_critics, encoded, q_values, regress
from polyact.learning.losses import advantage_weight, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.spec import Spec


class AWACState(eqx.Module):
    actor: Cloner
    critics: Ensemble
    target_critics: Ensemble
    actor_optimiser: OptimiserState
    critic_optimiser: OptimiserState


class AWAC(OffPolicyLearner):
    """Critics evaluate the current policy; the actor clones with weight exp(advantage / temperature) (eq. 10, unnormalised, capped).

    For continuous and for discrete actions. temperature: lambda in the paper; samples: actions of the policy averaged into the value
    of a state.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    actor: Actor[Cloner] = Actor(GaussianOrCategorical)
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

    def __check_init__(self):
        at_least_one(samples=self.samples, critics=self.critics)

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> AWACState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.actor.build(spec, actor_key)
        critics = build_critics(self.network, spec, self.critics, critic_key)
        optimisers = self.actor_optimiser.init(actor, spec.steps), self.critic_optimiser.init(critics, spec.steps)
        return AWACState(actor, critics, critics, *optimisers)

    def update(self, state: AWACState, batch: Batch, key: PRNGKeyArray) -> tuple[AWACState, Metrics]:
        pairs = encoded(state.actor.body, batch)
        next_key, own_key = jax.random.split(key)
        following = _own(state.actor, state.target_critics, batch.next_observation, pairs.following, next_key)
        target = td_target(batch.reward, batch.bootstrap, following, self.discount)
        critics, critic_optimiser, metrics = regress(state.critics, self.critic_optimiser, state.critic_optimiser, pairs, target)
        value = jax.vmap(lambda k: _own(state.actor, critics, batch.observation, pairs.features, k))
        advantage = q_values(critics, pairs.features, pairs.action).min(1) - value(jax.random.split(own_key, self.samples)).mean(0)
        weight = advantage_weight(advantage, 1 / self.temperature, self.largest_weight)
        actor, actor_optimiser, loss = clone_weighted(state.actor, self.actor_optimiser, state.actor_optimiser, batch, weight)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        metrics |= {"actor_loss": loss, "advantage": advantage.mean(), "weight": weight.mean()}
        return AWACState(actor, critics, target_critics, actor_optimiser, critic_optimiser), metrics

    def policy(self, state: AWACState) -> Cloner:
        return state.actor

    def explore(self, state: AWACState, observation: Any, key: PRNGKeyArray) -> Array:
        return state.actor.act(observation, None, key)[0]


def _own(actor: Cloner, critics: Ensemble, observation: Any, features: Float[Array, "B O"], key: PRNGKeyArray) -> Float[Array, "B"]:
    """The least value that the critics give to an action of the policy's own."""
    actions, _ = jax.vmap(actor.act, (0, None, 0))(observation, None, jax.random.split(key, len(features)))
    return q_values(critics, features, action_features(actor.body, actions)).min(1)
