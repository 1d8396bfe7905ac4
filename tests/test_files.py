"""What is written appears whole, or what was there stays; nothing else is left."""

import os

import pytest

from polyact.files import set_aside, whole_file, whole_folder


def content(place):
    """Every file below a folder, hidden ones too, by its relative path."""
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def write_file(path, text, stop=None):
    with whole_file(path) as aside:
        aside.write_text(text)
        if stop:
            raise stop


def write_folder(path, text, stop=None):
    with whole_folder(path) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / text).write_text(text)
        if stop:
            raise stop


WRITERS = {"file": (write_file, {"x": "old"}, {"x": "new"}), "folder": (write_folder, {"x/deep/old": "old"}, {"x/deep/new": "new"})}
EVERY_WRITER = pytest.mark.parametrize(("write", "old", "new"), WRITERS.values(), ids=WRITERS)


@EVERY_WRITER
def test_what_is_written_takes_the_place_of_what_was_there(write, old, new, tmp_path):
    write(tmp_path / "x", "old")
    assert content(tmp_path) == old
    write(tmp_path / "x", "new")
    assert content(tmp_path) == new


@EVERY_WRITER
def test_nothing_shows_before_the_block_ends(write, old, new, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((tmp_path / "x").exists()))
    write(tmp_path / "x", "old")
    assert seen == [False]


@EVERY_WRITER
@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_what_was_there(write, old, new, stop, tmp_path):
    with pytest.raises(stop):
        write(tmp_path / "x", "new", stop)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "x", "old")
    with pytest.raises(stop):
        write(tmp_path / "x", "new", stop)
    assert content(tmp_path) == old


@EVERY_WRITER
def test_a_full_disk_keeps_what_was_there(write, old, new, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    write(tmp_path / "x", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "x", "new")
    assert content(tmp_path) == old


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("number", "happens", "left"), [(1, "before", "old"), (1, "after", "old"), (2, "before", "old"), (2, "after", "new")]
)
def test_an_interruption_around_either_renaming_leaves_one_whole_folder(stop, number, happens, left, tmp_path, monkeypatch):
    write_folder(tmp_path / "x", "old")
    rename, calls = os.rename, []

    def interrupted(source, target):
        calls.append(target)
        now = len(calls) == number
        if now and happens == "before":
            raise stop
        rename(source, target)
        if now:
            raise stop

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(stop):
        write_folder(tmp_path / "x", "new")
    assert content(tmp_path) == {f"x/deep/{left}": left}


def test_what_was_set_aside_comes_back_unless_something_took_its_place(tmp_path):
    (tmp_path / "x").write_text("old")
    with set_aside(tmp_path / "x"):
        assert not (tmp_path / "x").exists()
    assert content(tmp_path) == {"x": "old"}
    with pytest.raises(KeyboardInterrupt), set_aside(tmp_path / "x"):
        raise KeyboardInterrupt
    assert content(tmp_path) == {"x": "old"}
    with set_aside(tmp_path / "x"):
        write_folder(tmp_path / "x", "new")
    assert content(tmp_path) == {"x/deep/new": "new"}
    with set_aside(tmp_path / "nothing"):
        pass
    assert content(tmp_path) == {"x/deep/new": "new"}


def test_replacing_a_link_spares_what_it_leads_to(tmp_path):
    write_folder(tmp_path / "far", "old")
    (tmp_path / "x").symlink_to(tmp_path / "far")
    write_folder(tmp_path / "x", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "x"]
    assert content(tmp_path) == {"far/deep/old": "old", "x/deep/new": "new"}
