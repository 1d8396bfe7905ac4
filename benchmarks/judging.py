"""Which seeds train, judge and collect, and what is reported of the scores: what all parts of `quality.py` share.

Settings were chosen with seeds below 1000 alone; what is reported comes from seeds that no choice has seen.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import Json, Options, significant


@dataclass(frozen=True)
class Seeds:
    """Numbers of random keys. training: policy i comes from this key with i folded in. judging: initial states of the episodes that
    count. collecting: data. runs: how many policies of every kind. episodes: on how many initial states each is judged."""

    training: int
    judging: int
    collecting: int
    runs: int
    episodes: int

    @classmethod
    def of(cls, options: Options) -> "Seeds":
        """Below 1000 for tuning, beyond for the test."""
        first = (0, 500, 900) if options.tuning else (8000, 8500, 8900)
        return cls(*first, runs=options.pick(5, 2), episodes=options.pick(64, 4))

    def as_json(self) -> Json:
        return asdict(self)


def key(number: int) -> Any:
    import jax

    return jax.random.key(number)


def play(policies: Sequence[Any], env: Any, seeds: Seeds) -> Any:
    """Returns [policies, episodes] of their modes, on the same initial states."""
    import numpy as np

    from polyact.acting.rollout import rollout
    from polyact.policies.base import greedy

    return np.stack([rollout(greedy(p), env, episodes=seeds.episodes, key=key(seeds.judging)).returns for p in policies])


def estimated(scores: Any) -> Json:
    """The mean return with its interval, and the mean of every policy."""
    from polyact.evaluation.statistics.estimate import estimate

    return {"mean": as_json(estimate(scores)), "by seed": [significant(float(value), 5) for value in scores.mean(1)]}


def reaching(scores: Any, bar: float) -> Json:
    """The mean return beside the bar it should reach, and how many policies reach it."""
    reached = int((scores.mean(1) >= bar).sum())
    return estimated(scores) | {"bar": f">= {bar:.5g}", "met": bool(scores.mean() >= bar), "seeds that reach it": reached}


def differing(first: Any, second: Any) -> Json:
    """The mean of first minus second with its interval, paired by seed and initial state, and the difference of every seed."""
    from polyact.evaluation.statistics.compare import difference

    gaps = (first - second).mean(1)
    return as_json(difference(first, second)[0]) | {"by seed": [significant(float(gap), 5) for gap in gaps]}


def as_json(found: Any) -> Json:
    numbers = {name: significant(float(getattr(found, name)), 5) for name in ("value", "low", "high")}
    return numbers | {"level": found.level, "sample": found.sample, "text": str(found)}
