"""Which learner takes which actions: those that work can also be updated, the others say in one line why not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Source
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning.awac import AWAC
from polyact.learning.bc import BC
from polyact.learning.catalogue import LEARNERS, learner
from polyact.learning.cql_discrete import DiscreteCQL
from polyact.learning.dynamics import DynamicsEnsemble
from polyact.learning.fit import fit
from polyact.learning.fitted_q import FQE
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import greedy
from polyact.policies.categorical import Categorical
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.spec import Spec
from polyact.spaces import Box, Discrete, MultiDiscrete

KEY = jax.random.key(0)
SEEN = Box(-1, 1, (3,))
SPACES = {"box": Box(-1, 2, (2,)), "discrete": Discrete(3, start=1), "several": MultiDiscrete((3, 2))}
LOGGED = {"box": jnp.zeros((4, 2)), "discrete": jnp.array([1, 3, 2, 2]), "several": jnp.array([[2, 1], [0, 0], [1, 1], [2, 0]])}
EVERY, BOX, ONE_CHOICE = set(SPACES), {"box"}, {"discrete"}
TAKES = {
    "bc": EVERY,
    "td3-bc": BOX,
    "iql": EVERY,
    "cql": BOX,
    "cql-discrete": ONE_CHOICE,
    "awac": EVERY,
    "fqi": ONE_CHOICE,
    "td3": BOX,
    "sac": BOX,
    "dqn": ONE_CHOICE,
    "ppo": EVERY,
    "trpo": EVERY,
    "reinforce": EVERY,
}


def test_the_table_below_is_complete():
    assert set(TAKES) | {"tabular-q"} == set(LEARNERS)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", TAKES)
def test_a_learner_takes_the_actions_it_says_or_refuses_in_one_line(name, kind):
    entry, made, spec = LEARNERS[name], learner(name), Spec.of(SEEN, SPACES[kind], 10)
    assert (entry.continuous, entry.discrete) == ("box" in TAKES[name], "discrete" in TAKES[name])
    assert not entry.discrete or entry.single_choice == ("several" not in TAKES[name])
    if kind in TAKES[name]:
        _abstract_update(made, spec, kind) if entry.offline else eqx.filter_eval_shape(made.init, spec, KEY)
        return
    with pytest.raises(PolyactError) as refused:
        eqx.filter_eval_shape(made.init, spec, KEY)
    assert "\n" not in str(refused.value)
    assert "action" in str(refused.value)


@pytest.mark.parametrize("kind", SPACES)
def test_models_and_judgements_take_all_actions(kind):
    spec = Spec.of(SEEN, SPACES[kind], 10)
    for trainable in (DynamicsEnsemble(2, Network(width=8)), FQE(RandomPolicy(SPACES[kind]))):
        _abstract_update(trainable, spec, kind)


def _abstract_update(trainable, spec, kind):
    """Shapes only: nothing is compiled."""
    rows = jnp.zeros((4, 3))
    batch = Batch(
        observation=rows, next_observation=rows, action=LOGGED[kind], reward=jnp.zeros(4), bootstrap=jnp.ones(4), mask=None
    )
    state = eqx.filter_eval_shape(trainable.init, spec, KEY)
    moved, metrics = eqx.filter_eval_shape(trainable.update, state, batch, KEY)
    assert jax.tree.map(jnp.shape, eqx.filter(moved, _has_shape)) == jax.tree.map(jnp.shape, eqx.filter(state, _has_shape))
    assert all(value.shape == () for value in metrics.values())


def _has_shape(leaf):
    return hasattr(leaf, "shape")


SMALL, FAST = Network(width=16, depth=1), Optimiser(1e-2)
DISCRETE = {
    "iql": IQL(network=SMALL, actor_optimiser=FAST, value_optimiser=FAST, critic_optimiser=FAST, temperature=20.0),
    "awac": AWAC(network=SMALL, actor_optimiser=FAST, critic_optimiser=FAST, temperature=0.05),
    "cql": DiscreteCQL(SMALL, FAST, conservative=0.1),
}


@pytest.fixture(scope="module")
def bandit():
    """One-step episodes with one-hot observation i of 3: action i earns 1, the others 0; the behaviour prefers action 0."""
    rng = np.random.default_rng(0)
    number, action = rng.integers(3, size=900), rng.choice(3, size=900, p=[0.6, 0.2, 0.2])
    reward = (number == action).astype(np.float32)
    seen = np.repeat(np.eye(3, dtype=np.float32)[number], 2, 0)
    return Source(Episodes(np.ones(900, int), seen, action, reward, np.ones(900, bool)), action_space=Discrete(3))


@pytest.mark.parametrize("name", DISCRETE)
def test_learners_find_the_best_of_discrete_actions(bandit, name):
    policy = fit(DISCRETE[name], bandit, steps=400, key=KEY, batch_size=64, progress=False).policy
    found = jax.vmap(lambda seen: greedy(policy).act(seen, None, KEY)[0])(jnp.eye(3))
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_cloning_recovers_the_behaviours_probabilities(bandit):
    policy = fit(BC(optimiser=Optimiser(1e-2, "cosine")), bandit, steps=300, key=KEY, batch_size=300, progress=False).policy
    assert isinstance(policy, Categorical)
    chances = np.exp([float(policy.log_prob(jnp.eye(3)[0], jnp.asarray(a))) for a in range(3)])
    taken = np.asarray(bandit.episodes.action)[np.asarray(bandit.episodes.observation)[::2, 0] == 1]
    np.testing.assert_allclose(chances, np.bincount(taken, minlength=3) / len(taken), atol=0.05)
