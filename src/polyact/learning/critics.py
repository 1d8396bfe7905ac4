"""What critics share: values of (observation, unit action) pairs from an ensemble, and the twin minimum."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import UnitPolicy
from polyact.policies.spec import Spec


def build_critics(network: Network, spec: Spec, count: int, key: PRNGKeyArray) -> Ensemble:
    """An ensemble of `count` functions of (features [O], unit action [A]) with one output."""
    return Ensemble.build(network, count, spec.observation_width + spec.action_width, 1, key)


def build_value(network: Network, spec: Spec, key: PRNGKeyArray) -> MLP:
    """A function of features [O] with one output."""
    return network.build(spec.observation_width, 1, key)


def q_values(critics: Ensemble, features: Float[Array, "B O"], unit: Float[Array, "B A"]) -> Float[Array, "B K"]:
    """The value of each pair under each critic."""
    return jax.vmap(critics)(jnp.concatenate([features, unit], axis=-1))[..., 0]


def values(critic: MLP, features: Float[Array, "B O"]) -> Float[Array, "B"]:
    """The value of each observation."""
    return jax.vmap(critic)(features)[:, 0]


def twin_loss(prediction: Float[Array, "B K"], target: Float[Array, "B"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Squared error of every critic, summed over critics and averaged over the batch; twice, as `descend` wants it."""
    loss = jnp.mean(jnp.sum((prediction - target[:, None]) ** 2, axis=1))
    return loss, loss


def sample_units(actor: UnitPolicy, observation: Any, key: PRNGKeyArray) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    """One unit action per observation and its log density there."""
    keys = jax.random.split(key, len(jax.tree.leaves(observation)[0]))
    return jax.vmap(actor.unit_sample)(observation, keys)
