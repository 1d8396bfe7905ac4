"""Chunk policies, and executors against sequences written out by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, NET, filled

from polyact import spaces, tree
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.base import ChunkPolicy
from polyact.policies.chunk import ChunkRegression, ChunkTransformer
from polyact.policies.chunk_executor import RecedingHorizon, TemporalEnsemble, open_loop
from polyact.policies.spec import Body, Spec

SEEN, DONE = spaces.Box(-10, 10, (2,)), spaces.Box(-3, 3, (1,))
SPEC = Spec.of(SEEN, DONE, 1)


class Counting(ChunkPolicy):
    """At step t plans 10 t, 10 t + 1, ...: says which plan an action comes from."""

    body: Body
    horizon: int = eqx.field(static=True)

    def start(self, key):
        return jnp.zeros(())

    def observe(self, observation, memory):
        return memory + 1

    def chunk(self, observation, memory, key):
        return 10 * memory + jnp.arange(self.horizon, dtype=jnp.float32)[:, None], memory + 1

    def act(self, observation, memory, key):
        chunk, memory = self.chunk(observation, memory, key)
        return chunk[0], memory


def play(policy, steps, observation=None):
    observation = jnp.zeros(2) if observation is None else observation

    def step(memory, key):
        action, memory = policy.act(observation, memory, key)
        return memory, action

    return np.asarray(jax.lax.scan(step, policy.start(KEY), jax.random.split(KEY, steps))[1])[:, 0]


def test_receding_horizon_plays_and_plans_again():
    assert play(RecedingHorizon(Counting(SPEC.body, 4), 3), 8).tolist() == [0, 1, 2, 30, 31, 32, 60, 61]
    assert play(RecedingHorizon(Counting(SPEC.body, 4), 1), 3).tolist() == [0, 10, 20]


def test_open_loop_plays_chunks_to_their_end():
    assert play(open_loop(Counting(SPEC.body, 4)), 6).tolist() == [0, 1, 2, 3, 40, 41]


@pytest.mark.parametrize("decay", [0.0, 0.5, -1.0])
def test_temporal_ensemble_is_the_papers_weighted_mean(decay):
    horizon, steps = 3, 6
    expected = []
    for t in range(steps):
        born = range(max(0, t - horizon + 1), t + 1)
        weights = np.exp([-decay * i for i in range(len(born))])
        expected.append((weights * [10 * b + (t - b) for b in born]).sum() / weights.sum())
    np.testing.assert_allclose(play(TemporalEnsemble(Counting(SPEC.body, horizon), decay), steps), expected, rtol=1e-5)


def test_executors_run_many_episodes_at_once():
    policy = RecedingHorizon(Counting(SPEC.body, 4), 2)
    memory = jax.vmap(policy.start)(jax.random.split(KEY, 5))
    action, memory = jax.vmap(policy.act)(jnp.zeros((5, 2)), memory, jax.random.split(KEY, 5))
    assert action.shape == (5, 1)


def test_execute_beyond_the_horizon_is_refused():
    with pytest.raises(PolyactError, match="between 1 and the horizon 4, got 5"):
        RecedingHorizon(Counting(SPEC.body, 4), 5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ChunkRegression, {"history": 1}),
        (ChunkRegression, {"history": 3}),
        (ChunkTransformer, {"heads": 2, "history": 1}),
        (ChunkTransformer, {"heads": 2, "history": 3, "latent": 2}),
    ],
)
def test_chunks_have_their_shape_stay_in_bounds_and_masked_steps_do_not_count(kind, options):
    history = options["history"]
    policy = filled(kind.create, SPEC, horizon=4, **options)
    chunk, _ = eqx.filter_jit(lambda p: p.chunk(jnp.ones(2), p.start(KEY), KEY))(policy)
    assert chunk.shape == (4, 1)
    assert np.abs(chunk).max() <= 3
    observation = jnp.ones((2, 2)) if history == 1 else jnp.ones((2, history, 2))
    mask = jnp.arange(4) < jnp.array([[4], [2]])
    batch = Batch(observation=observation, action=jnp.where(mask[..., None], 0.5, 0.1), mask=mask)
    other = eqx.tree_at(lambda b: b.action, batch, jnp.where(mask[..., None], 0.5, -0.7))
    value = eqx.filter_jit(eqx.filter_value_and_grad(lambda p, b: p.imitation_loss(b, KEY)))
    (loss, gradient), (same, _) = value(policy, batch), value(policy, other)
    assert float(loss) == pytest.approx(float(same), abs=1e-6)
    moved = [np.abs(g).max() > 0 for g in jax.tree.leaves(tree.trainable(gradient)[0])]
    assert np.mean(moved) > 0.5


def test_history_is_the_last_observations_and_starts_with_the_first_repeated():
    policy = filled(ChunkRegression.create, SPEC, horizon=2, history=3)
    rows = [jnp.full(2, float(i)) for i in (1, 2, 3, 4)]
    memory = policy.observe(rows[0], policy.start(KEY))
    np.testing.assert_array_equal(memory.features[:, 0], [1, 1, 1])
    for row in rows[1:]:
        memory = policy.observe(row, memory)
    np.testing.assert_array_equal(memory.features[:, 0], [2, 3, 4])


def test_acting_uses_the_network_that_training_uses():
    policy = filled(ChunkRegression.create, SPEC, horizon=2, history=2)
    past = jnp.array([[0.1, 0.2], [0.3, 0.4]])
    planned = jax.vmap(policy.body.to_env)(policy.unit_chunk(past))
    chunk, _ = policy.chunk(past[1], policy.observe(past[0], policy.start(KEY)), KEY)
    np.testing.assert_allclose(chunk, planned, rtol=1e-6)
    batch = Batch(observation=past[None], action=planned[None], mask=jnp.ones((1, 2), bool))
    assert float(policy.imitation_loss(batch, KEY)) == pytest.approx(0, abs=1e-9)


def test_temperature_draws_different_styles():
    policy = filled(ChunkTransformer.create, SPEC, heads=2, latent=2, temperature=1.0)
    one, two = jax.jit(jax.vmap(lambda k: policy.chunk(jnp.ones(2), policy.start(KEY), k)[0]))(jax.random.split(KEY))
    assert not np.allclose(one, two)


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(PolyactError, match="only width and depth"):
        ChunkTransformer.create(SPEC, Network(width=8, layer_norm=True), KEY)
    with pytest.raises(PolyactError, match="does nothing with latent 0"):
        ChunkTransformer.create(SPEC, NET, KEY, temperature=1.0)
    with pytest.raises(PolyactError, match=r"a kl_weight of 2\.0 does nothing with latent 0"):
        ChunkTransformer.create(SPEC, NET, KEY, kl_weight=2.0)
