"""Proximal policy optimisation (arXiv 1707.06347): several epochs on fresh experience, kept near the policy that collected it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.actor_critic import ActorCritic, Remembering, build_actor_critic, with_normaliser
from polyact.learning.advantages import generalised_advantage, normalised
from polyact.learning.base import Decision, Metrics, OnPolicyLearner, Trajectory
from polyact.learning.losses import clipped_surrogate
from polyact.learning.moments import Moments, ReturnScale
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.mlp import Network
from polyact.policies.base import Memory, Policy
from polyact.policies.encoding import encode, input_space, numeric
from polyact.policies.spec import Spec


class Recorded(eqx.Module):
    """What the losses compare with, beside the trajectory itself: advantage, and target and old value in the critic's unit."""

    advantage: Array
    target: Array
    value: Array


class PPOState(eqx.Module):
    model: ActorCritic
    optimiser: OptimiserState
    observations: Moments
    returns: ReturnScale


class PPO(OnPolicyLearner):
    """Continuous actions (Gaussian), discrete ones (categorical; masked where the observation has an action mask), or a recurrent
    actor: `Actor(Recurrent)`, whose minibatches are whole sequences.

    network: of the critic, and of the actor unless `actor` is given. clip: of the probability ratio; value_clip: of the value's move
    from the old one, in standard deviations of the return (None: free). trace: lambda of GAE. target_kl: a rollout's remaining
    minibatches are skipped once the policy has moved 1.5 times as far. normalise_observations: by running statistics, which change
    only between rollouts, so that the first ratio is exactly one. normalise_values: the critic predicts returns in running standard
    deviations; otherwise as they are. The optimiser's schedule runs over all minibatches of the training. minibatches: None cuts a
    rollout into 32, or into 8 where the units are sequences.
    """

    actor: Actor | None = None
    network: Network = Network(width=64)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, schedule="linear", clip_norm=0.5, epsilon=1e-5)
    rollout_length: int = eqx.field(static=True, default=128)
    epochs: int = eqx.field(static=True, default=10)
    minibatches: int | None = eqx.field(static=True, default=None)
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy_bonus: float = 0.0
    target_kl: float | None = None
    normalise_advantages: bool = eqx.field(static=True, default=True)
    normalise_observations: bool = eqx.field(static=True, default=True)
    normalise_values: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if min(self.rollout_length, self.epochs, 1 if self.minibatches is None else self.minibatches) < 1:
            raise PolyactError(
                f"rollout_length, epochs and minibatches must be positive, got {self.rollout_length}, {self.epochs}, {self.minibatches}"
            )

    def init(self, spec: Spec, key: PRNGKeyArray) -> PPOState:
        model = build_actor_critic(self.actor, self.network, spec, key)
        optimiser = self.optimiser.init(model, spec.steps * self.epochs * self._cuts(model))
        return PPOState(model, optimiser, Moments.none(spec.observation_width), ReturnScale.unit())

    def policy(self, state: PPOState) -> Policy:
        return state.model.actor

    def start(self, state: PPOState, key: PRNGKeyArray) -> Memory:
        return state.model.start(key)

    def act(self, state: PPOState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        decision, memory = state.model.act(observation, memory, key)
        return Decision(decision.action, decision.log_prob, state.returns.to_value(decision.value)), memory

    def update(self, state: PPOState, trajectory: Trajectory, key: PRNGKeyArray) -> tuple[PPOState, Metrics]:
        following = state.returns.to_value(state.model.following_values(trajectory))
        advantage = generalised_advantage(
            trajectory.reward, trajectory.value, following, trajectory.terminated, trajectory.ended, self.discount, self.trace
        )
        target = advantage + trajectory.value
        model, returns = state.model, state.returns
        if self.normalise_values:
            returns = state.returns.after(target)
            model = eqx.tree_at(_last_layer, model, state.returns.kept(_last_layer(model), returns))
        recorded = Recorded(
            normalised(advantage) if self.normalise_advantages else advantage,
            returns.to_output(target),
            returns.to_output(trajectory.value),
        )
        model, optimiser, metrics = self._epochs(model, state.optimiser, trajectory, recorded, key)
        observations = state.observations
        if self.normalise_observations:
            space = input_space(model.body.observation_space)
            rows = jax.vmap(jax.vmap(lambda o: encode(space, o)))(trajectory.observation)
            observations = observations.after(rows.reshape(-1, rows.shape[-1]))
            model = with_normaliser(model, observations.normaliser(jnp.asarray(numeric(space))))
        residual = jnp.var(target - trajectory.value) / jnp.maximum(jnp.var(target), 1e-8)
        return PPOState(model, optimiser, observations, returns), metrics | {"explained_variance": 1 - residual}

    def loss(self, model: ActorCritic, trajectory: Trajectory, recorded: Recorded) -> tuple[Float[Array, ""], Metrics]:
        """The objective on units stacked along the first axis, and its parts."""
        now = jax.vmap(model.judge)(trajectory)
        log_ratio = now.log_prob - trajectory.log_prob
        ratio = jnp.exp(log_ratio)
        policy_loss = clipped_surrogate(ratio, recorded.advantage, self.clip)
        error = jnp.square(now.value - recorded.target)
        if self.value_clip is not None:
            near = recorded.value + jnp.clip(now.value - recorded.value, -self.value_clip, self.value_clip)
            error = jnp.maximum(error, jnp.square(near - recorded.target))
        value_loss, entropy = error.mean(), now.entropy.mean()
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": jnp.mean(ratio - 1 - log_ratio),  # an estimate that is never negative: http://joschu.net/blog/kl-approx.html
            "clipped": jnp.mean((jnp.abs(ratio - 1) > self.clip).astype(jnp.float32)),
        }
        return policy_loss + self.value_weight * value_loss - self.entropy_bonus * entropy, metrics

    def _cuts(self, model: ActorCritic) -> int:
        """How many minibatches a rollout gives."""
        if self.minibatches is not None:
            return self.minibatches
        return 8 if isinstance(model, Remembering) else 32

    def _epochs(
        self, model: ActorCritic, optimiser: OptimiserState, trajectory: Trajectory, recorded: Recorded, key: PRNGKeyArray
    ) -> tuple[ActorCritic, OptimiserState, Metrics]:
        units = model.units(trajectory, recorded)
        count = jax.tree.leaves(units)[0].shape[0]
        cuts = self._cuts(model)
        if count % cuts:
            kind = "sequences" if isinstance(model, Remembering) else "steps"
            raise PolyactError(f"a rollout of {count} {kind} can't be cut into {cuts} equal minibatches")
        shuffles = jnp.argsort(jax.random.bits(key, (self.epochs, count)), axis=1)
        arrays, static = eqx.partition((model, optimiser), eqx.is_array)

        def learn(arrays: PyTree, chosen: Array) -> tuple[PyTree, Metrics]:
            model, optimiser = eqx.combine(arrays, static)
            batch = jax.tree.map(lambda leaf: leaf[chosen], units)
            model, optimiser, metrics = descend(lambda m: self.loss(m, *batch), model, self.optimiser, optimiser)
            return eqx.filter((model, optimiser), eqx.is_array), metrics

        def step(carry: Any, chosen: Array) -> tuple[Any, tuple[Metrics, Array]]:
            arrays, far = carry
            if self.target_kl is None:
                arrays, metrics = learn(arrays, chosen)
                return (arrays, far), (metrics, jnp.ones(()))
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(learn, arrays, chosen)[1])
            moved, metrics = jax.lax.cond(far, lambda a, c: (a, nothing), learn, arrays, chosen)
            return (moved, far | (metrics["kl"] > 1.5 * self.target_kl)), (metrics, 1.0 - far)

        batches = shuffles.reshape(self.epochs * cuts, -1)
        (arrays, _), (metrics, done) = jax.lax.scan(step, (arrays, jnp.asarray(False)), batches)
        model, optimiser = eqx.combine(arrays, static)
        return model, optimiser, jax.tree.map(lambda values: values.sum() / done.sum(), metrics)


def _last_layer(model: ActorCritic) -> Any:
    critic = model.critic  # pyright: ignore[reportAttributeAccessIssue]
    return critic.out if isinstance(model, Remembering) else critic.last
