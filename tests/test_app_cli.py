"""The command line as a user meets it: every command on small inputs, and every refusal in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyact.app.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data of the pendulum and a trained run."""
    folder = tmp_path_factory.mktemp("cli")
    before, os.environ["POLYACT_CACHE"] = os.environ.get("POLYACT_CACHE"), "off"
    data, run = str(folder / "data"), str(folder / "run")
    record_behaviours(folder / "data")
    trained = ["train", "bc", "--data", data, "--steps", "20", "--seeds", "2", "--out", run, "--set", "width=16", "--json"]
    assert main(trained) == 0
    yield (folder,)
    if before is None:
        del os.environ["POLYACT_CACHE"]
    else:
        os.environ["POLYACT_CACHE"] = before


def record_behaviours(folder: Path):
    import jax

    from polyact.acting.rollout import rollout
    from polyact.data import Source
    from polyact.data.formats import write
    from polyact.envs.pendulum import Pendulum
    from polyact.policies.random_policy import RandomPolicy

    env = Pendulum(horizon=20)
    episodes = rollout(RandomPolicy(env.action_space), env, episodes=4, key=jax.random.key(0))
    folder.mkdir()
    source = Source(episodes, "random", env.observation_space, env.action_space, control_hz=20.0)
    write(source, folder / "random", "minari")
    write(Source(episodes.without("action"), "mute", env.observation_space), folder / "mute.npz", "npz")


def run(*arguments, code=0):
    assert main([str(a) for a in arguments]) == code


def spoken(capsys):
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    run(*arguments, code=1)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_inspect_names_sources_missing_columns_and_learners(place, capsys):
    run("data", "inspect", place[0] / "data", "--json")
    found = {source["name"]: source for source in spoken(capsys)["sources"]}
    assert found["random"]["episodes"] == 4
    assert "bc" in found["random"]["learners"]
    assert "action" in found["mute"]["missing"]
    assert found["mute"]["learners"] == []


def test_inspect_prints_a_table_and_writes_a_page(place, capsys, tmp_path):
    run("data", "inspect", place[0] / "data", "--report", tmp_path / "page.html")
    assert "random" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "data:image/svg" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_convert_keeps_every_step(place, capsys, tmp_path):
    run("data", "convert", place[0] / "data" / "random", tmp_path / "out.parquet", "--to", "parquet", "--json")
    assert spoken(capsys)["sources"] == [{"name": "random", "episodes": 4, "steps": 80}]
    assert "exists" in refused(capsys, "data", "convert", place[0] / "data" / "random", tmp_path / "out.parquet", "--to", "parquet")


def test_a_run_folder_says_what_it_is(place):
    facts = json.loads((place[0] / "run" / "run.json").read_text())
    assert (facts["learner"], facts["seeds"], facts["steps"]) == ("bc", 2, 20)
    assert (place[0] / "run" / "seed-1" / "policy.json").exists()


def test_eval_pairs_runs_with_baselines_and_reports(place, capsys, tmp_path):
    page, info = tmp_path / "r.html", tmp_path / "eval_info.json"
    options = ("--env", "pendulum", "--episodes", 4, "--json", "--report", page, "--eval-info", info)
    run("eval", place[0] / "run", "random", "expert", *options)
    report = spoken(capsys)
    assert report["sections"][0]["tables"][0]["rows"][0][0] == "run"
    assert "<svg" in page.read_text()
    assert json.loads(info.read_text())["overall"]["n_episodes"] == 16  # two seeds of the run, random and expert


def test_eval_in_a_world_that_does_not_wait(place, capsys):
    clock = ("--control-hz", 20, "--latency", 0.1)
    run("eval", "expert", "random", "--env", "pendulum", "--episodes", 4, *clock)
    assert "latency 100 ms" in capsys.readouterr().out


def test_eval_says_the_latency_it_measured(place, capsys):
    run("eval", "expert", "--env", "pendulum", "--episodes", 2, "--control-hz", 20, "--latency", "measured", "--json")
    timing = next(section for section in spoken(capsys)["sections"] if section["title"] == "Timing")
    assert timing["tables"][1]["columns"] == ["policy", "median (ms)", "95% (ms)", "maximum (ms)"]
    name, *milliseconds = timing["tables"][1]["rows"][0]
    assert name == "expert"
    assert milliseconds == sorted(milliseconds)


def test_eval_draws_scores_over_latency(place, capsys):
    run("eval", "expert", "--env", "pendulum", "--episodes", 4, "--control-hz", 20, "--latencies", "0,0.05,0.1", "--json")
    latency = next(section for section in spoken(capsys)["sections"] if section["title"] == "Latency")
    assert latency["plots"][0]["curves"][0]["x"] == [0.0, 50.0, 100.0]


def test_train_online_and_resume(place, capsys, tmp_path):
    out = tmp_path / "ppo"
    train = ("train", "ppo", "--env", "pendulum", "--out", out, "--set", "width=16", "--set", "rollout_length=16", "--envs", 2)
    run(*train, "--steps", 64, "--json")
    assert spoken(capsys)["steps"] == 64
    assert "exists" in refused(capsys, *train, "--steps", 64)
    run(*train, "--steps", 64, "--overwrite", "--json")
    capsys.readouterr()
    run(*train, "--steps", 64, "--resume", "--json")
    assert spoken(capsys)["steps"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "iqll", "--data", "x"), "unknown learner 'iqll'; did you mean 'iql'"),
        (("train", "bc", "--data", "nowhere"), "no such file or folder"),
        (("train", "bc"), "needs --data PATH"),
        (("train", "ppo", "--data", "x"), "ppo learns in an environment"),
        (("train", "bc", "--data", "x", "--set", "widht=3"), "did you mean 'width'"),
        (("train", "bc", "--data", "x", "--set", "width"), "'width' is not a setting"),
        (("train", "bc", "--data", "x", "--set", "width=wide"), "width is 'wide', expected a whole number"),
        (("train", "bc", "--data", "x", "--set", "policy=gausian"), "did you mean 'gaussian'"),
        (("train", "bc", "--data", "x", "--set", "policy.size=3"), "option of GaussianOrCategorical 'size'"),
        (("train", "bc", "--data", "x", "--envs", "3"), "--envs has no effect"),
        (("eval", "nowhere", "--env", "pendulum"), "no finished run"),
        (("eval", "random", "--env", "pendulun"), "did you mean 'pendulum'"),
        (("eval", "random"), "say which with --env"),
        (("eval", "random", "--env", "pendulum", "--latency", "0.1"), "needs both --control-hz and --latency"),
        (("eval", "random", "--env", "pendulum", "--fallback", "zero"), "have no effect without"),
        (("data", "inspect", "nowhere"), "no such file or folder"),
        (("data", "make", "pendulun"), "did you mean 'pendulum'"),
        (("learners", "bcc"), "did you mean 'bc'"),
        (("envs", "hoper2d"), "did you mean 'hopper2d'"),
    ],
)
def test_bad_input_gets_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_errors_are_json_when_json_is_asked_for(capsys):
    run("learners", "bcc", "--json", code=1)
    assert "did you mean" in spoken(capsys)["error"]


def test_lists_are_complete_and_machine_readable(capsys):
    run("envs", "--json")
    assert {"pendulum", "hopper2d", "four-rooms"} <= {entry["name"] for entry in spoken(capsys)}
    run("learners", "--json")
    assert {"bc", "iql", "ppo"} <= {entry["name"] for entry in spoken(capsys)}


def test_every_listed_learner_and_environment_can_be_made(capsys):
    from polyact.envs.catalogue import names
    from polyact.learning.catalogue import LEARNERS, POLICIES, policy_class

    for name in LEARNERS:
        run("learners", name, "--json")
        assert spoken(capsys)["settings"]
    for name in names():
        run("envs", name, "--json")
        assert spoken(capsys)["horizon"] > 0
    for name in POLICIES:
        assert hasattr(policy_class(name), "create")


def test_help_does_not_import_jax():
    lines = (
        "import sys",
        "import polyact.app.cli as c",
        "try: c.main(['--help'])",
        "except SystemExit: pass",
        "assert 'jax' not in sys.modules",
    )
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
