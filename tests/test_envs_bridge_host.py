"""gymnasium's worlds in our hands: seeds, ends, slots, spaces and errors."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces as gym_spaces

from polyact.envs.catalogue import make
from polyact.envs.gymnasium_host import GymnasiumEnv, from_gymnasium
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError
from polyact.spaces import Box, Discrete


class Ladder(gymnasium.Env):
    """Climbs one rung per step from a seeded start; the top terminates. Counts its resets."""

    observation_space = gym_spaces.Dict({"rung": gym_spaces.Discrete(20), "view": gym_spaces.Box(0, 255, (2, 2), np.uint8)})
    action_space = gym_spaces.Tuple((gym_spaces.Discrete(2), gym_spaces.Box(-1, 1, (1,), np.float32)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rung = int(self.np_random.integers(0, 5))
        return self._see(), {}

    def step(self, action):
        up, push = action
        assert isinstance(up, int)
        assert push.dtype == np.float32
        self.rung += up
        info = {"is_success": self.rung >= 8} if self.rung != 6 else {}
        return self._see(), float(push[0]), self.rung >= 8, False, info

    def _see(self):
        return {"rung": self.rung, "view": np.full((2, 2), self.rung, np.uint8)}


def up(count: int, push: float = 0.0):
    return np.ones(count, int), np.full((count, 1), push)


def test_episodes_start_from_their_seeds_and_end_apart():
    env = from_gymnasium(Ladder, count=3, horizon=6, info=("is_success",))
    assert isinstance(env, HostEnv)
    first = env.reset([10, 11, 12])
    starts = first["rung"]
    assert first["view"].shape == (3, 2, 2)
    assert first["view"].dtype == np.uint8
    np.testing.assert_array_equal(env.reset([12, 11, 10])["rung"], starts[::-1])
    env.reset([10, 11, 12])
    running, time = [0, 1, 2], 0
    while running:
        step, time = env.step(up(len(running), 5.0), running), time + 1
        np.testing.assert_array_equal(step.observation["rung"], starts[running] + time)
        np.testing.assert_array_equal(step.terminated, starts[running] + time >= 8)
        np.testing.assert_array_equal(step.truncated, (time == 6) & (starts[running] + time < 8))
        np.testing.assert_array_equal(step.reward, 1.0)  # clipped into the action space
        np.testing.assert_array_equal(step.info["is_success"], starts[running] + time >= 8)
        running = [slot for slot, over in zip(running, step.terminated | step.truncated, strict=True) if not over]
    with pytest.raises(PolyactError, match="no episode is running in slot 1"):
        env.step(up(1), [1])
    assert env.reset([10], [1])["rung"] == starts[0]
    assert env.step(up(1), [1]).observation["rung"] == starts[0] + 1


def test_it_equals_gymnasiums_own_vector_environment():
    ours = from_gymnasium("CartPole-v1", count=3)
    same_step = gymnasium.vector.AutoresetMode.SAME_STEP
    theirs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=same_step)
    np.testing.assert_array_equal(ours.reset([1, 2, 3]), theirs.reset(seed=[1, 2, 3])[0])
    assert (ours.horizon, ours.control_hz) == (500, pytest.approx(50))
    alive = np.arange(3)
    generator = np.random.default_rng(0)
    while len(alive):
        actions = generator.integers(2, size=3)
        step = ours.step(actions[alive], alive)
        observation, reward, terminated, truncated, info = theirs.step(actions)
        final = observation.copy()
        for slot in np.flatnonzero(terminated | truncated):
            final[slot] = info["final_obs"][slot]
        np.testing.assert_array_equal(step.observation, final[alive])
        np.testing.assert_array_equal(step.terminated, terminated[alive])
        np.testing.assert_array_equal(step.truncated, truncated[alive])
        np.testing.assert_array_equal(step.reward, reward[alive])
        alive = alive[~(step.terminated | step.truncated)]


def test_a_shorter_horizon_truncates():
    env = from_gymnasium("Pendulum-v1", horizon=3)
    env.reset([0])
    assert [bool(env.step(np.zeros((1, 1))).truncated[0]) for _ in range(3)] == [False, False, True]
    assert env.horizon == 3


def test_actions_are_checked():
    env = from_gymnasium("Pendulum-v1", count=2)
    env.reset([0, 1])
    with pytest.raises(PolyactError, match=r"2 actions of Box.* have shape \(2, 1\), got \(1, 1\)"):
        env.step(np.zeros((1, 1)))
    with pytest.raises(PolyactError, match=r"action \[nan\] is not finite"):
        env.step(np.array([[0.0], [np.nan]]))
    with pytest.raises(PolyactError, match="2 episodes need as many seeds, got 3"):
        env.reset([1, 2, 3])
    with pytest.raises(PolyactError, match=r"has slots 0 .. 1, got \[2\]"):
        env.reset([1], [2])
    env.close()
    env.close()
    with pytest.raises(PolyactError, match="'Pendulum-v1' has been closed"):
        env.reset([0, 1])


def test_an_info_name_that_never_comes_is_an_error():
    env = from_gymnasium("Pendulum-v1", horizon=2, info=("is_sucess",))
    env.reset([0])
    env.step(np.zeros((1, 1)))
    with pytest.raises(PolyactError, match="never reported 'is_sucess' in an episode"):
        env.step(np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "CartPol-v1"}, "gymnasium can't make 'CartPol-v1': .*Did you mean: `CartPole`"),
        ({"env": "nowhere:Thing-v0"}, "gymnasium can't make 'nowhere:Thing-v0': No module named 'nowhere'"),
        ({"env": "CartPole-v1", "options": {"wheels": 4}}, "gymnasium can't make 'CartPole-v1': .*wheels"),
        ({"env": Ladder}, "'Ladder' has no time limit of its own: say how many steps"),
        ({"env": Ladder, "options": {"a": 1}}, "options are for environments that are made by name"),
        ({"env": "CartPole-v1", "count": 0}, "count must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_made_is_one_line(arguments: dict, message: str):
    with pytest.raises(PolyactError, match=message) as caught:
        from_gymnasium(**arguments)
    assert "\n" not in str(caught.value)


def test_pictures_need_to_be_asked_for():
    plain = from_gymnasium("CartPole-v1")
    plain.reset([0])
    with pytest.raises(PolyactError, match="made without pictures; pass options="):
        plain.render()


def test_missing_mujoco_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(PolyactError, match=r"'InvertedPendulum-v5' needs the package 'mujoco'.*pip install 'polyact\[mujoco\]'"):
        from_gymnasium("InvertedPendulum-v5")


def test_mujoco_runs_with_paired_starts():
    pytest.importorskip("mujoco", reason="MuJoCo tasks need the extra: pip install 'polyact[mujoco]'")
    env = make("gymnasium:InvertedPendulum-v5", count=2)
    assert isinstance(env, GymnasiumEnv)
    assert (env.horizon, env.control_hz) == (1000, pytest.approx(25))
    assert env.action_space == Box(-3, 3, (1,))
    first = env.reset([7, 8])
    assert not np.array_equal(first[0], first[1])
    for _ in range(3):
        env.step(np.ones((2, 1)))
    np.testing.assert_array_equal(env.reset([8, 7])[::-1], first)
    lengths = np.zeros(2, int)
    running = np.arange(2)
    while len(running):
        step = env.step(np.full((len(running), 1), 3.0), running)
        lengths[running] += 1
        running = running[~(step.terminated | step.truncated)]
    assert np.all(lengths < 40)  # a full push drops the pole at once
    env.close()


def test_the_catalogue_knows_the_prefix_and_the_tables():
    env = make("gymnasium:CartPole-v1", count=2)
    assert isinstance(env, GymnasiumEnv)
    assert env.action_space == Discrete(2)
    for name in ("chain", "four-rooms", "windy-grid", "combination-lock", "inventory", "machine-replacement", "garnet"):
        assert isinstance(make(name).action_space, Discrete)
    assert make("garnet", states=7).observation_space == Discrete(7)
