"""Policy optimisation for language models: sample groups of answers, turn rewards into advantages, take a few steps on a loss.

What papers add is mostly one of the two functions: `advantage` (rollouts -> per answer or per token) or `loss` (Terms -> scalar).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact import tree
from polyact.acting.groups import sample_groups
from polyact.data.token_rollouts import TokenRollouts
from polyact.envs.language.base import TokenWorld
from polyact.errors import PolyactError
from polyact.learning.gradient_descent import GradientDescent
from polyact.learning.language.advantages import group_relative, per_token
from polyact.learning.language.surrogates import Loss, Terms, clipped, sequence_mean
from polyact.learning.optimiser import Optimiser
from polyact.policies.language.base import TokenPolicy, log_probs

Advantage = Callable[[TokenRollouts], Array]
Metrics = dict[str, Array]


def grpo_advantage(rollouts: TokenRollouts) -> Float[Array, " B"]:
    """Group-relative advantages of whole answers."""
    return group_relative(rollouts.reward, rollouts.group_id)


def grpo_loss(terms: Terms) -> Float[Array, ""]:
    """PPO's clipped loss at 0.2, averaged per answer and then over answers."""
    return sequence_mean(clipped(terms), terms.mask)


class TokenLearner(eqx.Module):
    """GRPO unless told otherwise (arXiv 2402.03300, without a reference policy).

    epochs: how often each batch of rollouts is used; minibatches: steps per epoch, each on its share of the answers. reference: what
    `Terms.logp_ref` is computed with.
    """

    advantage: Advantage = grpo_advantage
    loss: Loss = grpo_loss
    optimiser: Optimiser | GradientDescent = Optimiser()
    epochs: int = eqx.field(static=True, default=1)
    minibatches: int = eqx.field(static=True, default=1)
    reference: TokenPolicy | None = None

    def __check_init__(self):
        if min(self.epochs, self.minibatches) < 1:
            raise PolyactError(f"epochs and minibatches must be positive, got {self.epochs} and {self.minibatches}")

    def update(self, policy: TokenPolicy, state: PyTree, rollouts: TokenRollouts, key: PRNGKeyArray) -> tuple[Any, PyTree, Metrics]:
        """The policy after `epochs * minibatches` steps on one batch. Metrics: `loss` and `gradient_norm` are means over the steps."""
        count = len(rollouts.tokens)
        if count % self.minibatches:
            raise PolyactError(f"{count} answers can't be cut into {self.minibatches} equal minibatches")
        mask = rollouts.action_mask
        reference = None if self.reference is None else log_probs(self.reference, rollouts.tokens)[0]
        fixed = (rollouts.tokens, mask, rollouts.logp_old, per_token(self.advantage(rollouts), mask), reference)
        arrays, static = eqx.partition((policy, state), eqx.is_array)

        def step(arrays: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, tuple[Array, Array]]:
            rows, key = now
            policy, state = eqx.combine(arrays, static)
            tokens, mask, old, advantage, ref = jax.tree.map(lambda leaf: leaf[rows], fixed)
            noise = jax.random.uniform(key, mask.shape)
            parameters, rest = tree.trainable(policy)

            def objective(parameters: PyTree) -> Array:
                logp, entropy = log_probs(tree.combine(parameters, rest), tokens)
                logp, entropy = logp * mask, entropy * mask
                return self.loss(Terms(logp, old, advantage, mask, noise, entropy, ref))

            loss, gradients = jax.value_and_grad(objective)(parameters)
            policy, state = self.optimiser.step(gradients, state, policy)
            return eqx.filter((policy, state), eqx.is_array), (loss, optax.global_norm(gradients))

        shuffles, noises = jax.random.split(key)
        steps = self.epochs * self.minibatches
        rows = jnp.broadcast_to(jnp.arange(count), (steps, count))
        if self.minibatches > 1:  # sorting is slow to compile
            rows = jnp.argsort(jax.random.bits(shuffles, (self.epochs, count)), axis=1).reshape(steps, -1)
        arrays, (loss, norm) = jax.lax.scan(step, arrays, (rows, jax.random.split(noises, steps)))
        policy, state = eqx.combine(arrays, static)
        written = jnp.maximum(mask.sum(), 1)
        metrics = {"loss": loss.mean(), "gradient_norm": norm.mean(), "reward": rollouts.reward.mean()}
        return policy, state, metrics | {"entropy": rollouts.entropy.sum() / written, "length": rollouts.length.mean()}


def improve(
    learner: TokenLearner,
    policy: TokenPolicy,
    world: TokenWorld,
    ask: Callable[[PRNGKeyArray], PyTree],
    *,
    steps: int,
    group: int,
    key: PRNGKeyArray,
    watch: Callable[[Any, PRNGKeyArray], Metrics] = lambda policy, key: {},
) -> tuple[Any, Metrics]:
    """`steps` times: ask (key -> Q questions), answer each `group` times, update. One compiled loop.

    Returns the policy and metrics [steps]: those of the update, and what `watch` says of the policy before each.
    """
    arrays, static = eqx.partition(
        (policy, learner.optimiser.init(policy, steps * learner.epochs * learner.minibatches)), eqx.is_array
    )

    def step(arrays: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Metrics]:
        policy, state = eqx.combine(arrays, static)
        asking, answering, updating, watching = jax.random.split(key, 4)
        seen = watch(policy, watching)
        rollouts = sample_groups(policy, world, ask(asking), group, answering)
        policy, state, metrics = learner.update(policy, state, rollouts, updating)
        return eqx.filter((policy, state), eqx.is_array), metrics | seen

    arrays, metrics = jax.lax.scan(step, arrays, jax.random.split(key, steps))
    return eqx.combine(arrays, static)[0], metrics
