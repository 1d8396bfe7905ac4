"""Run folders: what they say of themselves, and what is never lost or overwritten."""

import json
import subprocess
import sys

import numpy as np
import pytest

from polyact import saving
from polyact.app import cli, runs
from polyact.app.cli import main
from polyact.data import Episodes, Source
from polyact.data.formats import write
from polyact.errors import PolyactError, SavedError
from polyact.spaces import Box


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYACT_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    episodes = Episodes(np.array([6, 6]), rng.normal(size=(14, 3)).astype("f"), rng.uniform(-2, 2, (12, 1)).astype("f"))
    write(Source(episodes, "logs", Box(-9, 9, (3,)), Box(-2, 2, (1,))), tmp_path / "logs", "folder")
    return tmp_path


TRAIN = ("train", "bc", "--data", "logs", "--set", "width=4", "--batch-size", "4", "--steps", "6", "--out", "run")


def test_every_policy_says_where_it_comes_from(place, capsys):
    assert main([*TRAIN, "--seeds", "2", "--report-every", "3", "--json"]) == 0
    records = json.loads((place / "run" / "history.json").read_text())
    for number in (0, 1):
        facts = saving.read_provenance(place / "run" / f"seed-{number}")
        last = [record for record in records if record["seed"] == number][-1]
        assert facts["metrics"]["loss"] == last["loss"]
        assert facts["data"]["files"] == ["logs"]
        assert len(facts["data"]["fingerprint"]) == 16
        assert (facts["learner"], facts["settings"], facts["seed"], facts["number"]) == ("bc", ["width=4"], 0, number)
        assert {"polyact", "jax"} <= facts["versions"].keys()


def test_training_that_breaks_leaves_its_last_good_policy_and_says_why(place, capsys):
    assert main([*TRAIN, "--set", "learning_rate=1e38"]) == 1
    said = capsys.readouterr().err
    assert "is not finite" in said
    assert said.strip().endswith("is kept in run")
    found = runs.read(place / "run")
    assert "is not finite" in found.facts["stopped"]
    assert len(found.policies()) == 1


def test_a_run_is_only_lost_to_another(place, capsys):
    assert main([*TRAIN, "--json"]) == 0
    before = (place / "run" / "run.json").read_text()
    assert main([*TRAIN, "--overwrite", "--seeds", "0"]) == 1
    assert (place / "run" / "run.json").read_text() == before
    (place / "run" / "notes.txt").write_text("mine")
    assert main([*TRAIN, "--overwrite"]) == 1
    assert "also holds 'notes.txt'" in capsys.readouterr().err
    (place / "run" / "notes.txt").unlink()
    (place / "run" / ".seed-0.0123abcd.partial").mkdir()
    assert main([*TRAIN, "--overwrite", "--json"]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["logs", "run"]


DAMAGED = ["[]", "{", '{"version": 1}', '{"version": 1, "seeds": 0}', '{"version": 1, "seeds": 1, "env": 5}', "\xff"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_run_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text, "latin-1")
    with pytest.raises(SavedError, match=r"run\.json is damaged"):
        runs.read(tmp_path)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(SavedError, match="is no finished run"):
            runs.read(path)
    with pytest.raises(PolyactError, match="holds no run to resume"):
        runs.check_free(tmp_path, resume=True, overwrite=False)


def test_an_unexpected_error_is_one_line_too(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("line one\nline two")

    monkeypatch.setattr(cli, "import_module", lambda _: type("Command", (), {"run": staticmethod(fail)}))
    assert main(["envs", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == "polyact: unexpected RuntimeError: line one line two; --debug shows where\n"
    assert json.loads(out) == {"error": "unexpected RuntimeError: line one line two"}


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m polyact envs | true"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).stderr == b""
