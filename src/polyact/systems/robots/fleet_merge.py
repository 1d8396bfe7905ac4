"""Merges policies that were trained separately on private data into one; only weights travel (FLEET-MERGE, arXiv 2310.01362).

Networks trained from different initialisations may compute alike with their hidden units in another order, so the plain average of their
weights computes nothing. `composition.merge` permutes every member's units, one permutation for all gates and both sides of a recurrent
layer, until its weights are near a common reference, and averages then. Here: a fleet that trains, merges and goes on from the merged
policy, and what it is compared with.

Measured (20 seeds from 1000 for one merge, 69 s; 5 for rounds, 81 s): merged once, it closes 37% [34, 41] of the gap between plain
averages and joint training, 30% were asked, and permutations matter: returns are 0.53 [0.47, 0.61] above unaligned and 0.68 above plain
averages, and the loss barrier between two members is 0.011 instead of 0.106. But here, where episodes start anywhere, so that every
member has moved everywhere on its way to its own goals, the members themselves get 45% of the way on all goals, alone, a chain of
alignments (Git Re-Basin) 42%, and the ensemble of four networks 55%. Where all episodes started near the middle, members alone got 5%,
the ensemble 38%, and one merge 32.6% [30.4, 34.8] (100 seeds from 5000), which fewer seeds did not show: 40 from 3000 had given 32% [29,
35], 20 from 1000 32% [29, 37], 5 from 1000 39% [28, 66]. So wide starts were chosen, on tuning seeds, for they vary less from seed to
seed (deviation 0.07 against 0.11), and half as many updates of half as many demonstrations, which cost least and lose nothing. What did
not help on tuning seeds: more random starts, more or faster training, weight decay, another member as the first reference. After five
rounds the merged policy is at 86% [64, 96] of joint training instead of 90, in 1.4 [-0.5, 6.6] rounds fewer than unaligned ones; five
seeds show neither. No placebo is shown (20 seeds from 4000).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Metrics, Scale, Within
from polyact.composition.align import Matrices, coordinate_descent, soft_permutations
from polyact.composition.merge import alike, average, folded, merge
from polyact.composition.symmetry import Symmetry, symmetry
from polyact.data.sampling import Batch
from polyact.envs.point_navigation import PointNavigation, pass_left
from polyact.learning.optimiser import Optimiser, descend
from polyact.nets.ensemble import stack, take
from polyact.nets.mlp import Network
from polyact.policies.base import Imitable, Policy
from polyact.policies.ensemble_policy import EnsemblePolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.tree import numbers_as_arrays

Merge = Callable[[Sequence[Policy]], Policy]
Sizes = tuple[int, int, int, int, int]  # demonstrations, steps and batch of every member; rounds, and local steps in each
STEPS = 20  # of a demonstration that are kept
TRAINING, LOCAL = (Optimiser(learning_rate=rate, clip_norm=1.0) for rate in (1e-3, 1e-4))  # before the first merge, after it


def unaligned(policies: Sequence[Policy]) -> Policy:
    """Ablation: FLEET-MERGE without its permutations."""
    return merge(policies, align=_as_they_are)


def chained(policies: Sequence[Policy]) -> Policy:
    """Baseline: weight matching in a chain (Git Re-Basin), each member to the running average of those before."""
    first, *others = [folded(policy) for policy in alike(policies)]
    groups, rng, merged = symmetry(first), np.random.default_rng(0), first
    for number, member in enumerate(others, 1):
        own = groups.permuted(member, coordinate_descent(merged, member, groups, rng))
        merged = average([merged] * number + [own])
    return merged


def softly(policies: Sequence[Policy]) -> Policy:
    """FLEET-MERGE with soft permutations; twice, because they are drawn anew each time and never stop changing."""
    return merge(policies, rounds=2, align=soft_permutations)


def barrier(one: Policy, other: Policy, loss: Callable[[Policy], Array], points: int = 7) -> float:
    """How far the loss lies above the straight line between two policies' losses at the worst place between their weights."""
    shares = np.linspace(0, 1, points)
    between = [jax.tree.map(lambda a, b, s=s: (1 - s) * a + s * b if eqx.is_inexact_array(a) else a, one, other) for s in shares]
    losses = np.array([float(loss(policy)) for policy in between])
    return float(np.max((losses - ((1 - shares) * losses[0] + shares * losses[-1]))[1:-1]))


def clone_all(
    policies: Sequence[Any], data: Sequence[Batch], steps: int, key: PRNGKeyArray, batch: int, optimiser: Optimiser = TRAINING
) -> list[Policy]:
    """Every policy after that many steps of cloning on its own data, side by side in one program."""
    data = [jax.tree.map(jnp.asarray, own) for own in data]
    trained = _clone(
        stack(policies),
        jax.tree.map(lambda *own: jnp.stack(own), *data),
        jnp.asarray(steps),
        key,
        batch,
        numbers_as_arrays(optimiser),
    )
    return [take(trained, number) for number in range(len(policies))]


@eqx.filter_jit
def _clone(policies: Any, data: Batch, steps: Array, key: PRNGKeyArray, batch: int, optimiser: Optimiser) -> Any:
    def one(policy: Imitable, own: Batch, key: PRNGKeyArray) -> Imitable:
        parts, fixed = eqx.partition((policy, optimiser.init(policy, 1)), eqx.is_array)

        def step(number: Array, parts: Any) -> Any:
            policy, state = eqx.combine(parts, fixed)
            rows = jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, len(own.action))
            chosen = jax.tree.map(lambda column: column[rows], own)

            def loss(policy: Imitable) -> tuple[Array, Array]:
                value = policy.imitation_loss(chosen, key)
                return value, value

            policy, state, _ = descend(loss, policy, optimiser, state)
            return eqx.filter((policy, state), eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, steps, step, parts), fixed)[0]

    return eqx.filter_vmap(one)(policies, data, jax.random.split(key, data.action.shape[0]))


def _as_they_are(reference: Policy, member: Policy, groups: Symmetry, rng: np.random.Generator) -> Matrices:
    return groups.identity()


CARD = Card(
    slug="fleet-merge",
    name="FLEET-MERGE",
    title="Robot Fleet Learning via Policy Merging",
    arxiv="2310.01362",
    family="robots",
    kind="combinator",
    summary="merges policies trained separately on private data into one policy, sending weights only",
    usage="""import jax, polyact
from polyact.composition.merge import merge
from polyact.policies.recurrent import Recurrent
clone = polyact.BC(polyact.Actor(Recurrent, polyact.Network(width=128, depth=1), head="deterministic"))
fleet = [polyact.fit(clone, own, steps=2000, key=jax.random.key(i)).policy for i, own in enumerate(logs)]
polyact.save(merge(fleet), "merged")""",
)

NETWORK = Network(width=128, depth=1)
ENOUGH = 0.9  # share of the joint policy's return that counts as reached


def sectors(count: int = 4, goals: int = 8) -> list[PointNavigation]:
    """Worlds without obstacles whose goals lie in one sector each, at 0.5 to 0.8 m around the middle; episodes start anywhere."""
    angles = 2 * np.pi * (np.arange(count * goals) + 0.5) / (count * goals)
    places = np.linspace(0.5, 0.8, goals)[np.arange(count * goals) * 3 % goals][:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], 1
    )
    return [_world(own) for own in np.split(places, count)]


def _world(goals: np.ndarray) -> PointNavigation:
    nothing = jnp.zeros((0, 3))
    return PointNavigation(obstacles=nothing, goals=jnp.asarray(goals), start=jnp.zeros(2), start_spread=0.8, horizon=40)


@eqx.filter_jit
def demonstrations(env: PointNavigation, key: PRNGKeyArray, episodes: int) -> Batch:
    """The first steps [E, STEPS] of an expert's episodes; `mask` is where they were not yet over."""

    def episode(key: PRNGKeyArray) -> Batch:
        state, observation = env.reset(key)

        def step(carry: Any, _: None) -> tuple[Any, Batch]:
            state, observation, over = carry
            action = pass_left(env, observation, key)
            state, now = env.step(state, action, key)
            return (state, now.observation, over | now.terminated), Batch(observation=observation, action=action, mask=~over)

        return jax.lax.scan(step, (state, observation, jnp.asarray(False)), None, STEPS)[1]

    return jax.vmap(episode)(jax.random.split(key, episodes))


@eqx.filter_jit
def _loss(policy: Any, data: Batch) -> Array:
    return policy.imitation_loss(data, jax.random.key(0))


def prepare(key: PRNGKeyArray, sizes: Sizes) -> dict:
    """The members, trained apart from different initialisations on their own sectors, and the joint policy trained on all data."""
    episodes, steps, batch, _, _ = sizes
    worlds, keys = sectors(), jax.random.split(key, 4)
    data = [demonstrations(world, k, episodes) for world, k in zip(worlds, jax.random.split(keys[0], len(worlds)), strict=True)]
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), *data)
    specs = [
        Spec.of(w.observation_space, w.action_space, steps, np.asarray(own.observation).reshape(-1, 6))
        for w, own in zip(worlds, data, strict=True)
    ]
    joint_spec = Spec.of(worlds[0].observation_space, worlds[0].action_space, steps, np.asarray(whole.observation).reshape(-1, 6))
    start = jax.random.split(keys[1], len(worlds) + 1)
    fresh = [_fresh(spec, k) for spec, k in zip([*specs, joint_spec], start, strict=True)]
    members = clone_all(fresh[:-1], data, steps, keys[2], batch)
    (joint,) = clone_all(fresh[-1:], [whole], steps, keys[3], batch * len(worlds))
    everywhere = _world(np.concatenate([world.goals for world in worlds]))
    prepared = {"data": data, "whole": whole, "members": members, "joint": joint, "world": everywhere}
    return prepared | {"naive": score(average(members), everywhere, key), "best": score(joint, everywhere, key)}


@eqx.filter_jit
def _fresh(spec: Spec, key: PRNGKeyArray) -> Recurrent:
    return Recurrent.create(spec, NETWORK, key, head="deterministic", length=STEPS)


def score(policy: Policy, world: PointNavigation, key: PRNGKeyArray, episodes: int = 128) -> float:
    """Mean return over all goals."""
    return float(rollout(policy, world, episodes=episodes, key=key).returns.mean())


def measure(key: PRNGKeyArray, settings: tuple[str, bool], sizes: Sizes, prepared: dict) -> Metrics:
    way, in_rounds = settings
    members, world, best = prepared["members"], prepared["world"], prepared["best"]
    if way in MERGES:
        merged = MERGES[way](members)
        once = score(merged, world, key)
    else:
        merged = prepared["joint"]
        once = {
            "joint": lambda: best,
            "alone": lambda: _alone(members, world, key),
            "ensemble": lambda: _together(members, world, key),
        }[way]()
    found = {"return_once": once, "gap_closed": (once - prepared["naive"]) / (best - prepared["naive"])}
    if way in ("FLEET-MERGE", "unaligned"):
        found["barrier"] = _barrier(members, way == "FLEET-MERGE", prepared["whole"])
    if in_rounds:
        returns = [once, *_rounds(key, MERGES[way], merged, sizes, prepared)]
        shares = np.array(returns) / best
        found |= {"share_of_joint": shares[-1], "rounds_needed": int(np.argmax(np.append(shares, ENOUGH) >= ENOUGH))}
    return found


def _rounds(key: PRNGKeyArray, way: Merge, merged: Policy, sizes: Sizes, prepared: dict) -> list[float]:
    """Returns after each round of broadcasting, local training and merging."""
    returns, (_, _, batch, rounds, steps) = [], sizes
    for number in range(rounds):
        local = clone_all([merged] * len(prepared["data"]), prepared["data"], steps, jax.random.fold_in(key, number), batch, LOCAL)
        merged = way(local)
        returns.append(score(merged, prepared["world"], key))
    return returns


def _barrier(members: Sequence[Policy], aligned: bool, data: Batch) -> float:
    one, other = (folded(policy) for policy in alike(members)[:2])
    groups = symmetry(one)
    if aligned:
        other = groups.permuted(other, coordinate_descent(one, other, groups, np.random.default_rng(0)))
    return barrier(one, other, lambda policy: _loss(policy, data))


def _alone(members: Sequence[Policy], world: PointNavigation, key: PRNGKeyArray) -> float:
    return float(np.mean([score(policy, world, key) for policy in members]))


def _together(members: Sequence[Policy], world: PointNavigation, key: PRNGKeyArray) -> float:
    return score(EnsemblePolicy.of(members), world, key)


MERGES: dict[str, Merge] = {
    "FLEET-MERGE": merge,
    "FLEET-MERGE soft": softly,
    "unaligned": unaligned,
    "FedAvg": average,
    "chained": chained,
}
SLOW = "FLEET-MERGE soft"
ARMS = {
    "FLEET-MERGE": Arm("system", "aligned to a common reference by coordinate descent, then averaged", ("FLEET-MERGE", True)),
    "FLEET-MERGE soft": Arm("system", "aligned by soft permutations, twice", ("FLEET-MERGE soft", False)),
    "unaligned": Arm("ablation", "the same without permutations", ("unaligned", True)),
    "FedAvg": Arm("baseline", "plain average of the weights as they are", ("FedAvg", False)),
    "chained": Arm("baseline", "weight matching in a chain, as Git Re-Basin", ("chained", False)),
    "alone": Arm("baseline", "members as they are, each on all goals, in the mean", ("alone", False)),
    "ensemble": Arm("baseline", "mean action of all members, four networks at work", ("ensemble", False)),
    "joint": Arm("baseline", "one policy trained on the pooled data: the upper bound", ("joint", False)),
}
ONCE = Experiment(
    measure,
    {name: Arm(arm.role, arm.about, (arm.settings[0], False)) for name, arm in ARMS.items() if name != SLOW},
    {"smoke": Scale(2, (8, 20, 4, 1, 5)), "laptop": Scale(20, (64, 200, 8, 5, 200))},
    testbed="point navigation to goals all around; each of four members is cloned from an expert in one sector of goals",
    budget=Budget(
        data="64 demonstrations of 20 steps per member; the joint policy has all of them",
        steps="200 cloning steps of 8 demonstrations per member (joint: 32); 200 per round",
        network="GRU of width 128 behind one hidden layer of 128, from different initialisations",
        tuning="learning rates on seeds below 1000: 1e-3 for the joint policy, 1e-4 in rounds (best of three, with and without them); "
        "references of FLEET-MERGE: twice or until nothing changes",
    ),
    prepare=prepare,
    runner="threads",
)
ROUNDS = replace(
    ONCE,
    arms={name: arm for name, arm in ARMS.items() if name in ("FLEET-MERGE", "unaligned", SLOW)},
    scales=ONCE.scales | {"laptop": replace(ONCE.scales["laptop"], seeds=5)},
)

CLAIMS = (
    Claim(
        "closes-the-gap",
        "merged once, it closes at least 30% of the gap between the plain average and joint training",
        ONCE,
        "gap_closed",
        Within("FLEET-MERGE", low=0.3),
    ),
    Claim(
        "permutations-matter",
        "merged once, it returns more than without permutations, and than plain averages",
        ONCE,
        "return_once",
        Beats("FLEET-MERGE", {"unaligned": 0.0, "FedAvg": 0.0}),
    ),
    Claim(
        "rounds-reach-joint",
        "after five rounds it is within 10% of joint training",
        ROUNDS,
        "share_of_joint",
        Within("FLEET-MERGE", low=0.9),
    ),
    Claim(
        "fewer-rounds",
        "and gets there in fewer rounds than without permutations",
        ROUNDS,
        "rounds_needed",
        Beats("FLEET-MERGE", {"unaligned": 0.0}),
        better="lower",
    ),
    Claim(
        "lower-barrier",
        "the loss between two aligned members rises less than between unaligned ones",
        ONCE,
        "barrier",
        Beats("FLEET-MERGE", {"unaligned": 0.0}),
        better="lower",
    ),
)
