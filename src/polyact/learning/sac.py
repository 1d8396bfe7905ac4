"""Soft actor-critic (arXiv 1812.05905): maximise reward and entropy, with a temperature that holds the entropy at its target."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.envs.vector import Keys
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.base import Metrics, OffPolicyLearner
from polyact.learning.critics import Pairs, at_least_one, build_critics, encoded, q_values, regress
from polyact.learning.losses import td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.base import UnitPolicy
from polyact.policies.gaussian import TanhGaussian
from polyact.policies.spec import Spec


class Temperature(eqx.Module):
    """alpha = exp(log), so that it stays positive."""

    log: Float[Array, ""]

    def __call__(self) -> Float[Array, ""]:
        return jnp.exp(self.log)


class CriticRegulariser(eqx.Module):
    """What the critics pay for beside their squared error."""

    @abstractmethod
    def __call__(
        self,
        critics: Ensemble,
        q: Float[Array, "B K"],
        pairs: Pairs,
        actor: UnitPolicy,
        batch: Batch,
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], Metrics]:
        """The price and what to report of it. q: the critics' values of the logged pairs."""


class SACState(eqx.Module):
    actor: UnitPolicy
    critics: Ensemble
    target_critics: Ensemble
    temperature: Temperature
    actor_optimiser: OptimiserState
    critic_optimiser: OptimiserState
    temperature_optimiser: OptimiserState


class SAC(OffPolicyLearner):
    """Entropies are those of unit actions, whose range is [-1, 1] in every entry.

    temperature: where it starts; with tune_temperature=False it stays there. target_entropy: None is minus the number of action
    entries. critics: the target is the least of so many. backup_entropy: whether targets hold the entropy bonus of what follows.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    actor: Actor[UnitPolicy] = Actor(TanhGaussian)
    critic_network: Network = Network()
    actor_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    temperature_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    temperature: float = 1.0
    tune_temperature: bool = eqx.field(static=True, default=True)
    target_entropy: float | None = None
    critics: int = eqx.field(static=True, default=2)
    batches: Sampling = Transitions()
    backup_entropy: bool = eqx.field(static=True, default=True)
    critic_regulariser: CriticRegulariser | None = None

    def __check_init__(self):
        at_least_one(critics=self.critics)
        if not isinstance(self.temperature, jax.Array) and self.temperature <= 0:
            raise PolyactError(f"temperature must be positive, got {self.temperature}")
        if self.target_entropy is not None and not self.tune_temperature:
            raise PolyactError("target_entropy has no effect with tune_temperature=False")
        if not self.tune_temperature and not eqx.tree_equal(self.temperature_optimiser, Optimiser()):
            raise PolyactError("temperature_optimiser has no effect with tune_temperature=False")

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> SACState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.actor.build(spec, actor_key)
        critics = build_critics(self.critic_network, spec, self.critics, critic_key)
        temperature = Temperature(jnp.log(jnp.asarray(self.temperature, jnp.float32)))
        return SACState(
            actor,
            critics,
            critics,
            temperature,
            self.actor_optimiser.init(actor, spec.steps),
            self.critic_optimiser.init(critics, spec.steps),
            self.temperature_optimiser.init(temperature, spec.steps),
        )

    def update(self, state: SACState, batch: Batch, key: PRNGKeyArray) -> tuple[SACState, Metrics]:
        pairs = encoded(state.actor.body, batch)
        next_keys, keys = jax.random.split(key, (2, len(pairs.action)))
        alpha = state.temperature()

        next_unit, next_log_prob = jax.vmap(state.actor.unit_sample)(batch.next_observation, next_keys)
        following = q_values(state.target_critics, pairs.following, next_unit).min(axis=1)
        if self.backup_entropy:
            following = following - alpha * next_log_prob
        target = td_target(batch.reward, batch.bootstrap, following, self.discount)

        def extra(critics: Ensemble, q: Float[Array, "B K"]) -> tuple[Array, Metrics]:
            if self.critic_regulariser is None:
                return jnp.zeros(()), {}
            own_key = jax.random.fold_in(key, 2**31 - 1)  # no key of an action is this one
            return self.critic_regulariser(critics, q, pairs, state.actor, batch, own_key)

        critics, critic_optimiser, metrics = regress(
            state.critics, self.critic_optimiser, state.critic_optimiser, pairs, target, extra
        )

        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        state = replace(state, critics=critics, target_critics=target_critics, critic_optimiser=critic_optimiser)
        state, climbed = self.climb(state, critics, pairs.features, batch.observation, keys)
        return state, metrics | climbed

    def climb(
        self, state: SACState, critics: Ensemble, features: Float[Array, "B O"], observation: Any, keys: Keys
    ) -> tuple[SACState, Metrics]:
        """One step of the actor up these critics, and of the temperature. keys [B]: of the actions drawn for it."""
        alpha = state.temperature()

        def loss(actor: UnitPolicy) -> tuple[Array, tuple[Array, Array]]:
            unit, log_prob = jax.vmap(actor.unit_sample)(observation, keys)
            q = q_values(critics, features, unit).min(axis=1)
            return jnp.mean(alpha * log_prob - q), (log_prob, q)

        actor, actor_optimiser, (log_prob, q) = descend(loss, state.actor, self.actor_optimiser, state.actor_optimiser)
        temperature, temperature_optimiser = self._update_temperature(state, log_prob)
        state = replace(
            state,
            actor=actor,
            temperature=temperature,
            actor_optimiser=actor_optimiser,
            temperature_optimiser=temperature_optimiser,
        )
        metrics = {"actor_loss": jnp.mean(alpha * log_prob - q), "entropy": -log_prob.mean(), "temperature": alpha}
        return state, metrics

    def policy(self, state: SACState) -> UnitPolicy:
        return state.actor

    def explore(self, state: SACState, observation: Any, key: PRNGKeyArray) -> Any:
        return state.actor.act(observation, None, key)[0]

    def _update_temperature(self, state: SACState, log_prob: Float[Array, "B"]) -> tuple[Temperature, OptimiserState]:
        """Raise alpha where the entropy is below its target (eq. 18, in log alpha)."""
        if not self.tune_temperature:
            return state.temperature, state.temperature_optimiser
        wanted = -float(state.actor.body.action_width) if self.target_entropy is None else self.target_entropy
        missing = jax.lax.stop_gradient(wanted + log_prob.mean())
        moved, optimiser, _ = descend(
            lambda t: (-t.log * missing, None), state.temperature, self.temperature_optimiser, state.temperature_optimiser
        )
        return moved, optimiser
