"""FedSARSA against a loop in NumPy, its limit cases, and the equation of its fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs import exact
from polyact.envs.families import family
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import garnet
from polyact.errors import PolyactError
from polyact.systems.society.fedsarsa import (
    FedSARSA,
    Run,
    federated_sarsa,
    fixed_point,
    linear_system,
    mean_world,
    pairs_of_states,
    relatives,
    softmax_of,
    weighted_average,
)

WORLD = garnet(6, 2, 4, 3)
FEATURES = pairs_of_states(6, 2)
KEYS = jax.random.split(jax.random.key(0), 3)
AGENTS = relatives(WORLD, 0.5, 3, 1)


def run(settings: FedSARSA, agents=AGENTS, keys=KEYS, steps: int = 30, features=FEATURES):
    return np.asarray(federated_sarsa(settings, agents, jnp.asarray(features, jnp.float32), keys, steps=steps).parameters)


def by_hand(settings: FedSARSA, worlds: list, keys, steps: int, averaged: bool) -> np.ndarray:
    """SARSA written out for every agent; with `averaged` from a common theta whose step is the mean of the agents' steps."""
    features, records = FEATURES, []

    def choose(theta, state, key):
        return int(jax.random.categorical(key, jnp.asarray(settings.sharpness * features[state] @ theta, jnp.float32)))

    theta, states, actions = [np.zeros(features.shape[2]) for _ in worlds], [], []
    for world, key in zip(worlds, keys, strict=True):
        where, how = jax.random.split(jax.random.fold_in(key, steps))
        states.append(world.reset(where)[0])
        actions.append(choose(theta[0], states[-1], how))
    for time in range(steps):
        new = []
        for i, (world, key) in enumerate(zip(worlds, keys, strict=True)):
            move, how = jax.random.split(jax.random.fold_in(key, time))
            after, step = world.step(states[i], actions[i], move)
            chosen = choose(theta[i], after, how)
            now, then = features[states[i], actions[i]], features[after, chosen]
            error = float(step.reward) + settings.discount * then @ theta[i] - now @ theta[i]
            new.append(theta[i] + settings.learning_rate * now * error)
            states[i], actions[i] = after, chosen
        theta = [np.mean(new, 0)] * len(worlds) if averaged else new
        records.append(np.stack(theta))
    return np.stack(records)


def test_one_agent_is_plain_sarsa():
    settings = FedSARSA(0.5, 0.1, period=10)
    one = family([WORLD])
    np.testing.assert_allclose(run(settings, one, KEYS[:1]), by_hand(settings, [WORLD], KEYS[:1], 30, False), atol=1e-5)


def test_a_period_of_one_is_batch_sarsa():
    settings = FedSARSA(0.5, 0.1, period=1)
    worlds = [AGENTS.member(i) for i in range(3)]
    np.testing.assert_allclose(run(settings, keys=KEYS), by_hand(settings, worlds, KEYS, 30, True), atol=1e-5)


def test_without_averaging_every_agent_is_on_its_own():
    settings = FedSARSA(0.5, 0.1, period=None)
    worlds = [AGENTS.member(i) for i in range(3)]
    np.testing.assert_allclose(run(settings), by_hand(settings, worlds, KEYS, 30, False), atol=1e-5)


def test_equal_agents_with_equal_keys_are_one_agent():
    settings = FedSARSA(0.5, 0.1, period=10)
    three = run(settings, family([WORLD] * 3), jnp.stack([KEYS[0]] * 3), 200)
    one = run(settings, family([WORLD]), KEYS[:1], 200)
    np.testing.assert_allclose(three, np.broadcast_to(one, three.shape), atol=1e-5)


def test_parameters_agree_after_every_period_and_only_then():
    found = run(FedSARSA(0.5, 0.1, period=10))
    spread = np.ptp(found, axis=1).max(1)
    np.testing.assert_array_equal(spread[9::10], 0)
    assert np.all(spread[8::10] > 0)


def test_the_fixed_point_solves_its_own_equation():
    theta = fixed_point(WORLD, FEATURES, 0.5, 1.0)
    matrix, target = linear_system(WORLD, FEATURES, softmax_of(theta, FEATURES, 1.0), 0.5)
    np.testing.assert_allclose(matrix @ theta, target, atol=1e-12)


def test_a_constant_policy_gives_federated_td():
    """Sharpness 0 is the uniform policy; with a feature for every pair the limit is its exact action values."""
    table, uniform = np.eye(12).reshape(6, 2, 12), np.full((6, 2), 0.5)
    theta = fixed_point(WORLD, table, 0.5, 0.0)
    values = exact.evaluate_policy(WORLD, uniform, 0.5)
    np.testing.assert_allclose(theta.reshape(6, 2), exact.action_values(WORLD, values, 0.5), atol=1e-10)
    keys = jax.random.split(jax.random.key(1), 40)
    learnt = run(FedSARSA(0.5, 0.05, sharpness=0.0), family([WORLD] * 40), keys, 4000, table)
    np.testing.assert_allclose(learnt[2000:].mean((0, 1)), theta, atol=0.03)


def test_the_average_stays_in_its_ball():
    found = run(FedSARSA(0.5, 0.5, period=10, radius=0.05))
    assert np.all(np.linalg.norm(found[9::10], axis=2) <= 0.05 + 1e-6)


def test_decaying_steps_and_their_output_by_hand():
    settings = FedSARSA(0.5, 0.4, decay=5.0, period=10)
    one = run(settings, family([WORLD]), KEYS[:1], 10)[:, 0]
    constant = run(FedSARSA(0.5, 0.4, period=10), family([WORLD]), KEYS[:1], 10)[:, 0]
    np.testing.assert_allclose(one[0], constant[0], atol=1e-6)
    moved, same = np.abs(one[1] - one[0]).max(), np.abs(constant[1] - constant[0]).max()
    assert moved == pytest.approx(same * 6 / 7, rel=1e-4)
    records = Run(jnp.arange(6.0).reshape(3, 2, 1), jnp.arange(1.0, 4.0))
    assert weighted_average(records, 1.0)[0] == pytest.approx((1 * 0.5 + 2 * 2.5 + 3 * 4.5) / 6)


def test_relatives_differ_by_what_is_asked():
    equal = relatives(WORLD, 0.0, 2, 0)
    np.testing.assert_allclose(equal.members.transition[1], WORLD.transition, atol=1e-6)
    ratio = np.asarray(relatives(WORLD, 0.1, 20, 0).members.reward) / np.asarray(WORLD.reward)
    assert 0.9 <= ratio.min() < 0.93 < 1.07 < ratio.max() <= 1.1 + 1e-6
    np.testing.assert_allclose(mean_world(equal).reward, WORLD.reward, atol=1e-6)


def test_what_does_not_fit_is_refused():
    ending = Tabular(WORLD.transition, WORLD.reward, np.eye(6)[0], np.eye(6)[1] > 0)
    with pytest.raises(PolyactError, match="terminal states are not allowed"):
        run(FedSARSA(), family([ending] * 3))
    with pytest.raises(PolyactError, match="as many keys"):
        run(FedSARSA(), keys=KEYS[:2])
    with pytest.raises(PolyactError, match="radius"):
        FedSARSA(period=None, radius=1.0)
