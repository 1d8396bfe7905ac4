"""Several policies of one architecture acting as one."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from polyact.errors import PolyactError, unknown
from polyact.nets.ensemble import stack, take
from polyact.policies.base import Action, Memory, Observation, Policy

RULES = ("mean", "vote", "random")


class EnsemblePolicy(Policy):
    """K stacked policies. rule: "mean" of the actions, majority "vote" on discrete ones (ties go to the smaller action), or one
    "random" member that acts for a whole episode.
    """

    members: Policy
    count: int = eqx.field(static=True)
    rule: str = eqx.field(static=True, default="mean")

    def __check_init__(self):
        if self.rule not in RULES:
            raise unknown("ensemble rule", self.rule, RULES)

    @classmethod
    def of(cls, policies: Sequence[Policy], rule: str = "mean") -> "EnsemblePolicy":
        """Stack policies of the same architecture; PolyactError when they differ."""
        if not policies:
            raise PolyactError("an ensemble needs at least one policy")
        return cls(stack(policies), len(policies), rule)

    def member(self, index: int) -> Policy:
        """One of the policies."""
        return take(self.members, index)

    def start(self, key: PRNGKeyArray) -> Memory:
        choose, start = jax.random.split(key)
        if self.rule == "random":
            chosen = jax.random.randint(choose, (), 0, self.count)
            return chosen, take(self.members, chosen).start(start)
        return eqx.filter_vmap(lambda member, key: member.start(key))(self.members, jax.random.split(start, self.count))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        if self.rule == "random":
            chosen, inner = memory
            action, inner = take(self.members, chosen).act(observation, inner, key)
            return action, (chosen, inner)
        keys = jax.random.split(key, self.count)
        actions, memory = eqx.filter_vmap(lambda member, own, key: member.act(observation, own, key))(self.members, memory, keys)
        return jax.tree.map(_mean if self.rule == "mean" else _majority, actions), memory


def _mean(actions: Any) -> Any:
    if not jnp.issubdtype(actions.dtype, jnp.inexact):
        raise PolyactError("discrete actions have no mean; use the rule 'vote'")
    return actions.mean(0)


def _majority(actions: Any) -> Any:
    if not jnp.issubdtype(actions.dtype, jnp.integer):
        raise PolyactError("continuous actions can't be voted on; use the rule 'mean'")
    ordered = jnp.sort(actions, 0)
    votes = (ordered[:, None] == ordered[None]).sum(1)
    return jnp.take_along_axis(ordered, jnp.argmax(votes, 0)[None], 0)[0]
