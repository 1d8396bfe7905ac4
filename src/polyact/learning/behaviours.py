"""Data of every quality from one environment: train an agent there and keep what it did on the way.

Sources: random; medium (the first snapshot that reaches 40% of the way from random to expert); expert (the last snapshot); replay
(exploring episodes of every snapshot) and medium-replay (of those up to medium); medium-expert (half and half); mixed (a tenth
expert, the rest random); noisy (expert with a fifth of its actions random); expert-no-actions (its observations and rewards alone).
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.data.episodes import Episodes, concatenate
from polyact.data.source import Source
from polyact.envs.base import Env
from polyact.errors import PolyactError
from polyact.learning.base import Learner
from polyact.learning.train import train
from polyact.policies.base import Memory, Policy, greedy
from polyact.policies.random_policy import RandomPolicy

MEDIUM, EXPERT_SHARE, NOISE, SCORED = 0.4, 0.1, 0.2, 16


class Noisy(Policy):
    """Another policy, with a share of its actions replaced by random ones."""

    policy: Policy
    random: RandomPolicy
    share: float

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.policy.start(key)

    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Any, Memory]:
        which, own, other = jax.random.split(key, 3)
        action, memory = self.policy.act(observation, memory, own)
        chance, _ = self.random.act(observation, None, other)
        return jnp.where(jax.random.bernoulli(which, self.share), chance, action), memory


@dataclass(frozen=True)
class Behaviours:
    """The sources by name, and the mean returns that a score of 0 (random) and 100 (expert) stand for."""

    sources: dict[str, Source]
    random_return: float
    expert_return: float

    def score(self, mean_return: float) -> float:
        """100 (return - random) / (expert - random)."""
        return 100 * (mean_return - self.random_return) / (self.expert_return - self.random_return)


def make_behaviours(
    env: Env,
    learner: Learner,
    *,
    steps: int,
    episodes: int,
    key: PRNGKeyArray,
    snapshots: int = 20,
    envs: int | None = None,
    name: str = "env",
    progress: bool = True,
) -> Behaviours:
    """Train `learner` for `steps` environment steps and record `episodes` episodes of every source.

    Raises PolyactError when the trained agent is no better than random, because then nothing is medium or expert.
    """
    kept: list[Policy] = []
    returns: list[float] = []
    train_key, score_key, record_key = jax.random.split(key, 3)

    def keep(policy: Policy) -> dict[str, float]:
        kept.append(policy)
        returns.append(float(rollout(greedy(policy), env, episodes=SCORED, key=score_key).returns.mean()))
        return {"return": returns[-1]}

    every = max(1, steps // snapshots)
    train(learner, env, steps=steps, key=train_key, envs=envs, evaluate=keep, evaluate_every=every, progress=progress)
    random = RandomPolicy(env.action_space)
    floor = float(rollout(random, env, episodes=SCORED, key=score_key).returns.mean())
    if not returns[-1] > floor:
        raise PolyactError(
            f"after {steps} steps the agent scores {returns[-1]:.4g} in {name}, random actions {floor:.4g}; train longer (--steps)"
        )
    middle = int(np.argmax(np.array(returns) >= floor + MEDIUM * (returns[-1] - floor)))
    recorded = _record(env, kept, random, middle, episodes, record_key)
    facts = {"random_return": floor, "expert_return": returns[-1], "learner": type(learner).__name__, "training_steps": steps}
    sources = {label: _source(env, name, label, played, facts) for label, played in recorded.items()}
    return Behaviours(sources, floor, returns[-1])


def _record(
    env: Env, kept: list[Policy], random: RandomPolicy, middle: int, episodes: int, key: PRNGKeyArray
) -> dict[str, Episodes]:
    keys = iter(jax.random.split(key, 6 + len(kept)))

    def play(policy: Policy, count: int = episodes) -> Episodes:
        return rollout(policy, env, episodes=max(1, count), key=next(keys))

    expert, medium, chance = play(greedy(kept[-1])), play(greedy(kept[middle])), play(random)
    noisy = play(Noisy(greedy(kept[-1]), random, NOISE))
    share = -(-episodes // len(kept))
    early = -(-episodes // (middle + 1))
    replayed = [play(policy, max(share, early if number <= middle else 0)) for number, policy in enumerate(kept)]
    few = max(1, round(EXPERT_SHARE * episodes))
    first = [part.select(np.arange(min(share, part.count))) for part in replayed]
    return {
        "random": chance,
        "medium": medium,
        "expert": expert,
        "medium-replay": concatenate([part.select(np.arange(min(early, part.count))) for part in replayed[: middle + 1]]),
        "replay": concatenate(first),
        "medium-expert": concatenate([half.select(np.arange(-(-episodes // 2))) for half in (medium, expert)]),
        "mixed": concatenate([expert.select(np.arange(few)), chance.select(np.arange(max(1, episodes - few)))]),
        "noisy": noisy,
        "expert-no-actions": expert.without("action"),
    }


def _source(env: Env, name: str, label: str, played: Episodes, facts: dict[str, Any]) -> Source:
    timestep = getattr(env, "timestep", None)
    hertz = None if timestep is None or eqx.is_array(timestep) else round(1 / float(timestep), 6)
    actions = env.action_space if played.action is not None else None
    metadata = facts | {"label": label, "mean_return": float(played.returns.mean())}
    return Source(
        played,
        f"{name}-{label}",
        env.observation_space,
        actions,
        behaviour=label,
        embodiment=name,
        control_hz=hertz,
        metadata=metadata,
    )
