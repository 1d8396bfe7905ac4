"""Our worlds as gymnasium's: its own checker, its own Pendulum, its own vector environments."""

import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from jaxtyping import Array, PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Env, Step
from polyact.envs.disturbances import ObservationNoise, RewardNoise
from polyact.envs.gymnasium_view import as_gymnasium
from polyact.envs.pendulum import Pendulum
from polyact.envs.tabular_builders import four_rooms, windy_grid
from polyact.envs.wrappers import ActionDelay, CostChannel, TimeLimit
from polyact.errors import PolyactError
from polyact.spaces import Box, Discrete, Space


class Structured(Env):
    """Spaces with parts: counts the ones it is given, sees a vector and a number."""

    horizon: int = 5

    @property
    def observation_space(self) -> Space:
        return spaces.Dict({"vector": Box(-np.inf, np.inf, (2,)), "pair": spaces.Tuple((Discrete(100), spaces.MultiBinary(2)))})

    @property
    def action_space(self) -> Space:
        return spaces.Dict({"flags": spaces.MultiDiscrete((2, 3)), "push": Box(-1, 1, (2,))})

    def reset(self, key: PRNGKeyArray) -> tuple[Array, dict]:
        state = jnp.zeros((), jnp.int32)
        return state, self._see(state, jnp.zeros(2))

    def step(self, state: Array, action: dict, key: PRNGKeyArray) -> tuple[Array, Step]:
        new = state + action["flags"].sum()
        no = jnp.asarray(False)
        return new, Step(self._see(new, action["push"]), action["push"].sum(), no, no, {"total": new})

    def _see(self, state: Array, push: Array) -> dict:
        return {"vector": push, "pair": (jnp.minimum(state, 99), jnp.stack([state % 2, state % 3 > 0]).astype(jnp.int8))}


@pytest.mark.parametrize(
    "env",
    [
        Pendulum(),
        four_rooms(),
        CostChannel(ActionDelay(ObservationNoise(Pendulum(), 0.1), 2), lambda state, action, new: jnp.sum(action**2)),
        Structured(),
    ],
    ids=["pendulum", "four rooms", "wrapped pendulum", "structured"],
)
def test_gymnasium_accepts_our_worlds(env: Env):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about spaces, not errors
        check_env(as_gymnasium(env, None if isinstance(env, Structured) else "rgb_array"))


def test_pendulum_is_gymnasiums_pendulum():
    ours, theirs = as_gymnasium(Pendulum()), gymnasium.make("Pendulum-v1")
    ours.reset(seed=0)
    theirs.reset(seed=0)
    theirs.unwrapped.state = np.array([float(ours.state.angle), float(ours.state.velocity)])
    generator = np.random.default_rng(0)
    for time in range(200):
        action = generator.uniform(-3, 3, 1).astype(np.float32)  # beyond the limits too: both clip
        mine, other = ours.step(action), theirs.step(action)
        np.testing.assert_allclose(mine[0], other[0], atol=1e-4, rtol=1e-4)
        assert mine[1] == pytest.approx(other[1], abs=1e-3)
        assert mine[2:4] == other[2:4] == (False, time == 199)


def test_seeds_fix_everything_and_no_seed_goes_on_from_the_last():
    env = as_gymnasium(RewardNoise(Pendulum(), 1.0))

    def rewards(seed: int | None) -> list[float]:
        env.reset(seed=seed)
        return [env.step(np.zeros(1, np.float32))[1] for _ in range(5)]

    first, second = rewards(3), rewards(None)
    assert rewards(3) == first
    assert rewards(None) == second
    assert first != second
    assert rewards(4) != first
    assert len(set(first)) == 5


def test_the_state_can_be_read_and_set():
    env = as_gymnasium(Pendulum())
    with pytest.raises(PolyactError, match="no state before the first reset"):
        _ = env.state
    env.reset(seed=1)
    kept = env.state
    one = env.step(np.ones(1, np.float32))[0]
    env.state = kept
    np.testing.assert_array_equal(env.step(np.ones(1, np.float32))[0], one)
    with pytest.raises(PolyactError, match="a state of Pendulum has the structure"):
        env.state = np.zeros(2)


def test_observations_do_not_share_memory_and_info_is_kept():
    env = as_gymnasium(TimeLimit(Structured(), 3))
    env.reset(seed=0)
    action = {"flags": np.array([1, 2]), "push": np.ones(2, np.float32)}
    first = env.step(action)
    first[0]["vector"][:] = 7
    second = env.step(action)
    np.testing.assert_array_equal(second[0]["vector"], [1, 1])
    assert (int(first[4]["total"]), int(second[4]["total"])) == (3, 6)
    assert second[0]["pair"][0] == 6
    assert [second[3], env.step(action)[3]] == [False, True]


def test_terminated_is_not_truncated():
    env = as_gymnasium(TimeLimit(windy_grid(), 15))
    env.reset(seed=0)
    shortest = [3] * 9 + [1] * 4 + [2] * 2  # right, down, left: the textbook's fifteen steps
    steps = [env.step(action) for action in shortest]
    assert steps[-1][2:4] == (True, False)
    assert sum(step[1] for step in steps) == -15
    assert not any(step[2] or step[3] for step in steps[:-1])


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode)[:2])
def test_gymnasiums_vector_environments_can_hold_ours(mode):
    envs = gymnasium.vector.SyncVectorEnv([lambda: as_gymnasium(TimeLimit(Pendulum(), 3))] * 2, autoreset_mode=mode)
    envs.reset(seed=[1, 2])
    ends = [bool(envs.step(np.zeros((2, 1), np.float32))[3][0]) for _ in range(4)]
    assert ends == [False, False, True, False]
    envs.close()


def test_what_cannot_be_done_is_said():
    with pytest.raises(PolyactError, match="render_mode must be None or 'rgb_array', got 'human'"):
        as_gymnasium(Pendulum(), "human")
    with pytest.raises(PolyactError, match="Structured can't be drawn"):
        as_gymnasium(Structured(), "rgb_array")
    env = as_gymnasium(Pendulum())
    with pytest.raises(PolyactError, match="call reset before the first step"):
        env.step(np.zeros(1))
    env.reset(seed=0)
    with pytest.raises(PolyactError, match=r"has shape \(1,\), got \(2,\)"):
        env.step(np.zeros(2))


def test_pictures_follow_the_state():
    env = as_gymnasium(TimeLimit(Pendulum(), 10), "rgb_array")
    env.reset(seed=0)
    before = env.render()
    for _ in range(5):
        env.step(np.ones(1, np.float32))
    after = env.render()
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert before.dtype == np.uint8
    assert np.any(before != after)
    assert env.metadata["render_fps"] == 20


def test_steps_are_not_compiled_again():
    class Traced(Env):
        horizon: int = 1000

        @property
        def observation_space(self) -> Space:
            return Box(-1, 1, (1,))

        @property
        def action_space(self) -> Space:
            return Discrete(2)

        def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
            return jnp.zeros(1), jnp.zeros(1)

        def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
            traces.append(1)
            no = jnp.asarray(False)
            return state, Step(state, jnp.zeros(()), no, no, {})

    traces: list[int] = []
    env = as_gymnasium(Traced())
    env.reset(seed=0)
    for action in (0, np.int64(1), np.array(1), 1):
        env.step(action)
    env.reset()
    env.step(1)
    assert len(traces) == 1
    assert jax.config.jax_enable_x64 is False
