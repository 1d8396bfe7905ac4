"""Demonstrations of several scripted experts, each episode by one of them: behaviour with several ways to the goal."""

from collections.abc import Callable, Sequence

import jax
from jaxtyping import PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.data.episodes import Episodes, concatenate
from polyact.envs.base import Env
from polyact.policies.scripted import Scripted


def demonstrations(env: Env, rules: Sequence[Callable | str], episodes: int, key: PRNGKeyArray) -> Episodes:
    """`episodes` of every rule (a function (env, observation, key) -> action, or "environment/expert"), one rule after the other."""
    keys = jax.random.split(key, len(rules))
    return concatenate([rollout(Scripted(env, rule), env, episodes=episodes, key=k) for rule, k in zip(rules, keys, strict=True)])
