"""DvD: the world it is tried in, the bandit, and limits of its ascent direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.walled_plane import WalledPlane, ring_of_goals
from polyact.errors import PolyactError
from polyact.learning.evolution import antithetic, slope, standardised
from polyact.nets.mlp import Network
from polyact.systems.online.dvd import Actors, Bandit, DvD, ascent, evolve

KEY = jax.random.key(0)
WORLD = WalledPlane(horizon=8)
SMALL = DvD(members=3, pairs=4, states=5, network=Network(width=4, activation="tanh"))


def walk(env: WalledPlane, place: list[float], action: list[float], steps: int = 1) -> np.ndarray:
    state = jnp.asarray(place)
    for _ in range(steps):
        state, _ = env.step(state, jnp.asarray(action), KEY)
    return np.asarray(state)


def test_walls_stop_what_goes_into_them_and_let_slide_along():
    np.testing.assert_allclose(walk(WORLD, [0.0, 0.08], [0.0, 1.0]), [0.0, 0.08])
    np.testing.assert_allclose(walk(WORLD, [0.0, 0.08], [1.0, 1.0]), [0.06, 0.08], atol=1e-6)
    np.testing.assert_allclose(walk(WORLD, [0.6, 0.08], [0.0, 1.0]), [0.6, 0.14], atol=1e-6)
    np.testing.assert_allclose(walk(WORLD, [0.98, 0.9], [1.0, 0.5]), [0.98, 0.93], atol=1e-6)


def test_the_straight_way_is_a_trap_and_the_way_around_is_worth_it():
    env = WalledPlane()
    straight = walk(env, [0.0, -0.4], [0.0, 1.0], 50)
    assert straight[1] < 0.1
    around = walk(env, walk(env, walk(env, [0.0, -0.4], [1.0, 0.0], 9).tolist(), [0.0, 1.0], 17).tolist(), [-1.0, 0.0], 9)
    assert np.linalg.norm(around - np.asarray([0.0, 0.6])) < 0.1
    _, step = env.step(jnp.asarray(around), jnp.zeros(2), KEY)
    assert bool(step.info["goal"][0])


def test_goals_on_a_ring_are_worth_the_same():
    env = ring_of_goals(4)
    _, step = env.step(jnp.zeros(2), jnp.zeros(2), KEY)
    assert float(step.reward) == pytest.approx(-0.9, rel=1e-3)
    assert step.info["goal"].shape == (4,)


def test_the_bandit_comes_to_prefer_what_succeeds_and_forgets():
    bandit = Bandit.new()
    first = [int(bandit.choose(jax.random.key(i))) for i in range(40)]
    assert 10 < sum(first) < 30
    for _ in range(20):
        bandit = bandit.after(jnp.asarray(1), jnp.asarray(1.0)).after(jnp.asarray(0), jnp.asarray(0.0))
    assert sum(int(bandit.choose(jax.random.key(i))) for i in range(40)) >= 39
    for _ in range(25):
        bandit = bandit.after(jnp.asarray(0), jnp.asarray(1.0)).after(jnp.asarray(1), jnp.asarray(0.0))
    assert sum(int(bandit.choose(jax.random.key(i))) for i in range(40)) <= 1


def test_without_weight_it_is_evolution_strategies_of_each_member():
    actors = Actors(WORLD, SMALL.network)
    population = actors.new(3, KEY)
    noise = jax.random.normal(KEY, (4, *population.shape))
    found = ascent(SMALL, actors, population, noise, jnp.zeros((5, 2)), jnp.zeros(()), KEY)
    for i in range(3):
        totals = jax.vmap(jax.vmap(lambda flat: actors.play(flat, KEY).total))(antithetic(noise[:, i], population[i], 0.1))
        alone = slope(noise[:, i], standardised(totals), 0.1)
        np.testing.assert_allclose(found[i], alone / jnp.linalg.norm(alone), atol=1e-4)


def test_with_all_the_weight_on_it_the_volume_grows():
    settings = DvD((1.0, 1.0), members=3, pairs=20, states=5, network=Network(width=4, activation="tanh"))
    actors = Actors(WORLD, settings.network)
    states = jax.random.uniform(KEY, (5, 2), minval=-1, maxval=1)
    population = actors.new(3, KEY)
    noise = jax.random.normal(KEY, (20, *population.shape))
    direction = ascent(settings, actors, population, noise, states, jnp.ones(()), KEY)
    volumes = [float(settings.measure(actors.embed(population + step * direction, states))) for step in (0.0, 0.3)]
    assert volumes[1] > volumes[0]


def test_a_run_records_every_iteration():
    found = evolve(SMALL, WORLD, KEY, iterations=4)
    assert found.best.shape == found.weight.shape == (4,)
    assert found.embeddings.shape == (3, 10)
    assert set(np.asarray(found.weight).tolist()) <= {0.0, 0.5}
    again = evolve(SMALL, WORLD, KEY, iterations=4)
    np.testing.assert_array_equal(found.population, again.population)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(PolyactError, match="two members"):
        DvD(members=1)
