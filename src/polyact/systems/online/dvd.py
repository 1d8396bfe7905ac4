"""Train several policies together so that they span a large volume of behaviours (DvD, arXiv 2002.00632).

A member's behaviour is what it does in some states that the population has met lately. The determinant of the members' kernel matrix is the
volume they span: it vanishes as soon as two of them agree, which a mean distance between pairs does not notice. All members climb
(1 - weight) reward + weight volume by evolution strategies, where the j-th perturbations of all members make up one population. How much
weight the volume gets is chosen every iteration by Thompson sampling: a weight succeeds when the best reward after it beats the last five.

Measured: no claim holds. On ten test seeds DvD gets past the wall at 3, the population without diversity at 2, with mean distances at 8:
the ablation is trapped as expected, but the volume does not free it, while mean distances do. On the default plane the way around returns
about -11 and the trap -28, so the trap is real. Tried on seeds 0 to 5: embeddings standardised over the population and clipped, as in the
released code, get past at 3 of 6, with the weight fixed as with the bandit, and no better when every episode starts alike or when the
bandit judges the mean reward. A kernel twice as wide with a stride of 0.08 m gets past at 5 of 6, but so do 3 of 6 without diversity. A
shallow cup of 0.7 m instead of the wall traps all without diversity and mean distances at 3 of 6; of that kernel it traps 4 with the
bandit, which pulls no diversity half of the time, and 2 with the weight fixed. Out of a cup of 0.4 m every arm finds its way. On 24 more
tuning seeds: DvD 9, with each weight kept for three iterations 12, with the larger weight throughout 14, with mean distances 8 (weight
fixed: 18), without diversity 1; on ten more with 400 iterations 4, 6, 7, 4 and 3. So diversity does get past, but half as often as asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale, Within
from polyact.envs.base import Env
from polyact.envs.pendulum import Pendulum
from polyact.envs.walled_plane import WalledPlane, ring_of_goals
from polyact.errors import PolyactError
from polyact.learning.diversity import duplicates, mean_distance, squared_exponential, volume
from polyact.learning.evolution import antithetic, slope, standardised
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network

Population = Float[Array, "M P"]
Measure = Callable[[Float[Array, "M d"]], Array]
WINDOW, RECENT, UNIFORM = 50, 5, 5  # pulls that the bandit remembers, rewards that must be beaten, pulls before it chooses


def spanned(embeddings: Float[Array, "M d"]) -> Float[Array, ""]:
    """The volume of a population with a kernel of width 0.5 (actions lie in [-1, 1])."""
    return volume(squared_exponential(embeddings, 0.5), 1e-6)


class Bandit(eqx.Module):
    """Thompson sampling between two arms from the last `WINDOW` pulls, with uniform priors. arm -1: no pull yet."""

    arm: Int[Array, " window"]
    success: Float[Array, " window"]

    @classmethod
    def new(cls) -> Bandit:
        return cls(jnp.full(WINDOW, -1), jnp.zeros(WINDOW))

    def choose(self, key: PRNGKeyArray) -> Int[Array, ""]:
        """0 or 1; even odds for the first pulls."""
        early, late = jax.random.split(key)
        pulls = jnp.stack([(self.arm == arm).astype(jnp.float32) for arm in (0, 1)])
        won = pulls @ self.success
        drawn = jax.random.beta(late, 1 + won, 1 + pulls.sum(1) - won)
        return jnp.where(pulls.sum() < UNIFORM, jax.random.randint(early, (), 0, 2), jnp.argmax(drawn))

    def after(self, arm: Int[Array, ""], success: Array) -> Bandit:
        """With one more pull; the oldest is forgotten."""
        return Bandit(jnp.roll(self.arm, 1).at[0].set(arm), jnp.roll(self.success, 1).at[0].set(success))


class DvD(eqx.Module):
    """weights: of the volume, between which the bandit chooses (equal ones: a fixed weight). measure: of a population's embeddings.

    members, pairs: policies, and antithetic perturbations of each; states: in which behaviour is compared. Rate and sigma are those of the
    released code. episodes: for each perturbation's reward.
    """

    weights: Float[Array, " arms"] = eqx.field(default=(0.0, 0.5), converter=jnp.asarray)
    measure: Measure = eqx.field(static=True, default=spanned)
    members: int = eqx.field(static=True, default=5)
    pairs: int = eqx.field(static=True, default=50)
    states: int = eqx.field(static=True, default=20)
    network: Network = Network(width=16, activation="tanh")
    optimiser: Optimiser = Optimiser(learning_rate=0.05)
    sigma: float = 0.1

    def __check_init__(self):
        if self.members < 2 or min(self.pairs, self.states) < 1:
            raise PolyactError(
                f"DvD needs at least two members, one pair and one state, got {self.members}, {self.pairs}, {self.states}"
            )


class Played(eqx.Module):
    """Of one episode: the return, the observations [T, O] it met, and the last step's info."""

    total: Float[Array, ""]
    observation: Float[Array, "T O"]
    info: dict[str, Array]


class Evolved(eqx.Module):
    """population: as it ended. best [iterations]: return of the best member; weight [iterations]: of the volume. embeddings [M, d]: what
    the members do at the end; last: one episode of each."""

    population: Population
    best: Float[Array, " iterations"]
    weight: Float[Array, " iterations"]
    embeddings: Float[Array, "M d"]
    last: Played


class Actors(eqx.Module):
    """Flat parameters as deterministic policies on a Box of actions."""

    env: Env
    network: Network

    def new(self, members: int, key: PRNGKeyArray) -> Population:
        """Independent networks."""
        return jax.vmap(lambda k: ravel_pytree(eqx.filter(self._build(k), eqx.is_array))[0])(jax.random.split(key, members))

    def act(self, flat: Float[Array, " P"], observation: Float[Array, " O"]) -> Float[Array, " A"]:
        """The action as a share of its bounds, in [-1, 1]."""
        shapes, rest = eqx.partition(eqx.filter_eval_shape(self._build, jax.random.key(0)), _is_shape)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jnp.tanh(eqx.combine(ravel_pytree(blank)[1](flat), rest)(observation))

    def embed(self, population: Population, states: Float[Array, "n O"]) -> Float[Array, "M d"]:
        """What each member does in common states, one after the other."""
        return jax.vmap(lambda flat: jax.vmap(lambda o: self.act(flat, o))(states).reshape(-1))(population)

    def play(self, flat: Float[Array, " P"], key: PRNGKeyArray) -> Played:
        """One episode; rewards after a termination count nothing."""
        begin, go = jax.random.split(key)
        high = jnp.asarray(_box(self.env).high)

        def step(carry: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
            state, observation, alive = carry
            state, reached = self.env.step(state, high * self.act(flat, observation), key)
            return (state, reached.observation, alive * (1 - reached.terminated)), (
                alive * reached.reward,
                observation,
                reached.info,
            )

        start = (*self.env.reset(begin), jnp.ones(()))
        _, (rewards, seen, info) = jax.lax.scan(step, start, jax.random.split(go, self.env.horizon))
        return Played(rewards.sum(), seen, jax.tree.map(lambda column: column[-1], info))

    def _build(self, key: PRNGKeyArray) -> Any:
        return self.network.build(spaces.width(self.env.observation_space), spaces.width(self.env.action_space), key)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _box(env: Env) -> spaces.Box:
    space = env.action_space
    if not isinstance(space, spaces.Box):
        raise PolyactError(f"DvD's policies need a Box of actions, got {space}")
    return space


@eqx.filter_jit
def evolve(settings: DvD, env: Env, key: PRNGKeyArray, *, iterations: int) -> Evolved:
    """Algorithm 1 (DvD-ES). Every member and perturbation of an iteration meets the same initial state and noise."""
    actors = Actors(env, settings.network)
    first, play = jax.random.split(key)
    population = actors.new(settings.members, first)

    def one(carry: Any, key: PRNGKeyArray) -> tuple[Any, tuple[Array, Array]]:
        population, optimiser, bandit, recent = carry
        choose, draw, episode, pick = jax.random.split(key, 4)
        arm = bandit.choose(choose)
        weight = settings.weights[arm]
        played = jax.vmap(lambda flat: actors.play(flat, episode))(population)
        states = met(played, settings.states, pick)
        noise = jax.random.normal(draw, (settings.pairs, *population.shape))
        gradient = ascent(settings, actors, population, noise, states, weight, episode)
        population, optimiser = settings.optimiser.step(-gradient, optimiser, population)
        best = jax.vmap(lambda flat: actors.play(flat, episode))(population).total.max()
        bandit = bandit.after(arm, (best > recent.max()).astype(jnp.float32))
        return (population, optimiser, bandit, jnp.roll(recent, 1).at[0].set(best)), (best, weight)

    start = (population, settings.optimiser.init(population, iterations), Bandit.new(), jnp.full(RECENT, -jnp.inf))
    (population, *_), (best, weight) = jax.lax.scan(one, start, jax.random.split(play, iterations))
    last = jax.vmap(lambda flat: actors.play(flat, first))(population)
    return Evolved(population, best, weight, actors.embed(population, met(last, settings.states, first)), last)


def met(played: Played, count: int, key: PRNGKeyArray) -> Float[Array, "n O"]:
    """States drawn from all that the population met."""
    rows = played.observation.reshape(-1, played.observation.shape[-1])
    return rows[jax.random.randint(key, (count,), 0, len(rows))]


def ascent(
    settings: DvD,
    actors: Actors,
    population: Population,
    noise: Float[Array, "pairs M P"],
    states: Float[Array, "n O"],
    weight: Array,
    episode: PRNGKeyArray,
) -> Population:
    """The direction of unit length for each member: rewards are its own, the volume belongs to the j-th perturbations of all."""
    perturbed = antithetic(noise, population, settings.sigma)
    rewards = jax.vmap(jax.vmap(jax.vmap(lambda flat: actors.play(flat, episode).total)))(perturbed)
    volumes = jax.vmap(jax.vmap(lambda members: settings.measure(actors.embed(members, states))))(perturbed)
    scores = (1 - weight) * standardised(rewards) + weight * standardised(volumes)[..., None]
    gradient = slope(noise, scores, settings.sigma)
    return gradient / jnp.maximum(jnp.linalg.norm(gradient, axis=-1, keepdims=True), 1e-12)


CARD = Card(
    slug="dvd",
    name="DvD",
    title="Effective Diversity in Population Based Reinforcement Learning",
    arxiv="2002.00632",
    family="online",
    kind="learner",
    summary="trains several policies together and rewards the volume of behaviours that they span, with a weight tuned as it goes",
    usage="""
from polyact.envs.walled_plane import WalledPlane
from polyact.systems.online.dvd import DvD, evolve
found = evolve(DvD(), WalledPlane(), jax.random.key(0), iterations=100)
print(found.best[-1], found.last.info["goal"].any(0))
""",
)


@dataclass(frozen=True)
class Task:
    env: Callable[[], Env]
    iterations: int


class Way(eqx.Module):
    """Weights are an array, so that arms that differ only in them share a program."""

    task: str = eqx.field(static=True)
    weights: Float[Array, " arms"] = eqx.field(default=(0.0, 0.5), converter=jnp.asarray)
    measure: Measure = eqx.field(static=True, default=spanned)


TASKS = {
    "wall": Task(WalledPlane, 120),
    "pendulum": Task(Pendulum, 60),
    "goals": Task(ring_of_goals, 50),
}
CLOSE = 0.05 * 2  # within 5% of the range of actions


@dataclass(frozen=True)
class Size:
    pairs: int
    share: float


def _measure(key: PRNGKeyArray, way: Way, sizes: Size, prepared: None) -> Mapping[str, Any]:
    """solved: whether a member ends at a goal; goals: how many goals have a member. score: best return of the last five iterations, as a
    share of the range of pendulum. duplicates: share of members that act within 5% of another. weight: mean of the volume's."""
    task = TASKS[way.task]
    settings = DvD(way.weights, way.measure, pairs=sizes.pairs)
    found = evolve(settings, task.env(), key, iterations=max(2, int(sizes.share * task.iterations)))
    reached = jnp.any(found.last.info["goal"], 0) if "goal" in found.last.info else jnp.zeros(1)
    return {
        "solved": jnp.any(reached).astype(jnp.float32),
        "goals": reached.sum().astype(jnp.float32),
        "score": 1 + found.best[-5:].mean() / 1600,
        "duplicates": duplicates(found.embeddings, CLOSE),
        "weight": found.weight.mean(),
    }


FIXED, NONE = (0.5, 0.5), (0.0, 0.0)
EXPERIMENT = Experiment(
    measure=_measure,
    arms={
        "dvd": Arm("system", "volume with an adapted weight, past a wall", Way("wall")),
        "no diversity": Arm("ablation", "the same population without the volume", Way("wall", NONE)),
        "mean distance": Arm("baseline", "mean distance between pairs instead of the volume", Way("wall", measure=mean_distance)),
        "fixed weight": Arm("baseline", "the volume with the larger weight throughout", Way("wall", FIXED)),
        "pendulum": Arm("system", "volume with an adapted weight, pendulum", Way("pendulum")),
        "pendulum no diversity": Arm("ablation", "without the volume, pendulum", Way("pendulum", NONE)),
        "pendulum fixed weight": Arm("baseline", "the larger weight throughout, pendulum", Way("pendulum", FIXED)),
        "goals": Arm("system", "volume with an adapted weight, four goals", Way("goals")),
        "goals no diversity": Arm("ablation", "without the volume, four goals", Way("goals", NONE)),
    },
    scales={"smoke": Scale(2, Size(5, 0.05)), "laptop": Scale(10, Size(50, 1.0))},
    testbed="a plane with a wall across the straight way, pendulum, a plane with four equal goals",
    budget=Budget(
        data="5 members, 100 perturbed episodes of each in every iteration; 120 iterations (pendulum 60, four goals 50)",
        steps="one step of each member an iteration",
        network="two hidden layers of 16, tanh",
        tuning="kernel width and length of the wall on seeds below 1000, alike for every arm; rate, sigma and weights are the card's",
    ),
    runner="program",
)

CLAIMS = (
    Claim("passes-the-wall", "DvD gets past the wall at 8 of 10 seeds or more", EXPERIMENT, "solved", Within("dvd", low=0.8)),
    Claim(
        "wall-deceives",
        "without diversity at most 2 of 10 seeds do",
        EXPERIMENT,
        "solved",
        Within("no diversity", high=0.2),
    ),
    Claim(
        "diversity-does-it",
        "DvD gets past at more seeds, by at least 30 of 100, than the same population without diversity",
        EXPERIMENT,
        "solved",
        Beats("dvd", {"no diversity": 0.3}),
    ),
    Claim(
        "volume-beats-distance",
        "DvD gets past at more seeds than with mean distances",
        EXPERIMENT,
        "solved",
        Beats("dvd", {"mean distance": 0.0}),
    ),
    Claim(
        "no-duplicates",
        "fewer members act like another one than with mean distances",
        EXPERIMENT,
        "duplicates",
        Beats("dvd", {"mean distance": 0.0}),
        "lower",
    ),
    Claim(
        "free-where-not-needed",
        "on pendulum DvD keeps 95% of the score without diversity",
        EXPERIMENT,
        "score",
        Beats("pendulum", {"pendulum no diversity": 0.95}, ratio=True),
    ),
    Claim(
        "weight-follows-the-task",
        "the weight it chooses is larger at the wall than on pendulum",
        EXPERIMENT,
        "weight",
        Beats("dvd", {"pendulum": 0.0}),
    ),
    Claim(
        "more-goals",
        "its members reach more of four equal goals than without diversity",
        EXPERIMENT,
        "goals",
        Beats("goals", {"goals no diversity": 0.0}),
    ),
)
