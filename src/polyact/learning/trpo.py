"""Trust region policy optimisation (arXiv 1502.05477): the largest step that keeps the mean KL to the old policy within a radius."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact import tree
from polyact.errors import PolyactError
from polyact.learning.actor import Actor, GaussianOrCategorical
from polyact.learning.advantages import generalised_advantage
from polyact.learning.base import Decision, Metrics, OnPolicyLearner, Trajectory
from polyact.learning.moments import Moments
from polyact.learning.natural_gradient import StepRule, TrustRegion
from polyact.learning.value_regression import ValueRegression
from polyact.nets.mlp import Network
from polyact.policies.base import EntropicPolicy, Memory, Policy
from polyact.policies.divergence import kl
from polyact.policies.encoding import encode, input_space, numeric
from polyact.policies.normalise import Normaliser
from polyact.policies.spec import Spec


class TRPOState(eqx.Module):
    """units: of the observations that the value was fitted in, which are the actor's of one update before."""

    actor: EntropicPolicy
    value: ValueRegression
    units: Normaliser
    observations: Moments


class TRPO(OnPolicyLearner):
    """One step per rollout on the importance-weighted advantage, by `step` (default: a trust region of mean KL 0.01).

    actor: Gaussian for continuous actions and categorical for others unless given. fisher_every: one state in so many is enough for the
    Fisher matrix. value_features: random features of the value, which is fitted by least squares, so that nothing depends on the
    scale of the reward. Observations are normalised by running statistics, which change only between rollouts.
    """

    actor: Actor | None = None
    network: Network = Network(width=64, activation="tanh", final_scale=0.01)
    step: StepRule = TrustRegion()
    rollout_length: int = eqx.field(static=True, default=128)
    discount: float = 0.99
    trace: float = 0.97
    fisher_every: int = eqx.field(static=True, default=10)
    value_features: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        if min(self.rollout_length, self.fisher_every, self.value_features) < 1:
            raise PolyactError(
                f"rollout_length, fisher_every and value_features must be positive, "
                f"got {self.rollout_length}, {self.fisher_every}, {self.value_features}"
            )

    def init(self, spec: Spec, key: PRNGKeyArray) -> TRPOState:
        act, judge = jax.random.split(key)
        actor = (self.actor or Actor(GaussianOrCategorical, self.network)).build(spec, act)
        if not isinstance(actor, EntropicPolicy):
            raise PolyactError(f"TRPO needs an actor whose divergence is known (Gaussian, Categorical), got {type(actor).__name__}")
        value = ValueRegression.build(spec.observation_width, self.value_features, judge)
        return TRPOState(actor, value, spec.normaliser, Moments.none(spec.observation_width))

    def policy(self, state: TRPOState) -> Policy:
        return state.actor

    def start(self, state: TRPOState, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, state: TRPOState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        action, log_prob = state.actor.sample_and_log_prob(observation, key)
        return Decision(action, log_prob), memory

    def update(self, state: TRPOState, trajectory: Trajectory, key: PRNGKeyArray) -> tuple[TRPOState, Metrics]:
        body = state.actor.body  # pyright: ignore[reportAttributeAccessIssue]
        space = input_space(body.observation_space)
        raw, reached = (_vectors(space, rows) for rows in (trajectory.observation, trajectory.next_observation))
        value, following = (jax.vmap(jax.vmap(state.value))(state.units(rows)) for rows in (raw, reached))
        advantage = generalised_advantage(
            trajectory.reward, value, following, trajectory.terminated, trajectory.ended, self.discount, self.trace
        )
        target, rows = (advantage + value).reshape(-1), raw.reshape(-1, raw.shape[-1])
        actor, metrics = self.improved(state.actor, trajectory, advantage)
        fitted = state.value.fitted(body.normaliser(rows), target)
        observations = state.observations.after(rows)
        actor = eqx.tree_at(lambda a: a.body.normaliser, actor, observations.normaliser(jnp.asarray(numeric(space))))
        spread = jnp.var(target)
        unexplained = jnp.where(spread > 0, jnp.var(target - value.reshape(-1)) / jnp.where(spread > 0, spread, 1.0), 1.0)
        return TRPOState(actor, fitted, body.normaliser, observations), metrics | {"explained_variance": 1 - unexplained}

    def improved(
        self, old: EntropicPolicy, trajectory: Trajectory, advantage: Float[Array, "T N"]
    ) -> tuple[EntropicPolicy, Metrics]:
        """The actor after one step on E[pi(a | s) / pi_old(a | s) * advantage]."""
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (trajectory.observation, trajectory.action))
        (seen, taken), gain = flat, advantage.reshape(-1)
        parameters, fixed = tree.trainable(old)
        recorded = jax.vmap(old.log_prob)(seen, taken)

        def surrogate(parameters: PyTree) -> Array:
            now = jax.vmap(tree.combine(parameters, fixed).log_prob)(seen, taken)
            return jnp.mean(jnp.exp(now - recorded) * gain)

        def divergence(states: PyTree) -> Any:
            return lambda parameters: jax.vmap(lambda o: kl(old, tree.combine(parameters, fixed), o))(states).mean()

        some = jax.tree.map(lambda leaf: leaf[:: self.fisher_every], seen)
        moved = self.step.move(surrogate, divergence(seen), divergence(some), parameters)
        entropy = jax.vmap(old.entropy)(seen).mean()
        metrics = {"kl": moved.kl, "improvement": moved.improvement, "share": moved.share, "entropy": entropy}
        return tree.combine(moved.parameters, fixed), metrics


def _vectors(space: Any, observation: Any) -> Float[Array, "T N O"]:
    return jax.vmap(jax.vmap(lambda o: encode(space, o)))(observation)
