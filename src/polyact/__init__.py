"""Learn from many behaviours; act in real time.

The names people use every day, brought here on first use: importing polyact itself loads nothing, so that the command line answers at
once and only what is needed is paid for. Everything else is imported from its room (`polyact.envs`, `polyact.data`, ...).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and documentation see; the table below says the same to the interpreter
    from polyact.acting.realtime import RealTime as RealTime
    from polyact.acting.realtime import real_time as real_time
    from polyact.acting.rollout import rollout as rollout
    from polyact.data.episodes import Episodes as Episodes
    from polyact.data.formats import read as read
    from polyact.data.formats import write as write
    from polyact.data.inspect import inspect as inspect
    from polyact.data.source import Mixture as Mixture
    from polyact.data.source import Source as Source
    from polyact.envs.base import Env as Env
    from polyact.envs.catalogue import expert as expert
    from polyact.envs.catalogue import make as make
    from polyact.envs.families import perturb as perturb
    from polyact.envs.families import randomise as randomise
    from polyact.envs.gymnasium_host import from_gymnasium as from_gymnasium
    from polyact.envs.gymnasium_view import as_gymnasium as as_gymnasium
    from polyact.errors import PolyactError as PolyactError
    from polyact.evaluation.evaluate import Clock as Clock
    from polyact.evaluation.evaluate import evaluate as evaluate
    from polyact.evaluation.report.report import Report as Report
    from polyact.learning.actor import Actor as Actor
    from polyact.learning.awac import AWAC as AWAC
    from polyact.learning.base import Learner as Learner
    from polyact.learning.bc import BC as BC
    from polyact.learning.cql import CQL as CQL
    from polyact.learning.cql_discrete import DiscreteCQL as DiscreteCQL
    from polyact.learning.dagger import dagger as dagger
    from polyact.learning.dqn import DQN as DQN
    from polyact.learning.fit import fit as fit
    from polyact.learning.fitted_q import FQE as FQE
    from polyact.learning.fitted_q import FQI as FQI
    from polyact.learning.iql import IQL as IQL
    from polyact.learning.ppo import PPO as PPO
    from polyact.learning.reinforce import REINFORCE as REINFORCE
    from polyact.learning.sac import SAC as SAC
    from polyact.learning.tabular_q import TabularQ as TabularQ
    from polyact.learning.td3 import TD3 as TD3
    from polyact.learning.td3 import TD3BC as TD3BC
    from polyact.learning.train import train as train
    from polyact.policies.base import Policy as Policy
    from polyact.policies.base import greedy as greedy
    from polyact.policies.categorical import Categorical as Categorical
    from polyact.policies.chunk import ChunkRegression as ChunkRegression
    from polyact.policies.chunk import ChunkTransformer as ChunkTransformer
    from polyact.policies.chunk_executor import RecedingHorizon as RecedingHorizon
    from polyact.policies.chunk_executor import TemporalEnsemble as TemporalEnsemble
    from polyact.policies.deterministic import Deterministic as Deterministic
    from polyact.policies.ensemble_policy import EnsemblePolicy as EnsemblePolicy
    from polyact.policies.gaussian import Gaussian as Gaussian
    from polyact.policies.gaussian import TanhGaussian as TanhGaussian
    from polyact.policies.generative.diffusion import Diffusion as Diffusion
    from polyact.policies.generative.flow import Flow as Flow
    from polyact.policies.mixture import GaussianMixture as GaussianMixture
    from polyact.policies.multibody import MultiBody as MultiBody
    from polyact.policies.random_policy import RandomPolicy as RandomPolicy
    from polyact.policies.recurrent import Recurrent as Recurrent
    from polyact.policies.scripted import Scripted as Scripted
    from polyact.policies.vae_policy import VAEPolicy as VAEPolicy
    from polyact.saving import load as load
    from polyact.saving import save as save

    __version__: str
else:
    _NAMES = {
        "acting.realtime": ("RealTime", "real_time"),
        "acting.rollout": ("rollout",),
        "data.episodes": ("Episodes",),
        "data.formats": ("read", "write"),
        "data.inspect": ("inspect",),
        "data.source": ("Mixture", "Source"),
        "envs.base": ("Env",),
        "envs.catalogue": ("expert", "make"),
        "envs.families": ("perturb", "randomise"),
        "envs.gymnasium_host": ("from_gymnasium",),
        "envs.gymnasium_view": ("as_gymnasium",),
        "errors": ("PolyactError",),
        "evaluation.evaluate": ("Clock", "evaluate"),
        "evaluation.report.report": ("Report",),
        "learning.actor": ("Actor",),
        "learning.awac": ("AWAC",),
        "learning.base": ("Learner",),
        "learning.bc": ("BC",),
        "learning.cql": ("CQL",),
        "learning.cql_discrete": ("DiscreteCQL",),
        "learning.dagger": ("dagger",),
        "learning.dqn": ("DQN",),
        "learning.fit": ("fit",),
        "learning.fitted_q": ("FQE", "FQI"),
        "learning.iql": ("IQL",),
        "learning.ppo": ("PPO",),
        "learning.reinforce": ("REINFORCE",),
        "learning.sac": ("SAC",),
        "learning.tabular_q": ("TabularQ",),
        "learning.td3": ("TD3", "TD3BC"),
        "learning.train": ("train",),
        "policies.base": ("Policy", "greedy"),
        "policies.categorical": ("Categorical",),
        "policies.chunk": ("ChunkRegression", "ChunkTransformer"),
        "policies.chunk_executor": ("RecedingHorizon", "TemporalEnsemble"),
        "policies.deterministic": ("Deterministic",),
        "policies.ensemble_policy": ("EnsemblePolicy",),
        "policies.gaussian": ("Gaussian", "TanhGaussian"),
        "policies.generative.diffusion": ("Diffusion",),
        "policies.generative.flow": ("Flow",),
        "policies.mixture": ("GaussianMixture",),
        "policies.multibody": ("MultiBody",),
        "policies.random_policy": ("RandomPolicy",),
        "policies.recurrent": ("Recurrent",),
        "policies.scripted": ("Scripted",),
        "policies.vae_policy": ("VAEPolicy",),
        "saving": ("load", "save"),
    }
    _PLACES = {name: module for module, names in _NAMES.items() for name in names}
    __all__ = sorted(_PLACES)

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            value = import_module("importlib.metadata").version("polyact")
        elif name in _PLACES:
            value = getattr(import_module(f"polyact.{_PLACES[name]}"), name)
        else:
            raise AttributeError(f"module 'polyact' has no attribute '{name}'")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PLACES, "__version__"})
