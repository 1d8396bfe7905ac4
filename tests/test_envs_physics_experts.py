"""Scripted experts do what their names say, and tell apart from chance."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.envs.base import Env
from polyact.envs.catalogue import expert, experts, make
from polyact.envs.point_navigation import PointNavigation, pass_left, pass_right, sloppy

QUICK = {"xla_backend_optimization_level": 0}  # these programs run once: compiling them takes longest


def play(env: Env, *rules, episodes: int = 32):
    """Whole episodes of each rule, from the same starts: for each a namespace of observation [E, T, ...] (before the step), reward
    [E, T] (0 after the end), alive [E, T], score [E], success and crashed [E] where the world tells, info."""

    def episode(who, key):
        def advance(carry, key):
            state, observation, alive = carry
            choices = jnp.stack([rule(env, observation, key) for rule in rules])
            state, step = env.step(state, choices[who], key)
            return (state, step.observation, alive & ~step.terminated), (observation, step.reward * alive, alive, step.info)

        state, observation = env.reset(key)
        return jax.lax.scan(advance, (state, observation, jnp.asarray(True)), jax.random.split(key, env.horizon))[1]

    keys = jax.random.split(jax.random.key(0), episodes)
    every = jax.jit(jax.vmap(jax.vmap(episode, (None, 0)), (0, None)), compiler_options=QUICK)(jnp.arange(len(rules)), keys)
    for who in range(len(rules)):
        observation, reward, alive, info = jax.tree.map(lambda x, who=who: np.asarray(x[who]), every)
        ever = {name: np.any(value & alive, 1) for name, value in info.items() if value.dtype == bool}
        yield SimpleNamespace(observation=observation, reward=reward, alive=alive, score=reward.sum(1), info=info, **ever)


def chance(env, observation, key):
    return spaces.sample(env.action_space, key)


@pytest.mark.parametrize(
    ("name", "least", "chance_at_most"),
    [("pendulum", -250, -700), ("cartpole-swingup", 180, 60), ("mountain-car", 85, 0), ("reacher", -25, -60)],
)
def test_expert_scores_and_chance_does_not(name, least, chance_at_most):
    best, worst = play(make(name), expert(name, experts(name)[0]), chance)
    assert best.score.mean() > least
    assert worst.score.mean() < chance_at_most


@pytest.fixture(scope="module")
def passers():
    def mean(env, observation, key):
        return (pass_left(env, observation, key) + pass_right(env, observation, key)) / 2

    names = ("left", "right", "mean", "sloppy")
    return SimpleNamespace(
        **dict(zip(names, play(PointNavigation(), pass_left, pass_right, mean, sloppy, episodes=128), strict=True))
    )


@pytest.mark.parametrize(("name", "side"), [("left", -1), ("right", 1)])
def test_left_and_right_experts_pass_on_their_sides_and_arrive(passers, name, side):
    one = getattr(passers, name)
    assert np.all(one.success)
    beside = one.alive & (np.abs(one.observation[..., 1]) < 0.05)
    assert np.all(beside.any(1))
    assert np.all(side * one.observation[..., 0][beside] > 0.3)
    assert np.all(one.score > 1.8)


def test_passing_is_relative_to_the_direction_of_travel():
    (one,) = play(PointNavigation(start=(0.0, 0.8), goals=((0.0, -0.8),)), pass_left, episodes=8)
    beside = one.alive & (np.abs(one.observation[..., 1]) < 0.05)
    assert np.all(one.observation[..., 0][beside] > 0.3)


def test_the_mean_of_left_and_right_hits_the_obstacle(passers):
    assert np.mean(passers.mean.crashed) > 0.9
    assert passers.mean.score.mean() < 0


def test_sloppy_arrives_late_and_not_always(passers):
    assert 0.4 < np.mean(passers.sloppy.success) < 0.9
    assert passers.sloppy.alive.sum(1)[passers.sloppy.success].mean() > 1.2 * passers.left.alive.sum(1).mean()


def test_navigation_reward_is_progress_minus_time_plus_the_outcome(passers):
    one = passers.right
    start = np.linalg.norm(one.observation[:, 0, :2] - one.observation[:, 0, 4:], axis=1)
    steps = one.alive.sum(1)
    # Of the way to the goal only what is left within its radius was not walked.
    walked_all = start + 1 - 0.01 * steps
    assert np.all(one.score <= walked_all)
    assert np.all(one.score >= walked_all - 0.1)


@pytest.mark.parametrize("maze", ["four-rooms", "#####\n#   #\n# # #\n#   #\n#####"])
def test_follow_map_reaches_every_goal(maze):
    (one,) = play(make("point-maze", maze=maze), expert("point-maze", "follow_map"))
    assert np.all(one.success)


def test_push_home_succeeds_nearly_always():
    best, worst = play(make("push"), expert("push", "push_home"), chance, episodes=48)
    assert np.mean(best.success) > 0.9
    assert np.mean(worst.success) < 0.1


def test_hopper_experts_run_and_jog_over_the_whole_horizon_and_chance_falls():
    run, jog, fall = play(make("hopper2d"), expert("hopper2d", "run"), expert("hopper2d", "jog"), chance)
    assert np.all(run.alive)
    assert np.all(jog.alive)
    assert run.info["distance"][:, -1].mean() / 10 > 1.5
    assert 0.5 < jog.info["distance"][:, -1].mean() / 10 < 1.2
    assert fall.alive.sum(1).max() < 200
    assert fall.score.mean() < 60
    assert jog.score.min() > 3 * fall.score.max()
    assert run.score.min() > 1.3 * jog.score.max()


def test_without_obstacles_all_experts_go_straight():
    env = PointNavigation(obstacles=(), goals=((0.0, 0.8),), start_spread=0.0)
    left, right = play(env, pass_left, pass_right, episodes=1)
    np.testing.assert_array_equal(left.observation, right.observation)
    assert left.success.all()
    np.testing.assert_allclose(left.observation[..., 0], 0, atol=1e-6)
