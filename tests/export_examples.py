"""One policy of every class, with random weights, for the tests of exports."""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from policy_examples import KEY, filled, weighted

from polyact import spaces
from polyact.acting.realtime import RealTime
from polyact.composition.best_of import BestOf, LeastValue
from polyact.composition.composed import Composed, MeanOfChunks
from polyact.composition.steering import Steered
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.envs import catalogue
from polyact.envs.point_navigation import PointNavigation
from polyact.envs.reacher import Reacher
from polyact.envs.skirmish.skirmish import CHOICES
from polyact.envs.skirmish.view import WIDTH
from polyact.learning.behaviours import Noisy
from polyact.learning.critics import build_critics
from polyact.learning.dagger import Supervised
from polyact.learning.greedy_q import GreedyQ
from polyact.learning.skirmish_aim import Bot
from polyact.learning.sparse_regression import Library
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, greedy
from polyact.policies.behaviour_tree.policy import BehaviourTree, PolicyLeaves
from polyact.policies.binned import Binned
from polyact.policies.categorical import Categorical
from polyact.policies.chunk import ChunkRegression, ChunkTransformer
from polyact.policies.chunk_executor import RecedingHorizon, TemporalEnsemble, WholeChunks
from polyact.policies.clustered import Clustered
from polyact.policies.deterministic import Deterministic
from polyact.policies.ensemble_policy import EnsemblePolicy
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.flow import Flow
from polyact.policies.implicit import Implicit
from polyact.policies.mixture import GaussianMixture
from polyact.policies.motion.robots import ArmMotion, PointMotion
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.scripted import Scripted
from polyact.policies.spec import Spec
from polyact.policies.team import Team
from polyact.policies.vae_policy import VAEPolicy
from polyact.systems.generative.diffusion_bc import Densest, ExtraSteps
from polyact.systems.generative.rti_dp import RealTimeIteration
from polyact.systems.online.sindy_rl import SparsePolicy

ROWS = np.random.default_rng(0)
SEEN = spaces.Box(-np.inf, np.inf, (3,))
DONE = spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 0.5]))
SPEC = Spec.of(SEEN, DONE, 10, observations=ROWS.normal(1.0, 2.0, size=(9, 3)))
HALF = Spec.of(SEEN, spaces.Box(np.array([-2.0, -np.inf]), np.array([4.0, np.inf])), 10, actions=ROWS.normal(size=(9, 2)))
NOISES = Spec.of(SEEN, spaces.Box(-2, 2, (8,)), 10)
DISCRETE = Spec.of(SEEN, spaces.Discrete(3, 1), 10)
SEVERAL = Spec.of(SEEN, spaces.MultiDiscrete((3, 4)), 10)
PARTS = spaces.Dict({"arm": SEEN, "mode": spaces.Discrete(4, 2), "action_mask": spaces.MultiBinary(3)})
MASKED = Spec.of(PARTS, spaces.Discrete(3, 1), 10)
FANCY = Network(width=4, layer_norm=True, residual=True, spectral_norm=True, activation="mish")
ARM, POINT, SWING = Reacher(), PointNavigation(), catalogue.make("pendulum")
SOURCES = [
    Source(Episodes(np.array([3]), observation=np.ones((4, 3)), action=np.ones((3, 1))), n, embodiment=n) for n in ("a", "b")
]


def small(create: Any, **options: Any) -> Any:
    return filled(create, SPEC, **options)


def clustered() -> Clustered:
    centres = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (4, 2)), jnp.float32)
    return filled(lambda spec, network, key: Clustered.around(spec, network, centres, key), SPEC)


def tree() -> BehaviourTree:
    leaves = PolicyLeaves(("walk", "turn"), (small(Gaussian.create), small(Recurrent.create)))
    return BehaviourTree.of("(selector (task turn) (task walk))", leaves)


def best_of() -> BestOf:
    critics = weighted(eqx.filter_eval_shape(build_critics, Network(width=4, depth=1), SPEC, 2, KEY))
    return BestOf(small(Gaussian.create), LeastValue(critics, SPEC.body), 3, temperature=1.0)


def supervised() -> Supervised:
    return Supervised(small(Deterministic.create), small(Recurrent.create), jnp.asarray(0.5), jnp.zeros(2))


def sparse() -> SparsePolicy:
    library = Library(3, 2)
    weights = np.random.default_rng(2).normal(size=(len(library.terms), 2))
    return SparsePolicy(SPEC.body, library, jnp.asarray(weights, jnp.float32))


def diffusion(**options: Any) -> Diffusion:
    return small(Diffusion.create, horizon=4, steps=4, **options)


def flow() -> Flow:
    return small(Flow.create, denoiser="mlp", horizon=4, steps=4)


def late() -> RealTime:
    return RealTime(small(ChunkRegression.create, horizon=4), DONE, jnp.array([1, 2]), 4, 3, "chunk")


# Every class; after a comma, variants of one that bring operations of their own.
MAKERS = {
    "deterministic, every layer": lambda: filled(Deterministic.create, SPEC, FANCY),
    "deterministic, partly bounded, waves": lambda: filled(Deterministic.create, HALF, Network(width=4, depth=1, fourier=2)),
    "gaussian": lambda: small(Gaussian.create),
    "gaussian, spread by observation": lambda: small(Gaussian.create, log_std=None),
    "greedy gaussian": lambda: greedy(small(Gaussian.create)),
    "tanh gaussian": lambda: small(TanhGaussian.create),
    "mixture": lambda: small(GaussianMixture.create),
    "mixture, greedy": lambda: greedy(small(GaussianMixture.create)),
    "categorical": lambda: filled(Categorical.create, SEVERAL),
    "categorical, greedy, masked": lambda: greedy(filled(Categorical.create, MASKED)),
    "greedy values": lambda: filled(GreedyQ.create, DISCRETE),
    "binned": lambda: small(Binned.create, bins=5),
    "clustered": clustered,
    "implicit": lambda: small(Implicit.create, candidates=8, moves=3),
    "vae": lambda: small(VAEPolicy.create),
    "recurrent, gru": lambda: small(Recurrent.create),
    "recurrent, lstm, greedy": lambda: greedy(filled(Recurrent.create, DISCRETE, cell="lstm")),
    "chunk": lambda: small(ChunkRegression.create, history=2),
    "whole chunk": lambda: small(ChunkRegression.create, horizon=4),
    "chunk transformer": lambda: small(ChunkTransformer.create, heads=2, latent=1, temperature=0.5),
    "receding horizon of diffusion": lambda: RecedingHorizon(diffusion(sampler="dpm-solver"), 3),
    "temporal ensemble": lambda: TemporalEnsemble(small(ChunkRegression.create), 0.1),
    "ensemble, mean": lambda: EnsemblePolicy.of([small(Deterministic.create, seed=k) for k in range(2)]),
    "ensemble, vote": lambda: EnsemblePolicy.of([filled(Categorical.create, DISCRETE, seed=k) for k in range(3)], "vote"),
    "ensemble, random": lambda: EnsemblePolicy.of([small(Gaussian.create, seed=k) for k in range(2)], "random"),
    "diffusion, ddpm": lambda: small(
        Diffusion.create, denoiser="sieve", history=2, schedule="linear", levels=4, sampler="ddpm", horizon=4
    ),
    "diffusion, karras, heun": lambda: diffusion(schedule="karras", sampler="heun", drop=0.1),
    "densest of diffusions": lambda: Densest(diffusion(), 3),
    "extra steps of diffusion": lambda: ExtraSteps(diffusion(), 2),
    "warm diffusion": lambda: RealTimeIteration(diffusion(), 2, (1,), 0.5, 0.5),
    "flow, transformer": lambda: small(Flow.create, denoiser="transformer", horizon=4, steps=4),
    "flow, sde, clipped": lambda: small(Flow.create, denoiser="mlp", sampler="sde", clip=True, horizon=4, steps=4),
    "diffusion composed with flow": lambda: Composed((diffusion(), flow()), jnp.array([0.3, 0.7])),
    "mean of chunks": lambda: MeanOfChunks((diffusion(), flow()), jnp.array([0.3, 0.7])),
    "one of several bodies": lambda: filled(MultiBody.create, Spec.from_sources(SOURCES, 7)).for_body("b"),
    "several bodies": lambda: filled(MultiBody.create, Spec.from_sources(SOURCES[:1], 7)),
    "team": lambda: Team(small(Recurrent.create), 2),
    "behaviour tree": tree,
    "best of several": best_of,
    "sometimes random": lambda: Noisy(small(Deterministic.create), RandomPolicy(DONE), 0.5),
    "supervised": supervised,
    "formula": sparse,
    "late": late,
    "flat chunk": lambda: WholeChunks(small(ChunkRegression.create, horizon=4)),
    "random": lambda: RandomPolicy(DONE),
    "random, discrete": lambda: RandomPolicy(spaces.MultiDiscrete((3, 4))),
    "scripted": lambda: Scripted(SWING, "pendulum/swing_up"),
    "scripted fighter": Bot,
}
NO_ONNX = {  # of pseudo-inverses, and of random keys that a policy holds, there is none in ONNX
    "steered": lambda: Steered(diffusion(), filled(TanhGaussian.create, NOISES), explore=True),
    "point motion": lambda: PointMotion(POINT),
    "arm motion": lambda: ArmMotion(ARM, jnp.array([[0.3, 0.3, 0.1]])),
}
SPACES = {
    "steered": (SEEN, DONE),
    "random": (SEEN, DONE),
    "random, discrete": (SEEN, spaces.MultiDiscrete((3, 4))),
    "team": (spaces.Box(-np.inf, np.inf, (2, 3)), spaces.Box(-4, 4, (4,))),
    "scripted": (SWING.observation_space, SWING.action_space),
    "scripted fighter": (spaces.Box(-np.inf, np.inf, (WIDTH,)), spaces.MultiDiscrete(CHOICES)),
    "point motion": (POINT.observation_space, POINT.action_space),
    "arm motion": (ARM.observation_space, ARM.action_space),
}


@cache
def made(name: str) -> Policy:
    return (MAKERS | NO_ONNX)[name]()


def classes(policy: Policy) -> set[type]:
    """Of a policy and of all policies in it."""
    found = set()

    def look(node: Any) -> bool:
        if isinstance(node, Policy):
            found.add(type(node))
        return False

    jax.tree.leaves(policy, is_leaf=look)
    return found
