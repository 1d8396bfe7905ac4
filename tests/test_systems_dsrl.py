"""DSRL: an identity decoder is plain SAC, noises mean the same at every call, and a linear decoder has a known best noise."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.composition.steering import NoiseActions, decode, first_condition, noise_spec
from polyact.data.sampling import Batch
from polyact.envs.chunk_actions import ChunkActions
from polyact.envs.walled_plane import ring_of_goals
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.cql import ConservativeGap
from polyact.learning.critics import q_values
from polyact.learning.optimiser import Optimiser
from polyact.learning.sac import SAC
from polyact.learning.train import train
from polyact.nets.mlp import Network
from polyact.policies.base import NoisePolicy
from polyact.policies.gaussian import TanhGaussian
from polyact.policies.generative.denoised import Denoised
from polyact.policies.generative.flow import Flow
from polyact.policies.generative.paths import Path, Straight
from polyact.policies.spec import Body, Spec
from polyact.systems.generative.dsrl import DSRL, _mixed, one_goal_pays

SMALL = Network(width=16, depth=2, activation="tanh")
PLANE = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)), 10)


class Scaled(NoisePolicy):
    """A decoder that multiplies the noise by a number."""

    body: Body
    path: Path
    factor: float
    horizon: int = eqx.field(static=True)

    def start(self, key):
        return jnp.zeros(self.body.observation_width)

    def observe(self, observation, memory):
        return self.body.features(observation)

    def condition(self, memory):
        return memory[None]

    def denoised(self, condition, noisy, time):
        return Denoised(noisy, jnp.zeros_like(noisy))

    def generate(self, condition, key, *, start=None, skip=0, change=None):
        assert start is not None
        return self.body.continuous.clip(self.factor * start)

    def chunk(self, observation, memory, key):
        memory = self.observe(observation, memory)
        start = jax.random.normal(key, (self.horizon, self.body.continuous.width))
        return self.generate(self.condition(memory), key, start=start), memory

    def act(self, observation, memory, key):
        chunk, memory = self.chunk(observation, memory, key)
        return chunk[0], memory


def test_an_identity_decoder_is_sac_itself():
    chunks = ChunkActions(ring_of_goals(horizon=8), 2)
    steered = NoiseActions(chunks, Scaled(PLANE.body, Straight(), 1.0, 2), bound=1.0)
    learner = SAC(Actor(TanhGaussian, SMALL), SMALL)
    options = {"steps": 24, "key": KEY, "batch_size": 8, "learning_starts": 8, "progress": False}
    plain, behind = (train(learner, env, **options).policy for env in (chunks, steered))
    for one, other in zip(*(jax.tree.leaves(eqx.filter(p, eqx.is_array)) for p in (plain, behind)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_noise_is_the_same_chunk_and_the_world_plays_it():
    policy = filled(Flow.create, PLANE, horizon=2)
    world = NoiseActions(ChunkActions(ring_of_goals(horizon=8), 2), policy)
    noise = jnp.array([0.3, -1.2, 0.7, 0.1])
    state, seen = world.reset(KEY)
    chunk = decode(policy, first_condition(policy, seen), noise)
    np.testing.assert_array_equal(chunk, decode(policy, first_condition(policy, seen), noise))
    inner, step = world.env.step(state.inner, chunk, KEY)
    moved, other = world.step(state, noise, KEY)
    np.testing.assert_allclose(moved.inner, inner, atol=1e-6)
    assert float(step.reward) == pytest.approx(float(other.reward), abs=1e-6)


BOUND, FACTOR, DISCOUNT = 1.5, 0.5, 0.9
TARGETS = jnp.array([0.6, 0.95, -0.2])  # the best noises are 1.2, 1.9 (beyond the bound) and -0.4


def test_with_a_linear_decoder_and_a_quadratic_value_the_best_noise_is_found_and_the_latent_critic_agrees():
    """From the first place a chunk leads to the last one, which pays 1 more: one discount lies between them."""
    spec = Spec.of(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,)), 800)
    base = Scaled(spec.body, Straight(), FACTOR, 1)
    network, rate = Network(width=48, depth=2, activation="tanh"), Optimiser(3e-3, schedule="cosine")
    sac = SAC(
        Actor(TanhGaussian, network), network, rate, rate, rate, DISCOUNT, 0.05, 0.01, target_entropy=-4.0, backup_entropy=False
    )
    learner = DSRL(base, sac, BOUND, distilled=3)

    def one(i, arrays):
        own = jax.random.fold_in(KEY, i)
        which, act = jax.random.split(own)
        place = jax.random.randint(which, (64,), 0, 3)
        action = jax.random.uniform(act, (64, 1), minval=-0.75, maxval=0.75)
        reward = (place == 2) - jnp.square(action[:, 0] - TARGETS[place])
        last = jnp.tile(jnp.eye(3)[2], (64, 1))
        batch = Batch(jnp.eye(3)[place], action, reward, last, (place == 0) * 1.0)
        return eqx.filter(learner.update(eqx.combine(arrays, still), batch, own)[0], eqx.is_array)

    arrays, still = eqx.partition(learner.init(spec, KEY), eqx.is_array)
    state = eqx.combine(jax.jit(lambda a: jax.lax.fori_loop(0, 800, one, a))(arrays), still)
    noise = jax.vmap(state.sac.actor.mode)(jnp.eye(3))[:, 0]
    np.testing.assert_allclose(noise, [1.2, 1.5, -0.4], atol=0.2)
    drawn = jnp.clip(jax.random.normal(jax.random.key(3), (60, 1)), -BOUND, BOUND)
    seen = jnp.tile(jnp.eye(3), (20, 1))
    real = q_values(state.sac.critics, seen, FACTOR * drawn)
    latent = q_values(state.latent, seen, drawn / BOUND)
    assert float(jnp.abs(real - latent).mean()) < 0.1 * float(real.std() + real.mean(0).std())
    best = q_values(state.sac.critics, jnp.eye(3), TARGETS[:, None])
    np.testing.assert_allclose(best[jnp.array([0, 2])].mean(1), [DISCOUNT, 1.0], atol=0.1)


def test_what_is_deployed_acts_by_the_mode_and_what_explores_does_not():
    policy = Scaled(PLANE.body, Straight(), 0.5, 2)
    learner = DSRL(policy, SAC(Actor(TanhGaussian, SMALL), SMALL, backup_entropy=False))
    state = eqx.filter_jit(learner.init)(PLANE, KEY)
    steered = learner.policy(state)
    seen = jnp.array([0.1, 0.2])
    expected = decode(policy, first_condition(policy, seen), state.sac.actor.mode(seen))
    np.testing.assert_allclose(steered.chunk(seen, steered.start(KEY), KEY)[0].reshape(-1), expected, atol=1e-5)
    drawn = [learner.explore(state, seen, jax.random.key(number)) for number in range(2)]
    assert not np.allclose(*drawn)


def test_half_of_a_batch_is_offline():
    rows = [
        Batch(jnp.full((n, 2), v), jnp.full((n, 4), v), jnp.full(n, v), jnp.full((n, 2), v), jnp.ones(n))
        for n, v in ((5, 0.0), (3, 1.0))
    ]
    mixed = _mixed(*rows, KEY)
    np.testing.assert_array_equal(mixed.reward, np.repeat([0.0, 1.0], 5))
    np.testing.assert_array_equal(mixed.action[:, 0], mixed.reward)


def test_a_critic_regulariser_is_refused():
    with pytest.raises(PolyactError, match="critic_regulariser"):
        DSRL(filled(Flow.create, PLANE, horizon=2), replace(SAC(), critic_regulariser=ConservativeGap()))


def test_bounds_must_be_positive():
    with pytest.raises(PolyactError, match="bound"):
        noise_spec(filled(Flow.create, PLANE, horizon=2), 0.0, 1)


def test_only_the_wanted_goal_pays():
    env = one_goal_pays()
    for number, goal in enumerate(np.asarray(ring_of_goals().goals)):
        _, step = env.step(jnp.asarray(goal), jnp.zeros(2 * env.length), KEY)
        assert (float(step.reward), bool(step.terminated)) == (float(number == 0), True)
