"""What is learned on the tasks that polyact promises to solve, in its short form: fewer policies than `benchmarks/quality.py` trains.

Nothing was tuned with these seeds. Every policy is judged by its mode after the last step of training.
"""

import json

import jax
import numpy as np
import pytest

from polyact import saving
from polyact.acting.rollout import rollout
from polyact.app.cli import main
from polyact.data import Source
from polyact.data.formats import write
from polyact.envs.catalogue import make
from polyact.evaluation.evaluate import play
from polyact.learning.catalogue import learner
from polyact.learning.fit import fit
from polyact.policies.base import Policy, greedy
from polyact.policies.random_policy import RandomPolicy

pytestmark = pytest.mark.slow

TRAINING, JUDGING, COLLECTING = (jax.random.key(number) for number in (1000, 1500, 1900))
EPISODES = 64


def returns(policies, env):
    """Returns [policies, episodes], on the same initial states."""
    return np.stack([rollout(greedy(policy), env, episodes=EPISODES, key=JUDGING).returns for policy in policies])


def learned(name, settings, data, env, steps):
    """Returns [seeds, episodes] of three policies learned from data."""
    made = fit(learner(name, settings), data, steps=steps, seeds=3, key=TRAINING, progress=False)
    return returns(made.policies, env)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("td3-bc", ["width=64", "alpha=100.0", "learning_rate=1e-3"]),
        ("iql", ["width=64", "expectile=0.9", "temperature=10.0", "learning_rate=1e-3"]),
    ],
)
def test_random_torques_are_enough_to_swing_the_pendulum_up(name, settings):
    env = make("pendulum")
    data = rollout(RandomPolicy(env.action_space), env, episodes=500, key=COLLECTING)
    assert data.steps == 100_000
    assert learned(name, settings, data, env, 20_000).mean() > -200


def test_a_mujoco_task_is_solved_recorded_for_minari_and_cloned(tmp_path, monkeypatch, capsys):
    minari, task, dataset = pytest.importorskip("minari"), "gymnasium:InvertedPendulum-v5", "inverted-pendulum-v0"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def trained(name, *arguments):
        """The run's folder, and its mean return as `polyact eval` prints it."""
        run = str(tmp_path / name)
        assert main(["train", name, *arguments, "--seed", "1000", "--set", "width=64", "--out", run, "--json"]) == 0
        capsys.readouterr()
        assert main(["eval", run, "--env", task, "--episodes", "16", "--seed", "1500", "--json"]) == 0
        return tmp_path / name, json.loads(capsys.readouterr().out)["sections"][0]["tables"][0]["rows"][0][1]["value"]

    agent, value = trained("sac", "--env", task, "--steps", "20000", "--set", "learning_rate=1e-3")
    assert value == 1000
    env = make(task, count=16)
    explored = play(saving.load(agent / "seed-0", Policy), env, episodes=16, key=COLLECTING, explore=True)["policy"][0]
    write(Source(explored, dataset, env.observation_space, env.action_space), tmp_path / dataset, "minari")
    found = minari.load_dataset(dataset)
    assert (found.total_episodes, found.total_steps) == (16, explored.steps)
    assert trained("bc", "--data", str(tmp_path / dataset), "--steps", "5000")[1] == 1000
