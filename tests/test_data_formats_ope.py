"""Open Bandit and SCOPE-RL dictionaries: what they mean, and that they come back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact import spaces
from polyact.data import formats
from polyact.data.episodes import Episodes
from polyact.data.formats.ope import from_obp, from_scope_rl, to_obp, to_scope_rl
from polyact.data.source import Source
from polyact.errors import DataError


def bandit(n=4, **more) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    value = {
        "n_rounds": n,
        "n_actions": 3,
        "context": rng.normal(size=(n, 2)),
        "action_context": np.eye(3),
        "action": np.arange(n) % 3,
        "position": np.zeros(n, int),
        "reward": rng.normal(size=n),
        "expected_reward": rng.normal(size=(n, 3)),
        "pscore": np.full(n, 0.25),
        "pi_b": np.full((n, 3, 1), 1 / 3),
    }
    return value | more


def logged(lengths=(2, 3), **more) -> dict[str, Any]:
    n = sum(lengths)
    done = np.zeros(n)
    done[np.cumsum(lengths) - 1] = 1
    value = {
        "size": n,
        "n_trajectories": len(lengths),
        "step_per_trajectory": np.array(lengths),
        "action_type": "discrete",
        "n_actions": 5,
        "action_dim": None,
        "state_dim": 2,
        "state": np.arange(2.0 * n).reshape(n, 2),
        "action": np.arange(n) % 5,
        "reward": np.arange(float(n)),
        "done": done,
        "terminal": np.zeros(n),
        "info": {"clicks": np.arange(n)},
        "pscore": np.full(n, 0.5),
        "behavior_policy": "epsilon",
        "dataset_id": 0,
        "state_keys": ["a", "b"],
    }
    return value | more


def test_a_bandit_round_is_an_episode_of_one_step():
    feedback = bandit()
    source = from_obp(feedback)
    episodes: Any = source.episodes
    assert episodes.lengths.tolist() == [1, 1, 1, 1]
    assert episodes.terminated.all()
    np.testing.assert_array_equal(episodes.observation[::2], feedback["context"])
    np.testing.assert_allclose(np.exp(episodes.log_prob), 0.25)
    assert source.action_space == spaces.Discrete(3)
    assert episodes.info["pi_b"].shape == (4, 3, 1)


def test_bandit_feedback_comes_back():
    feedback = bandit()
    back = to_obp(from_obp(feedback))
    assert back.keys() == feedback.keys()
    for key, value in feedback.items():
        np.testing.assert_allclose(back[key], value)


def test_missing_propensities_stay_missing():
    for pscore in ({}, {"pscore": None}):
        feedback = {key: value for key, value in bandit().items() if key not in ("pscore", "pi_b")} | pscore
        assert from_obp(feedback).episodes.log_prob is None
        assert to_obp(from_obp(feedback))["pscore"] is None
        values = {key: value for key, value in logged().items() if key != "pscore"} | pscore
        assert from_scope_rl(values).episodes.log_prob is None
        assert to_scope_rl(from_scope_rl(values))["pscore"] is None


def test_continuous_bandit_actions():
    feedback = {"n_rounds": 3, "action": np.array([0.1, -2.0, 3.0]), "reward": np.ones(3), "pscore": np.full(3, 1.7)}
    episodes: Any = from_obp(feedback).episodes
    assert episodes.action.shape == (3, 1)
    assert episodes.observation is None
    np.testing.assert_allclose(episodes.log_prob, np.log(1.7))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from(["lengths", "flags", "number"]))
def test_trajectories_of_different_lengths(lengths, given_as):
    if given_as == "number":
        lengths = [lengths[0]] * len(lengths)
    values = logged(lengths)
    if given_as == "flags":
        del values["step_per_trajectory"]
    if given_as == "number":
        values |= {"step_per_trajectory": lengths[0], "done": np.zeros(sum(lengths))}
    source = from_scope_rl(values)
    assert source.episodes.lengths.tolist() == lengths
    assert source.behaviour == "epsilon"
    assert from_scope_rl(to_scope_rl(source)).episodes.lengths.tolist() == lengths


def test_done_and_terminal_become_terminated_and_truncated():
    values = logged((2, 3), terminal=np.array([0, 0, 0, 0, 1]))
    episodes: Any = from_scope_rl(values).episodes
    assert episodes.terminated.tolist() == [False, True, False, False, False]
    assert episodes.truncated.tolist() == [False, False, False, False, True]
    back = to_scope_rl(from_scope_rl(values))
    for key in values.keys() - {"state_keys", "info", "action_dim"}:
        np.testing.assert_array_equal(back[key], values[key], err_msg=key)
    np.testing.assert_array_equal(back["info"]["clicks"], values["info"]["clicks"])


def test_continuous_trajectories_multiply_densities():
    n = 5
    values = logged(action_type="continuous", n_actions=None, action_dim=3, action=np.zeros((n, 3)), pscore=np.full((n, 3), 2.0))
    source = from_scope_rl(values)
    np.testing.assert_allclose(np.asarray(source.episodes.log_prob), 3 * np.log(2))
    assert to_scope_rl(source)["action_dim"] == 3


def test_dictionaries_in_npz_files(tmp_path):
    np.savez(tmp_path / "a.npz", **bandit())
    values = {key: value for key, value in logged().items() if key != "info" and value is not None}
    np.savez(tmp_path / "b.npz", **(values | {"info/clicks": np.arange(5)}))  # pyright: ignore[reportArgumentType]
    first, second = formats.read(tmp_path)
    clicks: Any = second.episodes.info["clicks"]
    assert (first.episodes.count, second.episodes.count) == (4, 2)
    assert clicks.tolist() == [0, 1, 2, 3, 4]
    assert second.metadata["origin"]["format"] == "ope"
    assert second.metadata["state_keys"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_actions": 2}, r"action 2 in row 2 is not one of the 2 actions"),
        ({"action": np.array([0.5, 1, 1, 1])}, r"action 0.5 in row 0"),
        ({"pscore": np.array([0.1, 0, 0.1, 0.1])}, r"pscore is 0.0 in row 1"),
        ({"pscore": np.full(4, 1.5)}, r"pscore is 1.5 in row 0"),
        ({"pscore": np.full((4, 2, 2), 0.5)}, r"pscore has shape"),
        ({"reward": np.array([0, 1, np.nan, 0])}, r"'reward' has nan in row 2"),
        ({"reward": np.ones(3)}, r"'reward' has shape \(3,\), expected 4 rows"),
        ({"context": np.full((4, 2), np.inf)}, r"'observation' has inf in row 0"),
        ({"n_rounds": 5}, r"expected 5 rounds"),
        ({"n_rounds": "four"}, r"'n_rounds' should be a positive whole number"),
        ({"pi_b": np.ones((4, 2, 1))}, r"pi_b has shape \(4, 2, 1\), expected 4 rounds x 3 actions"),
        ({"action": None}, r"'action' is missing; found: "),
    ],
)
def test_bad_bandit_feedback(change, message):
    with pytest.raises(DataError, match=message):
        from_obp(bandit(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 6}, r"size is 6, reward has 5 rows"),
        ({"n_trajectories": 3}, r"2 trajectories of 5 steps, expected 3"),
        ({"step_per_trajectory": np.array([2, 2])}, r"2 trajectories of 4 steps"),
        ({"state_dim": 3}, r"state_dim is 3"),
        ({"done": np.full(5, 0.5)}, r"'done' .* should hold only 0 and 1"),
        ({"done": np.zeros(4)}, r"'done' has 4 rows"),
        ({"info": [1]}, r"info should be a dictionary"),
        ({"n_actions": 4}, r"action 4 in row 4 is not one of the 4 actions"),
        ({"state": np.full((5, 2), np.nan)}, r"'observation' has nan in row 0"),
        ({"step_per_trajectory": None, "done": None, "terminal": None}, r"nothing says where trajectories end"),
    ],
)
def test_bad_logged_trajectories(change, message):
    with pytest.raises(DataError, match=message):
        from_scope_rl(logged(**change))


def test_what_is_not_bandit_feedback_is_refused():
    with pytest.raises(DataError, match=r"needs episodes of 1 step, the longest has 2"):
        to_obp(Source(Episodes(np.array([2]), action=np.zeros((2, 1)), reward=np.zeros(2))))
    with pytest.raises(DataError, match=r"SCOPE-RL needs observations"):
        to_scope_rl(Source(Episodes(np.array([2]), action=np.zeros((2, 1)))))
