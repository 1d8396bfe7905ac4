"""Motion rules: energy that falls exactly as damping says, invariance to coordinates, and closed forms of the three operators."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import saving
from polyact.acting.rollout import rollout
from polyact.envs.physics import rk4
from polyact.envs.point_navigation import PointNavigation
from polyact.envs.reacher import Reacher
from polyact.policies.motion.dynamics import Apart, Attractor, Barrier, Damper, Distances, Dynamics, Limits, Offset
from polyact.policies.motion.robots import ArmMotion, PointMotion, body_points
from polyact.policies.motion.tree import Each, Form, Through, Together, acceleration, pullback, pushforward, resolve

X, V = jnp.array([0.4, -0.3]), jnp.array([0.7, 0.5])
DISCS = Distances(jnp.array([[1.0, 0.2], [-0.2, 0.6]]), jnp.array([0.3, 0.25]))
TREE = Together((Through(Offset(jnp.array([1.4, 0.6])), Attractor()), Through(DISCS, Each(Barrier(damper=0.5))), Damper()))


class Rigid(Dynamics):
    """A metric that depends on place and speed in every entry, to test the curvature terms in general."""

    def metric(self, x, velocity):
        root = jnp.array([[1.5, 0.3], [0.2, 1.2]]) + 0.3 * jnp.outer(jnp.sin(x), jnp.cos(velocity))
        return root @ root.T

    def potential(self, x):
        return jnp.sum(jnp.cosh(x)) + x[0] * x[1] / 2

    def damping(self, x, velocity):
        return jnp.diag(1 + x**2)


def twist(q):
    """A smooth change of coordinates of the plane."""
    return jnp.stack([q[0] + 0.3 * jnp.sin(q[1]), q[1] + 0.2 * q[0] ** 2])


@eqx.filter_jit
def balance_along(rule, x, v):
    """The energy's derivative along the flow, and the power that damping takes."""
    power = rule.balance(x, v)[1]
    return jax.jvp(lambda x, v: rule.balance(x, v)[0], (x, v), (v, acceleration(rule, x, v)))[1], power


@pytest.mark.parametrize("rule", [TREE, Rigid(), Through(twist, TREE), Through(twist, Rigid()), Attractor(gain=3.0, width=0.5)])
def test_energy_falls_at_the_rate_of_damping(rule):
    with jax.enable_x64(True):
        for x, v in np.random.default_rng(0).normal(size=(4, 2, 2)) * [[0.3], [0.6]]:
            falls, power = balance_along(rule, jnp.asarray(x), jnp.asarray(v))
            assert float(falls) == pytest.approx(-float(power), abs=1e-4)


def test_energy_falls_along_the_flow_and_by_what_damping_takes():
    @jax.jit
    def flow(x, v):
        def one(state, _):
            state = rk4(lambda s: (s[1], acceleration(TREE, s[0], s[1]), TREE.balance(s[0], s[1])[1]), state, 0.005)
            return state, jnp.stack([TREE.balance(state[0], state[1])[0], state[2]])

        return jax.lax.scan(one, (x, v, jnp.zeros(())), None, 600)[1]

    energy, taken = np.asarray(flow(X, V)).T
    start = float(TREE.balance(X, V)[0])
    assert np.all(np.diff(energy) <= 1e-4)
    np.testing.assert_allclose(energy + taken, start, atol=1e-3 * start)
    assert energy[-1] < 0.5 * start


def test_the_root_may_have_other_coordinates():
    tree = Together((TREE, Rigid()))

    @jax.jit
    def both(x, v):
        own = acceleration(Through(twist, tree), x, v)
        implied = jax.jvp(lambda x, v: pushforward(twist, x, v)[1], (x, v), (v, own))[1]
        return implied, acceleration(tree, *pushforward(twist, x, v))

    with jax.enable_x64(True):
        np.testing.assert_allclose(*both(*(jnp.asarray(np.asarray(part, float)) for part in (X, V))), rtol=1e-6)


def test_one_leaf_gives_what_it_asks_for():
    form = Rigid().form(X, V)
    np.testing.assert_allclose(
        acceleration(Through(lambda x: x, Rigid()), X, V), jnp.linalg.solve(form.metric, form.force), rtol=1e-4
    )


def test_pullback_is_associative():
    inner, form = (
        (lambda x: jnp.stack([x[0] * x[1], jnp.sin(x[0]), x[1]])),
        Form(jnp.array([1.0, -2.0, 0.5]), jnp.diag(jnp.arange(1.0, 4.0))),
    )
    middle = pushforward(twist, X, V)
    stepwise = pullback(twist, X, V, pullback(inner, *middle, form))
    at_once = pullback(lambda x: inner(twist(x)), X, V, form)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), stepwise, at_once)


def test_barrier_is_the_closed_form():
    z, speed, rest, alpha, damper = 0.5, -0.7, 0.2, 1e-5, 0.4
    form = Barrier(damper=damper).form(jnp.array([z]), jnp.array([speed]))
    w, slope, u, du = z**-4, -4 * z**-5, rest + speed**2, 2 * speed
    assert float(form.metric[0, 0]) == pytest.approx(w * u + 0.5 * speed * w * du, rel=1e-5)
    assert float(form.force[0]) == pytest.approx(-alpha * w * slope - 0.5 * speed**2 * u * slope - damper * w * u * speed, rel=1e-5)


def test_attractor_is_the_closed_form():
    rule, x = Attractor(), jnp.array([0.6, -0.8])
    w = 9 * np.exp(-0.5) + 1
    np.testing.assert_allclose(jax.grad(rule.potential)(x), w * np.tanh(1.0) * x, rtol=1e-4)
    slope = -9 * np.exp(-0.5) * x
    form = rule.form(x, V)
    curvature = (slope @ V) * V - (V @ V) * slope / 2
    np.testing.assert_allclose(form.force, -w * np.tanh(1.0) * x - 2 * w * V - curvature, rtol=1e-3)
    np.testing.assert_allclose(form.metric, w * np.eye(2), rtol=1e-5)


def test_a_singular_metric_leaves_free_directions_alone():
    np.testing.assert_allclose(resolve(Form(jnp.array([2.0, 0.0]), jnp.diag(jnp.array([4.0, 0.0])))), [0.5, 0.0])


def test_inside_an_obstacle_everything_stays_finite():
    form = Through(DISCS, Each(Barrier())).form(jnp.array([1.0, 0.2]), V)
    assert bool(jnp.isfinite(form.force).all() & jnp.isfinite(form.metric).all())


def test_limits_and_distances_between_robots():
    np.testing.assert_allclose(Limits(jnp.zeros(2), jnp.array([2.0, 4.0]))(jnp.array([0.5, 3.0])), [0.5, 1.5, 1.5, 0.5])
    np.testing.assert_allclose(Apart(0.5, 3)(jnp.array([0.0, 0.0, 1.0, 0.0, 0.0, 2.0])), [1, 3, np.sqrt(5) / 0.5 - 1], atol=1e-6)


def test_two_robots_that_swap_places_do_not_meet():
    goals = jnp.array([1.0, 0.05, -1.0, 0.0])
    swap = Together((Through(Offset(goals), Attractor()), Through(Apart(0.3, 2), Each(Barrier())), Damper()))

    @jax.jit
    def flow(x, v):
        def one(state, _):
            state = rk4(lambda s: (s[1], acceleration(swap, *s)), state, 0.02)
            return state, state[0]

        return jax.lax.scan(one, (x, v), None, 1500)[1]

    path = flow(jnp.array([-1.0, 0.0, 1.0, 0.0]), jnp.zeros(4))
    assert float(jnp.min(jax.vmap(Apart(0.3, 2))(path))) > 0
    np.testing.assert_allclose(path[-1], goals, atol=0.1)


def test_the_point_passes_the_obstacle_and_arrives_unless_it_starts_straight_behind_it():
    env = PointNavigation()
    episodes = rollout(PointMotion(env), env, episodes=8, key=jax.random.key(0))
    assert episodes.info["success"].sum() >= 6
    assert not episodes.info["crashed"].any()


@pytest.mark.parametrize("policy", [PointMotion(PointNavigation()), ArmMotion(Reacher(links=3), jnp.array([[0.0, 0.9, 0.15]]))])
def test_motion_policies_are_saved(policy, tmp_path):
    back = saving.load(saving.save(policy, tmp_path / "policy"), type(policy))
    assert jax.tree.structure(back) == jax.tree.structure(policy)
    jax.tree.map(np.testing.assert_array_equal, back, policy)


def test_the_arm_reaches_round_a_disc():
    env, obstacles = Reacher(links=3, horizon=150), jnp.array([[0.0, 0.9, 0.15]])
    policy = ArmMotion(env, obstacles)
    episodes = rollout(policy, env, episodes=4, key=jax.random.key(1))
    ends = np.cumsum(episodes.lengths + 1) - 1
    observation = np.asarray(episodes.observation)
    assert (np.linalg.norm(observation[ends, -2:], axis=1) < 0.1).sum() >= 3
    np.testing.assert_allclose(body_points(env, jnp.zeros(3), 2)[:, 0], [0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
