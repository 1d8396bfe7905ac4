"""RMPflow's rivals and ablations against closed forms, and scenes that are what they promise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact.policies.motion.dynamics import Attractor, Barrier, Damper, Distances, Offset
from polyact.policies.motion.robots import body_points
from polyact.policies.motion.tree import Each, Through, Together, acceleration
from polyact.systems.robots.rmpflow import ARM, FAR, Pull, Repulsion, Unhurried, arm_scene, point_scene, summed, unbent

X, V = jnp.array([0.4, -0.3]), jnp.array([0.7, 0.5])
WANTED, UNBENT, SUMMED = (eqx.filter_jit(lambda rule, f=f: f(rule, X, V)) for f in (acceleration, unbent, summed))
DISC = Distances(jnp.array([[0.0, 0.0]]), jnp.array([0.3]))


def test_a_potential_field_is_the_sum_of_its_forces():
    repulsion, pull, goal = Repulsion(0.1, 1.0), Pull(2.0), jnp.array([1.0, 1.0])
    tree = Together((Through(Offset(goal), pull), Through(DISC, Each(repulsion)), Damper(1.0, 3.0)))
    slopes = [jax.grad(lambda x: pull.potential(x - goal))(X), jax.grad(lambda x: repulsion.potential(DISC(x)))(X)]
    np.testing.assert_allclose(WANTED(tree), -slopes[0] - slopes[1] - 3 * V, rtol=1e-4)


def test_the_pull_of_a_field_is_tanh():
    np.testing.assert_allclose(
        jax.grad(Pull(2.0, sharpness=3.0).potential)(jnp.array([0.0, 0.5])), [0, 2 * np.tanh(1.5)], atol=1e-5
    )


def test_repulsion_is_khatibs():
    z, slope = 0.4, jax.grad(Repulsion(0.1, 1.0).potential)(jnp.array([0.4]))
    np.testing.assert_allclose(slope, [-0.1 * (1 / z - 1) / z**2], rtol=1e-5)
    assert float(Repulsion(0.1, 1.0).potential(jnp.array([1.2]))) == 0


def test_straight_maps_have_no_bend_to_leave_out():
    straight = Together((Through(Offset(jnp.ones(2)), Attractor()), Damper()))
    np.testing.assert_allclose(UNBENT(straight), WANTED(straight), rtol=1e-5)
    round_one = Together((straight, Through(DISC, Each(Barrier()))))
    assert not np.allclose(UNBENT(round_one), WANTED(round_one), rtol=1e-3)


def test_an_obstacle_that_is_left_counts_the_same_for_the_static_metric_alone():
    towards, away = jnp.array([-1.0]), jnp.array([1.0])
    near = jnp.array([0.5])
    assert float(Barrier().metric(near, towards)[0, 0]) > 5 * float(Barrier().metric(near, away)[0, 0])
    static = Unhurried(Barrier())
    assert float(static.metric(near, towards)[0, 0]) == float(static.metric(near, away)[0, 0])


def test_a_sum_of_accelerations_ignores_metrics():
    heavy, light = (Through(Offset(jnp.ones(2)), Attractor(near=w, far=w)) for w in (100.0, 1.0))
    np.testing.assert_allclose(SUMMED(heavy), SUMMED(light), rtol=1e-4)
    np.testing.assert_allclose(SUMMED(Together((heavy, light))), 2 * SUMMED(light), rtol=1e-4)


def test_scenes_leave_room():
    for seed in range(4):
        env = eqx.filter_jit(point_scene)(jax.random.key(seed))
        discs = np.asarray(env.obstacles)
        discs = discs[discs[:, 0] != FAR]
        assert 8 <= len(discs) <= 20
        gaps = np.linalg.norm(discs[:, None, :2] - discs[:, :2], axis=-1) - discs[:, None, 2] - discs[:, 2]
        assert gaps[~np.eye(len(discs), dtype=bool)].min() > 0.08 - 1e-6
        assert float(env.clearance(env.start).min()) > 0.1


def test_arms_start_clear_of_discs():
    for seed in range(4):
        state, _ = ARM.reset(jax.random.key(seed))
        joint = jnp.diff(state.angle, prepend=0.0)
        discs = eqx.filter_jit(arm_scene)(jax.random.key(seed + 50), joint, state.target)
        body = body_points(ARM, joint, 8)
        assert float((jnp.linalg.norm(body[:, None] - discs[:, :2], axis=-1) - discs[:, 2]).min()) > 0.05
