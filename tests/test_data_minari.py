"""Minari: exact round trips, agreement with Minari's own library both ways, and one line for whatever is broken."""

import json
import shutil
import warnings
from contextlib import suppress
from dataclasses import replace

import gymnasium
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_examples import refused_in_one_line, same_column, same_source, small_columns, sources
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_sources import spaced_sources

from polyact import spaces
from polyact.data.episodes import Episodes
from polyact.data.formats import minari
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError

FORMATS = ("hdf5", "arrow", "parquet")


pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype does, while examples are drawn


def small(lengths=(3, 1, 4), **columns) -> Source:
    lengths = np.array(lengths)
    action_space = None if "action" in columns else spaces.Box(-1, 1, (1,))
    episodes = Episodes(lengths, **(small_columns(lengths, actions=1) | columns))
    return Source(episodes, "toy-v0", action_space=action_space, behaviour="random")


@pytest.mark.parametrize("data_format", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=spaced_sources() | sources().filter(lambda source: source.episodes.count), number=st.integers(0, 2**62))
def test_round_trip_is_exact(tmp_path, source, data_format, number):
    text = source.episodes.text
    assume(data_format != "hdf5" or text is None or not any("\0" in word for word in text))
    path = tmp_path / f"set-{number}-v0"
    shutil.rmtree(path, ignore_errors=True)
    minari.write([source], path, data_format=data_format)
    assert minari.detect(path)
    (found,) = minari.read(path)
    same_source(found, source)


def theirs(path, monkeypatch):
    library = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    return library


TUPLE = spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3)))


def rich() -> Source:
    rng = np.random.default_rng(1)
    observation = {
        "pose": {"0": rng.uniform(-1, 1, (11, 2)).astype(np.float32), "1": rng.integers(0, 3, 11)},
        "camera": rng.integers(0, 256, (11, 32, 32, 3)).astype(np.uint8),
        "word": np.array(list("abcdefghijk"), object),
    }
    space = spaces.Dict({"pose": TUPLE, "camera": spaces.Box(0, 255, (32, 32, 3), np.uint8), "word": spaces.Text(4, 1)})
    plain = small(observation=observation, info={"speed": np.arange(8.0), "qpos": rng.normal(size=(8, 2, 3))})
    return replace(plain, observation_space=space, metadata={"seeds": [3, 1, 4], "options": [{"goal": 2}, None, {"goal": 5}]})


@pytest.mark.parametrize("data_format", FORMATS)
def test_minari_reads_ours(tmp_path, monkeypatch, data_format):
    library, source = theirs(tmp_path, monkeypatch), rich()
    (tmp_path / "toys").mkdir()
    minari.write([source], tmp_path / "toys" / "rich-v3", data_format=data_format)
    found = library.load_dataset("toys/rich-v3")
    assert list(library.list_local_datasets()) == ["toys/rich-v3"]
    assert found.spec.version == 3
    assert (found.total_episodes, found.total_steps) == (3, 8)
    assert found.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    assert [m.get("seed") for m in found.storage.get_episode_metadata(range(3))] == [3, 1, 4]
    for number, episode in enumerate(found.iterate_episodes()):
        ours = source.episodes.episode(number)
        assert found.observation_space.contains({k: v if k != "pose" else (v[0][0], v[1][0]) for k, v in first(episode).items()})
        same_column(episode.observations["pose"][0], ours.observation["pose"]["0"], "pose")
        same_column(np.asarray(episode.observations["pose"][1]), ours.observation["pose"]["1"], "pose")
        same_column(episode.observations["camera"], ours.observation["camera"], "camera")
        assert list(episode.observations["word"]) == list(ours.observation["word"])
        same_column(episode.actions, ours.action, "action")
        for name, column in {"rewards": ours.reward, "terminations": ours.terminated, "truncations": ours.truncated}.items():
            same_column(getattr(episode, name), column, name)
        same_column(episode.infos["qpos"][-ours.steps :], ours.info["qpos"], "qpos")


def first(episode):
    parts = dict(episode.observations)
    return {"pose": parts["pose"], "camera": parts["camera"][0], "word": parts["word"][0]}


@pytest.mark.parametrize("data_format", FORMATS)
def test_we_read_what_minari_collects(tmp_path, monkeypatch, data_format):
    library = theirs(tmp_path, monkeypatch)
    env = library.DataCollector(gymnasium.make("CartPole-v1", max_episode_steps=12), record_infos=True, data_format=data_format)
    for seed in range(3):
        env.reset(seed=seed)
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = env.create_dataset("CartPole/random-v0", algorithm_name="random", description="toy")
    (found,) = minari.read(tmp_path / "CartPole" / "random-v0")
    assert (found.name, found.behaviour, found.embodiment) == ("CartPole/random-v0", "random", "CartPole-v1")
    assert found.action_space == spaces.Discrete(2)
    assert spaces.to_gymnasium(found.observation_space) == dataset.observation_space
    assert found.metadata["seeds"] == [0, 1, 2]
    assert found.metadata["minari"]["description"] == "toy"
    assert found.episodes.count == 3
    for number, episode in enumerate(dataset.iterate_episodes()):
        ours = found.episodes.episode(number)
        same_column(ours.observation, episode.observations, "observation")
        same_column(ours.action, np.asarray(episode.actions), "action")
        same_column(ours.reward, episode.rewards, "reward")
        same_column(ours.terminated, episode.terminations, "terminated")
        same_column(ours.truncated, episode.truncations, "truncated")


@pytest.mark.parametrize("data_format", FORMATS)
def test_we_read_what_minari_creates_from_buffers(tmp_path, monkeypatch, data_format):
    """Nested spaces, JPEG images, options, and infos with a row for the reset; no environment anywhere."""
    library = theirs(tmp_path, monkeypatch)
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    gym = gymnasium.spaces
    pose = gym.Tuple([gym.Box(-1, 1, (2,)), gym.Discrete(3)])
    space = gym.Dict({"pose": pose, "camera": gym.Box(0, 255, (32, 40, 3), np.uint8), "word": gym.Text(3)})
    smooth = np.linspace(0, 255, 32 * 40 * 3).reshape(32, 40, 3).astype(np.uint8)
    buffers = [
        EpisodeBuffer(
            id=None,
            seed=7 + steps,
            options={"goal": steps},
            observations={
                "pose": (rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32), rng.integers(0, 3, steps + 1)),
                "camera": np.stack([smooth] * (steps + 1)),
                "word": ["ab"] * (steps + 1),
            },
            actions=rng.integers(0, 4, steps),
            rewards=list(range(steps)),
            terminations=[False] * (steps - 1) + [True],
            truncations=[False] * steps,
            infos={"speed": np.arange(steps + 1.0), "body": {"height": np.ones((steps + 1, 2))}},
        )
        for steps in (2, 5)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.create_dataset_from_buffers(
            "toys/nested-v1", buffers, observation_space=space, action_space=gym.Discrete(4), data_format=data_format
        )
    (found,) = minari.read(tmp_path / "toys" / "nested-v1")
    episodes = found.episodes
    assert episodes.lengths.tolist() == [2, 5]
    assert found.embodiment == "default"
    assert set(episodes.observation) == {"pose", "camera", "word"}
    same_column(episodes.observation["pose"]["0"][3:], buffers[1].observations["pose"][0], "pose")
    assert np.abs(episodes.observation["camera"][0].astype(int) - smooth).max() < 40  # JPEG loses a little
    assert list(episodes.observation["word"]) == ["ab"] * 9
    assert episodes.info["speed"].tolist() == [1, 2, 1, 2, 3, 4, 5]
    assert found.metadata["reset_info"]["speed"] == [0.0, 0.0]
    assert found.metadata["options"] == [{"goal": 2}, {"goal": 5}]
    minari.write([found], tmp_path / "toys" / "again-v1", data_format=data_format)
    (again,) = minari.read(tmp_path / "toys" / "again-v1")
    same_source(*(replace(source, metadata={}) for source in (again, found)))
    for name in ("seeds", "options", "reset_info"):
        assert again.metadata[name] == found.metadata[name]
    assert library.load_dataset("toys/again-v1").observation_space == space


def test_several_sources_make_a_root(tmp_path):
    minari.write([small(), replace(small((2,)), name="other")], tmp_path / "root")
    assert [minari.read(path)[0].name for path in sorted((tmp_path / "root").iterdir())] == ["other", "toy-v0"]
    assert json.loads((tmp_path / "root" / "other-v0" / "data" / "metadata.json").read_text())["dataset_id"] == "other-v0"


def test_writing_never_replaces(tmp_path):
    minari.write([small()], tmp_path / "toy-v0")
    with pytest.raises(DataError, match="exists already"):
        minari.write([small()], tmp_path / "toy-v0")
    assert [path.name for path in tmp_path.iterdir()] == ["toy-v0"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    clash = small(cost=np.zeros(8), info={"cost": np.zeros(8)})
    with pytest.raises(DataError, match="infos/cost"):
        minari.write([clash], tmp_path / "toy-v0")
    assert not list(tmp_path.iterdir())
    with pytest.raises(PolyactError, match="unknown Minari data format 'hdf6'; did you mean 'hdf5'"):
        minari.write([small()], tmp_path / "toy-v0", data_format="hdf6")
    with pytest.raises(DataError, match="dataset_id is 'toy', expected"):
        minari.write([small()], tmp_path / "toy-v0", dataset_id="toy")


def test_missing_columns_are_not_finite_for_others_and_missing_for_us(tmp_path):
    bare = small(action=None, reward=None, truncated=None)
    minari.write([replace(bare, action_space=None)], tmp_path / "toy-v0")
    with h5py.File(tmp_path / "toy-v0" / "data" / "main_data.hdf5") as file:
        assert np.isnan(file["episode_0/rewards"]).all()
    (found,) = minari.read(tmp_path / "toy-v0")
    assert found.episodes.missing == (*("action", "reward", "truncated"), *small().episodes.missing)


def test_a_space_without_a_word_in_polyact_is_read_from_the_data(tmp_path):
    minari.write([small(action=np.arange(8)[:, None] % 3 + 1)], tmp_path / "toy-v0")
    path = tmp_path / "toy-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["polyact"], metadata["observation_space"]
    metadata["action_space"] = json.dumps({"type": "MultiDiscrete", "dtype": "int64", "nvec": [3], "start": [1]})
    path.write_text(json.dumps(metadata))
    (found,) = minari.read(tmp_path / "toy-v0")
    assert found.action_space == spaces.Box(1, 3, (1,), np.int64)
    assert found.observation_space.shape == (2,)
    assert found.name == "toy-v0"


def edit_metadata(**values):
    def edit(data):
        path = data / "metadata.json"
        metadata = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in metadata.items() if value != "gone"}))

    return edit


def edit_hdf5(action):
    def edit(data):
        with h5py.File(data / "main_data.hdf5", "a") as file:
            action(file)

    return edit


def put(name, row, value):
    def action(file):
        file[name][row] = value

    return edit_hdf5(action)


def resize(name, rows):
    return edit_hdf5(lambda file: file[name].resize(rows, axis=0))


def remove(name):
    return edit_hdf5(lambda file: file.pop(name))


def cut(name, keep=0.5):
    def edit(data):
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[: int(len(content) * keep)])

    return edit


def link_out(data):
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/actions"]
        file["episode_1/actions"] = h5py.ExternalLink("other.h5", "secret")


def promise_chunks(data):
    """Millions of chunks of one number, none of them stored: reading would look for each."""
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1/actions"]
        file.create_dataset("episode_1/actions", (10_000_000, 1), "f4", chunks=(1, 1))


BROKEN = {
    "link to another file": (link_out, r"field 'episode_1/actions' lies in another file"),
    "chunks that are not there": (promise_chunks, r"field 'episode_1/actions' claims shape \(10000000, 1\)"),
    "no metadata": (lambda data: (data / "metadata.json").unlink(), r"metadata.json: no such file"),
    "no episodes file": (lambda data: (data / "main_data.hdf5").unlink(), r"main_data.hdf5: no such file"),
    "half the metadata": (cut("metadata.json"), r"metadata.json: damaged"),
    "half the file": (cut("main_data.hdf5"), r"main_data.hdf5: .*truncated file"),
    "most of the file": (cut("main_data.hdf5", 0.9), r"main_data.hdf5: .*truncated file"),
    "format": (edit_metadata(data_format="zarr"), r"metadata.json: data_format is 'zarr', expected one of hdf5, arrow"),
    "episodes": (edit_metadata(total_episodes=4), r"main_data.hdf5: holds 3 episodes, expected episode_0 to episode_3"),
    "no episodes": (edit_metadata(total_episodes="gone"), r"total_episodes is None, expected a positive"),
    "steps": (edit_metadata(total_steps=9), r"total_steps is 9, but the episodes hold 8"),
    "space": (edit_metadata(observation_space="{"), r"observation_space: damaged"),
    "space object": (edit_metadata(action_space={"type": "Box"}), r"action_space is of type dict, expected a string"),
    "space name": (edit_metadata(action_space='{"low": 1}'), r"action_space has no 'type'"),
    "gap": (remove("episode_1"), r"holds 2 episodes, expected episode_0 to episode_2"),
    "no actions": (remove("episode_2/actions"), r"main_data.hdf5: episode 2 has no actions"),
    "no rewards": (remove("episode_2/rewards"), r"main_data.hdf5: episode 2 has no rewards"),
    "no last observation": (resize("episode_0/observations", 3), r"episode 0: observations has 3 rows, expected 4 \(3 rewards\)"),
    "short actions": (resize("episode_2/actions", 2), r"episode 2: actions has 2 rows, expected 4"),
    "short rewards": (resize("episode_2/rewards", 2), r"episode_2 says total_steps 4, but holds 2 rewards"),
    "nan observation": (put("episode_2/observations", 1, np.nan), r"column 'episode 2: observations' has nan in row 1"),
    "inf action": (put("episode_1/actions", 0, np.inf), r"main_data.hdf5: column 'episode 1: actions' has inf in row 0"),
    "nan reward": (put("episode_0/rewards", 2, np.nan), r"main_data.hdf5: column 'episode 0: rewards' has nan in row 2"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for data_format in FORMATS:
        minari.write([small()], folder / data_format, data_format=data_format)
    return folder


def edit_table(name, change):
    def edit(data):
        path = data / name
        pq.write_table(change(pq.read_table(path)), path)

    return edit


BROKEN_TABLES = {
    "cut": (cut("1/part-0.parquet"), r"1/part-0.parquet: damaged"),
    "no folder": (lambda data: shutil.rmtree(data / "1"), r"data: holds 2 episodes, expected folders 0 to 2"),
    "no table": (lambda data: (data / "1" / "part-0.parquet").unlink(), r"1: no parquet file here"),
    "no metadata": (lambda data: (data / "1" / "metadata.json").unlink(), r"1/metadata.json: no such file"),
    "rows": (edit_table("2/part-0.parquet", lambda table: table.slice(1)), r"part-0.parquet: has 4 rows, expected 4 \+ 1"),
    "column": (edit_table("2/part-0.parquet", lambda table: table.drop_columns("rewards")), r"episode 2 has no rewards"),
    "nulls": (
        edit_table("2/part-0.parquet", lambda t: t.set_column(2, "rewards", [[1.0, None, 1.0, 1.0, 0.0]])),
        r"column 'rewards' has no value in row 1",
    ),
}


BROKEN_IN = {"hdf5": BROKEN, "parquet": BROKEN_TABLES}


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in BROKEN_IN.items() for case in cases])
def test_what_is_broken_is_said_in_one_line(whole, tmp_path, kind, case):
    damage, message = BROKEN_IN[kind][case]
    shutil.copytree(whole / kind, tmp_path / "toy-v0")
    damage(tmp_path / "toy-v0" / "data")
    refused_in_one_line(lambda: minari.read(tmp_path / "toy-v0"), tmp_path, message)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 0.999), flip=st.integers(1, 255), data_format=st.sampled_from(FORMATS))
def test_a_flipped_byte_is_read_or_refused_never_a_traceback(whole, tmp_path, at, flip, data_format):
    folder = tmp_path / f"{data_format}-{at}-{flip}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole / data_format, folder)
    file = max(folder.rglob("*.*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= flip
    file.write_bytes(content)
    with suppress(DataError):
        assert minari.read(folder)[0].episodes.steps == 8
