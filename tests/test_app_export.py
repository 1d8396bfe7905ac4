"""`polyact export` and `polyact eval --onnx` as a user meets them: files that act as the policy does, and refusals in one line."""

import json
import sys

import jax
import pytest
from policy_examples import filled
from test_app_cli import refused, run, spoken

from polyact import saving
from polyact.acting.rollout import rollout
from polyact.envs import catalogue
from polyact.exporting import sidecar
from polyact.policies.base import greedy
from polyact.policies.chunk import ChunkRegression
from polyact.policies.gaussian import Gaussian
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec

pytestmark = pytest.mark.usefixtures("unoptimised")
ENV = catalogue.make("double-integrator")
SPEC = Spec.of(ENV.observation_space, ENV.action_space, 10)
POLICIES = {
    "gaussian": lambda: filled(Gaussian.create, SPEC),
    "recurrent": lambda: filled(Recurrent.create, SPEC),
    "chunks": lambda: filled(ChunkRegression.create, SPEC, horizon=4, history=2),
    "several": lambda: filled(MultiBody.create, SPEC),
    "random": lambda: RandomPolicy(ENV.action_space),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    for name, make in POLICIES.items():
        saving.save(make(), folder / name, {"learner": "none"})
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYACT_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_and_its_description_are_written_and_the_difference_is_said(place, here, capsys):
    run("export", place / "gaussian", "--env", "double-integrator", "--json")
    said = spoken(capsys)
    assert said["file"] == "gaussian.onnx"
    assert said["largest_difference"] < 1e-5
    assert {path.name for path in here.iterdir()} == {"gaussian.onnx", "gaussian.onnx.json"}
    facts = json.loads((here / said["description"]).read_text())
    assert facts["policy"] == "Greedy(Gaussian)"
    assert facts["control_hz"] == 10.0
    assert facts["provenance"]["env"] == "double-integrator"
    assert facts["provenance"]["learner"] == "none"
    assert facts["inputs"] == [{"name": "observation", "shape": ["batch", 2], "dtype": "float32"}]
    assert facts["observation_space"]["type"] == facts["action_space"]["type"] == "Box"


def test_memory_and_chunks_are_named(place, here, capsys):
    run("export", place / "chunks", "--execute", 2, "--control-hz", 50)
    said = " ".join(capsys.readouterr().out.split())
    assert "observation, memory.chunk, memory.played, memory.planner" in said
    assert "reset -> action, next_memory.chunk, next_memory.played, next_memory.planner" in said
    assert "Largest difference" in said
    facts = sidecar.read(here / "chunks.onnx")
    assert (facts.policy, facts.control_hz) == ("RecedingHorizon(ChunkRegression)", 50)
    run("export", place / "chunks", "--chunk", "--overwrite")
    assert sidecar.read(here / "chunks.onnx").outputs[0].shape == (4, 1)


def test_every_format_is_written(place, here):
    for format, files in {"stablehlo": ["gaussian.stablehlo"], "numpy": ["gaussian.npz", "gaussian.py"]}.items():
        run("export", place / "gaussian", "--format", format, "--out", here / format / files[-1])
        assert sorted(path.name for path in (here / format).iterdir()) == sorted([*files, files[-1] + ".json"])


def test_eval_scores_a_deterministic_file_as_the_policy_does(place, here, capsys):
    run("export", place / "recurrent", "--env", "double-integrator")
    capsys.readouterr()
    run("eval", "--onnx", "recurrent.onnx", "--episodes", 8, "--seed", 3, "--json")
    row = spoken(capsys)["sections"][0]["tables"][0]["rows"][0]
    original = rollout(greedy(saving.load(place / "recurrent")), ENV, episodes=8, key=jax.random.key(3))
    assert row[0] == "recurrent.onnx"
    assert row[1]["value"] == pytest.approx(original.returns.mean(), rel=1e-5)


def test_a_random_file_scores_what_the_policy_scores_within_the_interval(place, here, capsys):
    run("export", place / "gaussian", "--stochastic")
    assert sidecar.read(here / "gaussian.onnx").distributions == {"noise.0": "normal"}
    capsys.readouterr()
    both = (place / "gaussian", "--onnx", here / "gaussian.onnx", "--stochastic")
    run("eval", *both, "--env", "double-integrator", "--episodes", 64, "--json")
    (row,) = spoken(capsys)["sections"][1]["tables"][0]["rows"]
    assert row[0] == "gaussian.onnx minus gaussian"
    assert row[1]["low"] < 0 < row[1]["high"]
    assert row[1]["high"] - row[1]["low"] > 1e-3  # they drew numbers of their own


def test_several_bodies_and_spaces_that_a_policy_does_not_say(place, here):
    run("export", place / "random", "--env", "double-integrator")
    run("export", place / "several")
    assert sidecar.read(here / "random.onnx").action_space == sidecar.read(here / "several.onnx").action_space == ENV.action_space


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gaussian", "--format", "onxx"), "did you mean 'onnx'"),
        (("gaussian", "--out", "policy.bin"), "expected a file that ends in .onnx"),
        (("gaussian", "--chunk"), "--chunk has no effect: Gaussian plans no chunks of actions"),
        (("gaussian", "--execute", 2), "--execute has no effect"),
        (("chunks", "--execute", 9), "between 1 and the horizon 4"),
        (("chunks", "--execute", 2, "--chunk"), "contradict each other"),
        (("gaussian", "--body", "a"), "--body a has no effect"),
        (("several", "--body", "a"), "unknown body 'a'"),
        (("gaussian", "--control-hz", 0), "expected a positive number"),
        (("recurrent", "--format", "numpy"), "a numpy file is one perceptron"),
        (("random",), "name an environment"),
        (("nothing",), "no finished run"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(place, here, capsys, arguments, says):
    name, *options = arguments
    assert says in refused(capsys, "export", place / name, *options)
    assert not list(here.iterdir())


def test_what_is_there_stays_unless_it_is_to_be_replaced(place, here, capsys):
    (here / "gaussian.onnx").write_text("mine")
    assert "use --overwrite" in refused(capsys, "export", place / "gaussian")
    assert (here / "gaussian.onnx").read_text() == "mine"
    run("export", place / "gaussian", "--overwrite")


def test_a_failing_export_leaves_nothing(place, here, capsys, monkeypatch):
    monkeypatch.setattr("polyact.app.commands.export.largest_difference", lambda *_: float("nan"))
    assert "not finite" in refused(capsys, "export", place / "gaussian")
    assert not list(here.iterdir())


def test_a_missing_package_is_named(place, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'polyact[export]'" in refused(capsys, "export", place / "gaussian")
    assert not list(here.iterdir())


def test_files_that_eval_can_not_score_are_refused_in_one_line(place, here, capsys):
    run("export", place / "gaussian")
    file = here / "gaussian.onnx"
    assert "say which with --env" in refused(capsys, "eval", "--onnx", file)
    assert "is no file" in refused(capsys, "eval", "--onnx", "nothing.onnx", "--env", "pendulum")
    assert "was made for observations" in refused(capsys, "eval", "--onnx", file, "--env", "pendulum")
    assert "named twice" in refused(capsys, "eval", "--onnx", file, "--onnx", file, "--env", "double-integrator")
    file.write_bytes(file.read_bytes()[:-100])
    assert "is damaged or does not belong" in refused(capsys, "eval", "--onnx", file, "--env", "double-integrator")
    sidecar.beside(file).unlink()
    assert "no description gaussian.onnx.json" in refused(capsys, "eval", "--onnx", file, "--env", "double-integrator")
