"""LeRobotDataset v3.0 and v2.1: exact round trips, what others write, videos, and one line for whatever is broken."""

import builtins
import json
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_examples import refused_in_one_line, same_column, same_source, small_columns, sources
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_sources import spaced_sources

from polyact import spaces
from polyact.data.episodes import Episodes
from polyact.data.formats import lerobot
from polyact.data.formats.lerobot_stats import episode_stats, total_stats
from polyact.data.formats.video import decode_frames
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError

VERSIONS = ("v3.0", "v2.1")
FPS = 10


pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype does, while examples are drawn


def small(lengths=(3, 1, 4), **columns) -> Source:
    lengths = np.array(lengths)
    usual = small_columns(lengths, actions=3)
    usual["reward"] = usual["reward"].astype(np.float32)
    usual["text"] = np.array(["reach", "grasp"], object)[np.repeat(np.arange(len(lengths)) % 2, lengths)]
    return Source(Episodes(lengths, **(usual | columns)), "toy", embodiment="so100", control_hz=float(FPS))


def info_of(root):
    return json.loads((root / "meta" / "info.json").read_text())


def as_others_wrote_it(root):
    for name in ("polyact.json", "polyact_final.parquet"):
        (root / "meta" / name).unlink(missing_ok=True)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=spaced_sources() | sources().filter(lambda source: source.episodes.count), number=st.integers(0, 2**62))
def test_round_trip_is_exact(tmp_path, version, source, number):
    path = tmp_path / f"set-{number}"
    shutil.rmtree(path, ignore_errors=True)
    lerobot.write([source], path, version=version, data_files_size_in_mb=2e-4)
    assert lerobot.detect(path)
    (found,) = lerobot.read(path)
    same_source(found, source)
    assert "final_observation" not in found.metadata


@pytest.mark.parametrize("version", VERSIONS)
def test_layout_is_lerobots(tmp_path, version):
    lerobot.write([small()], tmp_path / "toy", version=version)
    info = info_of(tmp_path / "toy")
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == (version, FPS, "so100")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["splits"]) == (3, 8, 2, {"train": "0:3"})
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [2], "names": None}
    assert info["features"]["next.reward"] == {"dtype": "float32", "shape": [1], "names": None}
    files = sorted(str(path.relative_to(tmp_path / "toy")) for path in (tmp_path / "toy").rglob("*") if path.is_file())
    if version == "v3.0":
        assert files == [
            "data/chunk-000/file-000.parquet",
            "meta/episodes/chunk-000/file-000.parquet",
            "meta/info.json",
            "meta/polyact.json",
            "meta/polyact_final.parquet",
            "meta/stats.json",
            "meta/tasks.parquet",
        ]
        rows = pq.read_table(tmp_path / "toy" / files[1]).to_pylist()
        assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 3), (3, 4), (4, 8)]
        assert rows[1]["tasks"] == ["grasp"]
        assert set(json.loads((tmp_path / "toy" / "meta" / "stats.json").read_text())["action"]) == {
            *("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
        }
    else:
        assert files[:3] == [f"data/chunk-000/episode_{number:06d}.parquet" for number in range(3)]
        lines = (tmp_path / "toy" / "meta" / "episodes.jsonl").read_text().splitlines()
        assert json.loads(lines[2]) == {"episode_index": 2, "tasks": ["reach"], "length": 4}
    table = pq.read_table(tmp_path / "toy" / files[0])
    assert table.schema.field("observation.state").type == pa.list_(pa.float32(), 2)
    assert table.schema.field("next.reward").type == pa.float32()
    assert table.schema.field("timestamp").type == pa.float32()
    assert table["frame_index"].to_pylist()[:3] == [0, 1, 2]
    assert np.allclose(table["timestamp"].to_numpy()[:3], [0, 0.1, 0.2])


def test_files_and_chunks_fill_up(tmp_path):
    source = small((40,) * 12, text=None)
    lerobot.write([source], tmp_path / "toy", chunks_size=2, data_files_size_in_mb=0.01)
    files = sorted(str(path.relative_to(tmp_path / "toy" / "data")) for path in (tmp_path / "toy" / "data").rglob("*.parquet"))
    assert len(files) >= 3
    assert files[:3] == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    same_source(lerobot.read(tmp_path / "toy")[0], source)
    lerobot.write([source], tmp_path / "old", version="v2.1", chunks_size=5)
    assert (tmp_path / "old" / "data" / "chunk-002" / "episode_000011.parquet").is_file()
    same_source(lerobot.read(tmp_path / "old")[0], source)


@pytest.mark.parametrize("version", VERSIONS)
def test_chosen_episodes_in_the_order_asked(tmp_path, version):
    source = small()
    lerobot.write([source], tmp_path / "toy", version=version)
    (found,) = lerobot.read(tmp_path / "toy", episodes=[2, 0])
    same_source(found, replace(source, episodes=source.episodes.select([2, 0])))
    with pytest.raises(DataError, match="no episode 3; there are 3"):
        lerobot.read(tmp_path / "toy", episodes=[3])


@pytest.mark.parametrize("version", VERSIONS)
def test_data_of_others_repeat_the_last_observation_and_say_so(tmp_path, version):
    source = small()
    lerobot.write([source], tmp_path / "toy", version=version)
    as_others_wrote_it(tmp_path / "toy")
    (found,) = lerobot.read(tmp_path / "toy")
    assert found.metadata["final_observation"] == "repeated"
    assert (found.name, found.embodiment, found.control_hz) == ("toy", "so100", 10.0)
    episodes, ours = found.episodes, source.episodes
    ends = np.cumsum(ours.lengths) + np.arange(3)
    same_column(np.delete(episodes.observation, ends, 0), np.delete(ours.observation, ends, 0), "observation")
    assert np.array_equal(episodes.observation[ends], episodes.observation[ends - 1])
    for name in ("action", "reward", "terminated", "truncated", "text"):
        same_column(getattr(episodes, name), getattr(ours, name), name)
    lerobot.write([found], tmp_path / "again", version=version)
    assert not (tmp_path / "again" / "meta" / "polyact_final.parquet").exists()
    again = lerobot.read(tmp_path / "again")[0]
    assert again.metadata["final_observation"] == "repeated"
    same_source(*(replace(source, metadata={}) for source in (again, found)))


def test_edited_data_are_not_read_with_our_notes(tmp_path):
    """Whoever removes an episode does not know our side files: they no longer fit and are not used."""
    lerobot.write([small()], tmp_path / "toy", version="v2.1")
    root = tmp_path / "toy"
    (root / "data" / "chunk-000" / "episode_000002.parquet").unlink()
    lines = (root / "meta" / "episodes.jsonl").read_text().splitlines()
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines[:2]))
    (root / "meta" / "info.json").write_text(json.dumps(info_of(root) | {"total_episodes": 2, "total_frames": 4}))
    (found,) = lerobot.read(root)
    assert found.episodes.lengths.tolist() == [3, 1]
    assert found.metadata["final_observation"] == "repeated"


def other_set(root, features, columns, lengths=(2, 3), tasks=("move",)):
    """A v3.0 data set written without polyact."""
    lengths = np.array(lengths)
    steps = int(lengths.sum())
    frame = np.concatenate([np.arange(length) for length in lengths])
    index = {
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(steps),
        "task_index": np.zeros(steps, np.int64),
    }
    for name, column in index.items():
        features[name] = {"dtype": str(column.dtype), "shape": [1], "names": None}
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (root / folder).mkdir(parents=True)
    pq.write_table(pa.table(columns | index), root / "data/chunk-000/file-000.parquet")
    episodes = [
        {"episode_index": number, "tasks": list(tasks), "length": int(length), "data/chunk_index": 0, "data/file_index": 0}
        | {
            f"videos/{name}/{field}": value
            for name, feature in features.items()
            if feature["dtype"] == "video"
            for field, value in {
                "chunk_index": 0,
                "file_index": 0,
                "from_timestamp": float(lengths[:number].sum() / FPS),
                "to_timestamp": float(lengths[: number + 1].sum() / FPS),
            }.items()
        }
        for number, length in enumerate(lengths)
    ]
    pq.write_table(pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    tasks_table = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": list(tasks)})
    pq.write_table(tasks_table, root / "meta/tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": features,
        "total_episodes": len(lengths),
        "total_frames": steps,
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": None,
        "something_new": 1,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def vector(size, dtype="float32"):
    return {"dtype": dtype, "shape": [size], "names": [f"motor_{number}" for number in range(size)]}


def test_several_observations_become_a_dictionary(tmp_path):
    features = {name: vector(2) for name in ("observation.state", "observation.environment_state", "action")}
    columns = {name: np.arange(10, dtype=np.float32).reshape(5, 2).tolist() for name in features}
    (found,) = lerobot.read(other_set(tmp_path / "toy", features, columns))
    assert found.observation_space == spaces.Dict({name: spaces.Box([0, 1], [8, 9]) for name in ("state", "environment_state")})
    assert found.episodes.action.dtype == np.float32
    assert found.episodes.text.tolist() == ["move"] * 5
    assert found.metadata["lerobot"]["features"]["action"]["names"] == ["motor_0", "motor_1"]
    lerobot.write([found], tmp_path / "again")
    assert info_of(tmp_path / "again")["features"]["action"] == features["action"]
    assert info_of(tmp_path / "again")["something_new"] == 1


done = [False, True, False, False, True]


@pytest.mark.parametrize(
    ("flags", "terminated", "truncated"),
    [
        ({"next.done": done}, done, None),
        ({"next.done": done, "next.success": [False, False, False, False, True]}, [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]),
        ({"next.done": done, "next.truncated": [0, 1, 0, 0, 0]}, [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]),
        ({"next.truncated": done}, None, done),
        ({"next.success": done}, None, None),
    ],
)
def test_what_done_means(tmp_path, flags, terminated, truncated):
    features = {name: {"dtype": "bool", "shape": [1], "names": None} for name in flags} | {"action": vector(1)}
    columns = {name: np.array(values, bool) for name, values in flags.items()} | {"action": np.zeros(5, np.float32)}
    episodes = lerobot.read(other_set(tmp_path / "toy", features, columns))[0].episodes
    for found, expected in ((episodes.terminated, terminated), (episodes.truncated, truncated)):
        assert (found is None) == (expected is None)
        assert expected is None or found.tolist() == np.array(expected, bool).tolist()
    assert ("success" in episodes.info) == ("next.success" in flags)
    assert episodes.observation is None
    assert episodes.action.shape == (5, 1)


def test_pictures_are_exact_and_can_be_left_out(tmp_path):
    rng = np.random.default_rng(0)
    camera = rng.integers(0, 256, (11, 6, 5, 3)).astype(np.uint8)
    source = small(observation={"state": np.zeros((11, 2), np.float32), "images": {"top": camera}})
    lerobot.write([source], tmp_path / "toy")
    assert info_of(tmp_path / "toy")["features"]["observation.images.top"]["dtype"] == "image"
    same_source(lerobot.read(tmp_path / "toy")[0], source)
    (found,) = lerobot.read(tmp_path / "toy", images=False)
    assert list(found.episodes.observation) == ["state"]
    assert found.metadata["lerobot"]["not_read"] == ["observation.images.top"]
    with pytest.raises(DataError, match=r"decoding observation\.images\.top of 8 steps would take .* choose episodes"):
        lerobot.read(tmp_path / "toy", max_camera_bytes=100)
    stats = json.loads((tmp_path / "toy" / "meta" / "stats.json").read_text())["observation.images.top"]
    seen = np.delete(camera, [3, 5, 10], 0)
    assert np.allclose(np.array(stats["mean"])[:, 0, 0], (seen / 255).mean((0, 1, 2)))
    assert np.allclose(np.array(stats["std"])[:, 0, 0], (seen / 255).std((0, 1, 2)))
    assert np.allclose(np.array(stats["max"])[:, 0, 0], seen.max((0, 1, 2)) / 255)
    quantile = np.quantile(seen.reshape(-1, 3), 0.9, axis=0, method="lower") / 255
    assert np.allclose(np.array(stats["q90"])[:, 0, 0], quantile)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), shape=st.sampled_from([(), (1,), (3,), (2, 2)]))
def test_statistics_are_numpys(lengths, shape):
    lengths = np.array(lengths)
    column = np.random.default_rng(int(lengths.sum())).normal(size=(lengths.sum(), *shape))
    each, total = episode_stats(column, lengths, False), total_stats(column, False)
    for number, rows in enumerate([*np.split(column, np.cumsum(lengths)[:-1]), column]):
        found = {name: np.asarray(values[number]) for name, values in each.items()} if number < len(lengths) else total
        rows = rows.reshape(len(rows), *(shape or (1,)))
        for name in ("min", "max", "mean", "std"):
            assert np.allclose(found[name], getattr(rows, name)(0))
        for name, quantile in {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}.items():
            assert np.allclose(found[name], np.quantile(rows, quantile, axis=0))
        assert np.asarray(found["count"]).tolist() == [len(rows)]


def test_pictures_of_others(tmp_path):
    """A depth camera keeps its 16 bits, grey and RGB files fit what info.json says, files may lie beside the table."""
    pillow = pytest.importorskip("PIL.Image")
    pictures = {"depth": np.arange(5 * 6, dtype=np.uint16).reshape(5, 2, 3) * 999, "rgb": np.full((5, 2, 3, 3), 7, np.uint8)}
    features = {"observation.depth": {"dtype": "image", "shape": [2, 3, 1], "names": None}}
    features["observation.rgb"] = {"dtype": "image", "shape": [3, 2, 3], "names": ["channels", "height", "width"]}
    (tmp_path / "toy").mkdir()
    columns: dict = {}
    for name, frames in pictures.items():
        cells = []
        for number, frame in enumerate(frames):
            pillow.fromarray(frame).save(tmp_path / "toy" / f"{name}{number}.png")
            content = (tmp_path / "toy" / f"{name}{number}.png").read_bytes()
            cells.append({"bytes": None if name == "rgb" else content, "path": f"{name}{number}.png"})
        columns[f"observation.{name}"] = cells
    root = other_set(tmp_path / "toy", features, columns)
    observation = lerobot.read(root)[0].episodes.observation
    same_column(observation["depth"][:2, ..., 0], pictures["depth"][:2], "depth")
    same_column(observation["rgb"][:2], pictures["rgb"][:2], "rgb")
    (root / "rgb3.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"column 'observation\.rgb' has no readable picture in row 3"):
        lerobot.read(root)
    pillow.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "rgb3.png")
    with pytest.raises(DataError, match=r"picture of shape \(4, 4, 3\) in row 3, expected \(2, 3, 3\)"):
        lerobot.read(root)


def test_what_an_interrupted_write_left_is_not_looked_at(tmp_path):
    lerobot.write([small()], tmp_path / "toy")
    shutil.copytree(tmp_path / "toy", tmp_path / ".toy.0123abcd.partial")
    (tmp_path / ".toy.0123abcd.partial" / "meta" / "info.json").write_text("{")
    same_source(lerobot.read(tmp_path / "toy")[0], small())


def film(path, frames, fps=FPS):
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "0", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Two episodes in one file; frame i is grey of level 20 i."""
    features = {"observation.state": vector(2), "action": vector(2)}
    features["observation.images.top"] = {"dtype": "video", "shape": [3, 32, 48], "names": ["channels", "height", "width"]}
    columns = {name: np.zeros((5, 2)).tolist() for name in ("observation.state", "action")}
    root = other_set(tmp_path_factory.mktemp("filmed") / "toy", features, columns)
    frames = np.broadcast_to(20 * np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 32, 48, 3))
    film(root / "videos/observation.images.top/chunk-000/file-000.mp4", frames)
    return root


def levels(frames):
    assert frames.shape[1:] == (32, 48, 3)
    assert frames.dtype == np.uint8
    return np.round(frames.mean((1, 2, 3)) / 20).astype(int).tolist()


def test_video_frames_are_those_of_the_steps(filmed):
    (found,) = lerobot.read(filmed, videos=True)
    assert levels(found.episodes.observation["images.top"]) == [0, 1, 1, 2, 3, 4, 4]
    assert found.metadata["lerobot"]["not_read"] == []
    assert levels(lerobot.read(filmed, episodes=[1], videos=True)[0].episodes.observation["images.top"]) == [2, 3, 4, 4]
    assert levels(lerobot.read_frames(filmed, "observation.images.top", 1, [2, 0])) == [4, 2]
    assert levels(lerobot.read_frames(filmed, "observation.images.top", 0)) == [0, 1]
    with pytest.raises(DataError, match="episode 1 has steps 0 to 2"):
        lerobot.read_frames(filmed, "observation.images.top", 1, [3])
    with pytest.raises(DataError, match=r"'observation\.state' is not a video feature"):
        lerobot.read_frames(filmed, "observation.state", 1)


def test_videos_are_left_out_unless_asked_for(filmed):
    (found,) = lerobot.read(filmed)
    assert found.episodes.observation.shape == (7, 2)
    assert found.metadata["lerobot"]["not_read"] == ["observation.images.top"]


def test_frames_must_lie_at_the_time_asked(filmed):
    path = filmed / "videos/observation.images.top/chunk-000/file-000.mp4"
    assert levels(decode_frames(path, np.array([0.3, 0.1, 0.3]))) == [3, 1, 3]
    with pytest.raises(DataError, match=r"file-000\.mp4: no frame within 0\.0001 s of 0\.15 s"):
        decode_frames(path, np.array([0.1, 0.15]))
    with pytest.raises(DataError, match=r"no frame within 0\.0001 s of 0\.5 s"):
        decode_frames(path, np.array([0.4, 0.5]))
    assert levels(decode_frames(path, np.array([0.16]), tolerance=0.05)) == [2]


def test_videos_without_the_extra_name_it(filmed, monkeypatch):
    original = builtins.__import__

    def without_av(name, *rest, **options):
        if name == "av":
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr("importlib.import_module", lambda name: without_av(name))
    with pytest.raises(PolyactError, match=r"read with videos=False.*pip install 'polyact\[video\]'"):
        lerobot.read(filmed, videos=True)


def test_a_video_that_is_cut_or_absent(filmed, tmp_path):
    shutil.copytree(filmed, tmp_path / "toy")
    video = tmp_path / "toy/videos/observation.images.top/chunk-000/file-000.mp4"
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"file-000\.mp4: "):
        lerobot.read(tmp_path / "toy", videos=True)
    video.unlink()
    with pytest.raises(DataError, match=r"file-000\.mp4: no such file .*videos=False"):
        lerobot.read(tmp_path / "toy", videos=True)
    assert lerobot.read(tmp_path / "toy")[0].episodes.steps == 5


def test_several_sources_make_a_folder_of_data_sets(tmp_path):
    lerobot.write([small(), replace(small((2,)), name="other one")], tmp_path / "root")
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["other-one", "toy"]
    assert lerobot.read(tmp_path / "root" / "other-one")[0].name == "other one"


def test_writing_refuses_in_one_line_and_leaves_nothing(tmp_path):
    lerobot.write([small()], tmp_path / "toy")
    with pytest.raises(DataError, match="exists already"):
        lerobot.write([small()], tmp_path / "toy")
    with pytest.raises(PolyactError, match=r"unknown LeRobotDataset version 'v3'; did you mean 'v3\.0'"):
        lerobot.write([small()], tmp_path / "bad", version="v3")
    with pytest.raises(DataError, match="fps, chunks_size and data_files_size_in_mb must be positive"):
        lerobot.write([small()], tmp_path / "bad", fps=0)
    with pytest.raises(DataError, match="info/deep' has 6 dimensions"):
        lerobot.write([small(info={"deep": np.zeros((8, 1, 1, 1, 1, 1, 1))})], tmp_path / "bad")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def edit_info(**values):
    def edit(root):
        info = {key: value for key, value in (info_of(root) | values).items() if value != "gone"}
        (root / "meta" / "info.json").write_text(json.dumps(info))

    return edit


def edit_feature(name, **values):
    return lambda root: edit_info(features=info_of(root)["features"] | {name: info_of(root)["features"].get(name, {}) | values})(
        root
    )


def edit_table(name, change):
    def edit(root):
        pq.write_table(change(pq.read_table(root / name)), root / name)

    return edit


def put(column, row, value, file="data/chunk-000/file-000.parquet"):
    def change(table):
        values = table[column].to_pylist()
        values[row] = value
        kind = table.schema.field(column).type
        return table.set_column(table.column_names.index(column), column, pa.array(values, kind))

    return edit_table(file, change)


def cut(name, keep=0.5):
    def edit(root):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return edit


def unlink(name):
    return lambda root: (root / name).unlink()


DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
BROKEN = {
    "no info": (unlink("meta/info.json"), r"info.json: no such file"),
    "half the info": (cut("meta/info.json"), r"info.json: damaged"),
    "version": (edit_info(codebase_version="v1.6"), r"info.json: codebase_version is 'v1.6', this polyact reads v3.0, v2.1"),
    "no version": (edit_info(codebase_version="gone"), r"codebase_version is None"),
    "fps": (edit_info(fps=0), r"info.json: fps is 0, expected a positive number"),
    "fps text": (edit_info(fps="30"), r"info.json: fps is '30', expected a positive number"),
    "features": (edit_info(features=[]), r"info.json: features is list, expected an object"),
    "dtype": (edit_feature("action", dtype=None), r"info.json: feature 'action' has no dtype"),
    "unknown dtype": (edit_feature("action", dtype="floaty"), r"info.json: feature 'action': .*floaty"),
    "other dtype": (edit_feature("action", dtype="int64"), r"file-000.parquet: column 'action' holds float32, .* says int64"),
    "shape": (edit_feature("action", shape=3), r"info.json: feature 'action' has shape 3, expected a list"),
    "other shape": (edit_feature("action", shape=[4]), r"column 'action' has rows of shape \(3,\), meta/info.json says \(4,\)"),
    "absent column": (edit_feature("observation.x", dtype="float32", shape=[1]), r"column 'observation.x' is missing"),
    "episodes": (edit_info(total_episodes=4), r"info.json: total_episodes is 4, but .*meta/episodes has 3"),
    "frames": (edit_info(total_frames=9), r"info.json: total_frames is 9, but .*meta/episodes has 8"),
    "path": (edit_info(data_path=None), r"info.json: data_path is None, expected a path"),
    "path field": (edit_info(data_path="data/{chunk}.parquet"), r"info.json: data_path: .*field 'chunk'"),
    "path outside": (edit_info(data_path="../{file_index}.parquet"), r"info.json: data_path leads out of the data set"),
    "no tasks": (unlink("meta/tasks.parquet"), r"tasks.parquet: no such file"),
    "no episodes": (unlink(EPISODES), r"meta/episodes: no parquet file here"),
    "half the episodes": (cut(EPISODES), r"meta/episodes/chunk-000/file-000.parquet: damaged"),
    "episode gap": (put("episode_index", 1, 2, EPISODES), r"meta/episodes: row 1 has episode_index 2, expected 1"),
    "length": (put("length", 1, 0, EPISODES), r"meta/episodes: episode 1 has length 0, expected a positive"),
    "place": (put("data/file_index", 1, None, EPISODES), r"meta/episodes: episode 1 has data/file_index None"),
    "other file": (put("data/file_index", 1, 7, EPISODES), r"file-000.parquet: has 8 rows, expected 7"),
    "no data": (unlink(DATA), r"data/chunk-000/file-000.parquet: no such file"),
    "half the data": (cut(DATA), r"data/chunk-000/file-000.parquet: damaged"),
    "rows": (edit_table(DATA, lambda table: table.slice(1)), r"file-000.parquet: has 7 rows, expected 8 for episodes 0 to 2"),
    "order": (put("frame_index", 2, 5), r"column 'frame_index' has 5 in row 2, expected 2"),
    "episode": (put("episode_index", 3, 0), r"column 'episode_index' has 0 in row 3, expected 1"),
    "task": (put("task_index", 3, 9), r"column 'task_index' has 9, which meta/tasks does not list"),
    "null": (put("next.reward", 4, None), r"file-000.parquet: column 'next.reward' has no value in row 4"),
    "nan action": (put("action", 4, [0, 0, np.nan]), r"file-000.parquet: column 'action' has nan in row 4"),
    "nan state": (put("observation.state", 5, [np.nan, 1]), r"file-000.parquet: column 'observation.state' has nan in row 5"),
    "inf reward": (put("next.reward", 6, np.inf), r"file-000.parquet: column 'next.reward' has inf in row 6"),
    "half the final": (cut("meta/polyact_final.parquet"), r"polyact_final.parquet: damaged"),
    "half the notes": (cut("meta/polyact.json"), r"polyact.json: damaged"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for version in VERSIONS:
        lerobot.write([small()], folder / version, version=version)
    return folder


BROKEN_LINES = {
    "no episodes": (unlink("meta/episodes.jsonl"), r"episodes.jsonl: no such file"),
    "half the episodes": (cut("meta/episodes.jsonl"), r"episodes.jsonl: line 2: damaged"),
    "no tasks": (unlink("meta/tasks.jsonl"), r"tasks.jsonl: no such file"),
    "a list": (lambda root: (root / "meta/tasks.jsonl").write_text("[1]\n"), r"tasks.jsonl: line 1: .*expected a JSON object"),
    "no file": (unlink("data/chunk-000/episode_000001.parquet"), r"episode_000001.parquet: no such file"),
    "chunks": (edit_info(chunks_size=0), r"info.json: chunks_size is 0, expected a positive"),
}


BROKEN_IN = {"v3.0": BROKEN, "v2.1": BROKEN_LINES}


@pytest.mark.parametrize(("version", "case"), [(version, case) for version, cases in BROKEN_IN.items() for case in cases])
def test_what_is_broken_is_said_in_one_line(whole, tmp_path, version, case):
    damage, message = BROKEN_IN[version][case]
    shutil.copytree(whole / version, tmp_path / "toy")
    damage(tmp_path / "toy")
    refused_in_one_line(lambda: lerobot.read(tmp_path / "toy"), tmp_path, message)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 0.999), flip=st.integers(1, 255), version=st.sampled_from(VERSIONS), which=st.integers(0, 9))
def test_a_flipped_byte_is_read_or_refused_never_a_traceback(whole, tmp_path, at, flip, version, which):
    folder = tmp_path / f"{version}-{at}-{flip}-{which}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole / version, folder)
    files = sorted(path for path in folder.rglob("*.*") if path.is_file())
    file = files[which % len(files)]
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= flip
    file.write_bytes(content)
    with suppress(DataError):
        assert lerobot.read(folder)[0].episodes.steps == 8
