"""Acting by action values: the best class a network of values knows, or sometimes another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.errors import PolyactError
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.policies.categorical import allowed_only
from polyact.policies.spec import Body, Spec


class GreedyQ(Policy):
    """Takes the discrete action of highest value; `network` maps features [O] to values [A]. Masked actions are never taken."""

    body: Body
    network: Callable

    def values(self, observation: Observation) -> Float[Array, " A"]:
        """The value of every action; of forbidden ones a very low one."""
        return allowed_only(self.network(self.body.features(observation)), observation)

    def best(self, observation: Observation) -> Int[Array, ""]:
        """The number of the best action, counted from 0."""
        return jnp.argmax(self.values(observation)).astype(jnp.int32)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.body.decode(self.best(observation)[None]), memory

    def explore(self, observation: Observation, epsilon: Float[Array, ""], key: PRNGKeyArray) -> Action:
        """Any allowed action with probability epsilon, else the best."""
        whether, which = jax.random.split(key)
        values = self.values(observation)
        anything = jax.random.categorical(which, allowed_only(jnp.zeros_like(values), observation))
        code = jnp.where(jax.random.uniform(whether) < epsilon, anything, jnp.argmax(values)).astype(jnp.int32)
        return self.body.decode(code[None])


def discrete_body(spec: Spec) -> Body:
    """The body of a spec, PolyactError unless it has one discrete choice."""
    if not isinstance(spec.action_space, spaces.Discrete):
        raise PolyactError(f"action values for every action need a Discrete action space, got {spec.action_space}")
    return spec.body


def falling(count: Any, total: Any, first: float, last: float, share: float) -> Float[Array, ""]:
    """From `first` to `last` over the first `share` of `total` steps, in a straight line."""
    progress = jnp.clip(count / jnp.maximum(share * total, 1.0), 0.0, 1.0)
    return jnp.asarray(first + (last - first) * progress, jnp.float32)
