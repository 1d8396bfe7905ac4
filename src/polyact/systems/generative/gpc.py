"""Compose trained diffusion and flow policies into one that can be better than each, without training anything (GPC).

Compose Your Policies! Improving Diffusion-based or Flow-based Robot Policies via Test-time Distribution-level Composition (Cao et al.,
arXiv 2510.01068). Policies that were trained apart err apart. If their scores are mixed at every noise level the error of the mix is a
convex quadratic in the weights, which has its least value between the parents unless one of them is worse in everything; and a smaller
error of the score bounds the error of the sample. Which weights are best for a task is found by playing (`search`). The mixing itself,
for parents on different paths and with other rules, is in `composition.scores` and `composition.composed`.

Measured (5 seeds from 1000 for the known density, 35 s; 6 for navigation, 90 s): the error of the mixed score is 1.34 times [1.23, 1.68]
smaller than the better parent's; its samples are nearer to the truth in the mean, but that is not shown, +0.00067 [-0.00011, 0.0022] in
energy distance. In navigation nothing is gained: with searched weights 78 of 100 episodes succeed, 0.8 [-1.3, 4.3] more than with the
better parent; the mean of actions succeeds in 45, 33.5 [27.5, 43.5] less. On tuning seeds parents of 29 to 92 of 100 in four worlds never
gained 3 points by composing, however long they were trained: errors of the score average out, but no policy acts better for it here.
Three seeds were too few: in a placebo the flow policies of three other trainings were 16 [10, 22] worse than those of the first. So there
are six; no placebo is shown (from 2000 and from 4000).
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

from polyact import spaces
from polyact.acting.demonstrations import demonstrations
from polyact.acting.rollout import rollout, successes
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale
from polyact.composition.composed import Composed, MeanOfChunks
from polyact.composition.scores import best_pair, mixed, simplex
from polyact.data.episodes import concatenate
from polyact.data.sampling import Batch, Chunks
from polyact.envs.chunk_actions import ChunkActions
from polyact.envs.point_navigation import PointNavigation, pass_left, pass_right
from polyact.evaluation.statistics.samples import energy_distance
from polyact.learning.clone import clone, drawn_rows
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import ChunkPolicy
from polyact.policies.chunk_executor import WholeChunks
from polyact.policies.generative.chain import Sampler, denoise
from polyact.policies.generative.denoised import Field
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.exact import ExactMixture, toy_gmm
from polyact.policies.generative.flow import Flow
from polyact.policies.generative.steppers import DDIM
from polyact.policies.spec import Spec


def search(score: Callable[[Array], float], parents: int, parts: int = 10) -> tuple[Float[Array, " parents"], float]:
    """The weights of a grid on the simplex, in steps of 1 / parts, with the highest score, and that score; of equals the first.

    score: what weights earn in episodes that are not those of the final test, for the best of many is always partly luck.
    """
    grid = simplex(parents, parts)
    scores = [float(score(weights)) for weights in grid]
    best = int(np.argmax(scores))
    return grid[best], scores[best]


CARD = Card(
    slug="gpc",
    name="GPC",
    title="Compose Your Policies! Improving Diffusion-based or Flow-based Robot Policies via Test-time Distribution-level Composition",
    arxiv="2510.01068",
    family="generative",
    kind="combinator, judge",
    summary="mixes the scores of trained diffusion and flow policies, with weights found by playing",
    usage="""
from polyact import RecedingHorizon
from polyact.composition.composed import Composed
from polyact.systems.generative.gpc import search

weights, _ = search(lambda w: success(Composed((diffusion, flow), w)), parents=2)
policy = RecedingHorizon(Composed((diffusion, flow), weights), execute=4)
""",
)


# The claims: two denoisers of one known density, and two policies that navigate.


@dataclass(frozen=True)
class Toy:
    """samples that each parent learns from, updates, noisy points at which errors are measured, samples that are drawn."""

    rows: int
    steps: int
    points: int
    samples: int
    width: int = 64


class Errors(eqx.Module):
    """Two trained parents, and their errors [2, points, 2] of the estimated noise, at points for choosing and at others for judging."""

    parents: tuple[Diffusion, Diffusion]
    chosen_at: Array
    judged_at: Array


def _prepare_toy(key: PRNGKeyArray, sizes: Toy) -> Errors:
    truth, (draw, learn, look) = toy_gmm(), jax.random.split(key, 3)
    spec = Spec.of(spaces.Box(0, 1, (1,)), spaces.Box(-1, 1, (2,)), 1)

    def parent(draw: PRNGKeyArray, learn: PRNGKeyArray) -> Diffusion:
        build, train = jax.random.split(learn)
        rows = Batch(observation=jnp.ones((sizes.rows, 1)), action=jnp.clip(truth.sample(draw, sizes.rows), -1, 1)[:, None])
        network = Network(width=sizes.width, depth=2)
        policy = Diffusion.create(spec, network, build, horizon=1, denoiser="sieve", form="edm", clip=False)
        return clone(policy, rows, steps=sizes.steps, key=train, batch_size=128, optimiser=Optimiser(5e-3, schedule="cosine"))

    first, second = (parent(*keys) for keys in zip(jax.random.split(draw), jax.random.split(learn), strict=True))
    errors = jnp.stack([_errors(truth, policy, sizes.points, look) for policy in (first, second)])
    half = sizes.points // 2
    return Errors((first, second), errors[:, :half], errors[:, half:])


def _field(policy: Diffusion) -> Field:
    return policy.field(policy.condition(policy.observe(jnp.ones(1), policy.start(jax.random.key(0)))))


def _errors(truth: ExactMixture, policy: Diffusion, count: int, key: PRNGKeyArray) -> Float[Array, "count 2"]:
    """Estimated minus true noise (that is, of the score times sigma) at noisy true samples at the path's own times."""
    draw, level, noise = jax.random.split(key, 3)
    exact, trained, path = truth.field(policy.path), _field(policy), policy.path

    def one(clean: Array, level: PRNGKeyArray, noise: Array) -> Array:
        time = path.draw(level)
        noisy = (path.alpha(time) * clean + path.sigma(time) * noise)[None]
        return (trained(noisy, time).noise - exact(noisy, time).noise)[0]

    return jax.vmap(one)(truth.sample(draw, count), jax.random.split(level, count), jax.random.normal(noise, (count, 2)))


def _measure_toy(key: PRNGKeyArray, weight: float | None, sizes: Toy, prepared: Errors) -> Mapping[str, Any]:
    """error: mean squared error of the noise; energy: distance of samples from true ones. weight: of the first parent; None is the best
    by the closed form at the points for choosing, below 0 the better parent there.
    """
    errors = prepared.chosen_at
    if weight is None:
        share = best_pair(errors[0], errors[1])
    elif weight < 0:
        share = jnp.where(jnp.square(errors[0]).mean() < jnp.square(errors[1]).mean(), 1.0, 0.0)
    else:
        share = jnp.asarray(weight)
    weights = jnp.stack([share, 1 - share])
    field = mixed([_field(parent) for parent in prepared.parents], weights)
    path, truth = prepared.parents[0].path, toy_gmm()
    draw, own = jax.random.split(jax.random.fold_in(key, 5))

    def sample(key: PRNGKeyArray) -> Array:
        first, rest = jax.random.split(key)
        return denoise(Sampler(DDIM(1.0), 50), path, field, jax.random.normal(first, (1, 2)), rest)[0]

    drawn = jax.vmap(sample)(jax.random.split(draw, sizes.samples))
    energy = energy_distance(drawn, truth.sample(own, sizes.samples))
    return {"error": jnp.square(jnp.tensordot(weights, prepared.judged_at, 1)).mean(), "energy": energy, "weight": share}


TOY = Experiment(
    measure=_measure_toy,
    prepare=_prepare_toy,
    arms={
        "composed": Arm("system", "scores mixed with the weight of the closed form", None),
        "better parent": Arm("ablation", "the parent with the smaller error alone", -1.0),
        "equal": Arm("baseline", "scores mixed half and half", 0.5),
    },
    scales={"smoke": Scale(2, Toy(50, 30, 100, 50, 16)), "laptop": Scale(5, Toy(500, 8000, 8000, 3000))},
    testbed="eight modes on a circle, whose noisy scores are known exactly",
    budget=Budget(
        data="500 samples for each parent, different ones",
        steps="8000 updates of 128 rows for each parent, Adam at 5e-3 falling by a cosine, averaged weights",
        network="MLP-sieve of three layers of 64",
        tuning="the parents' error: four rates, four numbers of updates and three forms of their output",
    ),
)


@dataclass(frozen=True)
class Navigation:
    """demonstrations per side and parent, rows of chunks, updates of the diffusion and of the flow, episodes of the search for every
    weight, test episodes.
    """

    episodes: int
    rows: int
    steps: tuple[int, int]
    tries: int
    tests: int
    width: int = 64


@dataclass(frozen=True)
class Parents:
    diffusion: Diffusion
    flow: Flow


@eqx.filter_jit
def _cloned(spec: Spec, rows: tuple[Batch, Batch], sizes: Navigation, key: PRNGKeyArray) -> tuple[Diffusion, Flow]:
    build, other, *learn = jax.random.split(key, 4)
    wide = Network(width=2 * sizes.width, depth=2, activation="gelu")
    diffusion = Diffusion.create(spec, wide, build, horizon=LENGTH, denoiser="mlp", form="edm")
    flow = Flow.create(spec, Network(width=sizes.width, depth=2), other, horizon=LENGTH, denoiser="transformer")
    optimiser = Optimiser(3e-3, schedule="cosine")

    def cloned(policy: Any, which: int) -> Any:
        return clone(policy, rows[which], steps=sizes.steps[which], key=learn[which], batch_size=64, optimiser=optimiser)

    return cloned(diffusion, 0), cloned(flow, 1)


LENGTH = 4  # of a chunk, which is played to its end


def world() -> PointNavigation:
    """Two obstacles, one behind the other, in the way from many places to one of four goals."""
    obstacles, goals = ((0.0, 0.0, 0.2), (0.0, 0.45, 0.15)), ((-0.6, 0.85), (-0.2, 0.85), (0.2, 0.85), (0.6, 0.85))
    return PointNavigation(obstacles, goals, start=(0.0, -0.7), start_spread=0.25, timestep=0.1, horizon=40)  # pyright: ignore[reportArgumentType]


def _prepare_navigation(key: PRNGKeyArray, sizes: Navigation) -> Parents:
    env, (play, draw, learn) = world(), jax.random.split(key, 3)
    shown = [demonstrations(env, [pass_left, pass_right], sizes.episodes, k) for k in jax.random.split(play)]
    seen = concatenate(shown).observation
    rows = tuple(drawn_rows(part, Chunks(LENGTH), sizes.rows, k) for part, k in zip(shown, jax.random.split(draw), strict=True))
    spec = Spec.of(env.observation_space, env.action_space, 1, observations=seen)
    return Parents(*_cloned(spec, rows, sizes, learn))  # pyright: ignore[reportArgumentType]


def _success(policy: ChunkPolicy, episodes: int, key: PRNGKeyArray) -> float:
    won = successes(rollout(WholeChunks(policy), ChunkActions(world(), LENGTH), episodes=episodes, key=key))
    assert won is not None
    return float(won.mean())


def _measure_navigation(key: PRNGKeyArray, how: str, sizes: Navigation, parents: Parents) -> Mapping[str, Any]:
    """success: in test episodes, in points; those of the search are others."""
    both, half = (parents.diffusion, parents.flow), jnp.full(2, 0.5)
    tries, test = jax.random.fold_in(key, 6), jax.random.fold_in(key, 7)

    def tried(make: Callable[[Array], ChunkPolicy]) -> Callable[[Array], float]:
        return lambda weights: _success(make(weights), sizes.tries, tries)

    def composed(weights: Array) -> ChunkPolicy:
        return Composed(both, weights)

    match how:
        case "searched":
            policy: ChunkPolicy = composed(search(tried(composed), 2)[0])
        case "better":
            first, second = (_success(parent, sizes.tries, tries) for parent in both)
            policy = parents.diffusion if first >= second else parents.flow
        case "diffusion" | "flow":
            policy = getattr(parents, how)
        case "equal":
            policy = composed(half)
        case "mean":
            policy = MeanOfChunks(both, half)
        case _:
            policy = Composed(both, half, how)
    return {"success": 100 * _success(policy, sizes.tests, test)}


NAVIGATION = Experiment(
    measure=_measure_navigation,
    prepare=_prepare_navigation,
    arms={
        "searched": Arm("system", "scores mixed with the weights that were best in other episodes", "searched"),
        "better parent": Arm("ablation", "the parent that was better in those episodes", "better"),
        "diffusion": Arm("baseline", "the diffusion policy", "diffusion"),
        "flow": Arm("baseline", "the flow policy", "flow"),
        "equal": Arm("baseline", "scores mixed half and half", "equal"),
        "mean": Arm("baseline", "the mean of both policies' actions", "mean"),
        "or": Arm("baseline", "superposition: one parent or the other", "or"),
        "and": Arm("baseline", "superposition: likely under both", "and"),
    },
    scales={
        "smoke": Scale(2, Navigation(3, 60, (20, 20), 6, 6, 8)),
        "laptop": Scale(6, Navigation(75, 3000, (6000, 2000), 200, 200)),
    },
    testbed="point navigation past two obstacles to one of four goals; experts that pass on the left or on the right",
    budget=Budget(
        data="150 demonstrations for each parent, different ones",
        steps="6000 updates of 64 chunks for the diffusion and 2000 for the flow, Adam at 3e-3 falling by a cosine",
        network="a diffusion MLP of 2 layers of 128 and a rectified-flow transformer of 2 layers of 64",
        tuning="none: all arms act on the same two parents; searched and better parent choose by the same 200 episodes",
    ),
    runner="threads",
)

CLAIMS = (
    Claim(
        "above-parents",
        "with searched weights the composed policy succeeds 3 points more often than each parent, and than the better one",
        NAVIGATION,
        "success",
        Beats("searched", {"better parent": 3.0, "diffusion": 3.0, "flow": 3.0}),
    ),
    Claim(
        "above-mean-of-actions",
        "and 5 points more often than the mean of actions",
        NAVIGATION,
        "success",
        Beats("searched", {"mean": 5.0}),
    ),
    Claim(
        "smaller-error",
        "the error of the mixed score is at least a tenth below the better parent's",
        TOY,
        "error",
        Beats("composed", {"better parent": 1 / 0.9}, ratio=True),
        "lower",
    ),
    Claim(
        "nearer-samples",
        "and its samples are nearer to the truth",
        TOY,
        "energy",
        Beats("composed", {"better parent": 0.0}),
        "lower",
    ),
)
