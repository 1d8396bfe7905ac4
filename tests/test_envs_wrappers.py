"""Wrappers against sequences worked out by hand, on a world whose every step can be added up on paper."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Env, Step
from polyact.envs.disturbances import (
    ActionNoise,
    ExternalForce,
    GradientAttack,
    ObservationAttack,
    ObservationNoise,
    RandomAction,
    RewardNoise,
    StatePush,
    StrongestOf,
    random_attack,
)
from polyact.envs.families import family
from polyact.envs.pendulum import Pendulum
from polyact.envs.vector import reset_many, step_many
from polyact.envs.wrappers import ActionDelay, CostChannel, TimeLimit, idle_action, unwrapped
from polyact.errors import PolyactError
from polyact.spaces import Box, Discrete, Space

KEY = jax.random.key(0)


class Track(Env):
    """position' = position + gain * action; the reward is the new position. Starts at a random place in [0, 1)^2."""

    gain: float = 1.0
    floor: float = eqx.field(static=True, default=-1.0)
    horizon: int = eqx.field(static=True, default=50)

    @property
    def observation_space(self) -> Space:
        return Box(-100, 100, (2,))

    @property
    def action_space(self) -> Space:
        return Box(self.floor, 1, (2,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        position = jax.random.uniform(key, (2,))
        return position, position

    def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
        position = state + self.gain * action
        no = jnp.asarray(False)
        return position, Step(position, position.sum(), no, no, {})


def run(env: Env, actions: Array, key: Array = KEY) -> tuple[Array, Array, Step]:
    """First observation, states and steps along a sequence of actions."""

    @jax.jit
    def go(env: Env, key: Array) -> tuple[Array, Array, Step]:
        def advance(state, inputs):
            state, step = env.step(state, *inputs)
            return state, (state, step)

        state, first = env.reset(key)
        _, (states, steps) = jax.lax.scan(advance, state, (actions, jax.random.split(key, len(actions))))
        return first, states, steps

    return go(env, key)


ACTIONS = jax.random.uniform(jax.random.key(7), (40, 2), minval=-1)
PLAIN_FIRST, PLAIN_STATES, PLAIN = run(Track(), ACTIONS)


def test_time_limit_changes_the_horizon_and_nothing_else():
    env = TimeLimit(Track(), 3)
    vector, advance = reset_many(env, jax.random.split(KEY, 2)), jax.jit(step_many)
    ends = []
    for time in range(6):
        vector, step = advance(env, vector, jnp.ones((2, 2)), jax.random.split(jax.random.key(time), 2))
        ends.append(bool(step.truncated[0]))
    assert ends == [False, False, True, False, False, True]
    _, states, _ = run(env, ACTIONS)
    np.testing.assert_array_equal(states, PLAIN_STATES)
    with pytest.raises(PolyactError, match="at least one step, got 0"):
        TimeLimit(Track(), 0)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_delay_of_k_plays_the_actions_k_steps_later(steps: int):
    shifted = jnp.concatenate([jnp.zeros((steps, 2)), ACTIONS[: len(ACTIONS) - steps]])
    _, expected, _ = run(Track(), shifted)
    _, states, delayed = run(ActionDelay(Track(), steps), ACTIONS)
    np.testing.assert_array_equal(states.inner, expected)
    np.testing.assert_array_equal(delayed.observation, expected)


def test_a_delay_is_idle_inside_the_action_space():
    _, _, delayed = run(ActionDelay(Track(floor=0.25), 2), ACTIONS)
    np.testing.assert_allclose(delayed.observation[1] - PLAIN_FIRST, [0.5, 0.5], rtol=1e-6)
    assert idle_action(Discrete(3, 2)) == 2
    assert idle_action(Discrete(3, -1)) == 0
    assert idle_action(spaces.Dict({"a": Box(-1, 1, (1,)), "b": spaces.Tuple((Discrete(2),))})) == {"a": 0.0, "b": (0,)}
    with pytest.raises(PolyactError, match="no action that stands for doing nothing"):
        idle_action(spaces.Text(3))
    with pytest.raises(PolyactError, match="2 steps before"):
        ActionDelay(Track(), -2)


def test_cost_sees_state_action_and_next_state():
    env = CostChannel(Track(), lambda state, action, new: jnp.sum(new - state) * 10 + action[0])
    _, _, steps = run(env, ACTIONS)
    np.testing.assert_allclose(steps.info["cost"], 10 * ACTIONS.sum(1) + ACTIONS[:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(steps.reward, PLAIN.reward)


@pytest.mark.parametrize(
    "harmless",
    [
        ObservationNoise(Track(), 0.0),
        ObservationAttack(Track(), random_attack, 0.0),
        ActionNoise(Track(), 0.0),
        RandomAction(Track(), 0.0),
        RewardNoise(Track(), 0.0),
        StatePush(Track(), lambda state, key: state + 5, 0.0),
        ExternalForce(Track(), 1.0, 0.0),
        ActionDelay(Track(), 0),
    ],
    ids=lambda env: type(env).__name__,
)
def test_a_disturbance_of_size_zero_is_the_plain_world(harmless: Env):
    first, _, steps = run(harmless, ACTIONS)
    np.testing.assert_array_equal(first, PLAIN_FIRST)
    np.testing.assert_array_equal(steps.observation, PLAIN.observation)
    np.testing.assert_array_equal(steps.reward, PLAIN.reward)
    assert harmless.horizon == 50
    assert harmless.action_space == Track().action_space


def test_noise_has_the_stated_spread_and_leaves_the_state_alone():
    actions = jnp.zeros((4000, 2))
    first, states, steps = run(ObservationNoise(Track(), jnp.array([0.5, 2.0])), actions)
    noise = steps.observation - states
    np.testing.assert_allclose(noise.std(0), [0.5, 2.0], rtol=0.06)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.1)
    assert not np.allclose(first, PLAIN_FIRST)
    np.testing.assert_array_equal(states[-1], PLAIN_FIRST)
    _, _, steps = run(RewardNoise(Track(), 0.5), actions)
    np.testing.assert_allclose(steps.reward.std(), 0.5, rtol=0.06)
    assert ObservationNoise(Track(), 1.0).observation_space == Box(-np.inf, np.inf, (2,))


def test_action_noise_stays_in_the_action_space():
    _, states, _ = run(ActionNoise(Track(), 0.2), jnp.zeros((4000, 2)))
    moves = np.diff(states, axis=0)
    np.testing.assert_allclose(moves.std(0), 0.2, rtol=0.06)
    _, states, _ = run(ActionNoise(Track(), 50.0), jnp.zeros((400, 2)))
    sizes = np.abs(np.diff(states, axis=0))
    assert sizes.max() < 1.0001
    assert np.mean(sizes > 0.999) > 0.9


def test_random_action_replaces_whole_actions():
    _, states, _ = run(RandomAction(Track(gain=0.01), 0.3), jnp.ones((4000, 2)))
    replaced = np.any(np.abs(np.diff(states, axis=0) - 0.01) > 1e-5, axis=1)
    assert 0.27 < replaced.mean() < 0.33


def test_layers_of_noise_draw_independently():
    once, twice = (run(env, jnp.zeros((4000, 2)))[2].reward for env in _noise_once_and_twice())
    first = once - PLAIN_FIRST.sum()
    second = twice - once
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06
    np.testing.assert_allclose(second.std(), 1, rtol=0.06)


def _noise_once_and_twice() -> tuple[Env, Env]:
    return RewardNoise(Track(), 1.0), RewardNoise(RewardNoise(Track(), 1.0), 1.0)


def test_a_state_push_happens_before_the_step():
    _, _, steps = run(StatePush(Track(), lambda state, key: state + 5, 1.0), ACTIONS)
    np.testing.assert_allclose(steps.observation - PLAIN.observation, 5 * np.arange(1, 41)[:, None] * [1, 1], rtol=1e-5)


def test_an_external_force_keeps_size_and_direction_while_it_lasts():
    _, states, steps = run(ExternalForce(Track(), magnitude=3.0, probability=0.1, duration=4), jnp.zeros((600, 2)))
    force = np.asarray(steps.info["force"])
    np.testing.assert_allclose(np.diff(states.inner, axis=0), force[1:], atol=1e-3)
    size = np.linalg.norm(force, axis=1)
    assert np.all(np.isclose(size, 0) | np.isclose(size, 3, rtol=1e-5))
    pushed = size > 1
    begins = pushed & ~np.concatenate([[False], np.all(force[1:] == force[:-1], axis=1)])
    assert pushed[:-4].sum() == pytest.approx(4 * begins[:-4].sum(), abs=4)
    free = ~pushed
    assert 0.05 < begins.sum() / (free.sum() + begins.sum()) < 0.16


def test_attacks_stay_in_their_box_and_reach_the_worst_corner():
    radius = jnp.array([0.1, 0.3])

    def loss(true: Array, seen: Array) -> Array:
        return (seen - true) @ jnp.array([2.0, -1.0])

    for attack in (GradientAttack(loss), GradientAttack(loss, steps=10), StrongestOf(loss, 32)):
        first, _, steps = run(ObservationAttack(Track(), attack, radius), ACTIONS)
        np.testing.assert_allclose(first - PLAIN_FIRST, [0.1, -0.3], rtol=1e-4)
        np.testing.assert_allclose(steps.observation - PLAIN.observation, [[0.1, -0.3]] * 40, atol=1e-5)
        np.testing.assert_array_equal(steps.reward, PLAIN.reward)
    _, _, steps = run(ObservationAttack(Track(), random_attack, radius), ACTIONS)
    shift = steps.observation - PLAIN.observation
    np.testing.assert_allclose(np.abs(shift), [[0.1, 0.3]] * 40, atol=1e-5)
    assert len({tuple(np.sign(row)) for row in np.asarray(shift)}) == 4
    _, _, steps = run(ObservationAttack(Track(), lambda observation, radius, key: jnp.full(2, 9.0), radius), ACTIONS)
    np.testing.assert_allclose(steps.observation - PLAIN.observation, [[0.1, 0.3]] * 40, atol=1e-5)


def test_a_loss_that_is_flat_at_the_truth_needs_more_steps():
    attack = GradientAttack(lambda true, seen: jnp.sum((seen - true) ** 2), steps=10)
    shift = attack(jnp.zeros(2), jnp.asarray(0.5), KEY)
    np.testing.assert_allclose(np.abs(shift), 0.5, rtol=1e-6)
    flat = GradientAttack(lambda true, seen: jnp.sum((seen - true) ** 2))
    np.testing.assert_array_equal(flat(jnp.zeros(2), jnp.asarray(0.5), KEY), [0, 0])


def test_wrappers_pass_through_families_and_share_one_program():
    traces = []

    @jax.jit
    def total(env, key):
        traces.append(1)
        vector = reset_many(env, jax.random.split(key, 3))
        return step_many(env, vector, jnp.ones((3, 2)), jax.random.split(key, 3))[1].reward

    worlds = [ObservationNoise(ActionDelay(Track(gain=gain), 0), scale=0.1) for gain in (1.0, 2.0, 3.0)]
    rewards = total(family(worlds), KEY)
    starts = [float(Track().reset(key)[0].sum()) for key in jax.random.split(KEY, 3)]
    np.testing.assert_allclose(rewards, [start + 2 * gain for start, gain in zip(starts, (1, 2, 3), strict=True)], rtol=1e-5)
    for scale in (0.1, 0.2):
        total(ObservationNoise(Track(), scale), KEY)
    assert len(traces) == 2


def test_unwrapped_finds_the_innermost_world_and_its_state():
    env = ExternalForce(ActionDelay(TimeLimit(Track(gain=2.0), 9), 2), 1.0, 0.5)
    state, _ = env.reset(KEY)
    inner, inner_state = unwrapped(env, state)
    assert isinstance(inner, Track)
    np.testing.assert_array_equal(inner_state, PLAIN_FIRST)
    assert env.horizon == 9


def test_wrappers_that_do_not_fit_say_so():
    class Coin(Env):
        horizon: int = eqx.field(static=True, default=5)

        @property
        def observation_space(self) -> Space:
            return Discrete(2)

        @property
        def action_space(self) -> Space:
            return Discrete(2)

        def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
            return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

        def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
            no = jnp.asarray(False)
            return action, Step(action, action.astype(jnp.float32), no, no, {})

    for make, name in (
        (lambda: ObservationNoise(Coin(), 0.1), "ObservationNoise"),
        (lambda: ObservationAttack(Coin(), random_attack, 0.1), "ObservationAttack"),
        (lambda: ActionNoise(Coin(), 0.1), "ActionNoise"),
        (lambda: ExternalForce(Coin(), 0.1, 0.1), "ExternalForce"),
    ):
        with pytest.raises(PolyactError, match=f"{name} needs a Box of floats, got Discrete"):
            make()
    _, _, steps = run(RandomAction(ActionDelay(Coin(), 1), 0.5), jnp.ones(400, jnp.int32))
    assert 0.15 < 1 - float(steps.observation[1:].mean()) < 0.35


@pytest.mark.parametrize("size", [-0.1, float("nan"), float("inf")])
def test_sizes_of_disturbances_are_checked(size: float):
    with pytest.raises(PolyactError, match="finite and not negative"):
        ObservationNoise(Track(), size)


def test_gradients_flow_through_a_wrapped_world():
    def total(env: Env) -> Array:
        return run(env, ACTIONS[:5, :1])[2].reward.sum()

    gradient = jax.grad(total)(ActionDelay(Pendulum(mass=1.2), 1))
    assert np.isfinite(gradient.env.mass)
    assert gradient.env.mass != 0


@pytest.mark.parametrize("world", [lambda p: RandomAction(Pendulum(), p), lambda p: ExternalForce(Pendulum(), 1.0, p)])
def test_a_probability_above_one_is_refused(world):
    world(1.0)
    with pytest.raises(PolyactError, match=r"between 0 and 1, got 1\.5"):
        world(1.5)
