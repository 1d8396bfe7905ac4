"""Which learners a source can feed, by its columns and by the kinds of its observations and actions."""

import tracemalloc

import equinox as eqx
import jax
import numpy as np
import pytest

from polyact import spaces
from polyact.app.commands.inspect import needs
from polyact.data.episodes import Episodes
from polyact.data.feeds import Needs, lacks
from polyact.data.inspect import inspect
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.learning.bc import BC
from polyact.learning.catalogue import LEARNERS, learner
from polyact.learning.fit import fit
from polyact.policies.spec import Spec

BILLIONS = 300_000_000_000
NUMBERS, WORDS, ITEMS = np.zeros((3, 2), np.float32), np.array(["a", "b", "c"]), np.array([0, 1, BILLIONS - 1])
CONTINUOUS, CLASSES, CHOICES = np.zeros((2, 1), np.float32), np.array([0, 2]), np.array([[0, 1], [1, 0]])
EVERY = {"bc", "td3-bc", "iql", "cql", "cql-discrete", "awac", "fqi"}
LACKING = "continuous actions or discrete actions"


def source(observation, action, observation_space=None, action_space=None) -> Source:
    episodes = Episodes(np.array([2]), observation, action, np.zeros(2, np.float32), np.zeros(2, bool))
    return Source(episodes, "s", observation_space, action_space)


def learners(fed: Source) -> set[str]:
    return set(inspect([fed], needs()).sources[0].learners)


@pytest.mark.parametrize(
    ("action", "space", "fed"),
    [
        (CONTINUOUS, None, EVERY - {"fqi", "cql-discrete"}),
        (CLASSES, None, EVERY - {"td3-bc", "cql"}),
        (CHOICES, spaces.MultiDiscrete((2, 2)), {"bc", "iql", "awac"}),
        (CHOICES, spaces.MultiBinary(2), {"bc", "iql", "awac"}),
        (CHOICES, spaces.Box(0, 1, (2,), np.int64), set()),
        ({"arm": CONTINUOUS, "grip": CLASSES}, None, set()),
        (WORDS[:2], None, set()),
        (ITEMS[1:], None, set()),
    ],
)
def test_a_learner_is_fed_by_the_actions_it_takes(action, space, fed):
    assert learners(source(NUMBERS, action, action_space=space)) == fed


def test_what_is_lacking_is_said():
    every = needs()
    assert lacks(source(NUMBERS, CLASSES), every)["td3-bc"] == ("continuous actions",)
    assert lacks(source(NUMBERS, CONTINUOUS), every)["fqi"] == ("discrete actions",)
    assert lacks(source(NUMBERS, CHOICES, action_space=spaces.MultiBinary(2)), every)["fqi"] == ("a single discrete action",)
    assert lacks(source(NUMBERS, {"arm": CONTINUOUS}), every)["bc"] == (LACKING,)
    assert lacks(source(WORDS, ITEMS[1:]), every)["bc"] == ("observations that can be encoded", "actions that can be encoded")
    assert lacks(source(WORDS, None), {"sorter": Needs(("action", "reward"))})["sorter"] == ("action",)


@pytest.mark.parametrize("observation", [WORDS, ITEMS, {"seen": NUMBERS, "word": WORDS}, {"seen": {"item": ITEMS}}])
def test_observations_that_no_network_can_read_feed_nobody(observation):
    unreadable = source(observation, CONTINUOUS)
    assert learners(unreadable) == set()
    refused(unreadable)


def test_actions_among_billions_are_refused_before_a_network_is_made_for_them():
    refused(source(NUMBERS, ITEMS[1:]))


def refused(fed: Source) -> None:
    with pytest.raises(PolyactError) as error:
        fit(BC(), fed, steps=1, key=jax.random.key(0), progress=False)
    assert "\n" not in str(error.value)


def test_a_number_of_classes_costs_no_memory():
    billions = source(ITEMS, ITEMS[1:])
    tracemalloc.start()
    inspect([billions], needs())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("action", [CONTINUOUS, CLASSES, CHOICES], ids=["continuous", "classes", "choices"])
def test_what_is_claimed_is_what_learners_take(name, action):
    fed = source(NUMBERS, action, action_space=spaces.MultiBinary(2) if action is CHOICES else None)
    claimed = not lacks(fed, {name: needs()[name]})[name]
    assert claimed == _takes(name, fed)


def _takes(name: str, fed: Source) -> bool:
    try:
        eqx.filter_eval_shape(learner(name).init, Spec.from_sources([fed], 1), jax.random.key(0))
    except PolyactError:
        return False
    return True


def test_the_needs_are_those_of_the_learners_that_learn_from_data():
    assert set(needs()) == EVERY == {name for name, entry in LEARNERS.items() if entry.offline}
