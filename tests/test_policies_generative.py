"""Diffusion and flow policies: what they are told, what they sample, what they learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces, tree
from polyact.data.episodes import Episodes
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning import catalogue
from polyact.learning.actor import Actor
from polyact.learning.averaged import Averaged
from polyact.learning.bc import BC
from polyact.learning.fit import fit
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import NoisePolicy
from polyact.policies.chunk_executor import RecedingHorizon
from polyact.policies.generative.denoised import Denoised
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.flow import Flow
from polyact.policies.spec import Spec

SPEC = Spec.of(spaces.Box(-5, 5, (2,)), spaces.Box(-3, 3, (1,)), 10, observations=np.random.default_rng(0).normal(size=(9, 2)))
POLICIES = {
    "residual": (Diffusion, {}),
    "sieve": (Diffusion, {"denoiser": "sieve", "history": 2, "drop": 0.2}),
    "mlp": (Diffusion, {"denoiser": "mlp", "schedule": "karras", "sampler": "heun"}),
    "transformer": (Diffusion, {"denoiser": "transformer", "history": 3, "schedule": "few-steps", "levels": 5, "sampler": "ddpm"}),
    "velocity": (Diffusion, {"form": "velocity", "sampler": "dpm-solver"}),
    "flow": (Flow, {"history": 2}),
}


@pytest.mark.parametrize("name", POLICIES)
def test_chunks_have_their_shape_stay_in_bounds_and_masked_steps_do_not_count(name):
    kind, options = POLICIES[name]
    policy = filled(kind.create, SPEC, horizon=4, **options)
    assert isinstance(policy, NoisePolicy)
    chunk, _ = eqx.filter_jit(lambda p: p.chunk(jnp.ones(2), p.start(KEY), KEY))(policy)
    assert chunk.shape == (4, 1)
    assert np.abs(chunk).max() <= 3
    history = policy.history
    observation = jnp.ones((2, 2)) if history == 1 else jnp.ones((2, history, 2))
    mask = jnp.arange(4) < jnp.array([[4], [2]])
    batch = Batch(observation=observation, action=jnp.full((2, 4, 1), 0.5), mask=mask)
    value = eqx.filter_jit(eqx.filter_value_and_grad(lambda p, b: p.imitation_loss(b, KEY)))
    loss, gradient = value(policy, batch)
    past = jax.vmap(policy.body.features)(observation.reshape(-1, 2)).reshape(2, history, 2)
    errors = jax.vmap(policy.errors)(past, jnp.full((2, 4, 1), 0.5 / 3), jax.random.split(KEY, 2))
    assert float(loss) == pytest.approx(float((errors * mask).sum() / mask.sum()), rel=1e-4)
    moved = [np.abs(g).max() > 0 for g in jax.tree.leaves(tree.trainable(gradient)[0])]
    assert np.mean(moved) > 0.8


def test_the_start_of_a_deterministic_chain_decides_and_may_be_given():
    policy = filled(Flow.create, SPEC, horizon=2)
    policy = eqx.tree_at(lambda p: p.denoiser.leave.weight, policy, replace_fn=lambda weight: 0.05 * weight)
    policy = eqx.tree_at(lambda p: p.denoiser.leave.bias, policy, replace_fn=jnp.zeros_like)
    condition = policy.condition(policy.observe(jnp.ones(2), policy.start(KEY)))
    generate = eqx.filter_jit(lambda start, key: policy.generate(condition, key, start=start))
    one = generate(jnp.array([[0.3], [-0.1]]), KEY)
    np.testing.assert_array_equal(one, generate(jnp.array([[0.3], [-0.1]]), jax.random.key(8)))
    assert not np.allclose(one, generate(jnp.array([[0.9], [-0.1]]), KEY))


def test_a_change_of_the_estimates_reaches_the_chain():
    policy = filled(Diffusion.create, SPEC, horizon=2)
    condition = policy.condition(policy.observe(jnp.ones(2), policy.start(KEY)))
    wanted = jnp.array([[0.25], [-0.5]])
    change = lambda noisy, time, known: Denoised(wanted, known.noise)  # noqa: E731
    np.testing.assert_allclose(policy.generate(condition, KEY, change=change), wanted, atol=1e-6)


def test_the_condition_that_says_nothing_needs_training_for_it():
    told = filled(Diffusion.create, SPEC, history=2, drop=0.1)
    assert told.untold().shape == told.condition(told.start(KEY)).shape
    with pytest.raises(PolyactError, match="drop=0"):
        filled(Diffusion.create, SPEC).untold()


def two_ways(episodes: int = 60, length: int = 10) -> Episodes:
    """At observation (side, 0) a whole episode goes to 2 or to -2 at random, three times as often to 2."""
    rng = np.random.default_rng(0)
    way = np.repeat(np.where(rng.random(episodes) < 0.75, 2.0, -2.0), length)
    seen = rng.normal(size=(episodes * (length + 1), 2)).astype(np.float32)
    action = (way[:, None] + 0.05 * rng.normal(size=(episodes * length, 1))).astype(np.float32)
    return Episodes(
        np.full(episodes, length),
        observation=seen,
        action=action,
        reward=np.zeros(episodes * length),
        terminated=np.zeros(episodes * length),
    )


def test_cloning_keeps_both_ways_and_the_average_of_the_weights_is_deployed():
    actor = Actor(Diffusion, Network(width=32, depth=1), horizon=2, denoiser="sieve", levels=20)
    learner = Averaged(BC(actor, Optimiser(1e-3)), 0.98)
    policy = fit(learner, two_ways(), steps=600, key=KEY, batch_size=128, progress=False).policy
    assert isinstance(policy, Diffusion)

    @eqx.filter_jit
    def chunks(policy, keys):
        return jax.vmap(lambda k: policy.chunk(jnp.zeros(2), policy.start(k), k)[0])(keys)

    drawn = np.asarray(chunks(policy, jax.random.split(KEY, 300)))[..., 0]
    assert np.mean(np.abs(np.abs(drawn) - 2) < 0.5) > 0.75
    assert np.mean(np.sign(drawn[:, 0]) == np.sign(drawn[:, 1])) > 0.9
    assert 0.55 < np.mean(drawn[:, 0] > 0) < 0.95


def test_executors_take_them():
    acting = RecedingHorizon(filled(Flow.create, SPEC, horizon=4), 2)
    action, _ = eqx.filter_jit(acting.act)(jnp.zeros(2), acting.start(KEY), KEY)
    assert action.shape == (1,)


def test_the_command_lines_names_and_settings_make_them():
    learner = catalogue.learner("bc", ["policy=diffusion", "policy.denoiser=sieve", "policy.horizon=4", "width=16"])
    policy = eqx.filter_eval_shape(learner.actor.build, SPEC, KEY)
    assert isinstance(policy, Diffusion)
    assert (policy.horizon, type(policy.denoiser).__name__) == (4, "SieveDenoiser")
    assert isinstance(eqx.filter_eval_shape(catalogue.learner("bc", ["policy=flow"]).actor.build, SPEC, KEY), Flow)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"denoiser": "unet"}, "unknown kind of denoiser 'unet'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'|unknown schedule"),
        ({"sampler": "ddmp"}, "unknown sampler"),
        ({"form": "nois"}, "unknown form"),
        ({"schedule": "karras", "levels": 5}, "levels=5 has no effect"),
        ({"drop": 1.0}, r"must lie in \[0, 1\)"),
    ],
)
def test_senseless_options_are_refused(options, words):
    with pytest.raises(PolyactError, match=words):
        Diffusion.create(SPEC, Network(width=8, depth=1), KEY, **options)
    with pytest.raises(PolyactError, match="only width and depth"):
        Flow.create(SPEC, Network(width=8, layer_norm=True), KEY)
