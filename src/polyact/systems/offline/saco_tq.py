"""Two numbers that tell before training which offline learner a data set suits: trajectory quality and state-action coverage
(A Dataset Perspective on Offline Reinforcement Learning, arXiv 2111.04714).

TQ says how well the recorded trajectories do, SACo how much of what an online learner came to see they cover. Cloning needs the first,
Q-learning the second, and constrained Q-learning one of the two. The measures are `polyact.data.measures`; here they are put to the test:
five kinds of data from each of several worlds, offline learners trained on all of them, and how well each measure foretells the scores.

Measured over 15 data sets from three small worlds: trajectory quality foretells cloning (correlation 0.90), and so does the plain mean
return (0.89), because the worlds pay alike. DQN follows coverage (0.35) rather than quality (-0.15), but so unsteadily over seeds that it
is not shown. CQL does not follow the larger of both (0.44): with its best weight it fails on random data only, so quality alone says
more (0.60).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale, Within
from polyact.data.episodes import Episodes, concatenate
from polyact.data.measures import coverage_ratio, trajectory_quality
from polyact.data.single_steps import single_steps
from polyact.data.source import Source
from polyact.data.trajectory_weights import weighted_behaviour
from polyact.envs import exact
from polyact.envs.mazes import MAPS
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import FOUR_ROOMS, grid_world
from polyact.learning.actor import Actor
from polyact.learning.base import Learner
from polyact.learning.bc import BC
from polyact.learning.cql_discrete import DiscreteCQL
from polyact.learning.dqn import DQN
from polyact.learning.fit import fit
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, greedy
from polyact.policies.categorical import Categorical
from polyact.policies.tabular import tabular_policy

CARD = Card(
    slug="saco-tq",
    name="SACo and TQ",
    title="A Dataset Perspective on Offline Reinforcement Learning",
    arxiv="2111.04714",
    family="offline",
    kind="judge",
    summary="tells before training whether data are explorative enough for Q-learning or good enough for cloning",
    usage="""
from polyact.data.measures import coverage_ratio, trajectory_quality
quality = trajectory_quality(episodes, random_return=-200.0, best_return=-90.0)
coverage = coverage_ratio(episodes, everything_an_online_learner_saw)
""",
)

Table = Float[np.ndarray, "S A"]
YARD = "\n".join(("#" * 10, "#S" + "." * 7 + "#", *["#" + "." * 8 + "#"] * 5, "#" + "." * 7 + "G#", "#" * 10))


@dataclass(frozen=True)
class Sizes:
    online: int
    data: int
    steps: int
    batch: int = 128


@dataclass(frozen=True)
class Judged:
    """One data set: its measures, and what each learner scores on it (0 random, 1 the best online policy)."""

    quality: float
    coverage: float
    mean_return: float
    entropy: float
    scores: Mapping[str, float]


_NETWORK, _DISCOUNT = Network(width=64), 0.95
LEARNERS: dict[str, Learner] = {
    "BC": BC(Actor(Categorical, _NETWORK), Optimiser(1e-3)),
    "DQN": DQN(_NETWORK, Optimiser(1e-3, clip_norm=10.0), _DISCOUNT),
    "CQL": DiscreteCQL(_NETWORK, Optimiser(1e-3), _DISCOUNT, target_rate=0.01, conservative=0.01),
}


def _worlds() -> dict[str, Tabular]:
    """Deterministic ones, for which coverage is defined, with one start and a goal that random actions hardly reach."""
    rooms = FOUR_ROOMS.replace("#.", "#S", 1)
    return {
        "rooms": grid_world(rooms, step_reward=-0.02, horizon=100),
        "maze": grid_world(MAPS["large"], step_reward=-0.02, horizon=100),
        "yard": grid_world(YARD, step_reward=-0.02, horizon=100),
    }


def online_q(
    world: Tabular, steps: int, discount: float, generator: np.random.Generator, last_epsilon: float = 0.1
) -> tuple[Table, Episodes]:
    """Q-learning on a table with exploration that falls to `last_epsilon` over half of the steps, and every step that it saw."""
    transition, reward, terminal = (np.asarray(table) for table in (world.transition, world.reward, world.terminal))
    following, starts = transition.argmax(-1), np.asarray(world.initial, np.float64)
    values, state, time, rows = np.zeros((world.states, world.actions)), -1, 0, []
    for step in range(steps):
        if state < 0:
            state, time = int(generator.choice(world.states, p=starts / starts.sum())), 0
        epsilon = max(last_epsilon, 1 - (1 - last_epsilon) * 2 * step / steps)
        best = np.flatnonzero(values[state] == values[state].max())
        action = int(generator.integers(world.actions) if generator.random() < epsilon else generator.choice(best))
        after, time = int(following[state, action]), time + 1
        gained = float(reward[state, action] if reward.ndim == 2 else reward[state, action, after])
        ended = bool(terminal[after])
        values[state, action] += 0.5 * (gained + discount * (not ended) * values[after].max() - values[state, action])
        cut = time >= world.horizon and not ended
        rows.append((state, action, gained, after, ended, cut))
        state = -1 if ended or cut else after
    return values, _as_episodes(rows)


def _as_episodes(rows: list[tuple[int, int, float, int, bool, bool]]) -> Episodes:
    """The last episode may be cut off in the middle."""
    state, action, reward, after, ended, cut = (np.array(column) for column in zip(*rows, strict=True))
    last = ended | cut
    last[-1] = True
    ends = np.flatnonzero(last)
    lengths = np.diff(np.concatenate([[-1], ends]))
    observation = np.insert(state, ends + 1, after[ends])
    return Episodes(lengths, observation, action, reward, ended, cut)


def _first_steps(episodes: Episodes, steps: int) -> Episodes:
    """Exactly so many steps; the last episode may be cut off in the middle."""
    count = int(np.searchsorted(np.cumsum(episodes.lengths), steps)) + 1
    whole = episodes.select(np.arange(count))
    rows = steps + count
    lengths = whole.lengths.copy()
    lengths[-1] -= whole.steps - steps
    columns = {name: getattr(whole, name)[:steps] for name in ("action", "reward", "terminated", "truncated")}
    return Episodes(lengths, np.asarray(whole.observation)[:rows], **columns)


@dataclass(frozen=True)
class Kinds:
    """Data sets by name, everything that the online learner saw, and the random and the best online policy."""

    sets: Mapping[str, Episodes]
    seen: Episodes
    random: Table
    best: Table


def five_kinds(world: Tabular, online: int, steps: int, key: PRNGKeyArray) -> Kinds:
    """Random, mixed (80% random steps, the rest expert), replay (some of what the online learner saw), noisy (a fifth random), expert.

    online: steps of the online learner; steps: of each data set.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    values, seen = online_q(world, online, _DISCOUNT, generator)
    best, chance = np.eye(world.actions)[values.argmax(1)], np.full(values.shape, 1 / world.actions)
    tables = {"random": chance, "noisy": 0.8 * best + 0.2 * chance, "expert": best}
    keys = jax.random.split(key, len(tables))
    sets = {name: _record(world, table, steps, k) for (name, table), k in zip(tables.items(), keys, strict=True)}
    part = 4 * steps // 5
    sets["mixed"] = concatenate([_first_steps(sets["random"], part), _first_steps(sets["expert"], steps - part)])
    sets["replay"] = _first_steps(seen.select(generator.permutation(seen.count)), steps)
    return Kinds(sets, seen, chance, best)


def _record(world: Tabular, policy: Table, steps: int, key: PRNGKeyArray) -> Episodes:
    """Enough episodes are played for the steps even if each is a single one; they come in blocks of one size."""
    parts, block = [], 100
    while sum(part.steps for part in parts) < steps:
        parts.append(rollout(tabular_policy(world, policy), world, episodes=block, key=jax.random.fold_in(key, len(parts))))
    return _first_steps(concatenate(parts), steps)


def _prepare(key: PRNGKeyArray, sizes: Sizes) -> list[Judged]:
    worlds = _worlds()
    keys = jax.random.split(key, len(worlds))
    return [data for world, own in zip(worlds.values(), keys, strict=True) for data in _judge_all(world, sizes, own)]


def _judge_all(world: Tabular, sizes: Sizes, key: PRNGKeyArray) -> list[Judged]:
    data = five_kinds(world, sizes.online, sizes.data, key)
    low, high = exact.finite_return(world, data.random), exact.finite_return(world, data.best)
    judged = []
    for episodes in data.sets.values():
        source = Source(single_steps(episodes), "recorded", world.observation_space, world.action_space)
        scores = {name: (_learnt(learner, source, world, sizes, key) - low) / (high - low) for name, learner in LEARNERS.items()}
        quality = trajectory_quality(episodes, low, high)
        coverage = coverage_ratio(episodes, data.seen)
        judged.append(Judged(quality, coverage, quality * (high - low) + low, _entropy(episodes, world), scores))
    return judged


def _learnt(learner: Learner, source: Source, world: Tabular, sizes: Sizes, key: PRNGKeyArray) -> float:
    made = fit(learner, source, steps=sizes.steps, key=key, batch_size=sizes.batch, report_every=sizes.steps, progress=False)
    chosen = np.asarray(_choices(greedy(made.policy), jnp.arange(world.states)))
    return exact.finite_return(world, np.eye(world.actions)[chosen])


@eqx.filter_jit
def _choices(policy: Policy, states: Array) -> Array:
    return jax.vmap(lambda state: policy.act(state, None, jax.random.key(0))[0])(states)


def _entropy(episodes: Episodes, world: Tabular) -> float:
    """Of the policy that the data seem to be recorded by, averaged over their steps (nats)."""
    policy = weighted_behaviour(episodes, np.ones(episodes.count), world.states, world.actions)
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    return float(-np.log(policy[np.asarray(episodes.observation)[rows], np.asarray(episodes.action)]).mean())


def _quality(data: Judged) -> float:
    return data.quality


def _coverage(data: Judged) -> float:
    return data.coverage


def _either(data: Judged) -> float:
    return max(data.quality, data.coverage)


def _mean_return(data: Judged) -> float:
    return data.mean_return


def _entropy_of(data: Judged) -> float:
    return data.entropy


@dataclass(frozen=True)
class Predictor:
    """What is foretold from a data set; `shuffled`: from another one, drawn at random."""

    measure: Callable[[Judged], float]
    shuffled: bool = False


def _measure(key: PRNGKeyArray, predictor: Predictor, sizes: Sizes, sets: list[Judged]) -> Mapping[str, Any]:
    """Pearson's correlation of the predictor with each learner's score over all data sets of a seed."""
    foretold = np.array([predictor.measure(data) for data in sets])
    if predictor.shuffled:
        foretold = foretold[np.asarray(jax.random.permutation(key, len(sets)))]
    return {name: _correlation(foretold, np.array([data.scores[name] for data in sets])) for name in LEARNERS}


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return 0.0 if min(np.ptp(first), np.ptp(second)) == 0 else float(np.corrcoef(first, second)[0, 1])


EXPERIMENT = Experiment(
    measure=_measure,
    prepare=_prepare,
    arms={
        "TQ": Arm("system", "trajectory quality", Predictor(_quality)),
        "SACo": Arm("system", "state-action coverage", Predictor(_coverage)),
        "either": Arm("system", "the larger of both", Predictor(_either)),
        "mean return": Arm("baseline", "what trajectories earn, not normalised", Predictor(_mean_return)),
        "entropy": Arm("baseline", "of the policy that recorded the data", Predictor(_entropy_of)),
        "TQ shuffled": Arm("ablation", "trajectory quality of other data sets", Predictor(_quality, shuffled=True)),
        "SACo shuffled": Arm("ablation", "coverage of other data sets", Predictor(_coverage, shuffled=True)),
    },
    scales={"smoke": Scale(2, Sizes(4000, 400, 20)), "laptop": Scale(8, Sizes(4000, 1000, 1000))},
    testbed="four rooms, a maze and a yard, deterministic and with one start; random, mixed, replay, noisy and expert data from each",
    budget=Budget(
        data="1000 steps in each of the 15 data sets of a seed, the same for all learners; online Q-learning saw 4000",
        steps="1000 updates with batches of 128 for each learner",
        network="2 layers of 64 on indicators of the state",
        tuning="CQL's weight of 0.01, 0.03, 0.1, 0.3 by its mean score on 2 tuning seeds; learning rate 0.001 and discount 0.95 for all",
    ),
    runner="threads",
)

CLAIMS = (
    Claim(
        "cloning-tracks-quality",
        "over data sets, what cloning scores correlates with trajectory quality by more than 0.8",
        EXPERIMENT,
        "BC",
        Within("TQ", low=0.8),
    ),
    Claim(
        "q-learning-tracks-coverage",
        "what DQN scores correlates more with coverage than with trajectory quality",
        EXPERIMENT,
        "DQN",
        Beats("SACo", {"TQ": 0.0}),
    ),
    Claim(
        "conservative-needs-one-of-both",
        "what CQL scores correlates more with the larger of both than with either alone",
        EXPERIMENT,
        "CQL",
        Beats("either", {"TQ": 0.0, "SACo": 0.0}),
    ),
    Claim(
        "better-than-simpler-measures",
        "trajectory quality foretells cloning better than the mean return or the entropy of the data",
        EXPERIMENT,
        "BC",
        Beats("TQ", {"mean return": 0.0, "entropy": 0.0}),
    ),
    Claim(
        "can-fail",
        "trajectory quality of other data sets foretells cloning worse, by a correlation of 0.5 at least",
        EXPERIMENT,
        "BC",
        Beats("TQ", {"TQ shuffled": 0.5}),
    ),
)
