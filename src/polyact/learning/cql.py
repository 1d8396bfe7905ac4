"""Conservative Q-learning (arXiv 2006.04779): press down the values of actions that are not in the data."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Learner, Metrics
from polyact.learning.critics import build_critics, q_values, sample_units
from polyact.learning.losses import conservative_gap, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.gaussian import TanhGaussian
from polyact.policies.spec import Spec


class CQLState(eqx.Module):
    actor: TanhGaussian
    critics: Ensemble
    target_critics: Ensemble
    log_temperature: Float[Array, ""]
    actor_optimiser: OptimiserState
    critic_optimiser: OptimiserState
    temperature_optimiser: OptimiserState


class CQL(Learner):
    """CQL(H) on soft actor-critic, for continuous actions (eq. 4 with importance-weighted actions, appendix F).

    conservative: weight alpha of the gap between the soft maximum of Q and Q of the data. samples: actions drawn from each of three
    proposals (uniform, the policy here, the policy at the next observation). target_entropy: nats per action entry.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    network: Network = Network()
    actor_optimiser: Optimiser = Optimiser(1e-4)
    critic_optimiser: Optimiser = Optimiser(3e-4)
    temperature_optimiser: Optimiser = Optimiser(1e-4)
    discount: float = 0.99
    target_rate: float = 0.005
    conservative: float = 5.0
    samples: int = eqx.field(static=True, default=10)
    target_entropy: float = -1.0
    critics: int = eqx.field(static=True, default=2)
    batches: Sampling = Transitions()

    def __check_init__(self):
        if self.samples < 1 or self.critics < 1:
            raise PolyactError(f"samples and critics must be at least 1, got {self.samples} and {self.critics}")

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> CQLState:
        actor_key, critic_key = jax.random.split(key)
        actor = TanhGaussian.create(spec, self.network, actor_key)
        critics = build_critics(self.network, spec, self.critics, critic_key)
        log_temperature = jnp.zeros(())
        return CQLState(
            actor,
            critics,
            critics,
            log_temperature,
            self.actor_optimiser.init(actor, spec.steps),
            self.critic_optimiser.init(critics, spec.steps),
            self.temperature_optimiser.init(log_temperature, spec.steps),
        )

    def update(self, state: CQLState, batch: Batch, key: PRNGKeyArray) -> tuple[CQLState, Metrics]:
        body, temperature = state.actor.body, jnp.exp(state.log_temperature)
        features, following = (jax.vmap(body.features)(o) for o in (batch.observation, batch.next_observation))
        unit = jax.vmap(body.to_unit)(batch.action)
        own_key, next_key, proposal_key = jax.random.split(key, 3)

        def actor_loss(actor: TanhGaussian) -> tuple[Array, Array]:
            own, log_prob = sample_units(actor, batch.observation, own_key)
            value = q_values(state.critics, features, own).min(1)
            return jnp.mean(temperature * log_prob - value), log_prob.mean()

        actor, actor_optimiser, log_prob = descend(actor_loss, state.actor, self.actor_optimiser, state.actor_optimiser)
        wanted = self.target_entropy * body.action_width
        log_temperature, temperature_optimiser, _ = descend(
            lambda t: (-t * jax.lax.stop_gradient(log_prob + wanted), 0.0),
            state.log_temperature,
            self.temperature_optimiser,
            state.temperature_optimiser,
        )
        next_unit, _ = sample_units(state.actor, batch.next_observation, next_key)
        target = td_target(
            batch.reward, batch.bootstrap, q_values(state.target_critics, following, next_unit).min(1), self.discount
        )
        proposals, log_density = self._proposals(state.actor, batch, proposal_key)

        def critic_loss(critics: Ensemble) -> tuple[Array, Metrics]:
            q = q_values(critics, features, unit)
            error = jnp.mean(jnp.sum((q - target[:, None]) ** 2, axis=1))
            everywhere = jax.vmap(lambda u: q_values(critics, features, u), 1, 1)(proposals) - log_density[..., None]
            gaps = jnp.stack([conservative_gap(everywhere[..., k], q[:, k]) for k in range(self.critics)])
            return error + self.conservative * gaps.sum(), {"critic_loss": error, "gap": gaps.mean(), "q": q.mean()}

        critics, critic_optimiser, metrics = descend(critic_loss, state.critics, self.critic_optimiser, state.critic_optimiser)
        target_critics = tree.ema(state.target_critics, critics, self.target_rate)
        moved = CQLState(actor, critics, target_critics, log_temperature, actor_optimiser, critic_optimiser, temperature_optimiser)
        return moved, metrics | {"entropy": -log_prob, "temperature": temperature}

    def policy(self, state: CQLState) -> TanhGaussian:
        return state.actor

    def _proposals(self, actor: TanhGaussian, batch: Batch, key: PRNGKeyArray) -> tuple[Float[Array, "B S A"], Float[Array, "B S"]]:
        """Actions spread over the space and around the policy, with the log density each was drawn with, in unit coordinates."""
        uniform_key, here_key, next_key = jax.random.split(key, 3)
        rows, width = batch.reward.shape[0], actor.body.action_width
        uniform = jax.random.uniform(uniform_key, (rows, self.samples, width), minval=-1, maxval=1)
        flat = jnp.full((rows, self.samples), -width * jnp.log(2.0))
        drawn = [
            jax.vmap(lambda k, o=observation: sample_units(actor, o, k), out_axes=1)(jax.random.split(k, self.samples))
            for observation, k in ((batch.observation, here_key), (batch.next_observation, next_key))
        ]
        units = [uniform, *(units for units, _ in drawn)]
        densities = [flat, *(log_prob for _, log_prob in drawn)]
        return jax.lax.stop_gradient((jnp.concatenate(units, 1), jnp.concatenate(densities, 1)))
