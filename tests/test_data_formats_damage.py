"""Damaged files: one clear line each, whatever is wrong with them."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from polyact.data import formats
from polyact.data.episodes import Episodes
from polyact.data.formats.columns import check_finite
from polyact.data.formats.common import new_file, new_folder
from polyact.data.formats.folder import FolderWriter
from polyact.data.source import Source
from polyact.errors import DataError

STEPS = 6


def arrays() -> dict[str, np.ndarray]:
    observation = np.random.default_rng(0).normal(size=(STEPS, 2)).astype(np.float32)
    end = np.array([0, 0, 1, 0, 0, 1], bool)
    return {
        "observations": observation,
        "actions": -observation,
        "rewards": np.ones(STEPS),
        "terminals": end,
        "timeouts": end & False,
    }


def episodes() -> Episodes:
    rng = np.random.default_rng(0)
    text = np.array(["push"] * STEPS, object)
    return Episodes(np.array([2, 4]), rng.normal(size=(8, 2)), rng.normal(size=(STEPS, 1)), np.ones(STEPS), text=text)


def h5(path, content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file.create_dataset(name, data=value)


def d4rl(path):
    h5(path, arrays())


def d3rlpy(path):
    content: dict[str, Any] = {
        "columns": [b"observations", b"actions", b"rewards", b"terminated"],
        "num_episodes": 1,
        "version": "2.1",
    }
    content |= {f"{name}_0": arrays()[name] for name in ("observations", "actions", "rewards")} | {"terminated_0": True}
    h5(path, content)


def robomimic(path):
    both = {"actions": arrays()["actions"], "obs/state": arrays()["observations"], "next_obs/state": arrays()["observations"]}
    h5(path, {f"data/demo_{i}/{name}": value for i in range(2) for name, value in both.items()})


def npz(path):
    formats.write(Source(episodes()), path, "npz")


def foreign_npz(path):
    np.savez(path, **arrays())  # pyright: ignore[reportArgumentType]


def ogbench(path):
    np.savez(path, **{name: array for name, array in arrays().items() if name != "timeouts"})  # pyright: ignore[reportArgumentType]


def ope(path):
    value = {
        "n_rounds": STEPS,
        "n_actions": 2,
        "action": np.zeros(STEPS, int),
        "reward": np.ones(STEPS),
        "context": np.ones((STEPS, 2)),
    }
    np.savez(path, **value)


def table(path):
    formats.write(Source(episodes()), path, "parquet")


def foreign_table(path):
    columns = {"obs": list(arrays()["observations"]), "action": list(arrays()["actions"]), "done": arrays()["terminals"]}
    parquet.write_table(pa.table(columns), path)


FILES = {
    "d4rl.hdf5": d4rl,
    "d3rlpy.h5": d3rlpy,
    "robomimic.hdf5": robomimic,
    "own.npz": npz,
    "foreign.npz": foreign_npz,
    "ogbench.npz": ogbench,
    "ope.npz": ope,
    "own.parquet": table,
    "own.arrow": table,
    "foreign.parquet": foreign_table,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for name, make in FILES.items():
        make(folder / name)
        assert formats.read(folder / name)[0].episodes.steps
    return folder


def refused(path: Path) -> str:
    """Read what should be refused; the message, which is one line that names the path."""
    with pytest.raises(DataError) as caught:
        formats.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def read_or_refuse(path: Path) -> None:
    """Whatever is in the file: data, or one line in a DataError."""
    message = f"{path}"
    try:
        formats.read(path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    assert str(path) in message


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files(good, name, share, tmp_path):
    data = (good / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    refused(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_something_else(name, tmp_path):
    (tmp_path / name).write_bytes(b"<html><body>404 Not Found</body></html>" * 50)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("h5") and not name.endswith("hdf5")])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), length=st.integers(1, 8))
def test_changed_bytes(good, name, place, byte, length, tmp_path_factory):
    data = bytearray((good / name).read_bytes())
    start = int(place * len(data))
    data[start : start + length] = bytes([byte]) * length
    path = tmp_path_factory.mktemp("bad") / name
    path.write_bytes(data)
    read_or_refuse(path)
    shutil.rmtree(path.parent)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), name=st.sampled_from([*FILES]))
def test_random_bytes(data, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / name
    path.write_bytes(data)
    read_or_refuse(path)
    shutil.rmtree(path.parent)


_KEYS = st.sampled_from(["observations", "actions", "terminals", "timeouts", "rewards", "masks", "obs", "done", "header", "state"])
_ARRAYS = st.sampled_from(
    [
        np.zeros(3),
        np.zeros((3, 2)),
        np.zeros(0),
        np.array("{}"),
        np.array(1.5),
        np.array(["a"] * 3),
        np.ones((2, 3), bool),
        np.zeros(3, "M8[s]"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(content=st.dictionaries(_KEYS, _ARRAYS, max_size=6), kind=st.sampled_from(["npz", "hdf5", "parquet"]))
def test_random_keys(content, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / f"d.{kind}"
    if kind == "npz":
        np.savez(path, **content)  # pyright: ignore[reportArgumentType]
    elif kind == "parquet":
        rows = {name: array for name, array in content.items() if array.ndim and len(array) == 3}
        parquet.write_table(pa.table({name: list(array) for name, array in rows.items()}), path)
    else:
        with h5py.File(path, "w") as file:
            for name, array in content.items():
                file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array.astype("f8")
    read_or_refuse(path)
    shutil.rmtree(path.parent)


# What is said


@pytest.mark.parametrize(("name", "field"), [("observations", "observation"), ("rewards", "reward"), ("actions", "action")])
def test_nan_is_named_with_column_and_row(name, field, tmp_path):
    content = arrays()
    content[name][4] = np.nan
    h5(tmp_path / "d.h5", content)
    np.savez(tmp_path / "d.npz", **content)  # pyright: ignore[reportArgumentType]
    for file in ("d.h5", "d.npz"):
        assert f"'{field}" in refused(tmp_path / file).replace("rewards", "reward")
        assert "has nan in row 4, expected finite numbers" in refused(tmp_path / file)


def test_nan_in_a_table_a_bandit_log_and_a_demonstration(tmp_path):
    columns = {"obs": [0.0, float("nan")], "done": [False, True]}
    parquet.write_table(pa.table(columns), tmp_path / "d.parquet")
    assert "'observation' has nan in row 1" in refused(tmp_path / "d.parquet")
    np.savez(tmp_path / "d.npz", n_rounds=2, n_actions=2, action=[0, 1], reward=[0, np.nan])
    assert "'reward' has nan in row 1" in refused(tmp_path / "d.npz")
    h5(tmp_path / "d.h5", {"data/demo_0/actions": np.zeros((2, 1)), "data/demo_0/obs/state": np.array([[0.0], [np.inf]])})
    assert "data/demo_0: column 'observation/state' has inf in row 1" in refused(tmp_path / "d.h5")


@pytest.mark.parametrize("name", ["rewards", "actions", "timeouts"])
def test_columns_of_other_lengths(name, tmp_path):
    content = arrays()
    content[name] = content[name][:-1]
    h5(tmp_path / "d.h5", content)
    np.savez(tmp_path / "d.npz", **content)  # pyright: ignore[reportArgumentType]
    assert "5" in refused(tmp_path / "d.h5")
    assert "5 rows, expected 6 as in" in refused(tmp_path / "d.npz")


def test_flags_that_are_not_flags(tmp_path):
    h5(tmp_path / "d.h5", arrays() | {"terminals": np.full(STEPS, 0.5)})
    assert "'terminals' (float64) should hold only 0 and 1" in refused(tmp_path / "d.h5")


def test_missing_values_and_ragged_rows_of_a_table(tmp_path):
    parquet.write_table(pa.table({"obs": [0.0, None], "done": [False, True]}), tmp_path / "a.parquet")
    assert "'obs' has no value in row 1" in refused(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"obs": [[0.0], [1.0, 2.0]], "done": [False, True]}), tmp_path / "b.parquet")
    assert "'obs' has 2 values in row 1" in refused(tmp_path / "b.parquet")


class Bomb:
    def __reduce__(self):
        return (Path("/tmp/never-made-by-polyact").touch, ())


def test_pickles_are_never_opened(tmp_path):
    np.savez(tmp_path / "d.npz", obs=np.array([Bomb()], object), done=[1])
    assert "array 'obs' is pickled, and polyact never unpickles" in refused(tmp_path / "d.npz")
    formats.write(episodes(), tmp_path / "d")
    np.save(tmp_path / "d" / "action.npy", np.array([Bomb()], object))
    assert "action.npy" in refused_below(tmp_path / "d")
    assert not Path("/tmp/never-made-by-polyact").exists()


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path):
    h5(tmp_path / "other.h5", {"secret": np.zeros((STEPS, 1))})
    h5(tmp_path / "d.h5", {name: array for name, array in arrays().items() if name != "actions"})
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["actions"] = h5py.ExternalLink("other.h5", "secret")
    assert "'actions' lies in another file" in refused(tmp_path / "d.h5")


def test_data_sets_stored_outside_an_hdf5_file_are_not_read(tmp_path):
    (tmp_path / "raw").write_bytes(b"\0" * 8 * STEPS)
    h5(tmp_path / "d.h5", {name: array for name, array in arrays().items() if name != "rewards"})
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file.create_dataset("rewards", (STEPS,), "f8", external=[(str(tmp_path / "raw"), 0, 8 * STEPS)])
    assert "'rewards' lies in another file" in refused(tmp_path / "d.h5")


# The native folder


def refused_below(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        formats.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    formats.write(episodes(), tmp_path / "d")
    return tmp_path / "d"


@pytest.mark.parametrize("name", ["observation.npy", "action.npy", "lengths.npy", "meta.json"])
@pytest.mark.parametrize("keep", [0, 10, -1])
def test_truncated_files_of_a_folder(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:keep])
    assert name in refused_below(folder)


def test_a_folder_that_lacks_a_column(folder):
    (folder / "action.npy").unlink()
    assert refused_below(folder) == f"{folder / 'action.npy'}: no such file or folder"


def test_a_folder_whose_numbers_were_changed(folder):
    array = np.load(folder / "action.npy", mmap_mode="r+")
    array[3] = np.nan
    array.flush()
    assert "column 'action' has nan in row 3" in refused_below(folder)
    np.save(folder / "action.npy", np.zeros((STEPS, 2)))
    assert "meta.json says <f8 [6, 1]" in refused_below(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"polyact": 99}, "header version 99"),
        ({"name": 3}, "'name' is 3"),
        ({"control_hz": -1}, "'control_hz' is -1"),
        ({"observation_space": {"type": "Ball"}}, "unknown space type 'Ball'"),
        ({"action_space": {"type": "Discrete"}}, "malformed space"),
        (
            {"observation_space": {"type": "Box", "low": 0, "high": 1, "shape": [3], "dtype": "float32"}},
            "observation rows have shape",
        ),
        ({"columns": {"observation": {"file": "../observation.npy"}}}, "should name a file of this folder"),
        ({"columns": {"spin": {"file": "reward.npy", "dtype": "<f8", "shape": [6]}}}, "unknown column 'spin'"),
        ({"columns": []}, "needs a field 'columns'"),
        (
            {"columns": {"text": {"file": "text.npy", "dtype": "<i4", "shape": [6], "vocabulary": []}}},
            "codes outside its 0 strings",
        ),
        ({"columns": {"reward": {"file": "observation.npy", "dtype": "<f8", "shape": [8, 2]}}}, "expected 6 rows"),
    ],
)
def test_headers_that_are_wrong(folder, change, message):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | change))
    assert message in refused_below(folder)


def test_a_finiteness_check_reads_memory_maps_like_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr("polyact.data.formats.columns._CHUNK", 7)
    array = np.zeros((50, 3))
    array[41, 1] = np.inf
    np.save(tmp_path / "a.npy", array)
    for column in (array, np.load(tmp_path / "a.npy", mmap_mode="r"), np.load(tmp_path / "a.npy", mmap_mode="r")[::-1]):
        row = 41 if column[41, 1] else 8
        with pytest.raises(DataError, match=f"x: column 'c' has inf in row {row}, expected"):
            check_finite("x", "c", column)


# Half-written


def interrupted_file(path):
    with new_file(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt


def interrupted_folder(path):
    with new_folder(path) as aside:
        (aside / "c").write_text("half")
        raise KeyboardInterrupt


def interrupted_writer(path):
    with FolderWriter(path, Source(episodes())) as writer:
        writer.append(episodes())
        raise KeyboardInterrupt


@pytest.mark.parametrize("write", [interrupted_file, interrupted_folder, interrupted_writer])
def test_an_interrupted_write_leaves_nothing(write, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_write_are_named(tmp_path):
    formats.write(episodes(), tmp_path / "a.npz")
    leftover = tmp_path / ".b.npz.0123abcd.partial"
    leftover.write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    for path in (tmp_path, leftover):
        with pytest.raises(DataError, match=r"\.partial: half-written, left behind by a write that was interrupted"):
            formats.read(path)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (episodes().without("action"), r"column 'action' is not in all"),
        (replace(episodes(), action=np.zeros((STEPS, 1), np.float32)), r"column 'action': rows of float32 after float64"),
        (replace(episodes(), action=np.zeros((STEPS, 2))), r"column 'action': rows of float64 \(2,\) after float64 \(1,\)"),
        (replace(episodes(), reward=np.full(STEPS, np.nan)), r"'reward' has nan in row 0"),
    ],
)
def test_what_the_writer_of_a_folder_refuses(second, message, tmp_path):
    def both():
        with FolderWriter(tmp_path / "a", Source(episodes())) as writer:
            writer.append(episodes())
            writer.append(second)

    with pytest.raises(DataError, match=message):
        both()
    assert list(tmp_path.iterdir()) == []


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist"):
        formats.write(episodes(), tmp_path / "nowhere" / "d.npz")
    (tmp_path / "d.npz").symlink_to(tmp_path / "absent")
    with pytest.raises(DataError, match="exists already"):
        formats.write(episodes(), tmp_path / "d.npz")


# Which format


def test_importing_the_formats_is_cheap():
    heavy = "{'jax', 'h5py', 'pyarrow', 'matplotlib', 'av', 'rich'}"
    code = f"import sys, polyact.data.formats, polyact.data.inspect, polyact.data.pictures; print({heavy} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_what_is_not_there_or_not_data(tmp_path):
    assert refused(tmp_path / "x.npz").endswith("no such file or folder")
    (tmp_path / "notes.txt").write_text("hello")
    assert "no data set found here in any known format: folder (" in refused(tmp_path / "notes.txt")
    assert "no data set found here" in refused(tmp_path)
    h5(tmp_path / "d.h5", {"weights": np.zeros(3)})
    assert "no data set found here in any known format (it holds weights)" in refused(tmp_path / "d.h5")


def test_other_files_in_a_folder_are_no_trouble(tmp_path):
    formats.write(episodes(), tmp_path / "a.npz")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / ".cache").mkdir()
    assert len(formats.read(tmp_path)) == 1


def test_an_archive_with_other_things_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "holds 'readme.txt', which is not an array" in refused(tmp_path / "d.npz")


def test_object_columns_and_strange_types_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"column 'info/when' has type datetime64"):
        formats.write(Episodes(np.array([1]), info={"when": np.zeros(1, "M8[s]")}), tmp_path / "d")
    with pytest.raises(DataError, match=r"column 'text' holds int in row 0"):
        formats.write(Episodes(np.array([1]), text=np.array([1], object)), tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"column 'info/none' has no parts"):
        formats.write(Episodes(np.array([1]), info={"none": {}}), tmp_path / "d.parquet")
    assert list(tmp_path.iterdir()) == []
