"""Tabular worlds: tables that are checked, steps that follow them, builders with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact import spaces
from polyact.envs.families import family
from polyact.envs.render import map_svg, render_rgb, render_svg
from polyact.envs.tabular import Layout, Tabular
from polyact.envs.tabular_builders import (
    chain,
    combination_lock,
    four_rooms,
    garnet,
    grid_world,
    inventory,
    machine_replacement,
    windy_grid,
)
from polyact.envs.vector import reset_many, step_many
from polyact.errors import PolyactError

BUILDERS = (chain, four_rooms, windy_grid, combination_lock, inventory, machine_replacement, garnet)
many_steps = jax.jit(step_many)


def tables(states: int, actions: int, seed: int) -> dict[str, np.ndarray]:
    """Random, valid arguments of a Tabular; the last state is terminal."""
    generator = np.random.default_rng(seed)
    initial = np.append(generator.dirichlet(np.ones(states - 1)), 0.0)
    return {
        "transition": generator.dirichlet(np.ones(states), (states, actions)),
        "reward": generator.standard_normal((states, actions, states)),
        "initial": initial,
        "terminal": np.arange(states) == states - 1,
    }


def with_entry(table: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = table.copy()
    changed[place] = value
    return changed


def test_steps_follow_the_tables():
    arguments = tables(4, 2, 0)
    env, count = Tabular(**arguments), 20_000
    keys = jax.random.split(jax.random.key(1), count)
    vector = reset_many(env, keys)
    np.testing.assert_allclose(np.bincount(vector.state, minlength=4) / count, arguments["initial"], atol=0.015)
    vector = type(vector)(jnp.full(count, 1), vector.observation, vector.elapsed)
    _, step = many_steps(env, vector, jnp.ones(count, jnp.int32), keys)
    np.testing.assert_allclose(np.bincount(step.observation, minlength=4) / count, arguments["transition"][1, 1], atol=0.015)
    np.testing.assert_allclose(step.reward, arguments["reward"][1, 1][step.observation], rtol=1e-6)
    np.testing.assert_array_equal(step.terminated, np.asarray(step.observation) == 3)
    assert spaces.contains(env.observation_space, step.observation[0])


def test_what_has_probability_zero_never_happens():
    row = np.array([0, 0.5, 0, 0.5, 0])
    env = Tabular(np.broadcast_to(row, (5, 1, 5)), np.zeros((5, 1)), row, np.zeros(5, bool))
    keys = jax.random.split(jax.random.key(0), 50_000)
    assert set(np.unique(reset_many(env, keys).state)) == {1, 3}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_valid_tables_make_a_world(states: int, actions: int, seed: int, by_next_state: bool):
    arguments = tables(states, actions, seed)
    if not by_next_state:
        arguments["reward"] = arguments["reward"][:, :, 0]
    env = Tabular(**arguments)
    assert (env.states, env.actions) == (states, actions)
    assert env.observation_space == spaces.Discrete(states)
    assert env.action_space == spaces.Discrete(actions)


GOOD = tables(3, 2, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": with_entry(GOOD["transition"], (2, 1, 0), 0.9)}, "transition of state 2, action 1 must be probabilities"),
        (
            {"transition": with_entry(GOOD["transition"], (0, 1, 0), np.nan)},
            "transition of state 0, action 1 must be probabilities",
        ),
        ({"transition": np.eye(3)}, r"transition has shape \(3, 3\), expected \[states, actions, states\]"),
        ({"reward": np.zeros((2, 3))}, r"reward has shape \(2, 3\), expected \(3, 2\) or \(3, 2, 3\)"),
        ({"reward": with_entry(GOOD["reward"], (1, 0, 2), np.inf)}, r"reward of \(state, action, ...\) \(1, 0, 2\) is not finite"),
        ({"initial": np.array([0.5, 0.4, 0.0])}, "initial must be probabilities that sum to 1, got sum 0.9"),
        ({"initial": np.array([1.5, -0.5, 0.0])}, "initial must be probabilities that sum to 1, got sum 1 and smallest -0.5"),
        ({"initial": np.ones(2) / 2}, r"initial has shape \(2,\), expected \(3,\)"),
        ({"initial": np.array([0.0, 0.5, 0.5])}, "initial starts in state 2, which is terminal"),
        ({"terminal": np.zeros(4, bool)}, r"terminal has shape \(4,\), expected \(3,\)"),
        ({"layout": Layout(((0.0, 0.0),))}, "layout has places for 1 states, expected 3"),
    ],
)
def test_wrong_tables_are_named(change: dict, message: str):
    with pytest.raises(PolyactError, match=message):
        Tabular(**(GOOD | change))


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_every_builder_makes_a_world_that_runs_and_can_be_drawn(builder):
    env = builder()
    keys = jax.random.split(jax.random.key(0), 8)
    vector, step = many_steps(env, reset_many(env, keys), jnp.zeros(8, jnp.int32), keys)
    assert np.all(np.isfinite(step.reward))
    picture = render_rgb(env, vector.state[0], 64)
    assert picture.shape[1:] == (64, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5
    assert render_svg(env, vector.state[0]).count("<polygon") >= env.states
    assert "polyline" in map_svg(env, [env.position(np.asarray(vector.observation))])


def test_a_picture_shows_where_the_state_is():
    env = chain(length=3)
    columns = []
    for state in range(3):
        picture = render_rgb(env, jnp.asarray(state), 300).astype(int)
        blue = (picture[:, :, 2] - picture[:, :, 0]) > 100
        columns.append(np.argwhere(blue)[:, 1].mean())
    assert columns == pytest.approx([75, 150, 225], abs=2)


def test_a_grid_world_moves_on_its_map():
    env = grid_world("#####\n#S.G#\n#.#.#\n#####", moves=4)
    # Cells by row: 0 1 2 on top, 3 4 below; actions up, down, left, right.
    reached = np.asarray(env.transition).argmax(-1)
    np.testing.assert_array_equal(reached, [[0, 3, 0, 1], [1, 1, 0, 2], [2, 4, 1, 2], [0, 3, 3, 3], [2, 4, 4, 4]])
    np.testing.assert_array_equal(env.initial, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(env.terminal, [False, False, True, False, False])
    np.testing.assert_array_equal(env.reward[1, 3], [0, 0, 1, 0, 0])
    assert env.layout is not None
    assert env.layout.places[3] == (1.0, -2.0)
    slippery = grid_world("#####\n#S.G#\n#.#.#\n#####", slip=0.3)
    np.testing.assert_allclose(slippery.transition[1, 3], [0.1, 0.2, 0.7, 0, 0], rtol=1e-6)


def test_four_rooms_is_the_published_one():
    env = four_rooms()
    assert env.states == 104
    np.testing.assert_allclose(np.asarray(env.transition).max(-1).min(), 1 / 3 + 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(env.initial)[~np.asarray(env.terminal)], 1 / 103, rtol=1e-6)


def test_wind_carries_upwards_and_gusts():
    env = windy_grid(gust=1 / 3)
    start = 3 * 10 + 6  # row 3, column 6, wind 2
    right = np.asarray(env.transition[start, 3]).reshape(7, 10)
    assert {(r, c): round(float(right[r, c]), 3) for r, c in np.argwhere(right)} == {(1, 7): 0.333, (0, 7): 0.333, (2, 7): 0.333}
    calm = np.asarray(env.transition[3 * 10, 3]).reshape(7, 10)
    assert calm[3, 1] == 1


def test_inventory_sells_what_is_there():
    env = inventory(capacity=4, demand=1.5, price=5.0, unit_cost=1.0, order_cost=2.0, holding_cost=0.5)
    # One item in stock, two ordered, one left: two sold for 10, minus 2 + 2 * 1 + 0.5 * 3.
    assert float(env.reward[1, 2, 1]) == pytest.approx(10 - 2 - 2 - 1.5)
    assert float(env.transition[1, 2, 1]) == pytest.approx(np.exp(-1.5) * 1.5**2 / 2)
    assert float(env.transition[1, 2, 0]) == pytest.approx(1 - np.exp(-1.5) * (1 + 1.5 + 1.5**2 / 2), rel=1e-5)
    np.testing.assert_allclose(env.transition[3, 4], env.transition[3, 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 99), st.data())
def test_garnet_has_the_stated_branching(states: int, actions: int, seed: int, data):
    branching = data.draw(st.integers(1, states))
    env = garnet(states, actions, branching, seed)
    assert np.all((np.asarray(env.transition) > 0).sum(-1) == branching)
    np.testing.assert_array_equal(env.transition, garnet(states, actions, branching, seed).transition)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(length=1), "length must be at least 2, got 1"),
        (lambda: chain(slip=1.5), r"slip must lie in \[0, 1\], got 1.5"),
        (lambda: windy_grid(moves=5), "moves must be 4, 8"),
        (lambda: windy_grid(gust=0.7), r"gust must lie in \[0, 0.5\]"),
        (lambda: garnet(5, 2, 6), "branching must lie between 1 and the number of states, 5, got 6"),
        (lambda: grid_world("###\n#S#\n###"), "a grid world needs a goal"),
        (lambda: grid_world("####\n#S#\n###"), "line 2 of the maze has 3 characters"),
        (lambda: inventory(demand=0.0), "demand must be positive"),
        (lambda: combination_lock(0), "length must be at least 1"),
    ],
)
def test_builders_refuse_what_makes_no_sense(make, message: str):
    with pytest.raises(PolyactError, match=message):
        make()


def test_a_family_of_tables_steps_side_by_side():
    worlds = family([chain(slip=slip) for slip in (0.0, 1.0)])
    assert worlds.observation_space == spaces.Discrete(5)
    assert worlds.action_space == spaces.Discrete(2)
    keys = jax.random.split(jax.random.key(0), 2)
    _, step = many_steps(worlds, reset_many(worlds, keys), jnp.zeros(2, jnp.int32), keys)
    np.testing.assert_array_equal(step.observation, [1, 0])
    np.testing.assert_array_equal(step.reward, [0, 2])
