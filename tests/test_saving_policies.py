"""Every policy class, and a learner's network recipe, comes back bit for bit and acts the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import saving, spaces
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.nets.mlp import Network
from polyact.policies.base import greedy
from polyact.policies.categorical import Categorical
from polyact.policies.chunk import ChunkRegression, ChunkTransformer
from polyact.policies.chunk_executor import RecedingHorizon, TemporalEnsemble
from polyact.policies.deterministic import Deterministic
from polyact.policies.ensemble_policy import EnsemblePolicy
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.mixture import GaussianMixture
from polyact.policies.multibody import MultiBody
from polyact.policies.normalise import Statistics
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.policies.vae_policy import VAEPolicy

KEY = jax.random.key(0)
X = jnp.array([0.3, -0.2, 0.9])
SEEN = spaces.Box(-np.inf, np.inf, (3,))
SPEC = Spec.of(
    SEEN, spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 0.5])), 10, observations=np.random.default_rng(0).normal(size=(9, 3))
)
DISCRETE = Spec.of(SEEN, spaces.Discrete(3, 1), 10)
NET = Network(width=4, depth=1)
FANCY = Network(width=4, layer_norm=True, residual=True, fourier=2, spectral_norm=True)
SOURCES = [
    Source(Episodes(np.array([3]), observation=np.ones((4, 3)), action=np.ones((3, 1))), n, embodiment=n) for n in ("a", "b")
]
BODIES = Spec.from_sources(SOURCES, 7)

MAKERS = {
    "deterministic": lambda: Deterministic.create(SPEC, FANCY, KEY),
    "gaussian": lambda: Gaussian.create(SPEC, NET, KEY),
    "conditional gaussian": lambda: Gaussian.create(SPEC, NET, KEY, log_std=None),
    "tanh gaussian": lambda: TanhGaussian.create(SPEC, NET, KEY),
    "mixture": lambda: GaussianMixture.create(SPEC, NET, KEY),
    "categorical": lambda: Categorical.create(DISCRETE, NET, KEY),
    "gru": lambda: Recurrent.create(SPEC, NET, KEY),
    "lstm": lambda: Recurrent.create(DISCRETE, NET, KEY, cell="lstm"),
    "chunk": lambda: ChunkRegression.create(SPEC, NET, KEY, history=2),
    "chunk transformer": lambda: ChunkTransformer.create(SPEC, NET, KEY, heads=2, latent=1),
    "receding": lambda: RecedingHorizon(ChunkRegression.create(SPEC, NET, KEY), 3),
    "temporal": lambda: TemporalEnsemble(ChunkRegression.create(SPEC, NET, KEY), 0.1),
    "ensemble": lambda: EnsemblePolicy.of([Deterministic.create(SPEC, NET, jax.random.key(k)) for k in range(2)]),
    "greedy": lambda: greedy(Gaussian.create(SPEC, NET, KEY)),
    "random": lambda: RandomPolicy(SPEC.action_space),
    "vae": lambda: VAEPolicy.create(SPEC, NET, KEY),
    "one of several bodies": lambda: MultiBody.create(BODIES, NET, KEY).for_body("b"),
}


def identical(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", MAKERS)
def test_every_policy_comes_back_and_acts_the_same(name, tmp_path):
    policy = eqx.filter_jit(MAKERS[name])()
    back = saving.load(saving.save(policy, tmp_path / "policy"), type(policy))
    identical(back, policy)
    act = eqx.filter_jit(lambda p: p.act(X, p.start(KEY), KEY)[0])
    np.testing.assert_array_equal(act(back), act(policy))


def test_several_bodies_statistics_and_recipes_come_back(tmp_path):
    value = {"spec": BODIES, "policy": MultiBody.create(BODIES, NET, KEY), "statistics": Statistics.of(SOURCES), "network": FANCY}
    identical(saving.load(saving.save(value, tmp_path / "x")), value)
