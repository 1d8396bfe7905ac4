"""What critics share: how they see a batch, their values of (observation, action) pairs, and one regression step of all of them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import UnitPolicy
from polyact.policies.spec import Body, Spec

Extra = Callable[[Ensemble, Float[Array, "B K"]], tuple[Float[Array, ""], dict[str, Array]]]


class Pairs(eqx.Module):
    """A batch as critics see it: features [B, O] of the observations and of the `following` ones, and the logged actions [B, A]."""

    features: Float[Array, "B O"]
    following: Float[Array, "B O"]
    action: Float[Array, "B A"]


def encoded(body: Body, batch: Batch) -> Pairs:
    """The batch's pairs in the units networks like."""
    features, following = (jax.vmap(body.features)(seen) for seen in (batch.observation, batch.next_observation))
    return Pairs(features, following, action_features(body, batch.action))


def action_features(body: Body, actions: Any) -> Float[Array, "B A"]:
    """Actions as critics see them: in unit coordinates, or one-hot, choice after choice."""
    if body.action_scale is not None:
        return jax.vmap(body.to_unit)(actions)
    codes = jax.vmap(body.code)(actions)
    return jnp.concatenate([jax.nn.one_hot(codes[:, place], count) for place, count in enumerate(body.choices)], axis=1)


def build_critics(network: Network, spec: Spec, count: int, key: PRNGKeyArray) -> Ensemble:
    """An ensemble of `count` functions of (features [O], action features [A]) with one output."""
    return Ensemble.build(network, count, spec.observation_width + spec.action_width, 1, key)


def build_value(network: Network, spec: Spec, key: PRNGKeyArray) -> MLP:
    """A function of features [O] with one output."""
    return network.build(spec.observation_width, 1, key)


def q_values(critics: Ensemble, features: Float[Array, "B O"], action: Float[Array, "B A"]) -> Float[Array, "B K"]:
    """The value of each pair under each critic."""
    return jax.vmap(critics)(jnp.concatenate([features, action], axis=-1))[..., 0]


def values(critic: MLP, features: Float[Array, "B O"]) -> Float[Array, "B"]:
    """The value of each observation."""
    return jax.vmap(critic)(features)[:, 0]


def regress(
    critics: Ensemble,
    optimiser: Optimiser,
    state: OptimiserState,
    pairs: Pairs,
    target: Float[Array, "B"],
    extra: Extra | None = None,
) -> tuple[Ensemble, OptimiserState, dict[str, Array]]:
    """One step of every critic towards `target`: squared errors, summed over critics and averaged over the batch.

    extra(critics, their values of the pairs [B, K]) -> (a further loss, its metrics).
    """

    def loss(critics: Ensemble) -> tuple[Array, dict[str, Array]]:
        q = q_values(critics, pairs.features, pairs.action)
        error = jnp.mean(jnp.sum((q - target[:, None]) ** 2, axis=1))
        further, metrics = (0.0, {}) if extra is None else extra(critics, q)
        return error + further, {"critic_loss": error, "q": q.mean(), **metrics}

    return descend(loss, critics, optimiser, state)


def sample_units(actor: UnitPolicy, observation: Any, key: PRNGKeyArray) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    """One unit action per observation and its log density there."""
    keys = jax.random.split(key, len(jax.tree.leaves(observation)[0]))
    return jax.vmap(actor.unit_sample)(observation, keys)


def at_least_one(**counts: int) -> None:
    """PolyactError unless every count is positive."""
    for name, count in counts.items():
        if count < 1:
            raise PolyactError(f"{name} must be at least 1, got {count}")
