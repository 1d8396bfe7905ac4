"""Acting by action values: the best class a network of values knows, or sometimes another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning.losses import td_target
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.policies.categorical import allowed_only
from polyact.policies.spec import Body, Spec


class GreedyQ(Policy):
    """Takes the discrete action of highest value; `network` maps features [O] to values [A]. Masked actions are never taken."""

    body: Body
    network: Callable

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray) -> "GreedyQ":
        """Fresh weights. Raises PolyactError unless there is one discrete choice."""
        body = discrete_body(spec)
        return cls(body, network.build(body.observation_width, body.action_width, key))

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


def greedy_target(batch: Batch, chooser: GreedyQ, judge: GreedyQ, discount: float | Array) -> Float[Array, "B"]:
    """r + discount * the judge's value of the chooser's best next action: Q-learning's target, and double Q-learning's if they differ."""
    best = jax.vmap(chooser.best)(batch.next_observation)
    return td_target(batch.reward, batch.bootstrap, at(jax.vmap(judge.values)(batch.next_observation), best), discount)


def of_logged(q: GreedyQ, batch: Batch) -> tuple[Float[Array, "B A"], Float[Array, "B"]]:
    """The values of all actions, and of the one that was taken."""
    values = jax.vmap(q.values)(batch.observation)
    return values, at(values, jax.vmap(q.body.code)(batch.action)[:, 0])


def at(values: Float[Array, "B A"], chosen: Int[Array, "B"]) -> Float[Array, "B"]:
    """One column of each row."""
    return jnp.take_along_axis(values, chosen[:, None], axis=1)[:, 0]


def discrete_body(spec: Spec) -> Body:
    """The body of a spec, PolyactError unless it has one discrete choice."""
    if not isinstance(spec.action_space, spaces.Discrete):
        raise PolyactError(f"action values for every action need a Discrete action space, got {spec.action_space}")
    return spec.body


def falling(count: Any, total: Any, first: float, last: float, share: float) -> Float[Array, ""]:
    """From `first` to `last` over the first `share` of `total` steps, in a straight line."""
    progress = jnp.clip(count / jnp.maximum(share * total, 1.0), 0.0, 1.0)
    return jnp.asarray(first + (last - first) * progress, jnp.float32)
