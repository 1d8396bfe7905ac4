"""Many agents in slightly different worlds learn one control policy and share only parameters (FedSARSA, arXiv 2401.15273).

Every agent runs SARSA with linear values along one trajectory of its own, which never restarts, and acts by the softmax of what it
has learnt so far. Every `period` steps the parameters of all agents are averaged. Averaging removes noise in proportion to the number of
agents and adds a bias in proportion to how much their worlds differ; both are seen exactly here, because the parameters that SARSA
tends to in a tabular world, `fixed_point`, can be computed.

Measured on 40 worlds: mean squared error .034, .017, .0069, .0034, .0021, .0013 with 1, 2, 5, 10, 20, 40 agents, so almost in proportion
to 1 / agents (17 times less with 20); 20 agents that never average stay at .036. Where worlds differ by a tenth 20 agents have an eighth
of the error of one alone or of one in the mean world; where they differ as much as they can the floor is .21, six times worse than alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale
from polyact.envs import exact
from polyact.envs.families import Family, family
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import garnet
from polyact.envs.vector import Keys
from polyact.errors import PolyactError


class FedSARSA(eqx.Module):
    """The hyperparameters; `federated_sarsa` runs it. Values of the released code, but for `sharpness` (0.01 there).

    sharpness: L of the policy softmax(L Q(s, .)); the theory needs a policy that moves smoothly with the parameters, so argmax and
    epsilon-greedy are outside it. decay: a in the step size learning_rate (1 + a) / (1 + a + t); None: constant. period: local
    steps between two averagings; None: never. radius: of the ball the average is projected on; None: as released, none.
    """

    discount: float = 0.2
    learning_rate: float = 0.01
    sharpness: float = 1.0
    decay: float | None = None
    period: int | None = eqx.field(static=True, default=10)
    radius: float | None = None

    def __check_init__(self):
        if self.period is not None and self.period < 1:
            raise PolyactError(f"period must be at least 1, or None for never, got {self.period}")
        if self.period is None and self.radius is not None:
            raise PolyactError("radius is that of the average's ball: it does nothing with period None")


class Run(eqx.Module):
    """parameters [records, agents, d], after every `every` steps; steps [records]."""

    parameters: Float[Array, "records agents d"]
    steps: Float[Array, " records"]


def federated_sarsa(
    settings: FedSARSA,
    agents: Family,
    features: Float[Array, "S A d"],
    keys: Keys,
    *,
    steps: int,
    every: int = 1,
) -> Run:
    """Algorithm 1 from parameters 0. agents: Tabular worlds that never end, with common states and actions.

    keys [agents]: a stream for each, for with common random numbers averaging would reduce nothing. Raises PolyactError when `steps`
    is not a multiple of `every`, and when the worlds, keys and features do not match.
    """
    worlds = _tables(agents)
    if features.shape[:2] != (worlds.states, worlds.actions) or keys.shape != (agents.count,):
        raise PolyactError(
            f"{agents.count} worlds with {worlds.states} states and {worlds.actions} actions need features of these and as many keys, "
            f"got shapes {features.shape} and {keys.shape}"
        )
    if steps % every:
        raise PolyactError(f"steps must be a multiple of every, got {steps} and {every}")
    if bool(np.any(worlds.terminal)):
        raise PolyactError("FedSARSA follows one trajectory without restarts: terminal states are not allowed")
    return _run(settings, worlds, features, keys, steps, every)


def _tables(agents: Family) -> Tabular:
    if not isinstance(agents.members, Tabular):
        raise PolyactError(f"FedSARSA needs a family of tabular worlds, got one of {type(agents.members).__name__}")
    return agents.members


@eqx.filter_jit
def _run(settings: FedSARSA, worlds: Tabular, features: Array, keys: Keys, steps: int, every: int) -> Run:
    def begin(world: Tabular, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        where, how = jax.random.split(key)
        theta, state = jnp.zeros(features.shape[2]), world.reset(where)[0]
        return theta, state, _choose(settings, theta, features[state], how)

    def local(world: Tabular, theta: Array, state: Array, action: Array, key: PRNGKeyArray, rate: Array):
        move, how = jax.random.split(key)
        after, step = world.step(state, action, move)
        chosen = _choose(settings, theta, features[after], how)
        now, then = features[state, action], features[after, chosen]
        error = step.reward + settings.discount * then @ theta - now @ theta
        return theta + rate * now * error, after, chosen

    def one(carry: tuple[Array, Array, Array], time: Array):
        streams = jax.vmap(lambda key: jax.random.fold_in(key, time))(keys)
        theta, state, action = jax.vmap(local, in_axes=(0, 0, 0, 0, 0, None))(worlds, *carry, streams, _rate(settings, time))
        if settings.period is not None:
            theta = jnp.where((time + 1) % settings.period == 0, _average(settings, theta), theta)
        return (theta, state, action), None

    def record(carry: tuple[Array, Array, Array], times: Array):
        carry, _ = jax.lax.scan(one, carry, times)
        return carry, carry[0]

    times = jnp.arange(steps).reshape(-1, every)
    start = jax.vmap(begin)(worlds, jax.vmap(lambda key: jax.random.fold_in(key, steps))(keys))
    return Run(jax.lax.scan(record, start, times)[1], (times[:, -1] + 1).astype(jnp.float32))


def _choose(settings: FedSARSA, theta: Array, features: Array, key: PRNGKeyArray) -> Array:
    return jax.random.categorical(key, settings.sharpness * features @ theta)


def _rate(settings: FedSARSA, time: Array) -> Array:
    falling = 1.0 if settings.decay is None else (1 + settings.decay) / (1 + settings.decay + time)
    return jnp.asarray(settings.learning_rate * falling)


def _average(settings: FedSARSA, theta: Array) -> Array:
    """Parameters are averaged, never policies: the softmax of a mean is not the mean of softmaxes."""
    mean = theta.mean(0)
    shrink = 1.0 if settings.radius is None else jnp.minimum(1.0, settings.radius / jnp.maximum(jnp.linalg.norm(mean), 1e-12))
    return jnp.broadcast_to(shrink * mean, theta.shape)


def weighted_average(run: Run, decay: float) -> Float[Array, " d"]:
    """The output for decaying steps: the agents' mean over the records, weighted by decay + t."""
    weights = decay + run.steps - 1
    return jnp.einsum("r,rd->d", weights / weights.sum(), run.parameters.mean(1))


def softmax_of(theta: Float[np.ndarray, " d"], features: Float[np.ndarray, "S A d"], sharpness: float) -> Float[np.ndarray, "S A"]:
    """The policy that parameters stand for."""
    return exact.softmax_policy(sharpness * features @ theta)


def fixed_point(world: Tabular, features: Float[np.ndarray, "S A d"], discount: float, sharpness: float) -> Float[np.ndarray, " d"]:
    """theta* with A(theta*) theta* = b(theta*): what on-policy SARSA tends to in one world, in float64.

    A = E[phi (phi - discount E phi')^T] and b = E[phi r] under the stationary distribution of theta*'s own policy. Solved by
    repeated linear solves, each moved half of the way; PolyactError when they do not settle, as with a large sharpness.
    """
    theta = np.zeros(features.shape[2])
    for _ in range(10_000):
        matrix, target = linear_system(world, features, softmax_of(theta, features, sharpness), discount)
        new = (theta + np.linalg.solve(matrix, target)) / 2
        if np.max(np.abs(new - theta)) < 1e-13 * (1 + np.max(np.abs(new))):
            return new
        theta = new
    raise PolyactError(f"SARSA's fixed point was not found for sharpness {sharpness:g}: choose a smoother policy")


def linear_system(
    world: Tabular, features: Float[np.ndarray, "S A d"], policy: Float[np.ndarray, "S A"], discount: float
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
    """A and b of linear temporal-difference learning under a policy: its expected step is b - A theta."""
    mdp = exact.model(world)
    weight = exact.stationary(world, policy)[:, None] * policy
    following = np.einsum("sat,tb,tbd->sad", mdp.continuing, policy, features)
    return (
        np.einsum("sa,sad,sae->de", weight, features, features - discount * following),
        np.einsum("sa,sad,sa->d", weight, features, mdp.reward),
    )


def pairs_of_states(states: int, actions: int) -> Float[np.ndarray, "S A d"]:
    """Indicators of (pair of neighbouring states, action): half as many parameters as a table."""
    groups = (states + 1) // 2
    cells = np.arange(states)[:, None] // 2 * actions + np.arange(actions)
    return np.eye(groups * actions)[cells]


def relatives(world: Tabular, spread: float, count: int, seed: int) -> Family:
    """`count` worlds whose probabilities (before they are normalised) and rewards are the world's, each times 1 + spread U[-1, 1]."""
    generator, members = np.random.default_rng(seed), []
    transition, reward = np.asarray(world.transition, np.float64), np.asarray(world.reward, np.float64)
    for _ in range(count):
        moved = transition * (1 + spread * generator.uniform(-1, 1, transition.shape))
        changed = reward * (1 + spread * generator.uniform(-1, 1, reward.shape))
        members.append(
            Tabular(moved / moved.sum(-1, keepdims=True), changed, world.initial, world.terminal, world.layout, world.horizon)
        )
    return family(members)


def mean_world(agents: Family) -> Tabular:
    """The world whose probabilities and rewards are the means of the members'."""
    many = _tables(agents)
    return Tabular(
        many.transition.mean(0), many.reward.mean(0), many.initial.mean(0), many.terminal.all(0), many.layout, many.horizon
    )


CARD = Card(
    slug="fedsarsa",
    name="FedSARSA",
    title="Finite-Time Analysis of On-Policy Heterogeneous Federated Reinforcement Learning",
    arxiv="2401.15273",
    family="society",
    kind="learner",
    summary="agents in slightly different worlds learn one control policy on-policy, sharing only averaged parameters",
    usage="""
import jax
from polyact.envs.tabular_builders import garnet
from polyact.systems.society.fedsarsa import FedSARSA, federated_sarsa, pairs_of_states, relatives
agents = relatives(garnet(20, 4, 20), spread=0.1, count=20, seed=0)
keys = jax.random.split(jax.random.key(0), agents.count)
features = jax.numpy.asarray(pairs_of_states(20, 4), "float32")
run = federated_sarsa(FedSARSA(discount=0.5), agents, features, keys, steps=4000)
""",
)


@dataclass(frozen=True)
class Fleet:
    """agents: how many learn; period: as in FedSARSA; spread: relative difference of their worlds; averaged: all live in the mean world."""

    agents: int
    period: int | None = 10
    spread: float = 0.0
    averaged: bool = False


@dataclass(frozen=True)
class Grid:
    states: int
    actions: int
    steps: int
    discount: float = 0.5
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Prepared:
    """The common world, what all agents see of a state, and the number from which the agents' worlds are drawn."""

    world: Tabular
    features: Float[np.ndarray, "S A d"]
    seed: int


def _prepare(key: PRNGKeyArray, sizes: Grid) -> Prepared:
    seed = int(jax.random.randint(key, (), 0, 2**30))
    return Prepared(garnet(sizes.states, sizes.actions, sizes.states, seed), pairs_of_states(sizes.states, sizes.actions), seed + 1)


def _measure(key: PRNGKeyArray, fleet: Fleet, sizes: Grid, prepared: Prepared) -> Mapping[str, Any]:
    """error: mean squared distance per parameter to the fixed point of agent 1's own world, over the last quarter of the steps.

    Without averaging the agents are independent repetitions where their worlds are equal, and all of them are taken.
    """
    agents = relatives(prepared.world, fleet.spread, fleet.agents, prepared.seed)
    first = mean_world(family([agents.member(0)]))
    if fleet.averaged:
        agents = family([mean_world(agents)])
    settings = FedSARSA(sizes.discount, sizes.learning_rate, period=fleet.period)
    keys, features = jax.random.split(key, agents.count), jnp.asarray(prepared.features, jnp.float32)
    run = federated_sarsa(settings, agents, features, keys, steps=sizes.steps, every=10)
    target = fixed_point(first, prepared.features, sizes.discount, settings.sharpness)
    late = np.asarray(run.parameters)[3 * len(run.steps) // 4 :]
    seen = late if fleet.spread == 0 else late[:, :1]
    return {"error": float(((seen - target) ** 2).mean())}


def _arms() -> dict[str, Arm]:
    sizes = {f"agents-{count}": Arm("system", f"{count} agents in equal worlds", Fleet(count)) for count in (2, 5, 10, 20, 40)}
    return {
        **sizes,
        "alone": Arm("baseline", "one agent", Fleet(1)),
        "apart": Arm("ablation", "20 agents in equal worlds that never average", Fleet(20, period=None)),
        "differ-0.1": Arm("system", "20 agents whose worlds differ by a tenth", Fleet(20, spread=0.1)),
        "differ-1": Arm("system", "40 agents whose worlds differ as much as they can", Fleet(40, spread=1.0)),
        "differ-0.1 alone": Arm("baseline", "agent 1 of these, alone", Fleet(1, spread=0.1)),
        "differ-0.1 mean": Arm("baseline", "one agent in the mean of these worlds", Fleet(20, spread=0.1, averaged=True)),
    }


EXPERIMENT = Experiment(
    measure=_measure,
    prepare=_prepare,
    arms=_arms(),
    scales={
        "smoke": Scale(2, Grid(6, 2, 400)),
        "laptop": Scale(40, Grid(20, 4, 4000)),
        "paper": Scale(10, Grid(100, 4, 20_000, discount=0.2, learning_rate=0.01)),
    },
    testbed="Garnet worlds in which every state can follow, states seen in pairs; one seed is one world and one trajectory for each agent",
    budget=Budget(
        data="one trajectory of equal length for each agent",
        steps="4000 local steps for each agent, averaged every 10 (laptop)",
        network="linear in indicators of (pair of states, action)",
        tuning="none: step size, discount and period are the card's, alike for every arm",
    ),
    runner="threads",
)

CLAIMS = (
    Claim(
        "speed-up",
        "in equal worlds 20 agents have at most a quarter of one agent's error",
        EXPERIMENT,
        "error",
        Beats("agents-20", {"alone": 4.0}, ratio=True),
        "lower",
    ),
    Claim(
        "averaging-does-it",
        "the same 20 agents without averaging have at least four times the error",
        EXPERIMENT,
        "error",
        Beats("agents-20", {"apart": 4.0}, ratio=True),
        "lower",
    ),
    Claim(
        "apart-no-better",
        "agents that never average are within 30% of one agent, from below",
        EXPERIMENT,
        "error",
        Beats("alone", {"apart": 1 / 1.3}, ratio=True),
        "lower",
    ),
    Claim(
        "apart-no-worse",
        "agents that never average are within 30% of one agent, from above",
        EXPERIMENT,
        "error",
        Beats("apart", {"alone": 1 / 1.3}, ratio=True),
        "lower",
    ),
    Claim(
        "heterogeneity-floor",
        "40 agents in very different worlds have at least ten times the error of 40 in equal ones",
        EXPERIMENT,
        "error",
        Beats("agents-40", {"differ-1": 10.0}, ratio=True),
        "lower",
    ),
    Claim(
        "worth-it-when-similar",
        "where worlds differ by a tenth, sharing still beats learning alone, and one agent in the mean world, by a half",
        EXPERIMENT,
        "error",
        Beats("differ-0.1", {"differ-0.1 alone": 1.5, "differ-0.1 mean": 1.5}, ratio=True),
        "lower",
    ),
)
