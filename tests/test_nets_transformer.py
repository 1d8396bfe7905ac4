"""The cache against the full forward pass, and padding against no padding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.nets.transformer import Attention, Transformer

KEY = jax.random.key(0)
CAUSAL = eqx.filter_jit(Attention.causal)


@pytest.fixture(scope="module")
def model():
    return eqx.filter_jit(Transformer(width=16, depth=2, heads=2, context=5).build)(KEY)


@pytest.fixture(scope="module")
def tokens():
    return jax.random.normal(jax.random.key(1), (9, 16))


def test_step_by_step_equals_the_full_pass_even_beyond_the_cache(model, tokens):
    def step(cache, token):
        out, cache = model.step(token, cache)
        return cache, out

    _, outs = jax.lax.scan(step, model.start(), tokens)
    np.testing.assert_allclose(outs, CAUSAL(model, tokens), atol=2e-5)


def test_causal_outputs_do_not_see_the_future_nor_beyond_the_context(model, tokens):
    changed = tokens.at[6].multiply(-1.0)
    before, after = CAUSAL(model, tokens), CAUSAL(model, changed)
    np.testing.assert_array_equal(before[:6], after[:6])
    assert np.abs(before[6:] - after[6:]).max(1).min() > 1e-4
    shallow = eqx.filter_jit(Transformer(width=16, depth=1, heads=2, context=3).build)(KEY)
    before, after = CAUSAL(shallow, tokens), CAUSAL(shallow, changed)
    np.testing.assert_array_equal(before != after, np.isin(np.arange(9), [6, 7, 8])[:, None].repeat(16, 1))


@pytest.mark.parametrize("way", ["causal", "full"])
@pytest.mark.parametrize("left", [0, 2])
def test_padding_on_either_side_changes_nothing(model, tokens, way, left):
    run = eqx.filter_jit(getattr(Attention, way))
    real = jnp.isin(jnp.arange(9), jnp.arange(4) + left)
    padded = jnp.where(real[:, None], jnp.roll(tokens, left, 0), 100.0)
    out = run(model, padded, real)
    np.testing.assert_allclose(out[left : left + 4], run(model, tokens[:4]), atol=2e-5)
    assert np.isfinite(out).all()


def test_a_shape_that_heads_can_not_share_is_refused():
    with pytest.raises(PolyactError, match="4 heads"):
        Transformer(width=12, heads=4)
