"""IDQL: what acts is the imitation until there is a choice, the implicit policy's weights, and the parts of one update."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.critics import encoded, q_values, values
from polyact.learning.implicit_values import Expectile, ImplicitValues
from polyact.nets.mlp import Network
from polyact.policies.chunk import ChunkRegression
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.spec import Spec
from polyact.systems.generative.idql import IDQL, ImplicitWeight, best_of_imitations, implicit_policy, two_ways

KEY, SMALL = jax.random.key(0), Network(width=8, depth=1)
SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), 10)
BEHAVIOUR = Actor(Diffusion, SMALL, horizon=1, schedule="few-steps", levels=5, steps=5, sampler="ddpm")
LEARNER = IDQL(ImplicitValues(Expectile(0.8), SMALL), BEHAVIOUR, average_rate=0.5, count=3, explored=4)
STATE = eqx.filter_jit(LEARNER.init)(SPEC, KEY)
SEEN = jnp.array([0.3, -0.4])
act = eqx.filter_jit(lambda policy, key: policy.act(SEEN, policy.start(key), key)[0])


def test_one_proposal_is_the_behaviour_bit_for_bit():
    for seed in range(3):
        key = jax.random.key(seed)
        own = act(STATE.average, key)
        np.testing.assert_array_equal(act(best_of_imitations(STATE.average, STATE.values, 1), key), own)
        np.testing.assert_array_equal(act(implicit_policy(STATE.average, STATE.values, Expectile(0.8), 1), key), own)


def test_the_weights_of_the_implicit_policy_are_those_of_the_loss():
    found, actions = STATE.values, jnp.linspace(-1, 1, 21)[:, None]
    judge = ImplicitWeight(found.target_critics, found.value, SPEC.body, Expectile(0.8))
    seen = jnp.broadcast_to(SEEN, (21, 2))
    advantage = q_values(found.target_critics, seen, actions).min(1) - values(found.value, seen)
    logs = jax.vmap(judge, (None, 0))(SEEN, actions)
    np.testing.assert_allclose(np.exp(logs), np.where(advantage < 0, 0.2, 0.8), rtol=1e-5)


def test_values_and_imitation_learn_apart_from_each_other():
    rng = np.random.default_rng(0)
    seen, after = (jnp.asarray(rng.normal(size=(4, 2)), jnp.float32) for _ in range(2))
    batch = Batch(seen, jnp.asarray(rng.uniform(-1, 1, (4, 1)), jnp.float32), jnp.arange(4.0), after, jnp.ones(4))
    update = eqx.filter_jit(LEARNER.update)
    new, metrics = update(STATE, batch, KEY)
    richer, _ = update(STATE, replace(batch, reward=10 * batch.reward), KEY)
    assert bool(eqx.tree_equal(new.behaviour, richer.behaviour))
    assert not bool(eqx.tree_equal(new.values.critics, richer.values.critics))
    behaviour = STATE.behaviour
    assert isinstance(behaviour, Diffusion)
    past = encoded(SPEC.body, batch).features[:, None]
    errors = jax.vmap(behaviour.errors)(past, batch.action[:, None], jax.random.split(KEY, 4))
    assert float(metrics["behaviour_loss"]) == pytest.approx(float(errors.mean()), rel=1e-5)
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_array))[-3] for tree in (STATE.average, new.average, new.behaviour)]
    np.testing.assert_allclose(leaves[1], (leaves[0] + leaves[2]) / 2, rtol=1e-5, atol=1e-7)


def test_what_is_deployed_and_what_explores():
    deployed = LEARNER.policy(STATE)
    assert deployed.count == 3
    assert deployed.temperature == 0
    explored = LEARNER.explore(STATE, SEEN, KEY)
    expected = act(implicit_policy(STATE.average, STATE.values, Expectile(0.8), 4), KEY)
    np.testing.assert_allclose(explored, expected, rtol=1e-5)


def test_long_chunks_cannot_be_cut_from_transitions():
    longer = replace(LEARNER, behaviour=Actor(ChunkRegression, SMALL, horizon=2))
    with pytest.raises(PolyactError, match="horizon"):
        longer.init(SPEC, KEY)


def test_the_straight_way_past_the_obstacles_crashes():
    env = two_ways()
    state, _ = env.reset(KEY)
    for _ in range(12):
        state, step = env.step(state, jnp.array([0.0, 1.0]), KEY)
        if step.terminated:
            break
    assert bool(step.info["crashed"])
