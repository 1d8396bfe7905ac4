"""One policy from sources of different observation and action widths, in one fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Mixture, Source
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.bc import BC
from polyact.learning.fit import fit
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.gaussian import Gaussian
from polyact.policies.multibody import MultiBody
from polyact.spaces import Box

KEY = jax.random.key(0)


def source(name, seen, done, law):
    rng = np.random.default_rng(len(name))
    observation = rng.normal(size=(550, seen)).astype(np.float32)
    action = law(observation[np.arange(550) % 11 != 10]).astype(np.float32)
    episodes = Episodes(np.full(50, 10), observation, action, np.zeros(500), np.zeros(500, bool))
    return Source(episodes, name, action_space=Box(-2, 2, (done,)), embodiment=name)


@pytest.fixture(scope="module")
def mixture():
    arm = source("arm", 4, 2, lambda o: np.tanh(o[:, :2]))
    leg = source("leg", 2, 3, lambda o: np.tanh(np.stack([o[:, 0], -o[:, 1], o[:, 0]], 1)))
    return Mixture((arm, leg, source("arm two", 4, 2, lambda o: np.tanh(o[:, :2])).with_episodes(arm.episodes, "arm two")))


def test_one_fit_clones_every_body(mixture):
    learner = BC(Actor(MultiBody, Network(width=32)), Optimiser(3e-3, "cosine"))
    policy = fit(learner, mixture, steps=1500, key=KEY, batch_size=64).policy
    observation = np.array([0.5, -1.0, 0.3, 0.2])
    arm = policy.for_body("arm").mode(jnp.asarray(observation))
    leg = policy.for_body("leg").mode(jnp.asarray(observation[:2]))
    np.testing.assert_allclose(arm, np.tanh([0.5, -1.0]), atol=0.2)
    np.testing.assert_allclose(leg, np.tanh([0.5, 1.0, 0.5]), atol=0.2)


def test_learners_of_one_body_refuse_several(mixture):
    for learner in (BC(Actor(Gaussian)), IQL()):
        with pytest.raises(PolyactError, match="needs data of one body, got 3"):
            fit(learner, mixture, steps=1, key=KEY)
