"""Scripted experts as policies: rules written by people, to make data with and to compare with."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from polyact.envs.base import Env
from polyact.envs.catalogue import ENVIRONMENTS, expert
from polyact.errors import PolyactError
from polyact.policies.base import Action, Memory, Observation, Policy


def _by_name(rule: Callable | str) -> Callable | str:
    """ "environment/expert" for an expert of the catalogue, which can be saved; any other function as it is, which can't."""
    if isinstance(rule, str):
        _function(rule)
        return rule
    called = getattr(rule, "__name__", "")
    for name, entry in ENVIRONMENTS.items():
        if called in entry.experts and expert(name, called) is rule:
            return f"{name}/{called}"
    return rule


class Scripted(Policy):
    """Acts by a pure function (env, observation, key) -> action, such as the experts beside each environment.

    `rule` is the function, or "environment/expert" for one of the catalogue's (PolyactError when there is none of that name). The
    environment is a field, so a scripted policy can be vmapped over physical parameters like any other.
    """

    env: Env
    rule: Callable | str = eqx.field(static=True, converter=_by_name)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        rule = _function(self.rule) if isinstance(self.rule, str) else self.rule
        return rule(self.env, observation, key), memory


def _function(name: str) -> Callable:
    environment, slash, which = name.partition("/")
    if not slash:
        raise PolyactError(f"a scripted policy's rule is a function or 'environment/expert', got '{name}'")
    return expert(environment, which)
