"""REINFORCE (Williams 1992): follow the gradient of the return, estimated from the returns that were met, with or without a baseline."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.actor_critic import ActorCritic, build_actor_critic
from polyact.learning.advantages import discounted_returns
from polyact.learning.base import Decision, Metrics, OnPolicyLearner, Trajectory
from polyact.learning.losses import masked_mean
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.mlp import Network
from polyact.policies.base import Memory, Policy
from polyact.policies.spec import Spec


class REINFORCEState(eqx.Module):
    model: ActorCritic
    optimiser: OptimiserState


class REINFORCE(OnPolicyLearner):
    """One gradient step per rollout, on log pi(a_t | s_t) times the discounted return from t on.

    baseline: a learned value is taken off every return, and stands for what follows where an episode was truncated or is still
    running at the end of the rollout. Without it only steps whose episode ended within the rollout count, and nothing follows a
    truncation; choose a rollout_length of several episodes then. The gradient is not discounted by t, as is usual.
    """

    actor: Actor | None = None
    network: Network = Network(width=64)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3)
    rollout_length: int = eqx.field(static=True, default=200)
    discount: float = 0.99
    entropy_bonus: float = 0.0
    baseline: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.rollout_length < 1:
            raise PolyactError(f"rollout_length must be positive, got {self.rollout_length}")

    def init(self, spec: Spec, key: PRNGKeyArray) -> REINFORCEState:
        model = build_actor_critic(self.actor, self.network, spec, key)
        return REINFORCEState(model, self.optimiser.init(model, spec.steps))

    def policy(self, state: REINFORCEState) -> Policy:
        return state.model.actor

    def start(self, state: REINFORCEState, key: PRNGKeyArray) -> Memory:
        return state.model.start(key)

    def act(self, state: REINFORCEState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        return state.model.act(observation, memory, key)

    def update(self, state: REINFORCEState, trajectory: Trajectory, key: PRNGKeyArray) -> tuple[REINFORCEState, Metrics]:
        returns, known = self.returns(state.model, trajectory)
        model, optimiser, metrics = descend(
            lambda m: self.loss(m, trajectory, returns, known), state.model, self.optimiser, state.optimiser
        )
        return REINFORCEState(model, optimiser), metrics

    def returns(self, model: ActorCritic, trajectory: Trajectory) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
        """The return from every step on, and whether it is known (1) or not (0)."""
        ended, none = trajectory.ended, jnp.zeros(trajectory.reward.shape[1])
        if not self.baseline:
            known = jnp.flip(jnp.maximum.accumulate(jnp.flip(ended, 0), axis=0), 0)
            return discounted_returns(trajectory.reward, ended, none, self.discount), known
        following = model.following_values(trajectory)
        cut = jnp.maximum(ended, jnp.zeros_like(ended).at[-1].set(1.0))
        reward = trajectory.reward + self.discount * cut * (1 - trajectory.terminated) * following
        return discounted_returns(reward, cut, none, self.discount), jnp.ones_like(ended)

    def loss(
        self, model: ActorCritic, trajectory: Trajectory, returns: Float[Array, "T N"], known: Float[Array, "T N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Its gradient in the actor is minus the policy gradient per step (Sutton et al. 2000)."""
        units, (returns, known) = model.units(trajectory, (returns, known))
        now = jax.vmap(model.judge)(units)
        advantage = returns - jax.lax.stop_gradient(now.value) if self.baseline else returns
        policy_loss, entropy = -masked_mean(now.log_prob * advantage, known), now.entropy.mean()
        metrics = {"policy_loss": policy_loss, "entropy": entropy}
        loss = policy_loss - self.entropy_bonus * entropy
        if self.baseline:
            metrics["value_loss"] = 0.5 * jnp.square(now.value - returns).mean()
            loss = loss + metrics["value_loss"]
        return loss, metrics
