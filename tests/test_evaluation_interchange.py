"""Scores in other libraries' files: round trips, their own examples, and one line for what is damaged."""

import json

import numpy as np
import pytest
from data_examples import refused_in_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polyact.errors import DataError
from polyact.evaluation.interchange import files, lerobot

NUMBERS = st.floats(-1e6, 1e6)


def same(a, b):
    assert (a is None) == (b is None)
    if a is not None:
        np.testing.assert_array_equal(a, b)


def check_tasks(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for name in ("returns", "successes", "max_rewards"):
            same(getattr(a, name), getattr(b, name))
        assert (a.group, a.task) == (b.group, b.task)


@st.composite
def tasks(draw, group):
    n = draw(st.integers(1, 6))
    vector = hnp.arrays(np.float64, n, elements=NUMBERS)
    return lerobot.TaskScores(
        draw(vector),
        draw(st.none() | hnp.arrays(bool, n)),
        draw(st.none() | vector),
        draw(st.none() | hnp.arrays(np.int64, n, elements=st.integers(0, 10**6))) if not group else None,
        group,
        draw(st.integers(0, 99)) if group else 0,
        draw(st.floats(0.1, 1e4)),
    )


@settings(max_examples=25, deadline=None)
@given(task=tasks(group=""))
def test_one_lerobot_task_round_trips(tmp_path_factory, task):
    path = tmp_path_factory.mktemp("lerobot") / "eval_info.json"
    lerobot.write_eval_info(path, [task])
    found = lerobot.read_eval_info(path)
    check_tasks(found, [task])
    same(found[0].seeds, task.seeds)
    assert found[0].seconds == task.seconds


@settings(max_examples=25, deadline=None)
@given(several=st.lists(tasks(group="libero_goal") | tasks(group="libero_10"), min_size=1, max_size=4))
def test_several_lerobot_tasks_round_trip(tmp_path_factory, several):
    path = tmp_path_factory.mktemp("lerobot") / "eval_info.json"
    lerobot.write_eval_info(path, several)
    check_tasks(lerobot.read_eval_info(path), several)
    value = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert value["overall"]["n_episodes"] == sum(len(task.returns) for task in several)
    assert set(value["per_group"]) == {task.group for task in several}


def test_lerobot_averages_are_theirs(tmp_path):
    path = tmp_path / "eval_info.json"
    task = lerobot.TaskScores(np.array([1.0, 3.0]), np.array([True, False]), np.array([0.5, 1.0]), np.array([7, 8]), seconds=4.0)
    lerobot.write_eval_info(path, [task])
    assert json.loads(path.read_text()) == {
        "per_episode": [
            {"episode_ix": 0, "sum_reward": 1.0, "max_reward": 0.5, "success": True, "seed": 7},
            {"episode_ix": 1, "sum_reward": 3.0, "max_reward": 1.0, "success": False, "seed": 8},
        ],
        "aggregated": {"avg_sum_reward": 2.0, "avg_max_reward": 0.75, "pc_success": 50.0, "eval_s": 4.0, "eval_ep_s": 2.0},
    }


def test_a_file_as_lerobot_writes_it_is_read(tmp_path):
    path = tmp_path / "eval_info.json"
    metrics = {"sum_rewards": [0.5, 1], "max_rewards": [0.5, 1], "successes": [False, True], "video_paths": ["a.mp4"]}
    path.write_text(
        json.dumps({"per_task": [{"task_group": "g", "task_id": 3, "metrics": metrics}], "overall": {"pc_success": float("nan")}})
    )
    (task,) = lerobot.read_eval_info(path)
    assert (task.group, task.task) == ("g", 3)
    np.testing.assert_array_equal(task.successes, [False, True])
    assert task.seeds is None


@settings(max_examples=25, deadline=None)
@given(data=st.data(), points=st.integers(1, 5), episodes=st.integers(1, 5), flags=st.booleans())
def test_evaluations_round_trip(tmp_path_factory, data, points, episodes, flags):
    path = tmp_path_factory.mktemp("sb3") / "evaluations.npz"
    shape = (points, episodes)
    written = files.Evaluations(
        np.arange(points) * 1000,
        data.draw(hnp.arrays(np.float64, shape, elements=NUMBERS)),
        data.draw(hnp.arrays(np.int64, shape, elements=st.integers(1, 1000))),
        data.draw(hnp.arrays(bool, shape)) if flags else None,
    )
    files.write_evaluations(path, written)
    found = files.read_evaluations(path)
    for name in ("timesteps", "returns", "lengths", "successes"):
        same(getattr(found, name), getattr(written, name))
    assert set(np.load(path, allow_pickle=False).files) == {"timesteps", "results", "ep_lengths", *(["successes"] if flags else [])}


def test_evaluations_as_stable_baselines_writes_them(tmp_path):
    path = tmp_path / "evaluations.npz"
    np.savez(path, timesteps=[500, 1000], results=[[1.0, 2.0], [3.0, 4.0]], ep_lengths=[[10, 20], [30, 40]])
    found = files.read_evaluations(path)
    np.testing.assert_array_equal(found.returns, [[1, 2], [3, 4]])
    assert found.successes is None


@settings(max_examples=25, deadline=None)
@given(table=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=4), elements=NUMBERS))
def test_rliable_scores_round_trip(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("rliable") / "scores.npz"
    files.write_scores(path, {"SAC": table, "my algorithm/v2": table[:1]})
    found = files.read_scores(path)
    assert list(found) == ["SAC", "my algorithm/v2"]
    np.testing.assert_array_equal(found["SAC"], table)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False)["SAC"], table)


def test_monitor_is_read(tmp_path):
    path = tmp_path / "0.monitor.csv"
    path.write_text('#{"t_start": 1.5, "env_id": "Pendulum-v1"}\nr,l,t,is_success\n-12.5,200,0.25,True\n-3,200,0.5,False\n')
    found = files.read_monitor(path)
    np.testing.assert_array_equal(found.returns, [-12.5, -3])
    np.testing.assert_array_equal(found.lengths, [200, 200])
    assert found.header["env_id"] == "Pendulum-v1"
    assert found.extra == {"is_success": ["True", "False"]}


def test_a_monitor_without_episodes_is_empty(tmp_path):
    path = tmp_path / "monitor.csv"
    path.write_text('#{"t_start": 1.5}\nr,l,t\n')
    assert files.read_monitor(path).returns.shape == (0,)


def test_d3rlpy_metric_is_read(tmp_path):
    path = tmp_path / "critic_loss.csv"
    path.write_text("1,1000,0.25\n2,2000,0.125\n")
    found = files.read_metric(path)
    assert found.name == "critic_loss"
    np.testing.assert_array_equal(found.step, [1000, 2000])
    np.testing.assert_array_equal(found.value, [0.25, 0.125])


DAMAGED = {
    ("eval_info.json", lerobot.read_eval_info): {
        "{": "damaged",
        "[]": "expected a JSON object",
        "{}": "neither 'per_episode'",
        '{"per_episode": [1]}': "list of episodes",
        '{"per_episode": [{"success": true}]}': "sum_reward",
        '{"per_episode": [{"sum_reward": "much"}]}': "not numbers",
        '{"per_task": [{}]}': r"per_task\[0\]",
        '{"per_task": [{"metrics": {"sum_rewards": [1, 2], "successes": [true]}}]}': "one per episode",
        '{"per_task": [{"metrics": {"sum_rewards": 5}}]}': "should be a list",
        '{"per_task": [{"task_id": "a", "metrics": {"sum_rewards": [1]}}]}': "task_id",
    },
    ("monitor.csv", files.read_monitor): {
        "": "monitor.csv",
        "r,l,t\n1,2,3\n": "first line",
        "#{}\nr,l\n1,2\n": "no column 't'",
        "#{}\nr,l,t\n1,2\n": "row 3 has 2 fields",
        "#{}\nr,l,t\nx,2,3\n": "column 'r'",
        "#{oops\nr,l,t\n": "first line",
    },
    ("loss.csv", files.read_metric): {"1,1000,0.25\n2,20": "row 2 has 2 fields"},
}


@pytest.mark.parametrize(
    ("name", "read", "text", "message"), [(*file, *case) for file, cases in DAMAGED.items() for case in cases.items()]
)
def test_a_damaged_file_is_one_line(tmp_path, name, read, text, message):
    (tmp_path / name).write_text(text)
    refused_in_one_line(lambda: read(tmp_path / name), tmp_path / name, message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"results": np.ones((2, 3))}, "timesteps"),
        ({"timesteps": np.ones(2), "results": np.ones((2, 3)), "ep_lengths": np.ones((2, 2))}, "ep_lengths"),
        ({"timesteps": np.ones(2), "results": np.ones(2), "ep_lengths": np.ones(2)}, "expected"),
        ({"timesteps": np.ones(1), "results": np.array([["a"]]), "ep_lengths": np.ones((1, 1))}, "numbers"),
        ({"timesteps": np.ones(2), "results": np.array([[1.0], [1.0, 2.0]], object), "ep_lengths": np.ones(2)}, "pickled"),
    ],
)
def test_damaged_evaluations_are_one_line(tmp_path, arrays, message):
    path = tmp_path / "evaluations.npz"
    np.savez(path, **arrays)
    refused_in_one_line(lambda: files.read_evaluations(path), path, message)


def test_truncated_and_missing_files_are_one_line(tmp_path):
    path = tmp_path / "evaluations.npz"
    refused_in_one_line(lambda: files.read_evaluations(path), path, "no such file")
    np.savez(path, timesteps=np.arange(100))
    path.write_bytes(path.read_bytes()[:200])
    refused_in_one_line(lambda: files.read_evaluations(path), path, "damaged")


def test_scores_of_wrong_rank_are_refused(tmp_path):
    refused_in_one_line(lambda: files.write_scores(tmp_path / "s.npz", {"A": np.ones(5)}), tmp_path / "s.npz", r"\[runs, tasks\]")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "eval_info.json"
    lerobot.write_eval_info(path, [lerobot.TaskScores(np.ones(2))])
    before = path.read_bytes()
    with pytest.raises(DataError):
        lerobot.write_eval_info(path, [])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["eval_info.json"]
