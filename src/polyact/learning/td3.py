"""TD3 (arXiv 1802.09477) and TD3+BC (2106.06860): a deterministic actor, twin critics, and two plug points.

`batches` says how data is drawn and `regulariser` what the actor is pulled towards; most offline methods of this branch are one of
the two.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Metrics, OffPolicyLearner, Variant
from polyact.learning.critics import Pairs, at_least_one, build_critics, encoded, q_values, regress
from polyact.learning.losses import td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.policies.spec import Spec


class Regulariser(eqx.Module):
    """What the actor pays for beside -Q, as a function of its own unit actions."""

    @abstractmethod
    def __call__(self, features: Float[Array, "B O"], unit: Float[Array, "B A"], logged: Float[Array, "B A"]) -> Float[Array, ""]:
        """features: normalised observations; unit: the actor's actions; logged: the data's, in unit coordinates."""


class CloneActions(Regulariser):
    """Squared distance to the logged action (TD3+BC, arXiv 2106.06860 eq. 3)."""

    def __call__(self, features: Float[Array, "B O"], unit: Float[Array, "B A"], logged: Float[Array, "B A"]) -> Float[Array, ""]:
        return jnp.mean((unit - logged) ** 2)


class TD3State(eqx.Module):
    actor: Deterministic
    critics: Ensemble
    target_actor: Deterministic
    target_critics: Ensemble
    actor_optimiser: OptimiserState
    critic_optimiser: OptimiserState
    count: Int[Array, ""]


class TD3(OffPolicyLearner):
    """Twin delayed deterministic policy gradient. Noise scales are in unit coordinates, where the action range is [-1, 1].

    q_weight: None maximises Q as it is; a number a maximises a Q / mean |Q|, so that a regulariser's weight means the same for every
    scale of rewards.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    network: Network = Network()
    critic_network: Network = Network()
    actor_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    critics: int = eqx.field(static=True, default=2)
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    actor_delay: int = eqx.field(static=True, default=2)
    exploration_noise: float = 0.1
    q_weight: float | None = None
    regulariser: Regulariser | None = None
    batches: Sampling = Transitions()

    def __check_init__(self):
        at_least_one(actor_delay=self.actor_delay, critics=self.critics)
        if self.regulariser is None and self.q_weight is not None:
            raise PolyactError("q_weight has no effect without a regulariser")

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> TD3State:
        actor_key, critic_key = jax.random.split(key)
        actor = Deterministic.create(spec, self.network, actor_key)
        critics = build_critics(self.critic_network, spec, self.critics, critic_key)
        return TD3State(
            actor,
            critics,
            actor,
            critics,
            self.actor_optimiser.init(actor, -(-spec.steps // self.actor_delay)),
            self.critic_optimiser.init(critics, spec.steps),
            jnp.zeros((), jnp.int32),
        )

    def update(self, state: TD3State, batch: Batch, key: PRNGKeyArray) -> tuple[TD3State, Metrics]:
        pairs = encoded(state.actor.body, batch)
        critics, critic_optimiser, metrics = self._update_critics(state, batch, pairs, key)
        state = TD3State(
            state.actor, critics, state.target_actor, state.target_critics, state.actor_optimiser, critic_optimiser, state.count + 1
        )
        arrays, static = eqx.partition(state, eqx.is_array)

        def move(arrays: Any) -> tuple[Any, Metrics]:
            moved, metrics = self._update_actor(eqx.combine(arrays, static), batch.observation, pairs)
            return eqx.filter(moved, eqx.is_array), metrics

        if self.actor_delay == 1:
            arrays, actor_metrics = move(arrays)
        else:
            skipped = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(move, arrays)[1])
            arrays, actor_metrics = jax.lax.cond(state.count % self.actor_delay == 0, move, lambda a: (a, skipped), arrays)
            actor_metrics = {name: value * self.actor_delay for name, value in actor_metrics.items()}
        return eqx.combine(arrays, static), metrics | actor_metrics

    def policy(self, state: TD3State) -> Deterministic:
        return state.actor

    def explore(self, state: TD3State, observation: Any, key: PRNGKeyArray) -> Array:
        unit = state.actor.unit_action(observation)
        scale = state.actor.body.continuous
        return state.actor.body.to_env(scale.clip(unit + self.exploration_noise * jax.random.normal(key, unit.shape)))

    def _update_critics(
        self, state: TD3State, batch: Batch, pairs: Pairs, key: PRNGKeyArray
    ) -> tuple[Ensemble, OptimiserState, Metrics]:
        noise = self.target_noise * jax.random.normal(key, pairs.action.shape)
        noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        next_unit = jax.vmap(state.target_actor.unit_action)(batch.next_observation) + noise
        next_unit = state.actor.body.continuous.clip(next_unit)
        value = q_values(state.target_critics, pairs.following, next_unit).min(axis=1)
        target = td_target(batch.reward, batch.bootstrap, value, self.discount)
        return regress(state.critics, self.critic_optimiser, state.critic_optimiser, pairs, target)

    def _update_actor(self, state: TD3State, observation: Any, pairs: Pairs) -> tuple[TD3State, Metrics]:
        def loss(actor: Deterministic) -> tuple[Array, Metrics]:
            unit = jax.vmap(actor.unit_action)(observation)
            q = q_values(state.critics, pairs.features, unit)[:, 0]
            if self.regulariser is None:
                return -q.mean(), {"actor_loss": -q.mean()}
            pull = self.regulariser(pairs.features, unit, pairs.action)
            weight = 1.0 if self.q_weight is None else self.q_weight / jax.lax.stop_gradient(jnp.abs(q).mean() + 1e-8)
            return pull - weight * q.mean(), {"actor_loss": pull - weight * q.mean(), "pull": pull}

        actor, optimiser, metrics = descend(loss, state.actor, self.actor_optimiser, state.actor_optimiser)
        moved = TD3State(
            actor,
            state.critics,
            tree.ema(state.target_actor, actor, self.target_rate),
            tree.ema(state.target_critics, state.critics, self.target_rate),
            optimiser,
            state.critic_optimiser,
            state.count,
        )
        return moved, metrics


class TD3BC(Variant):
    """TD3 whose actor is pulled to the logged actions; alpha = 2.5 weighs Q against the pull (arXiv 2106.06860)."""

    needs: ClassVar[tuple[str, ...]] = TD3.needs
    alpha: float = 2.5
    regulariser: Regulariser = CloneActions()
    batches: Sampling = Transitions()
    network: Network = Network()
    critic_network: Network = Network()
    actor_optimiser: Optimiser = Optimiser()
    critic_optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    actor_delay: int = eqx.field(static=True, default=2)

    @property
    def core(self) -> TD3:
        """The TD3 that does the work."""
        return TD3(
            network=self.network,
            critic_network=self.critic_network,
            actor_optimiser=self.actor_optimiser,
            critic_optimiser=self.critic_optimiser,
            discount=self.discount,
            target_rate=self.target_rate,
            target_noise=self.target_noise,
            target_noise_clip=self.target_noise_clip,
            actor_delay=self.actor_delay,
            q_weight=self.alpha,
            regulariser=self.regulariser,
            batches=self.batches,
        )
