"""`polyact eval`: runs, random or scripted policies, paired, in a world that waits or does not."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from polyact import cache, saving, spaces
from polyact.acting.rollout import successes
from polyact.app import runs
from polyact.app.arguments import Eval
from polyact.app.show import console, say
from polyact.data.episodes import Episodes
from polyact.envs import catalogue
from polyact.envs.base import Env
from polyact.errors import PolyactError
from polyact.evaluation.evaluate import Clock, measured, play, report_of
from polyact.evaluation.interchange.lerobot import TaskScores, write_eval_info
from polyact.evaluation.latency import latency_curves, latency_section
from polyact.evaluation.pictures import trajectory_section
from polyact.policies.base import Policy
from polyact.policies.fitting import check_fits
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.scripted import Scripted


def run(command: Eval) -> None:
    if not command.runs and not command.onnx:
        raise PolyactError("eval needs at least one run folder, 'random', 'expert:NAME' or --onnx FILE")
    cache.enable()
    name = command.env or _env_of(command.runs, command.onnx)
    env = catalogue.make(name)
    texts = (*command.runs, *command.onnx)
    if len(set(texts)) < len(texts):
        raise PolyactError(f"the same run is named twice: {', '.join(texts)}")
    clock, latencies, key = _clock(command), _latencies(command), jax.random.key(command.seed)
    loaded = [_policies(text, name, env) for text in command.runs] + [[_exported(text, env)] for text in command.onnx]
    policies = dict(zip(_labels(texts), loaded, strict=True))
    clock = measured(clock, policies, env, explore=command.stochastic)
    played = play(policies, env, episodes=command.episodes, key=key, clock=clock, explore=command.stochastic)
    report = report_of(played, title=f"Evaluation in {name}", clock=clock).with_facts(
        environment=name, episodes=command.episodes, seed=command.seed
    )
    if latencies:
        hz, fallback = command.control_hz or 0.0, command.fallback
        sweep = {"episodes": command.episodes, "key": key, "fallback": fallback, "in_flight": command.in_flight}
        curves = latency_curves(policies, env, control_hz=hz, latencies=latencies, **sweep)
        report = report.with_section(latency_section(curves, hz, fallback))
    if command.json:
        print(report.to_json())
    else:
        console().print(report)
    if command.report:
        section = trajectory_section(played, env, key) if isinstance(env, Env) else None
        (report.with_section(section) if section else report).to_html(command.report)
        if not command.json:
            say(f"Report: {command.report}")
    if command.eval_info:
        tasks = [_task(label, run, seed) for label, members in played.items() for seed, run in enumerate(members)]
        write_eval_info(command.eval_info, tasks)


def _labels(texts: tuple[str, ...]) -> list[str]:
    """The names of the runs where they tell them apart, else what the user wrote."""
    names = [text if _built_in(text) else Path(text).resolve().name for text in texts]
    return names if len(set(names)) == len(names) else list(texts)


def _built_in(text: str) -> bool:
    return text in ("random", "expert") or text.startswith("expert:")


def _policies(text: str, env_name: str, env: Any) -> list[Policy]:
    if text == "random":
        return [RandomPolicy(env.action_space)]
    if _built_in(text):
        which = text.partition(":")[2] or next(iter(catalogue.experts(env_name)), "")
        return [Scripted(env, catalogue.expert(env_name, which))]
    path = Path(text)
    found = [saving.load(path, Policy)] if (path / saving.DESCRIPTION).exists() else runs.read(path).policies()  # pyright: ignore
    return [_for_env(policy, env, text) for policy in found]


def _described(file: str) -> dict[str, Any]:
    from polyact.exporting import sidecar  # few evaluations need what it loads

    return sidecar.read(Path(file)).provenance


def _exported(text: str, env: Any) -> Policy:
    from polyact.exporting.onnx_file import OnnxPolicy, check_fits_onnx

    policy = OnnxPolicy.load(Path(text))
    check_fits_onnx(policy, env, text)
    return policy


def _for_env(policy: Policy, env: Any, text: str) -> Policy:
    """The policy of the one body that has the environment's spaces, where a policy has several."""
    if not isinstance(policy, MultiBody):
        check_fits(policy, env, text)
        return policy
    shapes = [(spaces.width(body.observation_space), spaces.width(body.action_space), body.name) for body in policy.bodies]
    wanted = spaces.width(env.observation_space), spaces.width(env.action_space)
    fitting = [name for seen, done, name in shapes if (seen, done) == wanted]
    if len(fitting) != 1:
        have = "; ".join(f"{name}: {seen} and {done}" for seen, done, name in shapes)
        raise PolyactError(
            f"{text} has {len(fitting)} bodies with {wanted[0]} observations and {wanted[1]} actions (it has {have})"
        )
    return policy.for_body(fitting[0])


def _env_of(texts: tuple[str, ...], files: tuple[str, ...]) -> str:
    for text in texts:
        if _built_in(text) or (Path(text) / saving.DESCRIPTION).exists():
            continue
        if name := runs.read(Path(text)).facts.get("env"):
            return name
    for file in files:
        if name := _described(file).get("env"):
            return str(name)
    raise PolyactError("none of the runs names an environment; say which with --env")


def _latencies(command: Eval) -> list[float]:
    if command.latencies is None:
        return []
    return [
        _seconds(part, f"--latencies is '{command.latencies}', expected seconds apart by commas")
        for part in command.latencies.split(",")
    ]


def _seconds(text: str, complaint: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise PolyactError(complaint) from error
    if not 0 <= seconds < float("inf"):
        raise PolyactError(complaint)
    return seconds


def _clock(command: Eval) -> Clock | None:
    if command.latencies is not None and command.latency is None:
        if command.control_hz is None:
            raise PolyactError("--latencies needs --control-hz")
        return None
    if command.control_hz is None and command.latency is None:
        if command.in_flight is not None or command.fallback != "hold":
            raise PolyactError("--fallback and --in-flight have no effect without --control-hz and --latency")
        return None
    if command.control_hz is None or command.latency is None:
        raise PolyactError("a world that does not wait needs both --control-hz and --latency")
    latency = command.latency
    if latency != "measured":
        latency = _seconds(latency, f"--latency is '{latency}', expected seconds or 'measured'")
    return Clock(command.control_hz, latency, command.fallback, command.in_flight)  # pyright: ignore[reportArgumentType]


def _task(label: str, episodes: Episodes, seed: int) -> TaskScores:
    best = np.maximum.reduceat(np.asarray(episodes.reward, np.float64), episodes.starts)
    return TaskScores(episodes.returns, successes(episodes), best, group=label, task=seed)
