"""How far one policy is from another at an observation, over the whole distribution of actions and not only over those that were taken."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from polyact.errors import PolyactError
from polyact.policies.base import Policy
from polyact.policies.categorical import Categorical
from polyact.policies.gaussian import Gaussian


def kl(first: Policy, second: Policy, observation: Any) -> Float[Array, ""]:
    """KL(first || second) in nats; two Gaussian or two Categorical policies of one body.

    Raises PolyactError for other classes, whose divergence has no closed form.
    """
    if isinstance(first, Gaussian) and isinstance(second, Gaussian):
        return normal_kl(*first.distribution(observation), *second.distribution(observation))
    if isinstance(first, Categorical) and isinstance(second, Categorical):
        rows = zip(*(policy.head.log_probs(policy.logits(observation), policy.body) for policy in (first, second)), strict=True)
        return jnp.stack([categorical_kl(one, other) for one, other in rows]).sum()
    raise PolyactError(f"no closed form for the divergence of {type(first).__name__} and {type(second).__name__}")


def normal_kl(
    mean: Float[Array, " A"], log_std: Float[Array, " A"], other_mean: Float[Array, " A"], other_log_std: Float[Array, " A"]
) -> Float[Array, ""]:
    """Between independent normals, from the first pair to the other."""
    ratio = jnp.exp(2 * (log_std - other_log_std))
    shift = jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return (other_log_std - log_std + 0.5 * (ratio + shift - 1)).sum()


def categorical_kl(log_probs: Float[Array, " n"], other: Float[Array, " n"]) -> Float[Array, ""]:
    """Between classes, from log probabilities; a class that the first never takes counts nothing."""
    return jnp.where(jnp.exp(log_probs) > 0, jnp.exp(log_probs) * (log_probs - other), 0.0).sum()
