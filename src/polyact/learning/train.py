"""`train`: from an environment to a policy. Acting and learning are one compiled program per reporting interval."""

import hashlib
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.envs.base import Env
from polyact.envs.families import Family
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError
from polyact.learning import checkpoint
from polyact.learning.base import Learner, OffPolicyLearner, OnPolicyLearner
from polyact.learning.collect import ReplayRule, per_iteration
from polyact.learning.fitted import Fitted, check_options, needs_other
from polyact.learning.host_process import HostOffPolicy, HostOnPolicy, HostProcess
from polyact.learning.host_train import HostFleet
from polyact.learning.loop import Evaluate, Hooks, Plan, Record, run
from polyact.learning.process import OffPolicyProcess, OnPolicyProcess, Process, advance
from polyact.learning.program import fleet_of
from polyact.learning.replay import check_sampling
from polyact.policies.spec import Spec

REPORTS = 20  # how many there are unless the caller says how often


def train(
    learner: Learner,
    env: Env | Family | HostEnv,
    *,
    steps: int,
    key: PRNGKeyArray,
    envs: int | None = None,
    seeds: int = 1,
    batch_size: int | None = None,
    buffer_size: int | None = None,
    learning_starts: int | None = None,
    update_ratio: float | None = None,
    report_every: int | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Fitted:
    """Train a learner on its own experience.

    env: a functional environment, a family of them (environment i is member i modulo its count), or one that lives on the host
    (its slots are shared evenly among the seeds).
    steps: environment steps, summed over environments; this and every other number of steps is rounded up to whole iterations (one
    step of all `envs` off-policy, a rollout of all of them on-policy). envs: environments side by side; default 1 off-policy, 16
    on-policy, the count of a family. seeds: how many policies to train; seed i uses fold_in(key, i).

    Only off-policy: batch_size (256); buffer_size in steps (all of them, at most a million); learning_starts: random actions and no
    updates before this many steps (1000, at most a tenth of `steps`); update_ratio: updates per environment step (1).

    evaluate(policy) -> numbers, every `evaluate_every` steps and at the end. checkpoints: a folder, written every
    `checkpoint_every` steps; with `resume` the newest one there is continued, bit for bit (host environments: with new episodes).
    The records have the mean return and length of the episodes that ended since the last one.
    Raises TrainingError at the first non-finite metric, PolyactError when options do not fit or would do nothing.
    """
    check_options(1 if batch_size is None else batch_size, seeds)
    needs_other("evaluate_every", evaluate_every, "evaluate", evaluate)
    needs_other("checkpoint_every", checkpoint_every, "checkpoints", checkpoints)
    needs_other("resume", resume, "checkpoints", checkpoints)
    options = {
        "batch_size": batch_size,
        "buffer_size": buffer_size,
        "learning_starts": learning_starts,
        "update_ratio": update_ratio,
    }
    process = _process(learner, env, _environments(learner, env, envs, seeds), steps, options)
    stride = process.stride
    total = _whole(steps, stride)
    plan = Plan(
        total,
        min(_whole(-(-total // REPORTS) if report_every is None else report_every, stride), total),
        evaluate_every and _whole(evaluate_every, stride),
        checkpoint_every and _whole(checkpoint_every, stride),
        stride,
    )
    spec = Spec.of(env.observation_space, env.action_space, process.updates(total // stride))
    keys = [jax.random.fold_in(key, seed) for seed in range(seeds)]
    identity = _identity(process, {"seeds": seeds, "steps": total}, key)
    states = [_begin(process, spec, k) for k in keys]
    where = Path(checkpoints) if checkpoints else None
    done, states, history = checkpoint.resumed(where if resume else None, states, identity)
    label = f"train {type(learner).__name__}"
    hooks = Hooks(lambda carry: learner.policy(carry.learner), evaluate, where, identity, label, progress)
    began = time.perf_counter()
    if isinstance(process, HostProcess):
        assert isinstance(env, HostEnv)
        fleet = HostFleet(env, process, states, keys)
    else:
        fleet = fleet_of(advance, process, states, keys)
    end = run(plan, fleet, done, history, hooks)
    seconds = time.perf_counter() - began
    return Fitted(learner, spec, tuple(carry.learner for carry in end.states), end.history, total, seconds, identity)


_begin = eqx.filter_jit(lambda process, spec, key: process.begin(spec, key))


def _whole(number: int, stride: int) -> int:
    return -(-number // stride) * stride


def _environments(learner: Learner, env: Env | Family | HostEnv, envs: int | None, seeds: int) -> int:
    """How many environments each seed has."""
    if envs is not None and envs < 1:
        raise PolyactError(f"envs must be positive, got {envs}")
    if isinstance(env, Family):
        return envs or env.count
    if isinstance(env, HostEnv):
        if env.count % seeds or (envs and envs * seeds != env.count):
            wanted = f"{seeds} seeds" if envs is None else f"{seeds} seeds of {envs} environments"
            raise PolyactError(f"'{env.name}' has {env.count} slots, which {wanted} can't share evenly")
        return env.count // seeds
    return envs or (16 if isinstance(learner, OnPolicyLearner) else 1)


def _process(
    learner: Learner, env: Env | Family | HostEnv, envs: int, steps: int, options: dict[str, Any]
) -> Process | HostProcess:
    env = env.spread(envs) if isinstance(env, Family) else env
    if isinstance(learner, OnPolicyLearner):
        for name, value in options.items():
            if value is not None:
                raise PolyactError(f"{name} has no effect on {type(learner).__name__}, which learns on-policy")
        return HostOnPolicy(learner, env.action_space, envs) if isinstance(env, HostEnv) else OnPolicyProcess(learner, env, envs)
    if isinstance(learner, OffPolicyLearner):
        rule = _replay_rule(learner, env, envs, steps, options)
        return HostOffPolicy(rule) if isinstance(env, HostEnv) else OffPolicyProcess(rule, env)
    raise PolyactError(f"{type(learner).__name__} learns from data, not from an environment: use fit")


def _replay_rule(
    learner: OffPolicyLearner, env: Env | Family | HostEnv, envs: int, steps: int, options: dict[str, Any]
) -> ReplayRule:
    chosen: dict[str, Any] = {"batch_size": 256, "update_ratio": 1.0}
    chosen |= {"buffer_size": min(steps, 1_000_000), "learning_starts": min(1000, steps // 10)}
    chosen |= {name: value for name, value in options.items() if value is not None}
    size, starts = chosen["buffer_size"], chosen["learning_starts"]
    if size < 1 or not 0 <= starts < steps:
        raise PolyactError(f"buffer_size must be positive and learning_starts lie in 0 .. {steps - 1}, got {size} and {starts}")
    sampling = learner.sampling(Spec.of(env.observation_space, env.action_space, steps))
    check_sampling(sampling, learner.needs)
    ratio = per_iteration(chosen["update_ratio"], envs)
    return ReplayRule(learner, env.action_space, sampling, envs, chosen["batch_size"], size, starts, ratio)


def _identity(process: Process | HostProcess, numbers: dict[str, Any], key: PRNGKeyArray) -> Record:
    """What must agree for a checkpoint to be continued."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(process, eqx.is_array_like)):
        digest.update(np.asarray(leaf).tobytes())
    return {
        "process": repr(process),
        "values": digest.hexdigest()[:16],
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        **numbers,
    }
