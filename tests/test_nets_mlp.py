"""Networks against their formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import tree
from polyact.errors import PolyactError
from polyact.nets.ensemble import Ensemble, stack, take
from polyact.nets.film import ConditionedMLP
from polyact.nets.layers import ACTIVATIONS, LayerNorm, Linear, orthonormal_rows, sinusoidal, spectrally_normalised
from polyact.nets.mlp import Network
from polyact.nets.vae import ConditionalVAE, kl_from_standard_normal

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])


def test_plain_network_is_its_formula():
    mlp = Network(width=4, depth=2).build(3, 2, KEY)
    h = np.asarray(X)
    for layer in mlp.hidden:
        h = np.maximum(h @ np.asarray(layer.weight) + np.asarray(layer.bias), 0)
    np.testing.assert_allclose(mlp(X), h @ np.asarray(mlp.last.weight) + np.asarray(mlp.last.bias), rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_builds_and_is_finite(activation):
    assert np.isfinite(Network(width=4, activation=activation).build(3, 2, KEY)(X)).all()


@pytest.mark.parametrize("init", ["orthogonal", "he", "lecun", "glorot"])
def test_batch_is_vmap_and_final_scale_scales_the_output(init):
    large, small = (Network(width=8, init=init, final_scale=s).build(3, 2, KEY) for s in (1.0, 0.01))
    np.testing.assert_allclose(small(X), 0.01 * large(X), rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(large)(jnp.stack([X, -X]))[1], large(-X), rtol=1e-5)


def test_a_vmapped_network_compiles_to_plain_products():
    mlp = Network(width=8, depth=2).build(3, 2, KEY)
    text = str(jax.make_jaxpr(jax.vmap(mlp))(jnp.zeros((5, 3))))
    assert text.count("dot_general") == 3
    assert "transpose" not in text


def test_orthonormal_rows_are_the_q_of_a_decomposition_with_a_positive_diagonal():
    matrix = jax.random.normal(jax.random.key(1), (20, 30))
    q, r = np.linalg.qr(np.asarray(matrix).T)
    np.testing.assert_allclose(orthonormal_rows(matrix), (q * np.sign(np.diag(r))).T, atol=1e-6)


def test_orthogonal_layers_are_orthogonal():
    weight = np.asarray(Network(width=8).build(8, 2, KEY).hidden[0].weight)
    np.testing.assert_allclose(weight.T @ weight, 2 * np.eye(8), atol=1e-5)


def test_layer_norm_standardises():
    out = LayerNorm.build(3)(X)
    np.testing.assert_allclose([out.mean(), out.std()], [0, 1], atol=1e-4)


def test_spectral_norm_bounds_the_largest_singular_value():
    layer = Linear.build(20, 30, KEY, scale=5.0)
    largest = np.linalg.svd(np.asarray(spectrally_normalised(layer).weight), compute_uv=False)[0]
    assert largest == pytest.approx(1, abs=0.1)


def test_spectrally_normalised_network_is_nearly_non_expansive_before_its_last_layer():
    mlp = eqx.filter_jit(Network(width=16, depth=3, spectral_norm=True).build)(3, 2, KEY)
    a, b = jax.random.normal(KEY, (2, 50, 3))
    features = jax.jit(jax.vmap(mlp.features))
    change = np.linalg.norm(features(a) - features(b), axis=1)
    assert np.all(change <= 1.1**3 * jnp.linalg.norm(a - b, axis=1))


@pytest.mark.parametrize(("learned", "extra"), [(True, 3 * 5), (False, 0)])
def test_fourier_features_widen_the_input_and_are_trained_only_when_learned(learned, extra):
    mlp = Network(width=4, depth=1, fourier=5, fourier_learned=learned).build(3, 2, KEY)
    assert mlp.hidden[0].weight.shape == (13, 4)
    assert tree.count_parameters(mlp) == 13 * 4 + 4 + 4 * 2 + 2 + extra


def test_residual_network_with_zero_weights_beyond_the_first_layer_passes_it_on():
    mlp = Network(width=4, depth=3, residual=True).build(3, 2, KEY)
    zeroed = eqx.tree_at(lambda m: [layer.weight for layer in m.hidden[1:]], mlp, [jnp.zeros((4, 4))] * 2)
    np.testing.assert_allclose(zeroed.features(X), jax.nn.relu(mlp.hidden[0](X)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"width": 0}, "width >= 1"),
        ({"residual": True, "depth": 1}, "does nothing"),
        ({"fourier_learned": True}, "does nothing"),
    ],
)
def test_contradictory_architectures_are_refused(wrong, words):
    with pytest.raises(PolyactError, match=words):
        Network(**wrong)


def test_sinusoidal_is_sines_then_cosines():
    out = sinusoidal(jnp.asarray(2.0), 4, longest=100.0)
    np.testing.assert_allclose(out, [np.sin(2), np.sin(0.2), np.cos(2), np.cos(0.2)], rtol=1e-5)


def test_an_ensemble_is_its_members():
    ensemble = eqx.filter_jit(Ensemble.build)(Network(width=8, layer_norm=True), 3, 3, 2, KEY)
    call, own = eqx.filter_jit(lambda module, x: module(x)), jnp.stack([X, 2 * X, -X])
    np.testing.assert_allclose(call(ensemble, X), [call(ensemble.member(k), X) for k in range(3)], rtol=1e-5)
    np.testing.assert_allclose(call(ensemble.each, own), [call(ensemble.member(k), own[k]) for k in range(3)], rtol=1e-5)
    assert not np.allclose(call(ensemble, X)[0], call(ensemble, X)[1])


def test_stack_and_take_are_inverse_and_need_one_architecture():
    one, two = (Network(width=4).build(3, 2, jax.random.key(k)) for k in range(2))
    np.testing.assert_array_equal(take(stack([one, two]), 1)(X), two(X))
    with pytest.raises(PolyactError, match="same architecture"):
        stack([one, Network(width=5).build(3, 2, KEY)])
    with pytest.raises(PolyactError, match="same architecture"):
        stack([one, Network(width=4, activation="tanh").build(3, 2, KEY)])


def test_ema_moves_parameters_and_leaves_frozen_ones():
    one, two = (Network(width=4, fourier=2).build(3, 2, jax.random.key(k)) for k in range(2))
    mixed = tree.ema(one, two, 0.25)
    np.testing.assert_allclose(mixed.last.weight, 0.75 * one.last.weight + 0.25 * two.last.weight, rtol=1e-5)
    np.testing.assert_array_equal(mixed.expand.frequencies, one.expand.frequencies)


def test_film_starts_as_the_unconditioned_network_and_then_depends_on_its_condition():
    network = Network(width=8, layer_norm=True)
    mlp = ConditionedMLP.build(network, 3, 4, 2, KEY)
    np.testing.assert_allclose(mlp(X, jnp.ones(4)), network.build(3, 2, KEY)(X), rtol=1e-5)
    moved = eqx.tree_at(lambda m: m.films[0].affine.weight, mlp, jnp.ones((4, 16)))
    assert not np.allclose(moved(X, jnp.ones(4)), moved(X, -jnp.ones(4)))
    shift = moved.films[0](jnp.zeros(8), jnp.ones(4))
    np.testing.assert_allclose(shift, np.full(8, 4.0))


def test_vae_divergence_is_the_monte_carlo_one():
    mean, log_std = jnp.array([0.5, -1.0]), jnp.array([-0.3, 0.2])
    z = mean + jnp.exp(log_std) * jax.random.normal(KEY, (100_000, 2))
    ratio = (-0.5 * ((z - mean) / jnp.exp(log_std)) ** 2 - log_std + 0.5 * z**2).sum(1).mean()
    assert float(kl_from_standard_normal(mean, log_std)) == pytest.approx(float(ratio), abs=0.02)


def test_vae_reconstructs_what_it_is_trained_on():
    vae = ConditionalVAE.build(Network(width=16, depth=1), 2, 1, 2, KEY)
    x, condition = jax.random.normal(KEY, (32, 2)), jnp.ones((32, 1))

    def loss(vae, key):
        out, kl = jax.vmap(vae.reconstruct)(x, condition, jax.random.split(key, 32))
        return jnp.square(out - x).sum(1).mean() + 1e-3 * kl.mean()

    @jax.jit
    def train(vae, keys):
        def step(vae, key):
            value, gradient = jax.value_and_grad(loss)(vae, key)
            return jax.tree.map(lambda p, g: p - 0.05 * g, vae, gradient), value

        return jax.lax.scan(step, vae, keys)

    _, losses = train(vae, jax.random.split(KEY, 300))
    assert losses[-1] < 0.3 * losses[0]


def test_settings_that_do_nothing_or_do_not_exist_are_refused_at_once():
    with pytest.raises(PolyactError, match=r"fourier_scale=2.0 does nothing"):
        Network(fourier_scale=2.0)
    with pytest.raises(PolyactError, match="did you mean 'lecun'"):
        Network(init="lecum")
