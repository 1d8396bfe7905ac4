"""Training's unroll against acting step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.data.sampling import Batch, Windows
from polyact.errors import PolyactError
from polyact.nets.recurrent import GRU, LSTM
from polyact.policies.base import greedy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec

SEEN, DONE = spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,))
OBSERVATIONS = jax.random.normal(jax.random.key(1), (6, 3))
UNROLL = eqx.filter_jit(lambda policy, observations, first=None: policy.unroll(observations, policy.start(KEY), first))


def make(action=DONE, **options):
    return filled(Recurrent.create, Spec.of(SEEN, action, 1), **options)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_unroll_equals_acting_step_by_step(cell):
    policy = make(cell=cell)
    outputs, end = UNROLL(policy, OBSERVATIONS)
    memory = policy.start(KEY)
    planned = jax.jit(jax.vmap(lambda out: policy.body.decode(policy.body.clip(policy.head.mode(out, policy.body)))))(outputs)
    act = jax.jit(lambda observation, memory: greedy(policy).act(observation, memory, KEY))
    for observation, expected in zip(OBSERVATIONS, planned, strict=True):
        action, memory = act(observation, memory)
        np.testing.assert_allclose(action, expected, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), memory, end)


def test_memory_is_emptied_where_an_episode_begins():
    policy = make()
    first = jnp.zeros(6, bool).at[4].set(True)
    outputs, _ = UNROLL(policy, OBSERVATIONS, first)
    fresh, _ = UNROLL(policy, OBSERVATIONS[4:])
    np.testing.assert_allclose(outputs[4:], fresh, atol=1e-6)
    assert not np.allclose(outputs[4:], UNROLL(policy, OBSERVATIONS)[0][4:])


def test_padding_does_not_enter_the_loss():
    policy = make(length=6)
    assert policy.sampling == Windows(6)
    actions = jnp.zeros((1, 6, 2))
    mask = (jnp.arange(6) < 4)[None]
    padded = Batch(observation=OBSERVATIONS[None].at[:, 4:].set(9.0), action=actions.at[:, 4:].set(2.0), mask=mask)
    short = Batch(observation=OBSERVATIONS[None, :4], action=actions[:, :4])
    loss = jax.jit(lambda batch: policy.imitation_loss(batch, KEY))
    assert float(loss(padded)) == pytest.approx(float(loss(short)), abs=1e-6)


def test_log_prob_is_the_heads():
    policy = make(spaces.Discrete(3))
    out, _ = policy.step(OBSERVATIONS[0], policy.start(KEY))
    total = sum(np.exp(float(policy.log_prob(out, jnp.asarray(a)))) for a in range(3))
    assert total == pytest.approx(1, abs=1e-5)
    with pytest.raises(PolyactError, match="no density"):
        make(head="deterministic").log_prob(jnp.zeros(2), jnp.zeros(2))


def test_action_masks_reach_a_recurrent_policy():
    seen = spaces.Dict({"state": SEEN, "action_mask": spaces.MultiBinary(3)})
    policy = filled(Recurrent.create, Spec.of(seen, spaces.Discrete(3), 1))
    observations = {"state": OBSERVATIONS, "action_mask": jnp.tile(jnp.array([0, 0, 1]), (6, 1))}
    outputs, _ = UNROLL(policy, observations)
    assert np.all(outputs.argmax(1) == 2)
    assert int(policy.act(jax.tree.map(lambda x: x[0], observations), policy.start(KEY), KEY)[0]) == 2


def test_gru_and_lstm_are_their_formulas():
    x, h = jnp.array([0.2, -1.0, 0.4]), jnp.array([0.5, -0.5])

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    gru = GRU.build(3, 2, KEY)
    a, b = np.asarray(gru.inner(x)), np.asarray(gru.recurrent(h))
    z, n = sigmoid(a[2:4] + b[2:4]), np.tanh(a[4:] + sigmoid(a[:2] + b[:2]) * b[4:])
    np.testing.assert_allclose(gru(x, h)[0], z * np.asarray(h) + (1 - z) * n, atol=1e-6)
    lstm = LSTM.build(3, 2, KEY)
    i, f, g, o = np.split(np.asarray(lstm.inner(x) + lstm.recurrent(h)), 4)
    c = sigmoid(f) * np.asarray(h) + sigmoid(i) * np.tanh(g)
    out, (hidden, memory) = lstm(x, (h, h))
    np.testing.assert_allclose(memory, c, atol=1e-6)
    np.testing.assert_allclose(out, sigmoid(o) * np.tanh(c), atol=1e-6)
    np.testing.assert_array_equal(out, hidden)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"cell": "gur"}, "did you mean 'gru'"), ({"head": "gausian"}, "did you mean 'gaussian'"), ({"length": 0}, "length 0")],
)
def test_unknown_parts_are_one_line(options, words):
    with pytest.raises(PolyactError, match=words):
        make(**options)
