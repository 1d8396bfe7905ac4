"""Changed physics by name: exact values, ranges, and errors that name what was meant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact.envs.disturbances import ActionNoise, ObservationNoise
from polyact.envs.families import grid, parameters, perturb, randomise
from polyact.envs.pendulum import Pendulum
from polyact.envs.vector import reset_many, step_many
from polyact.errors import PolyactError

KEY = jax.random.key(3)


def test_perturb_changes_the_named_parameters_only():
    env = perturb(Pendulum(), mass=2.0, gravity=5)
    assert (float(env.mass), float(env.gravity), float(env.length)) == (2.0, 5.0, 1.0)
    assert float(perturb(Pendulum(), {"mass": 3.0}).mass) == 3.0
    state, _ = Pendulum().reset(KEY)
    _, changed = env.step(state, jnp.ones(1), KEY)
    _, made = Pendulum(mass=2.0, gravity=5.0).step(state, jnp.ones(1), KEY)
    np.testing.assert_array_equal(changed.observation, made.observation)


def test_names_reach_through_wrappers_and_the_outer_layer_wins():
    env = ObservationNoise(ActionNoise(Pendulum(), 0.1), 0.2)
    assert {"scale", "env.scale", "mass", "gravity"} <= parameters(env).keys()
    changed = perturb(env, {"scale": 0.5, "env.scale": 0.7, "mass": 4.0})
    assert (float(changed.scale), float(changed.env.scale), float(changed.env.env.mass)) == (0.5, pytest.approx(0.7), 4.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gravty": 1.0}, "unknown parameter of Pendulum 'gravty'; did you mean 'gravity'"),
        ({"horizon": 5}, "'horizon' of Pendulum is fixed when it is made"),
        ({"mass": [1.0, 2.0]}, r"parameter 'mass' has shape \(\), got a value of shape \(2,\)"),
        ({"mass": float("nan")}, "parameter 'mass' must be finite"),
    ],
)
def test_perturb_errors(changes: dict, message: str):
    with pytest.raises(PolyactError, match=message) as caught:
        perturb(Pendulum(), changes)
    assert "\n" not in str(caught.value)


def test_perturbed_worlds_share_one_program():
    traces = []

    @eqx.filter_jit
    def reward(env, key):
        traces.append(1)
        return env.step(env.reset(key)[0], jnp.ones(1), key)[1].reward

    values = {float(reward(perturb(Pendulum(), mass=mass), KEY)) for mass in (0.5, 1.0, 2.0)}
    assert len(traces) == 1
    assert len(values) == 1  # the cost is that of the state before the step, so the mass is not in it yet


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 5), st.floats(0.0, 5), st.integers(1, 6))
def test_randomise_stays_in_its_ranges(low: float, spread: float, count: int):
    worlds = randomise(Pendulum(), {"mass": (low, low + spread), "gravity": lambda key: 9.0}, KEY, count)
    mass = np.asarray(worlds.members.mass)
    assert mass.shape == (count,)
    assert np.all(mass >= np.float32(low))
    assert np.all(mass <= np.float32(low + spread))
    np.testing.assert_array_equal(worlds.members.gravity, np.full(count, 9.0))
    np.testing.assert_array_equal(worlds.members.length, np.ones(count))


def test_a_random_family_runs_each_member_as_it_would_run_alone():
    worlds = randomise(Pendulum(), {"mass": (0.5, 2.0), "length": (0.5, 2.0)}, KEY, 4)
    keys = jax.random.split(KEY, 4)
    vector, _ = jax.jit(step_many)(worlds, reset_many(worlds, keys), jnp.ones((4, 1)), keys)
    for index in range(4):
        env = worlds.member(index)
        _, alone = env.step(env.reset(keys[index])[0], jnp.ones(1), keys[index])
        np.testing.assert_allclose(vector.observation[index], alone.observation, rtol=1e-5)


def test_randomise_errors():
    with pytest.raises(PolyactError, match="low is above high"):
        randomise(Pendulum(), {"mass": (2.0, 1.0)}, KEY, 3)
    with pytest.raises(PolyactError, match="did you mean 'mass'"):
        randomise(Pendulum(), {"mas": (1.0, 2.0)}, KEY, 3)
    with pytest.raises(PolyactError, match=r"parameter 'mass' has shape \(\), got a value of shape \(2,\)"):
        randomise(Pendulum(), {"mass": lambda key: jnp.ones(2)}, KEY, 3)


def test_grid_is_the_full_product_in_order():
    worlds = grid(Pendulum(), {"mass": [1.0, 2.0], "gravity": [8.0, 9.0, 10.0]})
    np.testing.assert_array_equal(worlds.members.mass, [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(worlds.members.gravity, [8, 9, 10, 8, 9, 10])
    with pytest.raises(PolyactError, match="no values for 'mass'"):
        grid(Pendulum(), {"mass": []})
