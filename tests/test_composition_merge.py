"""Merging: permuted copies come back as the same function, exactly; small widths against brute force; pitfalls as errors."""

import itertools
from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.composition.align import agreement, assigned, coordinate_descent, sinkhorn, soft_permutations
from polyact.composition.merge import alike, average, folded, merge
from polyact.composition.symmetry import Symmetry, symmetry
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.policies.multibody import MultiBody
from polyact.policies.normalise import Normaliser
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec

SEEN, DONE = spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,))
OBSERVATIONS = jax.random.normal(jax.random.key(1), (5, 3))
WIDE = Network(width=32, depth=2, layer_norm=True)


def make(kind=Recurrent, network=WIDE, seed=0, **options):
    return filled(kind.create, Spec.of(SEEN, DONE, 1), network, seed=seed, **options)


@eqx.filter_jit
def actions(policy):
    def one(memory, observation):
        action, memory = policy.act(observation, memory, KEY)
        return memory, action

    return jax.lax.scan(one, policy.start(KEY), OBSERVATIONS)[1]


MAKERS = [
    lambda seed=0: make(seed=seed, head="deterministic"),
    lambda seed=0: make(seed=seed, head="deterministic", cell="lstm"),
    lambda seed=0: make(Recurrent, Network(width=32, depth=0), seed, head="deterministic"),
    lambda seed=0: make(Deterministic, Network(width=32, depth=3, residual=True), seed),
]


@pytest.mark.parametrize("maker", MAKERS)
def test_permuted_units_compute_the_same(maker):
    policy = maker()
    groups = symmetry(policy)
    moved = groups.permuted(policy, groups.random(np.random.default_rng(3)))
    assert not np.allclose(groups.weights(moved)[0], groups.weights(policy)[0])
    np.testing.assert_allclose(actions(moved), actions(policy), atol=1e-5)


@pytest.mark.parametrize("align", [coordinate_descent, soft_permutations])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_permuted_copy_is_recognised(maker, align):
    policy = folded(maker())
    groups, rng = symmetry(policy), np.random.default_rng(4)
    hidden = groups.random(rng)
    copy = groups.permuted(policy, hidden)
    found = align(policy, copy, groups, rng)
    for group, matrix in found.items():
        np.testing.assert_array_equal(matrix @ hidden[group], jnp.eye(len(matrix)))
    np.testing.assert_allclose(actions(merge([policy, copy], align=align)), actions(policy), atol=1e-5)


def test_identical_members_are_left_as_they_are():
    policy = make(Deterministic)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), merge([policy] * 4), policy)


def test_without_permutations_merging_is_averaging():
    members = [make(Deterministic, seed=seed) for seed in range(3)]
    still = merge(members, align=lambda reference, member, groups, rng: groups.identity())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), still, average(members))
    mean = np.mean([member.network.last.weight for member in members], 0)
    np.testing.assert_allclose(average(members).network.last.weight, mean, atol=1e-6)


NARROW = {
    "one layer": (lambda seed: make(Deterministic, Network(width=6, depth=1), seed), ["hidden 0"], 6),
    "memory alone": (lambda seed: make(network=Network(width=5, depth=0), seed=seed, head="deterministic"), ["memory"], 5),
    "layer and memory": (
        lambda seed: make(network=Network(width=3, depth=1), seed=seed, head="deterministic"),
        ["hidden 0", "memory"],
        3,
    ),
}


@pytest.mark.parametrize("case", NARROW)
def test_narrow_networks_get_the_brute_force_optimum(case):
    maker, names, width = NARROW[case]
    one, other = (folded(maker(seed)) for seed in (1, 2))
    groups = symmetry(one)
    axes = tuple(tuple(axis if axis and axis.group in names else None for axis in own) for own in groups.axes)
    groups = Symmetry(dict.fromkeys(names, width), groups.places, axes)
    pair = groups.weights(one), groups.weights(other)
    every = jnp.eye(width)[np.array(list(permutations(range(width))))]
    several = itertools.product(every, repeat=len(names))
    choices = [jnp.stack(parts) for parts in zip(*several, strict=True)]
    value = jax.jit(jax.vmap(lambda *matrices: agreement(dict(zip(names, matrices, strict=True)), *pair, axes)))
    found = coordinate_descent(one, other, groups, np.random.default_rng(0), restarts=10)
    assert float(agreement(found, *pair, axes)) == pytest.approx(float(value(*choices).max()), rel=1e-5)


def test_alignment_brings_members_closer():
    one, other = (folded(make(seed=seed, head="deterministic")) for seed in (1, 2))
    groups, rng = symmetry(one), np.random.default_rng(0)

    def distance(policy):
        return sum(float(jnp.square(a - b).sum()) for a, b in zip(groups.weights(one), groups.weights(policy), strict=True))

    hard, soft = (
        distance(groups.permuted(other, align(one, other, groups, rng))) for align in (coordinate_descent, soft_permutations)
    )
    assert hard < 0.95 * distance(other)
    assert soft < 0.95 * distance(other)


def test_folding_changes_no_action():
    policy = make(head="deterministic")
    assert not np.allclose(folded(policy).cell.inner.weight, policy.cell.inner.weight)
    np.testing.assert_allclose(actions(folded(policy)), actions(policy), atol=1e-5)


@pytest.mark.parametrize("maker", MAKERS)
def test_members_with_other_statistics_keep_their_functions(maker):
    members = []
    for seed in range(3):
        shift = Normaliser(jnp.array([0.1, -0.2, 0.3]) * seed, jnp.array([1.0, 0.5, 2.0]) + 0.1 * seed)
        members.append(eqx.tree_at(lambda p: p.body.normaliser, maker(seed), shift))
    common = alike(members)
    for before, after in zip(members, common, strict=True):
        np.testing.assert_allclose(actions(after), actions(before), atol=2e-5)
        np.testing.assert_array_equal(after.body.normaliser.mean, common[0].body.normaliser.mean)
    rows = np.concatenate(
        [np.random.default_rng(s).normal(m.body.normaliser.mean, m.body.normaliser.std, (4000, 3)) for s, m in enumerate(members)]
    )
    np.testing.assert_allclose(common[0].body.normaliser.mean, rows.mean(0), atol=0.05)
    np.testing.assert_allclose(common[0].body.normaliser.std, rows.std(0), atol=0.05)


def test_sinkhorn_is_doubly_stochastic_and_hardens():
    scores = jax.random.normal(KEY, (6, 6))
    soft = sinkhorn(scores)
    np.testing.assert_allclose(soft.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-3)
    np.testing.assert_array_equal(assigned(sinkhorn(scores * 20, 2000)), assigned(scores))


def test_what_can_not_be_merged_is_refused():
    with pytest.raises(PolyactError, match="no policy"):
        merge([])
    with pytest.raises(PolyactError, match="same architecture"):
        merge([make(Deterministic), make(Deterministic, Network(width=8, depth=2, layer_norm=True))])
    with pytest.raises(PolyactError, match="Fourier"):
        merge([make(Deterministic, Network(width=8, depth=1, fourier=2))])
    with pytest.raises(PolyactError, match="RandomPolicy has no one body"):
        merge([RandomPolicy(DONE)])
    with pytest.raises(PolyactError, match="MultiBody has no one body"):
        merge([make(MultiBody)])
    scaled = make(Deterministic)
    other = eqx.tree_at(lambda p: p.body.action_scale.scale, scaled, scaled.body.action_scale.scale * 2)
    with pytest.raises(PolyactError, match="different scales"):
        merge([scaled, other])
