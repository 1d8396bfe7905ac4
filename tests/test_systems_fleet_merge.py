"""FLEET-MERGE's claim in miniature: what is compared with it does what it says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import filled

from polyact import spaces
from polyact.composition.merge import average, folded
from polyact.composition.symmetry import symmetry
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.systems.robots.fleet_merge import (
    _barrier,
    barrier,
    chained,
    clone_all,
    demonstrations,
    sectors,
    unaligned,
)

WORLDS = sectors()
SPEC = Spec.of(WORLDS[0].observation_space, WORLDS[0].action_space, 1)


def member(seed):
    return filled(Recurrent.create, SPEC, Network(width=16, depth=1), seed=seed, head="deterministic", length=20)


def shuffled(policy, seed):
    groups = symmetry(policy)
    return groups.permuted(policy, groups.random(np.random.default_rng(seed)))


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


def test_sectors_share_no_goal_and_surround_the_start():
    goals = np.concatenate([np.asarray(world.goals) for world in WORLDS])
    assert len(np.unique(goals.round(6), axis=0)) == 32
    quarters = [np.unique(np.arctan2(*np.asarray(world.goals).T[::-1]) // (np.pi / 2)) for world in WORLDS]
    assert sorted(float(q[0]) for q in quarters if len(q) == 1) == [-2, -1, 0, 1]


def test_demonstrations_end_at_the_goal_or_are_on_the_way_to_it():
    batch = demonstrations(WORLDS[0], jax.random.key(0), 16)
    assert batch.observation.shape == (16, 20, 6)
    steps, seen = np.asarray(batch.mask).sum(1), np.asarray(batch.observation)
    away = np.linalg.norm(seen[..., :2] - seen[..., 4:], axis=-1)
    last = away[np.arange(16), steps - 1]
    assert 0 < np.sum(steps < 20) < 16
    assert np.all(last[steps < 20] < 0.2)
    assert np.all(last < away[:, 0])


def test_a_chain_of_shuffled_copies_is_the_first():
    policy = folded(member(0))
    close(chained([policy, shuffled(policy, 1), shuffled(policy, 2)]), policy)


def test_the_ablation_is_the_average_of_folded_members():
    members = [member(0), member(1)]
    close(unaligned(members), average([folded(policy) for policy in members]))


def test_barrier_of_a_parabola_and_of_a_double_well():
    one, other = (
        filled(Deterministic.create, Spec.of(spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)), 1), seed=s) for s in (0, 1)
    )

    def place(policy):
        return policy.network.last.bias[0]

    one, other = (eqx.tree_at(lambda p: p.network.last.bias, p, jnp.array([at])) for p, at in ((one, -1.0), (other, 1.0)))
    assert barrier(one, other, lambda p: place(p) ** 2) == pytest.approx((2 / 3) ** 2 - 1, abs=1e-6)
    assert barrier(one, other, lambda p: (place(p) ** 2 - 1) ** 2) == pytest.approx(1, abs=1e-6)


def test_aligned_copies_have_no_barrier():
    policy = folded(member(3))
    data = demonstrations(WORLDS[0], jax.random.key(0), 4)
    outputs = jax.jit(jax.vmap(lambda seen: policy.unroll(seen, policy.cell.start())[0]))(data.observation)
    own = eqx.tree_at(lambda d: d.action, data, jnp.tanh(outputs))
    pair = [policy, shuffled(policy, 1)]
    assert _barrier(pair, True, own) == pytest.approx(0, abs=1e-5)
    assert _barrier(pair, False, own) > 1e-3


def test_members_learn_side_by_side_from_their_own_data():
    data = [demonstrations(world, jax.random.key(1), 4) for world in WORLDS[:2]]
    before = [member(0), member(1)]
    after = clone_all(before, data, 60, jax.random.key(2), 4)
    loss = eqx.filter_jit(lambda policy, own: policy.imitation_loss(own, jax.random.key(0)))
    for old, new, own in zip(before, after, data, strict=True):
        assert float(loss(new, own)) < 0.7 * float(loss(old, own))
