"""What is written is read back: random data sets through every format that can be written."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_examples import same_source, sources
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyact.data import formats
from polyact.data.episodes import Episodes
from polyact.data.formats.folder import FolderWriter
from polyact.data.source import Mixture, Source
from polyact.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype does, while examples are drawn
PLACES = {"npz": "d.npz", "folder": "d", "parquet": "d.parquet", "arrow": "d.arrow", "feather": "d.feather"}


@pytest.mark.parametrize("kind", PLACES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=sources())
def test_every_source_comes_back_exactly(kind, source):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PLACES[kind]
        formats.write(source, path)
        (back,) = formats.read(path)
        same_source(source, back)


@settings(max_examples=15, deadline=None)
@given(source=sources(), blocks=st.integers(1, 4))
def test_a_folder_written_in_pieces_is_the_folder_written_at_once(source, blocks):
    pieces = np.array_split(np.arange(source.episodes.count), blocks)
    with tempfile.TemporaryDirectory() as folder:
        with FolderWriter(Path(folder) / "d", source) as writer:
            for piece in pieces:
                writer.append(source.episodes.select(piece))
        same_source(source, formats.read(Path(folder) / "d")[0])


def test_columns_of_a_folder_are_memory_maps(tmp_path):
    formats.write(Episodes(np.array([2]), observation=np.zeros((3, 4), np.float32)), tmp_path / "d")
    assert isinstance(formats.read(tmp_path / "d")[0].episodes.observation, np.memmap)


def test_several_sources_come_back_with_their_names(tmp_path):
    parts = [Source(Episodes(np.array([n]), action=np.zeros((n, 1))), name) for n, name in ((1, "a/b"), (2, "c"), (3, "a b"))]
    for format in ("npz", "folder", "parquet"):
        formats.write(Mixture(tuple(parts), (0.2, 0.3, 0.5)), tmp_path / format, format)
        back = formats.read(tmp_path / format)
        assert {s.name: s.episodes.steps for s in back} == {"a/b": 1, "c": 2, "a b": 3}


def test_sources_of_one_name_are_told_apart_and_know_their_origin(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        formats.write(Source(Episodes(np.array([1]), action=np.zeros((1, 1))), "same"), tmp_path / folder / "d.npz")
    first, second = formats.read(tmp_path)
    assert (first.name, second.name) == ("same", "same-2")
    assert second.metadata["origin"] == {"format": "npz", "path": str(tmp_path / "y" / "d.npz")}


def test_the_origin_is_not_written(tmp_path):
    formats.write(Source(Episodes(np.array([1]), action=np.zeros((1, 1)))), tmp_path / "a.npz")
    formats.write(formats.read(tmp_path / "a.npz"), tmp_path / "b.npz")
    assert formats.read(tmp_path / "b.npz")[0].metadata["origin"]["path"] == str(tmp_path / "b.npz")
    assert b"a.npz" not in (tmp_path / "b.npz").read_bytes()


def test_writing_leaves_existing_files_alone(tmp_path):
    for place in PLACES.values():
        formats.write(Episodes(np.array([1]), action=np.zeros((1, 1))), tmp_path / place)
        with pytest.raises(DataError, match="exists already"):
            formats.write(Episodes(np.array([2]), action=np.zeros((2, 1))), tmp_path / place)
        assert formats.read(tmp_path / place)[0].episodes.steps == 1


@pytest.mark.parametrize("kind", PLACES)
def test_a_write_that_fails_leaves_nothing(kind, tmp_path):
    bad = Source(Episodes(np.array([2]), action=np.zeros((2, 1))), metadata={"a function": print})
    with pytest.raises(DataError, match="JSON"):
        formats.write(bad, tmp_path / PLACES[kind])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", PLACES)
def test_numbers_that_are_not_finite_are_not_written(kind, tmp_path):
    reward = np.array([0.0, 1.0, np.nan])
    with pytest.raises(DataError, match=r"'reward' has nan in row 2"):
        formats.write(Episodes(np.array([3]), reward=reward), tmp_path / PLACES[kind])
    assert list(tmp_path.iterdir()) == []


def test_info_may_hold_nan(tmp_path):
    episodes = Episodes(np.array([2]), action=np.zeros((2, 1)), info={"seen": np.array([np.nan, 1.0])})
    for place in PLACES.values():
        formats.write(episodes, tmp_path / place)
        np.testing.assert_array_equal(formats.read(tmp_path / place)[0].episodes.info["seen"], [np.nan, 1.0])


def test_large_data_is_copied_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("polyact.data.formats.folder._BLOCK", 5)
    monkeypatch.setattr("polyact.data.formats.parquet._BLOCK", 5)
    lengths = np.array([3, 4, 1, 12, 2, 2, 2])
    steps = int(lengths.sum())
    text = np.array([f"word {i % 7}" for i in range(steps)], object)
    episodes = Episodes(lengths, np.arange(float(steps + 7))[:, None], np.arange(float(steps))[:, None], text=text)
    for place in PLACES.values():
        formats.write(Source(episodes), tmp_path / place)
        same_source(Source(episodes), formats.read(tmp_path / place)[0])


def test_format_names():
    assert {name for name, entry in formats.FORMATS.items() if entry.writable} >= {"npz", "folder", "parquet"}
    for name, entry in formats.FORMATS.items():
        assert name == entry.module.NAME
        assert hasattr(entry.module, "write") == entry.writable


def test_unknown_and_read_only_formats(tmp_path):
    episodes = Episodes(np.array([1]), action=np.zeros((1, 1)))
    with pytest.raises(DataError, match="'d4rl' can be read but not written"):
        formats.write(episodes, tmp_path / "x.h5", "d4rl")
    with pytest.raises(ValueError, match="did you mean 'parquet'"):
        formats.write(episodes, tmp_path / "x", "parket")
    with pytest.raises(ValueError, match="did you mean 'npz'"):
        formats.read(tmp_path, "nbz")


def test_a_space_that_is_wider_than_the_data_is_kept(tmp_path):
    from polyact import spaces

    box = spaces.Box(-np.inf, np.array([1.5, np.inf]), dtype=np.float64)
    source = Source(Episodes(np.array([1]), action=np.zeros((1, 2))), action_space=box, control_hz=50.0)
    for place in PLACES.values():
        formats.write(source, tmp_path / place)
        back = formats.read(tmp_path / place)[0]
        assert back.action_space == box
        same_source(replace(source), back)
