"""RTI: the recursion on a linear denoiser, the first plan, what is kept of a gripper, and how steps are chosen."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.acting.rollout import rollout
from polyact.data.episodes import Episodes
from polyact.envs.point_navigation import PointNavigation, pass_left
from polyact.errors import PolyactError
from polyact.nets.denoisers import Denoiser
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.paths import few_steps
from polyact.policies.scripted import Scripted
from polyact.policies.spec import Spec
from polyact.systems.generative.rti_dp import (
    MovedGoal,
    RealTimeIteration,
    contraction,
    fewest_steps,
    reaction,
    scaled,
    shifted,
    tracking_error,
)

SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), 10)
LEVELS, STD = 8, 0.3


class Linear(Denoiser):
    """The exact noise for actions that are normal around half of the first observed number."""

    def __call__(self, noisy, time, condition):
        path = few_steps(LEVELS)
        alpha, sigma = path.alpha(time), path.sigma(time)
        return sigma * (noisy - alpha * condition[0, 0] / 2) / (alpha**2 * STD**2 + sigma**2)


class First(eqx.Module):
    """An encoder that hands the observation through."""

    def __call__(self, features):
        return features


def linear_policy(horizon=3):
    policy = filled(Diffusion.create, SPEC, horizon=horizon, schedule="few-steps", levels=LEVELS, steps=LEVELS, clip=False)
    return replace(policy, denoiser=Linear(), encoder=First())


def recursion(steps):
    """Factor and fixed point of the last `steps` of deterministic DDIM on the linear denoiser of mean 1: x -> factor x + shift."""
    t = np.arange(LEVELS + 1) / LEVELS
    abar = np.exp(-0.1 * t - 0.5 * 9.9 * t**2)
    alpha, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    factor, shift = 1.0, 0.0
    for k in range(steps, 0, -1):
        gain = sigma[k] / (alpha[k] ** 2 * STD**2 + sigma[k] ** 2)  # noise = gain (x - alpha)
        slope = alpha[k - 1] / alpha[k] * (1 - sigma[k] * gain) + sigma[k - 1] * gain
        offset = (alpha[k - 1] / alpha[k] * sigma[k] - sigma[k - 1]) * gain * alpha[k]
        factor, shift = slope * factor, slope * shift + offset
    return factor, shift / (1 - factor)


@pytest.mark.parametrize("steps", [1, 4])
def test_on_a_linear_denoiser_the_plan_goes_to_the_known_fixed_point_at_the_known_rate(steps):
    policy, observation = RealTimeIteration(linear_policy(1), steps), jnp.array([0.8, 0.0])
    factor, fixed = recursion(steps)
    fixed = 0.4 * fixed  # the mean here
    act = eqx.filter_jit(policy.act)
    action, memory = act(observation, policy.start(KEY), KEY)
    error = float(action[0]) - fixed
    for n in range(1, 6):
        action, memory = act(observation, memory, jax.random.fold_in(KEY, n))
        assert float(action[0]) == pytest.approx(fixed + error * factor**n, abs=1e-4)
    measured = contraction(policy, jnp.array([[0.8, 0.0]]), memory.chunk, KEY)
    assert float(measured) == pytest.approx(factor, rel=1e-3)


def test_the_first_plan_is_the_policys_own_and_later_ones_start_from_it():
    base = filled(Diffusion.create, SPEC, horizon=3, levels=6, sampler="ddpm")
    policy, observation = RealTimeIteration(base, 2), jnp.array([0.3, -0.1])
    own, _ = eqx.filter_jit(base.chunk)(observation, base.start(KEY), KEY)
    action, memory = eqx.filter_jit(policy.act)(observation, policy.start(KEY), KEY)
    np.testing.assert_allclose(action, own[0], rtol=1e-6)
    np.testing.assert_allclose(memory.chunk, own, rtol=1e-6)
    later, after = eqx.filter_jit(policy.act)(observation, memory, jax.random.key(5))
    condition = base.condition(memory.inner)
    expected = base.generate(condition, jax.random.key(5), start=shifted(memory.chunk), skip=4)
    np.testing.assert_allclose(after.chunk, expected, rtol=1e-5)
    np.testing.assert_allclose(later, expected[0], rtol=1e-5)


def test_all_steps_from_noise_are_the_policy():
    base = filled(Diffusion.create, SPEC, horizon=3, levels=6, sampler="ddpm")
    policy, condition = RealTimeIteration(base, 6), jnp.ones((1, 8))
    start = base.noise(jax.random.split(KEY)[0])
    np.testing.assert_array_equal(policy.refined(condition, start, KEY), base.generate(condition, KEY))


def test_shifting_drops_what_was_played_and_repeats_the_last():
    np.testing.assert_array_equal(shifted(jnp.arange(4.0)[:, None])[:, 0], [1, 2, 3, 3])


def test_renoising_brings_the_plan_to_its_level():
    base = linear_policy()
    one, other = (RealTimeIteration(base, 5, noise=share) for share in (0.0, 1.0))
    chunks = jax.vmap(lambda k: other.refined(jnp.ones((1, 2)), jnp.full((3, 1), 0.5), k))(jax.random.split(KEY, 500))
    assert float(chunks.std()) > 0.05
    quiet = jax.vmap(lambda k: one.refined(jnp.ones((1, 2)), jnp.full((3, 1), 0.5), k))(jax.random.split(KEY, 3))
    assert float(jnp.ptp(quiet, axis=0).max()) == 0


def test_two_valued_entries_of_the_plan_stay_within_the_limit():
    base = filled(Diffusion.create, SPEC, horizon=3, levels=4, sampler="ddpm")
    policy = RealTimeIteration(base, 2, channels=(0,), limit=0.1)
    _, memory = policy.act(jnp.ones(2), policy.start(KEY), KEY)
    assert float(jnp.abs(memory.chunk).max()) <= 0.1 + 1e-6


def test_scaling_keeps_the_sign_of_the_entry_and_everything_else():
    episodes = Episodes(np.array([2]), observation=np.zeros((3, 1)), action=np.array([[0.5, 1.0], [0.2, -1.0]]))
    small = scaled(episodes, (1,), 5.0)
    np.testing.assert_allclose(small.action, [[0.5, 0.2], [0.2, -0.2]])
    np.testing.assert_allclose(episodes.action[:, 1], [1, -1])


def test_the_fewest_steps_are_the_first_whose_bound_is_met():
    base, conditions, chunks = linear_policy(1), jnp.ones((2, 1, 2)), jnp.zeros((2, 1, 1))
    factors = [recursion(steps)[0] for steps in range(1, LEVELS + 1)]
    bounds = [0.1 * f / (1 - f) for f in factors]
    wanted = 1 + int(np.argmax(np.array(bounds) <= 0.05))
    assert wanted > 1
    assert fewest_steps(base, conditions, chunks, moved=0.1, tolerance=0.05, key=KEY) == wanted
    assert fewest_steps(base, conditions, chunks, moved=0.1, tolerance=1e-9, key=KEY) is None
    assert np.isinf(float(tracking_error(1.2, 0.1)))


def test_the_moved_goal_moves_once_and_an_expert_reacts_at_once():
    env = PointNavigation()
    still, moved = (rollout(Scripted(env, pass_left), world, episodes=8, key=KEY) for world in (env, MovedGoal(env)))
    for i in range(8):
        goals = moved.episode(i).observation[:, 4:]
        places = np.flatnonzero(np.abs(np.diff(goals, axis=0)).max(-1) > 1e-6)
        assert len(places) == 1
        assert 7 <= places[0] <= 15
        np.testing.assert_array_equal(goals[0], still.episode(i).observation[0, 4:])
    assert reaction(still, moved, least=1e-3) < 3


def test_senseless_settings_are_refused():
    base = filled(Diffusion.create, SPEC, levels=4, sampler="ddpm")
    with pytest.raises(PolyactError, match="between 1 and the sampler's 4"):
        RealTimeIteration(base, 5)
    with pytest.raises(PolyactError, match="noise must lie"):
        RealTimeIteration(base, 2, noise=1.5)
