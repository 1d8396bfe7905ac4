"""Scripted experts as policies: rules written by people, to make data with and to compare with."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from polyact.envs.base import Env
from polyact.policies.base import Action, Memory, Observation, Policy


class Scripted(Policy):
    """Acts by a pure function (env, observation, key) -> action, such as the experts beside each environment.

    The environment is a field, so a scripted policy can be vmapped over physical parameters like any other.
    """

    env: Env
    rule: Callable = eqx.field(static=True)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.rule(self.env, observation, key), memory
