"""What `polyact serve` makes of its arguments: which policy of which run goes by which name, and refusals in one line."""

import json

import jax
import numpy as np
import pytest
from policy_examples import filled
from serving_examples import DONE, MLP, SPEC, ask, connection
from test_app_cli import refused

from polyact import saving
from polyact.app import runs
from polyact.app.arguments import parse
from polyact.app.commands.serve import _sources
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.policies.base import Greedy
from polyact.policies.deterministic import Deterministic
from polyact.policies.gaussian import Gaussian
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.spec import Spec
from polyact.serving.hosted import Options
from polyact.serving.running import background
from polyact.serving.server import Server

SEEDS = [filled(Deterministic.create, SPEC, seed=seed) for seed in range(2)]
BODIES = [
    Source(Episodes(np.array([3]), observation=np.ones((4, width)), action=np.ones((3, 1))), name, embodiment=name)
    for name, width in (("arm", 2), ("base", 4))
]
ONES = np.ones(3, "f4")


@pytest.fixture
def place(tmp_path):
    """A run of two seeds, and policies: of one body, of several, with exploration, without a body."""
    (tmp_path / "run").mkdir()
    for number, policy in enumerate(SEEDS):
        saving.save(policy, tmp_path / "run" / f"seed-{number}", {"learner": "bc", "number": number})
    (tmp_path / "run" / "run.json").write_text(json.dumps({"version": runs.VERSION, "seeds": 2}))
    saving.save(MLP, tmp_path / "one")
    saving.save(filled(MultiBody.create, Spec.from_sources(BODIES, 7)), tmp_path / "several")
    saving.save(filled(Gaussian.create, SPEC), tmp_path / "exploring")
    saving.save(RandomPolicy(DONE), tmp_path / "random", {"env": "point-navigation"})
    return tmp_path


def offers(*arguments):
    """What is served, by name."""
    return {name: source.load() for name, source in _sources(parse(["serve", *map(str, arguments)])).items()}


def does(policy):
    return np.asarray(policy.act(ONES, None, jax.random.key(0))[0])


def test_number_says_which_policy_of_a_run(place):
    for options, number in (((), 0), (("--number", 1), 1)):
        (offer,) = offers(place / "run", *options).values()
        np.testing.assert_array_equal(does(offer.policy), does(SEEDS[number]))
        assert offer.facts == {"provenance": {"learner": "bc", "number": number}}


def test_body_says_which_body_of_a_policy(place):
    seen = {body: offers(place / "several", "--body", body)["several"].observation_space.shape for body in ("arm", "base")}
    assert seen == {"arm": (2,), "base": (4,)}


def test_exploration_is_kept_when_asked_for_and_spaces_come_from_the_environment_where_a_policy_has_none(place):
    assert isinstance(offers(place / "exploring")["exploring"].policy, Greedy)
    assert isinstance(offers(place / "exploring", "--stochastic")["exploring"].policy, Gaussian)
    assert offers(place / "random")["random"].observation_space.shape == (6,)
    assert offers(place / "random", "--env", "pendulum")["random"].observation_space.shape == (3,)


def test_several_runs_are_served_by_name_the_first_also_at_the_root(place):
    sources = _sources(parse(["serve", f"left={place / 'run'}", f"right={place / 'one'}"]))
    with background(Server(sources, Options(largest_batch=1), port=0)) as address:
        answers = {}
        for page in ("", "/left", "/right"):
            with connection(address + page) as socket:
                answers[page] = ask(socket, ONES)["actions"][0]
    np.testing.assert_allclose(answers["/left"], does(SEEDS[0]), rtol=1e-6)
    np.testing.assert_allclose(answers["/right"], does(MLP), rtol=1e-6)
    np.testing.assert_array_equal(answers[""], answers["/left"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "at least one folder"),
        (("run", "--number", 2), "holds the policies 0 .. 1, not number 2"),
        (("one", "--body", "arm"), "--body has no effect"),
        (("several",), "2 bodies (arm, base); choose one"),
        (("several", "--body", "leg"), "unknown body 'leg'"),
        (("one", "one"), "two runs are called 'one'; name one with NAME=FOLDER"),
        (("metrics=one",), "can't be called 'metrics'"),
        (("a/b=one",), "can't be called 'a/b'"),
        (("random", "--env", "pendulun"), "did you mean 'pendulum'"),
        (("nothing",), "no finished run"),
    ],
)
def test_refusals_are_one_line(place, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(place)
    monkeypatch.setenv("POLYACT_CACHE", "off")
    assert says in refused(capsys, "serve", "--port", 0, *arguments)
