"""Files of others, made here as their libraries make them, and what polyact reads in them."""

import json
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from polyact import spaces
from polyact.data import formats
from polyact.data.formats import robomimic
from polyact.errors import DataError


def flat(steps=6, width=2):
    """D4RL-like arrays: the observation of step i is i."""
    observation = np.repeat(np.arange(float(steps), dtype=np.float32)[:, None], width, 1)
    return {
        "observations": observation,
        "actions": -observation[:, :1],
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": np.zeros(steps, bool),
    }


def h5(path, content, **attributes):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file.create_dataset(name, data=value)
        for name, value in attributes.items():
            file["data"].attrs[name] = value
    return path


def table(path, columns):
    parquet.write_table(pa.table(columns), path)
    return path


def one(path, format=None) -> Any:
    (source,) = formats.read(path, format)
    return source


# D4RL


def test_d4rl_keeps_every_step_and_repeats_the_last_observation(tmp_path):
    arrays = flat()
    timeouts = np.array([0, 0, 0, 1, 0, 0], bool)
    arrays["terminals"][1] = True
    source = one(h5(tmp_path / "d.hdf5", arrays | {"timeouts": timeouts}))
    assert source.episodes.lengths.tolist() == [2, 2, 2]
    assert source.episodes.observation[:, 0].tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert source.episodes.terminated.tolist() == [False, True, False, False, False, False]
    assert source.episodes.truncated.tolist() == timeouts.tolist()
    assert source.metadata["final_observation"] == "repeated"
    assert source.metadata["origin"]["format"] == "d4rl"


def test_d4rl_next_observations_give_the_final_observation(tmp_path):
    arrays = flat()
    arrays["terminals"][2] = True
    following = arrays["observations"] + 1
    following[2], following[5] = 70, 80
    source = one(h5(tmp_path / "d.h5", arrays | {"next_observations": following, "timeouts": np.zeros(6, bool)}))
    assert source.episodes.observation[:, 0].tolist() == [0, 1, 2, 70, 3, 4, 5, 80]
    assert "final_observation" not in source.metadata
    assert "warnings" not in source.metadata


def test_d4rl_without_timeouts_is_cut_where_next_observations_jump(tmp_path):
    arrays = flat()
    following = arrays["observations"] + 1
    following[3] = 70
    source = one(h5(tmp_path / "d.h5", arrays | {"next_observations": following}))
    assert source.episodes.lengths.tolist() == [4, 2]
    assert "jump" in source.metadata["warnings"][0]
    assert source.episodes.truncated is None


def test_d4rl_with_terminals_only_says_what_that_means(tmp_path):
    arrays = flat()
    arrays["terminals"][1] = True
    source = one(h5(tmp_path / "d.h5", arrays))
    assert source.episodes.lengths.tolist() == [2, 4]
    assert "no timeouts" in source.metadata["warnings"][0]


def test_d4rl_infos_and_metadata(tmp_path):
    more = {
        "timeouts": np.zeros(6, bool),
        "infos/qpos": np.ones((6, 3)),
        "infos/action_log_probs": -np.arange(6.0),
        "infos/odd": np.ones(4),
        "metadata/algorithm": "SAC",
        "metadata/policy/weight": np.zeros((40, 40)),
        "metadata/iteration": 7,
    }
    source = one(h5(tmp_path / "d.h5", flat() | more))
    assert source.episodes.info["qpos"].shape == (6, 3)
    assert source.episodes.log_prob.tolist() == (-np.arange(6.0)).tolist()
    assert source.behaviour == "SAC"
    assert source.metadata["d4rl"] == {"algorithm": "SAC", "iteration": 7}
    assert source.metadata["ignored"] == ["infos/odd"]


def test_actions_within_one_have_the_space_of_the_tasks(tmp_path):
    small = flat() | {"timeouts": np.zeros(6, bool), "actions": np.full((6, 1), 0.3, np.float32)}
    assert one(h5(tmp_path / "a.h5", small)).action_space == spaces.Box(-1, 1, (1,))
    large = small | {"actions": np.full((6, 1), 1.5, np.float32)}
    assert one(h5(tmp_path / "b.h5", large)).action_space == spaces.Box(1.5, 1.5, (1,))
    ogbench(tmp_path / "c.npz")
    assert one(tmp_path / "c.npz").action_space == spaces.Box(-11, -0.0, (1,))


# d3rlpy


def test_d3rlpy_version_2(tmp_path):
    content = {"columns": [b"observations", b"actions", b"rewards", b"terminated"], "num_episodes": 2, "version": "2.1"}
    for i, (length, ended) in enumerate(((3, True), (2, False))):
        content |= {f"observations_{i}": np.full((length, 2), i), f"actions_{i}": np.zeros((length, 1), np.int64)}
        content |= {f"rewards_{i}": np.ones((length, 1)), f"terminated_{i}": ended}
    source = one(h5(tmp_path / "d.h5", content))
    assert source.episodes.lengths.tolist() == [3, 2]
    assert source.episodes.action.shape == (5,)
    assert source.episodes.terminated.tolist() == [False, False, True, False, False]
    assert source.episodes.truncated.tolist() == [False, False, False, False, True]
    assert source.metadata["origin"]["format"] == "d3rlpy"
    assert source.metadata["final_observation"] == "repeated"


def test_d3rlpy_tuple_observations(tmp_path):
    content = {"columns": [b"observations", b"actions", b"rewards", b"terminated"], "num_episodes": 1, "version": "2.1"}
    content |= {"observations_0_0": np.zeros((2, 3)), "observations_0_1": np.ones((2, 1)), "actions_0": np.zeros((2, 1))}
    content |= {"rewards_0": np.ones((2, 1)), "terminated_0": False}
    assert one(h5(tmp_path / "d.h5", content)).episodes.observation["1"].tolist() == [[1], [1], [1]]


def test_d3rlpy_version_1_and_obsolete_versions(tmp_path):
    arrays = flat() | {"episode_terminals": np.array([0, 1, 0, 0, 0, 1])}
    arrays["terminals"][1] = True
    source = one(h5(tmp_path / "a.h5", arrays))
    assert source.episodes.lengths.tolist() == [2, 4]
    assert source.episodes.truncated.tolist() == [False] * 5 + [True]
    with pytest.raises(DataError, match=r"version '2.0', polyact reads 2.1"):
        formats.read(h5(tmp_path / "b.h5", {"columns": [b"x"], "num_episodes": 1, "version": "2.0"}))


# OGBench


def ogbench(path, **more):
    """Two trajectories of 3 and 2 steps; a trajectory's last row holds only its last state."""
    observation = np.array([0, 1, 2, 3, 10, 11, 12], np.float32)[:, None]
    end = np.array([0, 0, 0, 1, 0, 0, 1], np.float32)
    np.savez_compressed(path, observations=observation, actions=-observation, terminals=end, **more)
    return path


def test_ogbench_extra_rows_are_final_observations(tmp_path):
    source = one(ogbench(tmp_path / "maze-v0.npz", qpos=np.arange(14).reshape(7, 2)))
    assert source.episodes.lengths.tolist() == [3, 2]
    assert source.episodes.observation[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12]
    assert source.episodes.action[:, 0].tolist() == [0, -1, -2, -10, -11]
    assert source.episodes.truncated.tolist() == [False, False, True, False, True]
    assert source.episodes.missing == ("reward", "terminated", "cost", "return_to_go", "log_prob", "goal", "text")
    assert source.episodes.info["qpos"][:, 0].tolist() == [0, 2, 4, 8, 10]
    assert "final_observation" not in source.metadata


def test_ogbench_masks_and_terminals_are_kept_apart(tmp_path):
    masks = np.array([1, 0, 1, 1, 1, 0, 1], np.float32)
    source = one(ogbench(tmp_path / "d.npz", rewards=-np.arange(7.0), masks=masks))
    assert source.episodes.terminated.tolist() == [False, True, False, False, True]
    assert source.episodes.truncated.tolist() == [False, False, True, False, False]
    assert source.episodes.reward.tolist() == [0, -1, -2, -4, -5]


def test_ogbench_regular_layout_with_next_observations(tmp_path):
    observation = np.array([0, 1, 2, 10, 11], np.float32)[:, None]
    end = np.array([0, 0, 1, 0, 1], np.float32)
    arrays = {"observations": observation, "actions": observation, "terminals": end, "next_observations": observation + 1}
    np.savez(tmp_path / "d.npz", **(arrays | {"rewards": end, "masks": 1 - end}))  # pyright: ignore[reportArgumentType]
    source = one(tmp_path / "d.npz")
    assert source.episodes.observation[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12]
    assert source.episodes.terminated.tolist() == [False, False, True, False, True]


def test_ogbench_compact_layout_with_valids(tmp_path):
    observation = np.array([0, 1, 2, 3, 10, 11, 12], np.float32)[:, None]
    end, valid = np.array([0, 0, 1, 1, 0, 1, 1.0]), np.array([1, 1, 1, 0, 1, 1, 0.0])
    np.savez(tmp_path / "d.npz", observations=observation, actions=observation, terminals=end, valids=valid)
    source = one(tmp_path / "d.npz")
    assert source.episodes.lengths.tolist() == [3, 2]
    assert source.episodes.observation[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12]


def test_the_validation_twin_is_a_second_source_once(tmp_path):
    ogbench(tmp_path / "cube-v0.npz")
    ogbench(tmp_path / "cube-v0-val.npz")
    for path in (tmp_path / "cube-v0.npz", tmp_path):
        names = sorted(source.name for source in formats.read(path))
        assert names == ["cube-v0", "cube-v0-val"]
    (val,) = (source for source in formats.read(tmp_path) if source.name.endswith("val"))
    assert val.metadata["split"] == "val"


# robomimic


def demos(path, lengths=(3, 2), next_obs=True):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_type": 1, "env_kwargs": {"control_freq": 20}})
        for i, length in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = length
            arrays = {"actions": np.zeros((length, 7)), "rewards": np.zeros(length), "dones": np.arange(length) == length - 1}
            arrays |= {
                "states": np.zeros((length, 4)),
                "obs/eef": np.full((length, 3), i),
                "obs/cam": np.zeros((length, 2, 2, 3), np.uint8),
            }
            if next_obs:
                arrays |= {"next_obs/eef": np.full((length, 3), i + 0.5), "next_obs/cam": np.ones((length, 2, 2, 3), np.uint8)}
            for name, value in arrays.items():
                demo[name] = value
        file["mask/train"], file["mask/valid"] = [b"demo_0"], np.array([b"demo_1"])
    return path


def test_robomimic(tmp_path):
    source = one(demos(tmp_path / "low_dim.hdf5"))
    assert source.episodes.lengths.tolist() == [3, 2]
    assert source.episodes.observation["eef"][:, 0].tolist() == [0, 0, 0, 0.5, 1, 1, 1.5]
    assert source.episodes.observation["cam"].dtype == np.uint8
    assert source.episodes.info["states"].shape == (5, 4)
    assert source.metadata["splits"] == {"train": [0], "valid": [1]}
    assert source.metadata["env_args"]["env_name"] == "Lift"
    assert source.control_hz == 20
    assert "final_observation" not in source.metadata


def test_robomimic_filters_are_sources_on_request(tmp_path):
    path = demos(tmp_path / "d.hdf5", next_obs=False)
    train, valid = robomimic.read(path, filters=("train", "valid"))
    assert (train.name, train.episodes.steps, valid.episodes.steps) == ("d-train", 3, 2)
    assert train.metadata["final_observation"] == "repeated"
    with pytest.raises(ValueError, match="did you mean 'train'"):
        robomimic.read(path, filters=("trian",))


def test_robomimic_demos_are_in_the_order_of_their_numbers(tmp_path):
    source = one(demos(tmp_path / "d.hdf5", lengths=range(1, 13)))
    assert source.episodes.lengths.tolist() == list(range(1, 13))


def test_robomimic_without_observations_uses_states(tmp_path):
    path = demos(tmp_path / "d.hdf5", next_obs=False)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs"], file["data/demo_1/obs"]
    source = one(path)
    assert source.episodes.observation.shape == (7, 4)
    assert "states" in source.metadata["observation"]


# Tables of others


def test_parquet_of_others(tmp_path):
    columns = {
        "episode_id": ["b", "b", "a", "a", "a"],
        "obs": pa.array([[0.0, 1.0]] * 5, pa.list_(pa.float32(), 2)),
        "action": [0, 1, 2, 0, 1],
        "reward": [0.0, 1, 2, 3, 4],
        "done": [False, True, False, False, True],
        "truncated": [False, False, False, False, True],
        "speed": [1, 2, 3, 4, 5],
        "note": ["x"] * 5,
    }
    source = one(table(tmp_path / "d.parquet", columns))
    assert source.episodes.lengths.tolist() == [2, 3]
    assert source.episodes.terminated.tolist() == [False, True, False, False, False]
    assert source.action_space == spaces.Discrete(3)
    assert source.episodes.info["speed"].tolist() == [1, 2, 3, 4, 5]
    assert source.metadata["final_observation"] == "repeated"


def test_rows_of_others_are_put_in_order(tmp_path):
    columns = {"episode_index": [1, 0, 1, 0], "frame_index": [1, 1, 0, 0], "state": [[11.0], [1.0], [10.0], [0.0]]}
    source = one(table(tmp_path / "d.parquet", columns))
    assert source.episodes.observation[:, 0].tolist() == [10, 11, 11, 0, 1, 1]


def test_vectors_spread_over_columns_and_dicts_of_columns(tmp_path):
    columns = {"observation.joint": [[0.0]] * 2, "observation.grip": [1.0, 2.0], "action_1": [3.0, 4], "action_0": [1.0, 2]}
    source = one(table(tmp_path / "d.parquet", columns | {"terminated": [False, True]}))
    assert source.episodes.observation["grip"].tolist() == [1, 2, 2]
    assert source.episodes.action.tolist() == [[1, 3], [2, 4]]


def test_structs_and_next_observations(tmp_path):
    observation = pa.array([{"a": [0.0], "b": 1}, {"a": [1.0], "b": 2}])
    following = pa.array([{"a": [1.0], "b": 2}, {"a": [2.0], "b": 3}])
    source = one(table(tmp_path / "d.parquet", {"observation": observation, "next_observation": following, "done": [0, 1]}))
    assert source.episodes.observation["b"].tolist() == [1, 2, 3]
    assert "final_observation" not in source.metadata


def test_arrow_streams_and_feather_of_others(tmp_path):
    data = pa.table({"obs": [[0.0], [1.0]], "terminal": [False, True]})
    feather.write_feather(data, tmp_path / "a.feather")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_stream(file, data.schema) as stream:
        stream.write_table(data)
    for name in ("a.feather", "b.arrow"):
        assert one(tmp_path / name).episodes.lengths.tolist() == [2]


def test_npz_of_others(tmp_path):
    np.savez(tmp_path / "d.npz", obs=np.zeros((3, 2)), actions=np.zeros((3, 1)), dones=[0, 1, 1], timeouts=[0, 0, 1], seed=3)
    source = one(tmp_path / "d.npz")
    assert source.episodes.lengths.tolist() == [2, 1]
    assert source.episodes.terminated.tolist() == [False, True, False]
    assert source.metadata["ignored"] == ["seed"]


def test_what_is_missing_in_a_foreign_table_is_said_with_what_was_found(tmp_path):
    with pytest.raises(DataError, match=r"a.parquet: no column for the observation .*found: action, pixels"):
        formats.read(table(tmp_path / "a.parquet", {"pixels": [1.0], "action": [1]}))
    with pytest.raises(DataError, match=r"b.parquet: no column says where episodes end .*found: action, obs"):
        formats.read(table(tmp_path / "b.parquet", {"obs": [1.0], "action": [1]}))
