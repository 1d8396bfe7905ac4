"""polyact's side of the offline benchmarks: data of fixed shapes, and `fit` timed interval by interval through its own callback."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from polyact.data import Episodes, Source
from polyact.learning import catalogue
from polyact.learning.base import Learner
from polyact.learning.fit import fit
from polyact.spaces import Box

OBSERVATION, ACTION, BATCH = 17, 6, 256
EPISODE = 1000


def synthetic(steps: int, seed: int = 0) -> Source:
    """Smooth random observations [17] with actions [6] and rewards that depend on them, in episodes of 1000 steps (or fewer)."""
    draw = np.random.default_rng(seed)
    length = min(EPISODE, steps)
    count = steps // length
    noise = draw.standard_normal((count, length + 1, OBSERVATION)).astype(np.float32)
    observation = np.cumsum(noise, axis=1) / np.sqrt(np.arange(1, length + 2, dtype=np.float32))[:, None]
    mixing = draw.standard_normal((OBSERVATION, ACTION)).astype(np.float32) / np.sqrt(OBSERVATION)
    action = np.tanh(observation[:, :-1] @ mixing + 0.3 * draw.standard_normal((count, length, ACTION)).astype(np.float32))
    reward = observation[:, 1:, 0] - 0.1 * np.square(action).sum(-1)
    truncated = np.zeros((count, length), bool)
    truncated[:, -1] = True
    episodes = Episodes(
        lengths=np.full(count, length),
        observation=observation.reshape(-1, OBSERVATION),
        action=action.reshape(-1, ACTION),
        reward=reward.reshape(-1),
        terminated=np.zeros(count * length, bool),
        truncated=truncated.reshape(-1),
    )
    return Source(episodes, "synthetic", action_space=Box(-1.0, 1.0, (ACTION,)))


def write_for_peers(source: Source, path: Path) -> None:
    """The same steps as flat arrays: what d3rlpy's MDPDataset takes."""
    episodes = source.episodes
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    np.savez(
        path,
        observations=np.asarray(episodes.observation)[rows],
        actions=np.asarray(episodes.action),
        rewards=np.asarray(episodes.reward),
        terminals=np.asarray(episodes.terminated, np.float32),
        timeouts=np.asarray(episodes.truncated, np.float32),
    )


def learner(name: str, width: int, depth: int = 2, *settings: str) -> Learner:
    """A learner of the catalogue with networks of this size."""
    return catalogue.learner(name, [f"width={width}", f"depth={depth}", *settings])


def fit_rates(
    learner: Learner,
    data: Source,
    *,
    updates: int,
    rounds: int,
    between: Callable[[], Any] = lambda: None,
    seeds: int = 1,
    **options: Any,
) -> list[float]:
    """Updates per second of `fit` (of each of `seeds` policies) in every round; `between` runs after each and is not counted.

    The first interval, which also compiles, is dropped. What is timed is the whole interval as `fit` spends it, reports included.
    """
    rates: list[float] = []
    stopped, seen = time.perf_counter(), 0

    def interval_ended(_: Any) -> dict[str, float]:
        nonlocal stopped, seen
        seen += 1
        if seen % seeds == 0:  # called once per seed
            rates.append(updates / (time.perf_counter() - stopped))
            if len(rates) > 1:
                between()
            stopped = time.perf_counter()
        return {}

    fit(
        learner,
        data,
        steps=updates * (rounds + 1),
        batch_size=BATCH,
        seeds=seeds,
        key=jax.random.key(0),
        report_every=updates,
        evaluate=interval_ended,
        evaluate_every=updates,
        progress=False,
        **options,
    )
    return rates[1:]
