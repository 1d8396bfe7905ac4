"""Worlds against what is known about them exactly: conserved energy, closed forms, optimal control, gymnasium's own steps."""

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.cartpole import CartPoleState, CartPoleSwingUp
from polyact.envs.double_integrator import DoubleIntegrator, lqr
from polyact.envs.hopper import Hopper2D
from polyact.envs.mazes import distances, next_cells, read
from polyact.envs.mountain_car import MountainCarContinuous
from polyact.envs.pendulum import Pendulum, PendulumState
from polyact.envs.physics import rk4, solve_positive
from polyact.envs.point_maze import PointMaze
from polyact.envs.push import Push, PushState
from polyact.envs.reacher import Reacher, ReacherState

KEY = jax.random.key(0)


def states_under(env, state, actions):
    """All states after the first, stacked, and the steps, when these actions [T, A] are taken."""

    def advance(state, action):
        new, step = env.step(state, action, KEY)
        return new, (new, step)

    return jax.jit(lambda s, a: jax.lax.scan(advance, s, a)[1])(state, actions)


def test_undriven_pendulum_keeps_its_energy():
    env = Pendulum(timestep=0.0005, max_speed=100.0)
    states, _ = states_under(env, PendulumState(jnp.array(2.0), jnp.array(1.0)), jnp.zeros((4000, 1)))
    energy = states.velocity**2 / 6 + env.gravity / 2 * jnp.cos(states.angle)
    np.testing.assert_allclose(energy, 1 / 6 + 5 * np.cos(2.0), atol=0.02)


def test_undriven_cartpole_without_friction_keeps_its_energy_and_momentum():
    env = CartPoleSwingUp(cart_friction=0.0, joint_friction=0.0, timestep=0.01, pole_mass=0.5)
    start = CartPoleState(*(jnp.array(x) for x in (0.0, 0.3, 2.0, 1.5)))
    states, _ = states_under(env, start, jnp.zeros((1000, 1)))
    energy = jax.vmap(env.energy)(states)
    np.testing.assert_allclose(energy, env.energy(start), atol=2e-3)
    momentum = [1.5 * s.velocity + 0.5 * 0.5 * s.rate * jnp.cos(s.angle) for s in (start, states)]
    np.testing.assert_allclose(momentum[1], momentum[0], atol=2e-3)


def test_small_swings_of_the_cartpole_have_the_textbook_period():
    env = CartPoleSwingUp(cart_friction=0.0, joint_friction=0.0, cart_mass=1e6, timestep=0.005)
    start = CartPoleState(jnp.zeros(()), jnp.zeros(()), jnp.array(jnp.pi + 0.02), jnp.zeros(()))
    states, _ = states_under(env, start, jnp.zeros((400, 1)))
    time = 0.005 * np.arange(1, 401)
    expected = 0.02 * np.cos(np.sqrt(9.81 * 3 / 2) * time)
    np.testing.assert_allclose(states.angle - np.pi, expected, atol=1e-4)


def test_pendulum_equals_gymnasium_step_by_step():
    theirs, ours = gymnasium.make("Pendulum-v1").unwrapped, Pendulum()
    theirs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-3, 3, (100, 1))
    theirs.state = np.array([1.0, 0.5])
    _, steps = states_under(ours, PendulumState(jnp.array(1.0), jnp.array(0.5)), jnp.asarray(actions))
    for i, action in enumerate(actions):
        observation, reward, *_ = theirs.step(action)
        np.testing.assert_allclose(steps.observation[i], observation, atol=1e-4)
        np.testing.assert_allclose(steps.reward[i], reward, atol=1e-3)
        # one step at a time, so that rounding can't add up
        angle, velocity = theirs.state
        action = jnp.asarray(action)
        _, step = ours.step(PendulumState(jnp.array(angle), jnp.array(velocity)), action, KEY)
        expected, reward, *_ = theirs.step(np.asarray(action))
        np.testing.assert_allclose(step.observation, expected, atol=1e-5)
        np.testing.assert_allclose(step.reward, reward, atol=1e-5)
        theirs.state = np.array([angle, velocity])


def test_mountain_car_equals_gymnasium_step_by_step():
    theirs, ours = gymnasium.make("MountainCarContinuous-v0").unwrapped, MountainCarContinuous()
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    step_ours = jax.jit(ours.step)
    ends = 0
    for _ in range(300):
        state = np.array([rng.uniform(-1.2, 0.6), rng.uniform(-0.07, 0.07)], np.float32)
        action = rng.uniform(-1.5, 1.5, 1).astype(np.float32)
        theirs.state = state
        observation, reward, terminated, _, _ = theirs.step(action)
        _, step = step_ours(jnp.asarray(state), jnp.asarray(action), KEY)
        np.testing.assert_allclose(step.observation, observation, atol=1e-5)
        np.testing.assert_allclose(step.reward, reward, atol=1e-5)
        assert bool(step.terminated) == terminated
        ends += terminated
    assert ends > 10


def test_double_integrator_equals_the_closed_form():
    env = DoubleIntegrator(mass=2.0, dimensions=2)
    start = jnp.array([1.0, -1.0, 0.5, 0.0])
    force = np.array([0.2, -0.4])
    states, steps = states_under(env, start, jnp.tile(force, (30, 1)))
    time = 0.1 * np.arange(1, 31)[:, None]
    acceleration = 5.0 * force / 2.0
    np.testing.assert_allclose(states[:, :2], start[:2] + start[2:] * time + acceleration * time**2 / 2, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(states[:, 2:], start[2:] + acceleration * time, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(steps.reward[0], -(2.0 + 0.1 * 0.25 + 0.1 * np.sum((5 * force) ** 2)), rtol=1e-5)


def test_lqr_value_is_the_simulated_cost_and_no_other_gain_does_better():
    env = DoubleIntegrator()
    gain, value = lqr(env)

    def cost(gain, start):
        def advance(state, _):
            state, step = env.step(state, -(gain @ state)[None] / env.max_force, KEY)
            return state, step.reward

        return -jnp.sum(jax.lax.scan(advance, start, None, 300)[1])

    starts = jnp.array([[1.0, 0.5], [-1.0, 0.5], [0.3, -0.2]])
    costs = jax.jit(jax.vmap(cost, (None, 0)))
    best = costs(gain, starts)
    np.testing.assert_allclose(best, jnp.einsum("ni,ij,nj->n", starts, value, starts), rtol=1e-4)
    for change in ([1.2, 1.0], [0.8, 1.0], [1.0, 1.2], [1.0, 0.8]):
        assert bool(jnp.all(costs(gain * jnp.array(change), starts) > best))
    # The optimal force stays within its bounds from all initial states, so bounds do not matter.
    corners = jnp.array([[1.0, 0.5], [1.0, -0.5]])
    assert float(jnp.max(jnp.abs(corners @ gain))) < env.max_force


@pytest.mark.parametrize("text", ["umaze", "four-rooms", "large"])
def test_walls_of_a_maze_are_never_touched_deeper_than_the_ball(text):
    env = PointMaze(maze=text, max_force=40.0, friction=0.5, cell=0.7)
    reset = jax.vmap(env.reset)(jax.random.split(KEY, 8))[0]
    aims = jnp.repeat(jax.random.uniform(jax.random.key(1), (8, 40, 2), minval=-1, maxval=1), 10, 1)
    states, _ = jax.vmap(lambda s, a: states_under(env, s, a))(reset, jnp.sign(aims) * jnp.abs(aims) ** 0.3)
    points = np.asarray(states.position, np.float64).reshape(-1, 2)
    walls = read(env.maze).walls
    rows = walls.shape[0]
    centres = np.array([[(c + 0.5) * 0.7, (rows - 0.5 - r) * 0.7] for r, c in np.argwhere(walls)])
    beyond = np.maximum(np.abs(points[:, None] - centres) - 0.35, 0)
    clearance = np.min(np.linalg.norm(beyond, axis=-1), axis=1)
    assert clearance.min() > env.radius - 1e-4
    assert np.mean(clearance < env.radius + 1e-4) > 0.05, "the walls should have been touched"


def test_maze_distances_and_next_cells_are_shortest_ways():
    text = PointMaze(maze="medium").maze
    walls, distance, hops = read(text).walls, distances(text), next_cells(text)
    graph = np.full(distance.shape, np.inf)
    columns = walls.shape[1]
    for cell in np.flatnonzero(~walls):
        graph[cell, cell] = 0
        for beside in (cell - columns, cell + columns, cell - 1, cell + 1):
            if not walls.flat[beside]:
                graph[cell, beside] = 1
    for middle in np.flatnonzero(~walls):
        graph = np.minimum(graph, graph[:, [middle]] + graph[[middle]])
    np.testing.assert_array_equal(distance, graph)
    for goal in np.flatnonzero(~walls):
        for cell in np.flatnonzero(~walls & np.isfinite(distance[goal]).reshape(walls.shape)):
            assert distance[goal, hops[goal, cell]] == max(distance[goal, cell] - 1, 0)


def test_reacher_without_friction_keeps_its_energy():
    env = Reacher(links=3, friction=0.0, gravity=9.81, timestep=0.01, mass=jnp.array([1.0, 0.5, 0.3]))
    start = ReacherState(jnp.array([0.3, 1.0, -0.5]), jnp.array([1.0, 0.0, 2.0]), jnp.zeros(2))
    states, _ = states_under(env, start, jnp.zeros((500, 3)))
    np.testing.assert_allclose(jax.vmap(env.energy)(states), env.energy(start), atol=5e-3)


def test_reacher_inverse_dynamics_undo_the_forward_dynamics():
    env = Reacher(links=3, gravity=3.0, timestep=1e-3, substeps=1)
    state = ReacherState(jnp.array([0.3, 1.0, -0.5]), jnp.array([1.0, 0.2, 2.0]), jnp.zeros(2))
    wanted = jnp.array([1.0, -2.0, 0.5])
    torque = env.torque(state.angle, jnp.diff(state.rate, prepend=0.0), wanted)
    new, _ = Reacher(links=3, gravity=3.0, timestep=1e-3, max_torque=100.0).step(state, torque / 100.0, KEY)
    got = jnp.diff(new.rate - state.rate, prepend=0.0) / 1e-3
    np.testing.assert_allclose(got, wanted, atol=0.05)


def test_pushing_through_the_middle_moves_a_block_straight():
    env = Push(shape=((0.0, 0.0, 0.1, 0.1),), target=(0.9, 0.9, 0.0))
    start = PushState(jnp.array([-0.4, 0.0]), jnp.zeros(2), jnp.zeros(()))
    states, _ = states_under(env, start, jnp.tile(jnp.array([0.5, 0.0]), (20, 1)))
    np.testing.assert_allclose(states.pusher[:, 0], -0.4 + 0.025 * np.arange(1, 21), atol=1e-5)
    np.testing.assert_allclose(states.block[:, 0], np.maximum(states.pusher[:, 0] + 0.16, 0), atol=1e-4)
    np.testing.assert_allclose(states.block[:, 1], 0, atol=1e-5)
    np.testing.assert_allclose(states.angle, 0, atol=1e-4)


def test_a_push_moves_the_contact_as_deep_as_the_pusher_and_slips_only_past_the_friction_cone():
    normal, contact = jnp.array([0.0, 1.0]), jnp.array([0.15, 0.1])
    depth = jnp.array(0.01)

    def contact_motion(env, slide):
        shift, turn = env.twist(contact, normal, depth, jnp.array(slide))
        return shift, shift + turn * jnp.array([-contact[1], contact[0]])

    _, sticking = contact_motion(Push(friction=50.0), 0.004)
    np.testing.assert_allclose(sticking, [-0.004, -0.01], atol=1e-6)
    force, slipping = contact_motion(Push(friction=0.2), 0.02)
    np.testing.assert_allclose(slipping[1], -0.01, atol=1e-6)
    np.testing.assert_allclose(jnp.abs(force[0]), 0.2 * jnp.abs(force[1]), rtol=1e-4)


def test_pusher_and_block_never_overlap():
    env = Push()
    state = jax.vmap(env.reset)(jax.random.split(KEY, 8))[0]
    noise = jax.random.uniform(jax.random.key(1), (60, 2), minval=-1, maxval=1)

    def advance(state, noise):
        # Always more or less at the block, which ends at the edge of the arena.
        state, _ = env.step(state, 2.0 * (state.block - state.pusher) + noise, KEY)
        cos, sin = jnp.cos(state.angle), jnp.sin(state.angle)
        return state, env.gap(jnp.array([[cos, sin], [-sin, cos]]) @ (state.pusher - state.block))

    gaps = jax.jit(jax.vmap(lambda state: jax.lax.scan(advance, state, noise)[1]))(state)
    assert float(gaps.min()) > env.radius - 2e-3
    assert float(jnp.mean(gaps < env.radius + 1e-3)) > 0.2, "there should have been contact"


def test_undamped_hopper_keeps_its_energy_through_stance_and_flight():
    env = Hopper2D(damping=0.0, hip_friction=0.0, timestep=0.002)
    state, _ = env.reset(jax.random.key(2))
    states, steps = states_under(env, state, jnp.zeros((450, 2)))
    alive = ~np.asarray(steps.terminated)
    energy = np.asarray(jax.vmap(env.energy)(states))[alive]
    np.testing.assert_allclose(energy, env.energy(state), rtol=0.01)
    touches = np.diff(np.asarray(states.stance)[alive].astype(int))
    assert np.sum(touches == 1) >= 2
    assert np.sum(touches == -1) >= 2


def test_hopper_flies_on_a_parabola():
    env = Hopper2D(timestep=0.004)
    state, _ = env.reset(jax.random.key(0))
    state = eqx.tree_at(lambda s: (s.position, s.velocity), state, (jnp.array([0.0, 2.0]), jnp.array([1.5, 0.5])))
    states, _ = states_under(env, state, jnp.zeros((100, 2)))
    time = 0.004 * np.arange(1, 101)
    np.testing.assert_allclose(states.position[:, 0], 1.5 * time, atol=1e-4)
    np.testing.assert_allclose(states.position[:, 1], 2 + 0.5 * time - 9.81 * time**2 / 2, atol=3e-3)


def test_runge_kutta_is_of_fourth_order():
    def error(substeps):
        end = rk4(lambda x: -x, jnp.array(1.0), 2.0, substeps)
        return abs(float(end) - np.exp(-2.0))

    assert 12 < error(4) / error(8) < 24


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_positive_systems_are_solved(n):
    root = np.random.default_rng(n).normal(size=(n, n))
    matrix, vector = root @ root.T + np.eye(n), np.arange(1.0, n + 1)
    np.testing.assert_allclose(solve_positive(jnp.asarray(matrix), jnp.asarray(vector)), np.linalg.solve(matrix, vector), rtol=1e-4)
