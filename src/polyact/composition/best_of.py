"""Several proposals and a judge: act as the proposal that a critic likes best, or draw one by how much it likes it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.learning.critics import q_values
from polyact.nets.ensemble import Ensemble
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.policies.spec import Body

Judge = Callable[[Any, Any], Array]  # (observation, action) -> how good, a scalar


class BestOf(Policy):
    """Of `count` actions that `policy` proposes, the one that `judge` scores highest.

    temperature: above 0 one is drawn with probability proportional to exp(score / temperature) instead. among: only the first so many
    proposals, an array, so that policies that differ in it share a compiled program. The first proposal is what the policy itself would
    do under the same key, so that a count of 1 changes nothing.
    """

    policy: Policy
    judge: Judge
    count: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True, default=0.0)
    among: Int[Array, ""] | None = None

    def __check_init__(self):
        if self.count < 1 or self.temperature < 0:
            raise PolyactError(f"best of needs count >= 1 and temperature >= 0, got {self.count} and {self.temperature}")

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.policy.start(key)

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        own, draw = jax.random.split(jax.random.fold_in(key, 1))
        keys = jnp.concatenate([key[None], jax.random.split(own, self.count - 1)])
        proposed = jax.vmap(lambda k: self.policy.act(observation, memory, k))(keys)
        scores = jax.vmap(self.judge, (None, 0))(observation, proposed[0])
        if self.among is not None:
            scores = jnp.where(jnp.arange(self.count) < self.among, scores, -jnp.inf)
        chosen = scores.argmax() if self.temperature == 0 else jax.random.categorical(draw, scores / self.temperature)
        return jax.tree.map(lambda leaf: leaf[chosen], proposed)


class LeastValue(eqx.Module):
    """A judge: the least of some critics' values of an action in the environment's units."""

    critics: Ensemble
    body: Body

    def __call__(self, observation: Observation, action: Action) -> Float[Array, ""]:
        features, unit = self.body.features(observation), self.body.to_unit(action)
        return q_values(self.critics, features[None], unit[None]).min()
