"""Paths, forms, steppers and chains against closed forms: samplers are given exact scores, so only they can be wrong."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.evaluation.statistics.samples import energy_distance
from polyact.policies.generative.chain import Sampler, denoise, record, step_log_prob
from polyact.policies.generative.denoised import (
    FORMS,
    Denoised,
    from_noise,
    from_output,
    from_score,
    network_input,
    network_target,
    score,
)
from polyact.policies.generative.exact import ExactMixture, toy_gmm
from polyact.policies.generative.paths import Karras, Straight, cosine, few_steps, linear
from polyact.policies.generative.steppers import DDIM, Ancestral, DPMSolver, Earlier, Heun, Langevin, forward_std

KEY = jax.random.key(0)
PATHS = {"linear": linear(100, 1e-3, 0.2), "cosine": cosine(100), "few": few_steps(100), "straight": Straight(), "karras": Karras()}
LINE = ExactMixture.of([0.2, 0.8], np.array([[-1.0], [1.0]]), np.array([[[0.04]], [[0.01]]]))


@eqx.filter_jit
def samples(sampler, path, mixture, count=2000, levels=None):
    width = mixture.means.shape[1]
    start = path.start_scale * jax.random.normal(KEY, (count, width))
    run = lambda x, key: denoise(sampler, path, mixture.field(path), x, key, levels=levels)  # noqa: E731
    return jax.vmap(run)(start, jax.random.split(jax.random.key(1), count))


def test_paths_start_at_data_end_at_noise_and_know_their_time():
    times = jnp.linspace(0.03, 0.97, 7)
    for name, path in PATHS.items():
        assert float(path.alpha(jnp.zeros(()))) == 1
        assert float(path.sigma(jnp.zeros(()))) == 0
        np.testing.assert_allclose(path.time(path.sigma(times) / path.alpha(times)), times, atol=1e-4, err_msg=name)
        if name in ("linear", "cosine", "few"):
            np.testing.assert_allclose(path.alpha(times) ** 2 + path.sigma(times) ** 2, 1, rtol=1e-5)
    assert float(cosine(50).alpha(jnp.ones(()))) < 1e-2


def test_schedules_are_the_papers():
    betas = np.linspace(1e-4, 0.02, 30)
    at = jnp.arange(31) / 30
    np.testing.assert_allclose(linear(30).alpha(at[1:]) ** 2, np.cumprod(1 - betas), rtol=1e-5)
    t = np.arange(1, 6)
    alphas = np.exp(-0.1 / 5 - 0.5 * (10 - 0.1) * (2 * t - 1) / 25)
    np.testing.assert_allclose(few_steps(5).alpha(jnp.arange(1, 6) / 5) ** 2, np.cumprod(alphas), rtol=1e-5)
    n, i = 6, np.arange(6)
    grid = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    path = Karras()
    np.testing.assert_allclose(path.sigma(path.levels(n)), [*grid, 0], rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PATHS)
def test_a_perfect_output_gives_back_the_clean_value_and_the_noise(form, name):
    path, clean, noise = PATHS[name], jnp.array([[0.3], [-0.9]]), jnp.array([[1.2], [-0.4]])
    for time in (0.1, 0.5, 0.9):
        time = jnp.asarray(time)
        noisy = path.alpha(time) * clean + path.sigma(time) * noise
        known = from_output(form, path, network_target(form, path, clean, noise, time), noisy, time)
        np.testing.assert_allclose(known.clean, clean, atol=2e-3 * max(1, float(path.sigma(time))))
        np.testing.assert_allclose(known.noise, noise, atol=2e-3 / min(1, float(path.sigma(time)) * 10))
        np.testing.assert_allclose(known.velocity, known.noise - known.clean)


def test_the_edm_form_feeds_and_trains_the_network_at_unit_variance():
    for path in PATHS.values():
        clean, noise = 0.5 * jax.random.normal(KEY, (4000,)), jax.random.normal(jax.random.key(5), (4000,))
        for time in (0.2, 0.8):
            time = jnp.asarray(time)
            noisy = path.alpha(time) * clean + path.sigma(time) * noise
            assert float(network_input("edm", path, noisy, time).std()) == pytest.approx(1, abs=0.05)
            assert float(network_target("edm", path, clean, noise, time).std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_field_is_the_gradient_of_the_noisy_density(name):
    path, mixture, time = PATHS[name], toy_gmm(3), jnp.asarray(0.4)
    noisy = jnp.array([0.3, -0.2])
    gradient = jax.grad(lambda x: mixture.noisy_log_density(path, x, time))(noisy)
    np.testing.assert_allclose(score(path, time, mixture.field(path)(noisy, time)), gradient, rtol=2e-3, atol=1e-3)
    known = from_score(path, noisy, time, gradient)
    np.testing.assert_allclose(known.clean, mixture.field(path)(noisy, time).clean, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("linear", Sampler(DDIM(), 100)), ("cosine", Sampler(DDIM(1.0), 100)), ("few", Sampler(DDIM(), 60, Langevin(1, 0.5)))]
    + [(name, sampler) for name in ("straight", "karras") for sampler in (Sampler(DDIM(), 100), Sampler(DDIM(1.0), 100))]
    + [(name, Sampler(Heun(), 40)) for name in ("few", "straight", "karras")],
)
def test_samplers_reproduce_the_weights_and_moments_of_a_mixture(name, sampler):
    x = samples(sampler, PATHS[name], LINE)[:, 0]
    left = x < 0
    assert float(left.mean()) == pytest.approx(0.2, abs=0.035)
    assert float(x[left].mean()) == pytest.approx(-1, abs=0.05)
    assert float(x[~left].mean()) == pytest.approx(1, abs=0.02)
    assert float(x[~left].std()) == pytest.approx(0.1, abs=0.025)


@pytest.mark.parametrize("sampler", [Sampler(Ancestral(), 100), Sampler(DPMSolver(), 60), Sampler(Heun(churn=0.1), 40)])
def test_further_samplers_reproduce_a_mixture(sampler):
    x = samples(sampler, PATHS["few"], LINE)[:, 0]
    assert float((x < 0).mean()) == pytest.approx(0.2, abs=0.035)
    assert float(x[x > 0].std()) == pytest.approx(0.1, abs=0.03)


def test_ddim_with_eta_one_has_the_moments_of_ddpm():
    path, steps = linear(20, 1e-3, 0.2), 20
    betas = np.linspace(1e-3, 0.2, steps)
    abar = np.cumprod(1 - betas)
    noisy, eps, k = jnp.array([0.7, -1.1]), jnp.array([0.2, 0.5]), 12
    field = lambda x, t: from_noise(path, x, t, eps)  # noqa: E731
    time, next = jnp.asarray(k / steps), jnp.asarray((k - 1) / steps)
    beta = betas[k - 1]
    mean = (noisy - beta / np.sqrt(1 - abar[k - 1]) * eps) / np.sqrt(1 - beta)
    small = np.sqrt(beta * (1 - abar[k - 2]) / (1 - abar[k - 1]))
    for stepper, std in ((DDIM(1.0), small), (Ancestral(), np.sqrt(beta))):
        step = stepper.step(field, path, noisy, time, next, Earlier.none(noisy), KEY)
        np.testing.assert_allclose(step.mean, mean, rtol=1e-4)
        assert float(step.std) == pytest.approx(std, rel=1e-3)
    assert float(forward_std(path, time, next)) == pytest.approx(np.sqrt(beta), rel=1e-3)


def test_diffusion_and_flow_follow_the_same_ode_when_their_scores_are_equal():
    mixture = ExactMixture.of([1.0], np.array([[0.4, -0.2]]), np.array([[[0.09, 0.03], [0.03, 0.04]]]))
    noise = jnp.array([0.8, -1.3])
    ends = []
    for path in (few_steps(400, 0.1, 40.0), Straight(), Karras(0.0005, 200.0)):
        levels = path.levels(400)
        start = path.sigma(levels[0]) * noise + path.alpha(levels[0]) * mixture.means[0]
        ends.append(eqx.filter_jit(denoise)(Sampler(Heun(), 400), path, mixture.field(path), start, KEY))
    root = mixture.axes[0] * jnp.sqrt(mixture.variances[0]) @ mixture.axes[0].T
    for end in ends:
        np.testing.assert_allclose(end, mixture.means[0] + root @ noise, atol=5e-3)


def test_euler_on_the_straight_path_is_one_plain_euler_step():
    velocity = jnp.array([0.3, -2.0])
    path = Straight()
    field = lambda x, t: from_output("velocity", path, velocity, x, t)  # noqa: E731
    step = DDIM().step(field, path, jnp.ones(2), jnp.asarray(0.6), jnp.asarray(0.2), Earlier.none(jnp.ones(2)), KEY)
    np.testing.assert_allclose(step.mean, 1 - 0.4 * velocity, rtol=1e-6)
    assert step.std is None


@pytest.mark.parametrize(("stepper", "order"), [(DDIM(), 1), (Heun(), 2), (DPMSolver(), 2)])
def test_the_error_falls_with_the_order_of_the_sampler(stepper, order):
    path, mean, std = few_steps(1000), 0.5, 0.3
    gaussian = ExactMixture.of([1.0], np.array([[mean]]), np.array([[[std**2]]]))

    def total(time):
        return jnp.sqrt(path.alpha(time) ** 2 * std**2 + path.sigma(time) ** 2)

    def error(steps):
        levels = jnp.linspace(0.9, 0.2, steps + 1)
        start = path.alpha(levels[0]) * mean + total(levels[0])[None]
        end = jax.jit(lambda: denoise(Sampler(stepper, steps), path, gaussian.field(path), start, KEY, levels=levels))()
        return abs(float(end[0] - path.alpha(levels[-1]) * mean - total(levels[-1])))

    assert error(10) / error(20) == pytest.approx(2**order, rel=0.35)


def test_a_product_of_scores_needs_langevin_steps_to_keep_its_spread():
    path = cosine(100)
    one, two = (ExactMixture.of([1.0], np.array([[m]]), np.array([[[0.25]]])) for m in (-1.0, 2.0))

    class Product:
        means = one.means

        @staticmethod
        def field(path):
            def field(x, t):
                return from_noise(path, x, t, one.field(path)(x, t).noise + two.field(path)(x, t).noise)

            return field

    plain = _spread(path, Product, Sampler(DDIM(1.0), 100))
    corrected = _spread(path, Product, Sampler(DDIM(1.0), 100, Langevin(8)))
    assert plain[0] == pytest.approx(0.5, abs=0.03)
    assert plain[1] < 0.3
    assert corrected[1] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def _spread(path, product, sampler):
    run = lambda x, key: denoise(sampler, path, product.field(path), x, key)  # noqa: E731
    x = jax.jit(jax.vmap(run))(jax.random.normal(KEY, (4000, 1)), jax.random.split(jax.random.key(1), 4000))
    return float(x.mean()), float(x.std())


def test_a_recorded_chain_is_the_same_chain_and_knows_its_density():
    path, sampler = few_steps(5), Sampler(DDIM(1.0), 5)
    start = jnp.array([0.4, 1.0])
    chain = record(sampler, path, toy_gmm(2).field(path), start, KEY)
    np.testing.assert_allclose(chain.end, denoise(sampler, path, toy_gmm(2).field(path), start, KEY), rtol=1e-6)
    np.testing.assert_array_equal(chain.values[0], start)
    assert float(chain.stds[-1]) == 0
    drawn = jax.vmap(step_log_prob)(chain.values[1:-1], chain.means[:-1], chain.stds[:-1])
    expected = jax.scipy.stats.norm.logpdf(chain.values[1:-1], chain.means[:-1], chain.stds[:-1, None])
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-4)


def test_a_part_of_the_grid_continues_a_chain():
    path, sampler, field = few_steps(20), Sampler(DDIM(), 10), toy_gmm(3).field(few_steps(20))
    levels, start = path.levels(10), jnp.array([0.2, -0.5])
    whole = record(sampler, path, field, start, KEY)
    rest = denoise(sampler, path, field, whole.values[6], KEY, levels=levels[6:])
    np.testing.assert_allclose(rest, whole.end, rtol=1e-5)


def test_projection_holds_entries_fixed():
    path, sampler = cosine(20), Sampler(DDIM(1.0), 20)
    hold = lambda x, level: x.at[0].set(0.25)  # noqa: E731
    assert float(denoise(sampler, path, toy_gmm(3).field(path), jnp.zeros(2), KEY, project=hold)[0]) == 0.25


def test_measures_of_the_toy_mixture():
    mixture = toy_gmm(4, weights=[1, 2, 3, 4])
    true, more = mixture.sample(KEY, 1000), mixture.sample(jax.random.key(9), 1000)
    off = jax.jit(lambda x: mixture.off_manifold(x, jax.random.key(3)))
    np.testing.assert_allclose(mixture.mode_histogram(true), [0.1, 0.2, 0.3, 0.4], atol=0.05)
    assert float(off(true)) == pytest.approx(0.01, abs=0.008)
    assert float(off(jnp.zeros((1000, 2)))) == 1
    assert 0 <= float(energy_distance(true, more)) < 0.01
    assert float(energy_distance(true[:300], true[:300])) == pytest.approx(0, abs=1e-5)
    two, three = jnp.array([[0.0], [2.0]]), jnp.array([[1.0]])
    assert float(energy_distance(two, three)) == pytest.approx(2 * 1 - 1 - 0, abs=1e-6)


def test_senseless_settings_are_refused():
    with pytest.raises(PolyactError, match="eta must lie"):
        DDIM(1.5)
    with pytest.raises(PolyactError, match="steps >= 1"):
        Sampler(DDIM(), 0)
    with pytest.raises(PolyactError, match="betas must lie"):
        linear(10, 0.1, 1.2)
    with pytest.raises(PolyactError, match="low < high"):
        Karras(1.0, 0.5)
    with pytest.raises(PolyactError, match="positive definite"):
        ExactMixture.of([1.0], np.zeros((1, 2)), np.zeros((1, 2, 2)))
    assert isinstance(Denoised(jnp.zeros(1), jnp.ones(1)).velocity, jax.Array)
