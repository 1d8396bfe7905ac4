"""Language policies: going on step by step gives the logits of the whole sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.nets.transformer import Transformer
from polyact.policies.language.base import BEGIN, log_probs, token_scores
from polyact.policies.language.table import TableLM, entropy
from polyact.policies.language.transformer import TransformerLM

KEY = jax.random.key(0)
POLICIES = {
    "table": lambda: TableLM(jax.random.normal(KEY, (4, 5, 3))),
    "transformer": lambda: eqx.filter_jit(TransformerLM.create)(4, Transformer(width=8, depth=1, heads=2, context=6), KEY),
}


@pytest.mark.parametrize("name", POLICIES)
def test_step_by_step_equals_the_whole_sequence(name):
    policy, tokens = POLICIES[name](), jnp.array([3, 0, 2, 1, 1, 0])

    def step(memory, token):
        logits, memory = policy.step(token, memory)
        return memory, logits

    _, logits = jax.lax.scan(step, policy.start(), jnp.concatenate([jnp.array([BEGIN]), tokens[:-1]]))
    np.testing.assert_allclose(logits, eqx.filter_jit(policy.logits)(tokens), atol=1e-5)


def test_scores_of_tokens_by_hand():
    p = np.array([0.5, 0.25, 0.25])
    logp, spread = token_scores(jnp.log(jnp.asarray(p)), jnp.array(1))
    np.testing.assert_allclose([logp, spread], [np.log(0.25), 1.5 * np.log(2)], rtol=1e-6)


def test_a_table_looks_its_prompt_up():
    policy = POLICIES["table"]()
    logp, _ = log_probs(policy, jnp.array([[2, 0, 1, 2, 0, 1]]))
    p = np.asarray(policy.probabilities)
    np.testing.assert_allclose(logp[0, 1:], np.log(p[2, np.arange(5), [0, 1, 2, 0, 1]]), rtol=1e-5)
    np.testing.assert_allclose(entropy(policy), -(p * np.log(p)).sum(-1).mean(), rtol=1e-5)


def test_a_prompt_beyond_the_vocabulary_leaves_scores_finite():
    assert np.isfinite(log_probs(POLICIES["table"](), jnp.array([[3, 0, 1, 2, 0, 1]]))[0]).all()
