"""Pull the policy to the nearest action anywhere in the data, not to the one that was taken in this very state (PRDC, arXiv 2306.06569).

TD3 whose actor pays for the distance to the action of the nearest stored pair of state and action. Near means near in both: `beta` says
how much a state's distance weighs. Where only bad actions were recorded a good action of a neighbouring state can be borrowed, which
neither cloning nor a constraint on the support allows, while actions that nobody ever took nearby stay expensive.

Measured: on the line, where every other cell holds bad actions only, it scores 77, SPOT 27, TD3+BC 25, IQL 7, all tuned over one grid;
with beta 100 it is TD3+BC again (18). With beta 0.1 it scores 92: there any recorded pace is safe everywhere. Its critic stays below what
is earned, TD3's far above. On ordinary data of point navigation it scored 70 and TD3+BC 54, with so much spread over seeds that "no worse"
is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale, Within
from polyact.data.episodes import Episodes, concatenate
from polyact.data.neighbours import nearest
from polyact.data.single_steps import single_steps
from polyact.data.source import Data, Source, as_mixture
from polyact.envs.base import Env
from polyact.envs.line_walk import LineWalk, checkerboard
from polyact.envs.point_navigation import left_or_right, pass_left, sloppy
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.bc import BC
from polyact.learning.critics import q_values
from polyact.learning.fit import fit
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser
from polyact.learning.support import SupportBound
from polyact.learning.td3 import TD3, TD3BC, CloneActions, Regulariser
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, greedy
from polyact.policies.gaussian import Gaussian
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.scripted import Scripted
from polyact.policies.spec import Spec
from polyact.policies.vae_policy import VAEPolicy


class NearestAction(Regulariser):
    """Squared distance to the action part of the nearest key [beta * features, unit action], found by a full search (eq. 4, 5).

    No gradient passes through the search. Of equally near keys the first is taken.
    """

    keys: Float[Array, "N K"]
    beta: float

    def __call__(self, features: Float[Array, "B O"], unit: Float[Array, "B A"], logged: Float[Array, "B A"]) -> Float[Array, ""]:
        return jnp.mean((unit - self.targets(features, unit)) ** 2)

    def targets(self, features: Float[Array, "B O"], unit: Float[Array, "B A"]) -> Float[Array, "B A"]:
        """The action of the nearest stored pair: of the key only the state is scaled."""
        queries = jax.lax.stop_gradient(jnp.concatenate([self.beta * features, unit], axis=1))
        _, place = nearest(queries, self.keys)
        return self.keys[place[:, 0], features.shape[1] :]


def dataset_constraint(data: Data, beta: float = 2.0) -> NearestAction:
    """The constraint to all pairs of some data of one body, in the units that `fit` on the same data gives its networks."""
    if not beta > 0:
        raise PolyactError(f"beta must be positive, got {beta}")
    sources = as_mixture(data).sources
    body = Spec.from_sources(sources, 1).body
    keys = []
    for source in sources:
        episodes = source.episodes
        rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
        observation = jax.tree.map(lambda column, rows=rows: jnp.asarray(column[rows]), episodes.observation)
        unit = jax.vmap(body.to_unit)(jnp.asarray(episodes.action))
        keys.append(jnp.concatenate([beta * jax.vmap(body.features)(observation), unit], axis=1))
    return NearestAction(jnp.concatenate(keys), beta)


CARD = Card(
    slug="prdc",
    name="PRDC",
    title="Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
    arxiv="2306.06569",
    family="offline",
    kind="learner",
    summary="pulls the actor to the nearest state-action pair of the whole data set, so that good actions of neighbours can be borrowed",
    usage="""
from polyact.systems.offline.prdc import dataset_constraint
learner = TD3BC(alpha=2.5, regulariser=dataset_constraint(data, beta=2.0))
policy = fit(learner, data, steps=100_000, key=jax.random.key(0)).policy
""",
)


@dataclass(frozen=True)
class Method:
    """kind: which learner; alpha: the weight of Q against the constraint (for IQL: the inverse temperature); beta: of PRDC."""

    kind: Literal["prdc", "td3-bc", "spot", "iql", "td3"]
    alpha: float = 1.0
    beta: float = 2.0


@dataclass(frozen=True)
class Sizes:
    data: int
    steps: int
    episodes: int
    batch: int = 128


@dataclass(frozen=True)
class Task:
    """A world, what was recorded there, and the mean returns that scores of 0 and 100 stand for."""

    env: Env
    data: Source
    random_return: float
    expert_return: float


CELLS = 8
_NETWORK, _FAST, _DISCOUNT = Network(width=64), Optimiser(1e-3), 0.97


def _line(key: PRNGKeyArray, sizes: Sizes) -> Task:
    """Single steps from everywhere on the line: in even cells forward, in odd ones backward and faster, never so fast as to trip."""
    env, generator = LineWalk(), np.random.default_rng(np.asarray(jax.random.key_data(key)))
    position = generator.uniform(0, 1, (sizes.data, 1)).astype(np.float32)
    pace = np.where(checkerboard(position, CELLS), -0.5, 0.3) + generator.uniform(-0.1, 0.1, (sizes.data, 1))
    action = pace.astype(np.float32)
    reached, steps = jax.vmap(env.step, (0, 0, None))(jnp.asarray(position), jnp.asarray(action), key)
    rows = np.stack([position, np.asarray(reached)], 1).reshape(-1, 1)
    ended = np.asarray(steps.terminated)
    single = Episodes(np.ones(sizes.data, int), rows, action, np.asarray(steps.reward), ended, ~ended)
    return _task(env, single, Scripted(env, _forward), key)


def _forward(env: LineWalk, observation: Array, key: PRNGKeyArray) -> Array:
    return jnp.full(1, 0.5)


def _point(key: PRNGKeyArray, sizes: Sizes) -> Task:
    """Half of the steps by an expert, half by somebody unsteady."""
    env, half = left_or_right(), sizes.data // 2
    expert = Scripted(env, pass_left)
    parts = [
        single_steps(rollout(policy, env, episodes=max(8, half // 12), key=jax.random.fold_in(key, number)), half)
        for number, policy in enumerate((expert, Scripted(env, sloppy)))
    ]
    return _task(env, concatenate(parts), expert, key)


def _task(env: Env, data: Episodes, expert: Policy, key: PRNGKeyArray) -> Task:
    def mean_return(policy: Policy) -> float:
        return float(rollout(policy, env, episodes=200, key=jax.random.fold_in(key, 2)).returns.mean())

    source = Source(data, "recorded", env.observation_space, env.action_space)
    return Task(env, source, mean_return(RandomPolicy(env.action_space)), mean_return(expert))


def _learner(method: Method, sizes: Sizes, data: Source, key: PRNGKeyArray) -> TD3 | TD3BC | IQL:
    network = _NETWORK
    match method.kind:
        case "td3":
            return TD3(network, network, _FAST, _FAST, _DISCOUNT)
        case "iql":
            return IQL(Actor(Gaussian, network), network, _FAST, _FAST, _FAST, _DISCOUNT, temperature=method.alpha)
    constraint: Regulariser = CloneActions()
    if method.kind == "prdc":
        constraint = dataset_constraint(data, method.beta)
    elif method.kind == "spot":
        clone = BC(Actor(VAEPolicy, network, kl_weight=0.125), _FAST)
        made = fit(clone, data, steps=sizes.steps, key=key, batch_size=sizes.batch, progress=False)
        constraint = SupportBound.of(made.states[0].actor, key)
    return TD3BC(
        method.alpha,
        constraint,
        network=network,
        critic_network=network,
        actor_optimiser=_FAST,
        critic_optimiser=_FAST,
        discount=_DISCOUNT,
    )


def _measure(key: PRNGKeyArray, method: Method, sizes: Sizes, task: Task) -> Mapping[str, Any]:
    """score: 0 random, 100 the expert. overestimate: mean Q of the first action minus the discounted return that follows."""
    learner = _learner(method, sizes, task.data, key)
    made = fit(learner, task.data, steps=sizes.steps, key=key, batch_size=sizes.batch, report_every=sizes.steps, progress=False)
    policy = greedy(made.policy)
    played = rollout(policy, task.env, episodes=sizes.episodes, key=jax.random.fold_in(key, 3))
    score = 100 * (played.returns.mean() - task.random_return) / (task.expert_return - task.random_return)
    first, reward = played.starts, np.asarray(played.reward)
    observed = jnp.asarray(np.asarray(played.observation)[first + np.arange(played.count)])
    actions = jnp.asarray(np.asarray(played.action)[first])
    expected = np.asarray(_values(made.states[0].critics, made.policy, observed, actions))
    discounts = _DISCOUNT ** (np.arange(played.steps) - np.repeat(first, played.lengths))
    realised = np.add.reduceat(reward * discounts, first)
    return {"score": float(score), "overestimate": float(expected.mean() - realised.mean())}


@eqx.filter_jit
def _values(critics: Any, policy: Any, observed: Array, action: Array) -> Array:
    body = policy.body
    return q_values(critics, jax.vmap(body.features)(observed), jax.vmap(body.to_unit)(action))[:, 0]


def _arms(prdc: float, own: float, cloning: float) -> dict[str, Arm]:
    """With the alphas that were best on the tuning seeds."""
    return {
        "PRDC": Arm("system", "nearest stored pair, beta 2", Method("prdc", prdc)),
        "beta 100": Arm("ablation", "states weigh so much that the nearest is the own one", Method("prdc", own, 100.0)),
        "TD3+BC": Arm("baseline", "pulled to the own action", Method("td3-bc", cloning)),
    }


def _further_arms(anywhere: float, spot: float, iql: float) -> dict[str, Arm]:
    return {
        "beta 0.1": Arm("system", "the same, states weigh next to nothing", Method("prdc", anywhere, 0.1)),
        "SPOT": Arm("baseline", "pays for leaving the support that a VAE models", Method("spot", spot)),
        "IQL": Arm("baseline", "clones by advantage", Method("iql", iql)),
        "TD3": Arm("baseline", "no constraint", Method("td3")),
    }


_ALIKE = {
    "steps": "3000 updates with batches of 128",
    "network": "2 layers of 64",
    "tuning": "alpha of 0.03, 0.1, 0.3, 1, 3 for every arm that has one (IQL: inverse temperature), by the mean of 4 tuning seeds",
}

LINE = Experiment(
    measure=_measure,
    prepare=_line,
    arms=_arms(prdc=0.03, own=3.0, cloning=3.0) | _further_arms(anywhere=0.3, spot=3.0, iql=3.0),
    scales={"smoke": Scale(2, Sizes(300, 20, 10)), "laptop": Scale(12, Sizes(4000, 3000, 100))},
    testbed="a line in eight cells: forward steps were recorded in even ones only, backward steps in odd ones; hurrying trips",
    budget=Budget(data="4000 single steps from everywhere", **_ALIKE),
    runner="threads",
)

POINT = Experiment(
    measure=_measure,
    prepare=_point,
    arms=_arms(prdc=0.03, own=0.1, cloning=0.1),
    scales={"smoke": Scale(2, Sizes(300, 20, 10)), "laptop": Scale(12, Sizes(4000, 3000, 100))},
    testbed="point navigation round an obstacle, half of the data by an expert and half by somebody unsteady",
    budget=Budget(data="4000 single steps", **_ALIKE),
    runner="threads",
)

CLAIMS = (
    Claim(
        "checkerboard",
        "where every other cell holds only bad actions, it scores 15 points above cloning, support and advantage constraints",
        LINE,
        "score",
        Beats("PRDC", {"TD3+BC": 15.0, "SPOT": 15.0, "IQL": 15.0}),
    ),
    Claim(
        "neighbours-do-it",
        "with beta 100, which leaves only the own state, 15 points are lost",
        LINE,
        "score",
        Beats("PRDC", {"beta 100": 15.0}),
    ),
    Claim(
        "constraint-does-it",
        "without any constraint, 15 points are lost",
        LINE,
        "score",
        Beats("PRDC", {"TD3": 15.0}),
    ),
    Claim(
        "value-is-bounded",
        "its critic overestimates the first actions by less than half of what there is to earn",
        LINE,
        "overestimate",
        Within("PRDC", low=-0.5, high=0.5),
    ),
    Claim(
        "less-overestimation",
        "and by less than that of TD3 without a constraint",
        LINE,
        "overestimate",
        Beats("PRDC", {"TD3": 0.0}),
        "lower",
    ),
    Claim(
        "ordinary-data",
        "on ordinary data of an expert and somebody unsteady it is no worse than TD3+BC, by at most 5 points",
        POINT,
        "score",
        Beats("PRDC", {"TD3+BC": -5.0}),
    ),
)
