"""Every policy class, and a learner's network recipe, comes back bit for bit."""

import jax
import numpy as np
import pytest
from policy_examples import filled

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
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.flow import Flow
from polyact.policies.mixture import GaussianMixture
from polyact.policies.multibody import MultiBody
from polyact.policies.normalise import Statistics
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.policies.vae_policy import VAEPolicy

SEEN = spaces.Box(-np.inf, np.inf, (3,))
SPEC = Spec.of(
    SEEN, spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 0.5])), 10, observations=np.random.default_rng(0).normal(size=(9, 3))
)
DISCRETE = Spec.of(SEEN, spaces.Discrete(3, 1), 10)
FANCY = Network(width=4, layer_norm=True, residual=True, fourier=2, spectral_norm=True)
SOURCES = [
    Source(Episodes(np.array([3]), observation=np.ones((4, 3)), action=np.ones((3, 1))), n, embodiment=n) for n in ("a", "b")
]
BODIES = Spec.from_sources(SOURCES, 7)

MAKERS = {
    "deterministic": lambda: filled(Deterministic.create, SPEC, FANCY),
    "gaussian": lambda: filled(Gaussian.create, SPEC),
    "conditional gaussian": lambda: filled(Gaussian.create, SPEC, log_std=None),
    "tanh gaussian": lambda: filled(TanhGaussian.create, SPEC),
    "mixture": lambda: filled(GaussianMixture.create, SPEC),
    "categorical": lambda: filled(Categorical.create, DISCRETE),
    "gru": lambda: filled(Recurrent.create, SPEC),
    "lstm": lambda: filled(Recurrent.create, DISCRETE, cell="lstm"),
    "chunk": lambda: filled(ChunkRegression.create, SPEC, history=2),
    "chunk transformer": lambda: filled(ChunkTransformer.create, SPEC, heads=2, latent=1),
    "receding": lambda: RecedingHorizon(filled(ChunkRegression.create, SPEC), 3),
    "temporal": lambda: TemporalEnsemble(filled(ChunkRegression.create, SPEC), 0.1),
    "ensemble": lambda: EnsemblePolicy.of([filled(Deterministic.create, SPEC, seed=k) for k in range(2)]),
    "greedy": lambda: greedy(filled(Gaussian.create, SPEC)),
    "random": lambda: RandomPolicy(SPEC.action_space),
    "vae": lambda: filled(VAEPolicy.create, SPEC),
    "diffusion": lambda: filled(Diffusion.create, SPEC, denoiser="sieve", history=2, schedule="linear", levels=4, sampler="ddpm"),
    "karras diffusion": lambda: filled(Diffusion.create, SPEC, schedule="karras", sampler="heun", drop=0.1),
    "flow": lambda: filled(Flow.create, SPEC, denoiser="transformer"),
    "one of several bodies": lambda: filled(MultiBody.create, BODIES).for_body("b"),
}


def identical(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", MAKERS)
def test_every_policy_comes_back(name, tmp_path):
    policy = MAKERS[name]()
    back = saving.load(saving.save(policy, tmp_path / "policy"), type(policy))
    identical(back, policy)


def test_several_bodies_statistics_and_recipes_come_back(tmp_path):
    value = {"spec": BODIES, "policy": filled(MultiBody.create, BODIES), "statistics": Statistics.of(SOURCES), "network": FANCY}
    identical(saving.load(saving.save(value, tmp_path / "x")), value)
