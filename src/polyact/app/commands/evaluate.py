"""`polyact eval`: runs, random or scripted policies, paired, in a world that waits or does not."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from polyact import cache, spaces
from polyact.acting.rollout import successes
from polyact.app import runs
from polyact.app.arguments import Eval
from polyact.app.show import console, say
from polyact.data.episodes import Episodes
from polyact.envs import catalogue
from polyact.envs.base import Env
from polyact.errors import PolyactError
from polyact.evaluation.evaluate import Clock, play, report_of
from polyact.evaluation.interchange.lerobot import TaskScores, write_eval_info
from polyact.evaluation.latency import latency_section
from polyact.evaluation.pictures import trajectory_section
from polyact.policies.base import Policy
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.scripted import Scripted


def run(command: Eval) -> None:
    if not command.runs:
        raise PolyactError("eval needs at least one run folder, 'random' or 'expert:NAME'")
    cache.enable()
    name = command.env or _env_of(command.runs)
    env = catalogue.make(name)
    policies = {label: found for text in command.runs for label, found in [_policies(text, name, env)]}
    if len(policies) < len(command.runs):
        raise PolyactError(f"two of the runs have the same name; rename one: {', '.join(command.runs)}")
    clock, key = _clock(command), jax.random.key(command.seed)
    played = play(policies, env, episodes=command.episodes, key=key, clock=clock, explore=command.stochastic)
    report = report_of(played, title=f"Evaluation in {name}", clock=clock).with_facts(
        environment=name, episodes=command.episodes, seed=command.seed
    )
    if latencies := _latencies(command):
        sweep = {"episodes": command.episodes, "key": key, "fallback": command.fallback, "in_flight": command.in_flight}
        report = report.with_section(
            latency_section(policies, env, control_hz=command.control_hz or 0.0, latencies=latencies, **sweep)
        )
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
        write_eval_info(command.eval_info, [_task(label, m[0], place) for place, (label, m) in enumerate(played.items())])


def _policies(text: str, env_name: str, env: Any) -> tuple[str, list[Policy]]:
    if text == "random":
        return text, [RandomPolicy(env.action_space)]
    if text.startswith("expert:") or text == "expert":
        which = text.partition(":")[2] or next(iter(catalogue.experts(env_name)), "")
        return text, [Scripted(env, catalogue.expert(env_name, which))]
    found = runs.read(Path(text))
    return found.name, [_for_env(policy, env, text) for policy in found.policies()]


def _for_env(policy: Policy, env: Any, text: str) -> Policy:
    """The policy of the one body that has the environment's spaces, where a policy has several."""
    if not isinstance(policy, MultiBody):
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


def _env_of(texts: tuple[str, ...]) -> str:
    for text in texts:
        if text != "random" and not text.startswith("expert") and (name := runs.read(Path(text)).facts.get("env")):
            return name
    raise PolyactError("none of the runs names an environment; say which with --env")


def _latencies(command: Eval) -> list[float]:
    if command.latencies is None:
        return []
    try:
        return [float(part) for part in command.latencies.split(",")]
    except ValueError as error:
        raise PolyactError(f"--latencies is '{command.latencies}', expected seconds apart by commas") from error


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
    if command.latency == "measured":
        return Clock(command.control_hz, "measured", command.fallback, command.in_flight)
    try:
        return Clock(command.control_hz, float(command.latency), command.fallback, command.in_flight)
    except ValueError as error:
        raise PolyactError(f"--latency is '{command.latency}', expected seconds or 'measured'") from error


def _task(label: str, episodes: Episodes, place: int) -> TaskScores:
    best = np.maximum.reduceat(np.asarray(episodes.reward, np.float64), episodes.starts)
    return TaskScores(episodes.returns, successes(episodes), best, group=label, task=place)
