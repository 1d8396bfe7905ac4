"""GPC: the quadratic of the weights, its minimum, parents on different paths that agree, superposition, and the search."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, NET, filled

from polyact import spaces
from polyact.composition.composed import Composed, MeanOfChunks
from polyact.composition.scores import _balancing, best_pair, final_error, matched, mixed, mixed_error, simplex, superposed
from polyact.errors import PolyactError
from polyact.evaluation.statistics.samples import energy_distance
from polyact.policies.generative.chain import Sampler, denoise
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.exact import ExactMixture, toy_gmm
from polyact.policies.generative.flow import Flow
from polyact.policies.generative.paths import Straight, cosine
from polyact.policies.generative.steppers import DDIM
from polyact.policies.spec import Spec
from polyact.systems.generative.gpc import search, world

RNG = np.random.default_rng(0)
ERRORS = jnp.asarray(RNG.normal(size=(2, 50, 2)) * np.array([1.0, 1.4])[:, None, None], jnp.float32)
GAUSSIAN = ExactMixture.of([1.0], np.array([[0.3, -0.2]]), np.array([[[0.2, 0.05], [0.05, 0.1]]]))


def error(weight):
    return float(mixed_error(jnp.array([weight, 1 - weight]), ERRORS))


def test_the_error_is_a_quadratic_of_the_weight():
    through = np.polyfit([0.0, 0.4, 1.0], [error(w) for w in (0.0, 0.4, 1.0)], 2)
    assert error(0.7) == pytest.approx(np.polyval(through, 0.7), rel=1e-5)
    assert through[0] > 0


def test_the_best_weight_is_the_least_of_a_fine_grid_and_better_than_both_parents():
    grid = np.linspace(0, 1, 2001)
    losses = np.array([error(w) for w in grid[::20]])
    best = float(best_pair(ERRORS[0], ERRORS[1]))
    assert best == pytest.approx(grid[::20][losses.argmin()], abs=0.011)
    assert error(best) < min(error(0.0), error(1.0))
    assert float(best_pair(ERRORS[0], 3 * ERRORS[0])) == 1.0


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_diffusion_and_flow_parents_of_one_gaussian_give_the_same_samples_for_every_weight(weight):
    host, flow = cosine(50), Straight()
    fields = [GAUSSIAN.field(host), matched(GAUSSIAN.field(flow), flow, host)]
    start = jax.random.normal(KEY, (3, 1, 2))

    def chains(field):
        return jax.jit(jax.vmap(lambda x: denoise(Sampler(DDIM(), 20), host, field, x, KEY)))(start)

    np.testing.assert_allclose(chains(mixed(fields, jnp.array([weight, 1 - weight]))), chains(fields[0]), atol=2e-4)


@pytest.mark.parametrize("rule", ["or", "and"])
def test_superposed_twins_sample_like_one(rule):
    path, truth = cosine(50), toy_gmm(4, std=0.1)
    field = truth.field(path)
    run = jax.jit(jax.vmap(lambda x, k: superposed(rule, [field, field], path, x, path.levels(50), k)))
    drawn = run(jax.random.normal(KEY, (500, 2)), jax.random.split(KEY, 500))
    assert float(energy_distance(drawn, truth.sample(jax.random.key(5), 500))) < 0.02


def test_or_gives_samples_of_either_parent_and_nothing_between():
    path = cosine(50)
    left, right = (ExactMixture.of([1.0], np.array([[x, 0.0]]), 0.01 * np.eye(2)[None]) for x in (-0.6, 0.6))
    fields = [left.field(path), right.field(path)]
    run = jax.jit(jax.vmap(lambda x, k: superposed("or", fields, path, x, path.levels(50), k)))
    drawn = np.asarray(run(jax.random.normal(KEY, (200, 2)), jax.random.split(KEY, 200)))
    assert (np.abs(np.abs(drawn[:, 0]) - 0.6) < 0.4).mean() > 0.95
    assert 0.2 < (drawn[:, 0] > 0).mean() < 0.8


def test_balancing_weights_change_both_densities_alike():
    scores, fresh = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), jnp.asarray(RNG.normal(size=3), jnp.float32)
    weights = _balancing(scores, jnp.asarray(0.3), fresh, jnp.array([0.5, 0.2]))
    step = 0.3 * weights @ scores + fresh
    density = jnp.array([0.5, 0.2]) + scores @ step - 0.15 * jnp.square(scores).sum(1)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(density[0]) == pytest.approx(float(density[1]), abs=1e-4)


def test_the_bound_on_the_final_error_is_that_of_a_linear_equation():
    # dx = (L x + e) dt from 0 over one unit of time ends at e (exp(L) - 1) / L.
    steps, slope, wrong = 400, 1.3, 0.2
    bound = final_error(jnp.full(steps, wrong), jnp.full(steps, slope), 1 / steps)
    assert float(bound) == pytest.approx(wrong * np.expm1(slope) / slope, rel=1e-3)


def test_the_grid_of_weights_and_the_search():
    grid = np.asarray(simplex(3))
    assert grid.shape == (66, 3)
    np.testing.assert_allclose(grid.sum(1), 1.0, rtol=1e-6)
    weights, score = search(lambda w: -float(jnp.abs(w[0] - 0.72)), 2)
    np.testing.assert_allclose(weights, [0.7, 0.3], atol=1e-6)
    assert score == pytest.approx(-0.02, abs=1e-5)


SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), 10)
BOTH = (filled(Diffusion.create, SPEC, horizon=3), filled(Flow.create, SPEC, horizon=3, seed=1))
SEEN = jnp.array([0.2, -0.1])
chunk = eqx.filter_jit(lambda policy, key: policy.chunk(SEEN, policy.start(key), key)[0])


def test_all_weight_on_the_host_is_the_host():
    np.testing.assert_allclose(chunk(Composed(BOTH, jnp.array([1.0, 0.0])), KEY), chunk(BOTH[0], KEY), atol=1e-4)
    own = jax.random.split(KEY)[0]
    np.testing.assert_allclose(chunk(MeanOfChunks(BOTH, jnp.array([1.0, 0.0])), KEY), chunk(BOTH[0], own), atol=1e-6)


def test_bad_compositions_are_refused():
    with pytest.raises(PolyactError, match="rule"):
        Composed(BOTH, jnp.full(2, 0.5), "xor")
    with pytest.raises(PolyactError, match="weight"):
        Composed(BOTH, jnp.full(3, 1 / 3))
    with pytest.raises(PolyactError, match="shape"):
        Composed((BOTH[0], filled(Flow.create, SPEC, NET, horizon=2)), jnp.full(2, 0.5))
    with pytest.raises(PolyactError, match="two parents"):
        superposed("and", [lambda x, t: x] * 3, cosine(5), jnp.zeros(1), jnp.array([1.0, 0.0]), KEY)


def test_the_straight_way_through_the_world_crashes():
    env = replace(world(), start_spread=0.0)
    state, _ = env.reset(KEY)
    step = None
    for _ in range(8):
        state, step = env.step(state, jnp.array([0.0, 1.0]), KEY)
        if step.terminated:
            break
    assert step is not None
    assert bool(step.info["crashed"])
