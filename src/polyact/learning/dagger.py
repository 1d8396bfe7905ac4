"""Dataset aggregation (Ross, Gordon & Bagnell, arXiv 1011.0686): the learner acts, the expert says what it should have done there."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from polyact.acting.realtime import idle_action
from polyact.acting.rollout import rollout
from polyact.data.episodes import Episodes, concatenate
from polyact.data.source import Source
from polyact.envs.base import Env
from polyact.envs.families import Family
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError
from polyact.learning.base import Learner
from polyact.learning.fit import fit
from polyact.learning.fitted import Fitted
from polyact.policies.base import Action, Memory, Observation, Policy, Reporting

TAUGHT = "expert_action"


def only_at_first(number: int) -> float:
    """The share of the expert's actions in round `number`: all in round 0 and none later (the parameter-free schedule of the paper)."""
    return float(number == 0)


def dagger(
    learner: Learner,
    env: Env | Family | HostEnv,
    expert: Policy,
    *,
    rounds: int,
    episodes_per_round: int,
    steps_per_round: int,
    key: PRNGKeyArray,
    beta: Callable[[int], float] = only_at_first,
    batch_size: int = 256,
    progress: bool = True,
) -> Fitted:
    """Imitate an expert in the states the learner itself gets into.

    Every round plays `episodes_per_round` whole episodes, in which each action is the expert's with probability `beta(round)` and
    else the learner's, labels all of their observations with the expert's actions, and fits `learner` afresh to everything labelled
    so far, for `steps_per_round` updates. One record per round: that of its fit, with the mean return of the episodes played before.
    Raises PolyactError for numbers that make no sense, and what `fit` and `rollout` raise.
    """
    if rounds < 1:
        raise PolyactError(f"dagger needs at least one round, got {rounds}")
    began, labelled, history = time.perf_counter(), [], []
    policy, fitted = expert, None
    for number in range(rounds):
        share = beta(number)
        if not 0 <= share <= 1:
            raise PolyactError(f"beta({number}) is {share}, expected a probability")
        teaching = Supervised(policy, expert, jnp.asarray(share), idle_action(env.action_space))
        play, learn = jax.random.split(jax.random.fold_in(key, number))
        episodes = rollout(teaching, env, episodes=episodes_per_round, key=play)
        labelled.append(relabelled(episodes))
        source = Source(concatenate(labelled), "dagger", env.observation_space, env.action_space)
        fitted = fit(
            learner,
            source,
            steps=steps_per_round,
            key=learn,
            batch_size=batch_size,
            report_every=steps_per_round,
            progress=progress,
        )
        facts = {"round": number, "expert_share": share, "episode_return": float(episodes.returns.mean())}
        history.append(fitted.history[-1] | facts | {"step": (number + 1) * steps_per_round})
        policy = fitted.policy
    assert fitted is not None
    return replace(fitted, history=history, steps=rounds * steps_per_round, seconds=time.perf_counter() - began)


class Supervised(Reporting):
    """At each step the expert acts with probability `share`, else the learner; `report` has what the expert would have done."""

    learner: Policy
    expert: Policy
    share: Array
    idle: Array

    def start(self, key: PRNGKeyArray) -> Memory:
        learner, expert = jax.random.split(key)
        return self.learner.start(learner), self.expert.start(expert), self.idle

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        which, first, second = jax.random.split(key, 3)
        own, learner = self.learner.act(observation, memory[0], first)
        taught, expert = self.expert.act(observation, memory[1], second)
        taught = jnp.asarray(taught, self.idle.dtype)
        follow = jax.random.uniform(which) < self.share
        return jnp.where(follow, taught, own), (learner, expert, taught)

    def report(self, memory: Memory) -> dict[str, Any]:
        return {TAUGHT: memory[2]}


def relabelled(episodes: Episodes) -> Episodes:
    """The same observations with the expert's actions in place of those taken; what followed was not the expert's doing, so only
    what cloning reads is kept.
    """
    return Episodes(lengths=episodes.lengths, observation=episodes.observation, action=episodes.info[TAUGHT])
